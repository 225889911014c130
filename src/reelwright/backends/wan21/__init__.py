"""The backend of Wan2.1, through its official generate.py.

Importing this package imports nothing else; the record and the plan are in `backend`.
"""

from __future__ import annotations
