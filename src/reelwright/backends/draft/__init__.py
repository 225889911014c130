"""The backend of the draft generator.

Importing this package imports nothing else; the record and the plan are in `backend`.
"""

from __future__ import annotations
