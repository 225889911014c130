"""The backend of the resident engine on diffusers.

Importing this package imports nothing else; the record and the plan are in `backend`.
"""

from __future__ import annotations
