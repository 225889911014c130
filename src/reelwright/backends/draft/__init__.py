"""The draft generator, as a backend. `backend` holds the record and the plan; importing this package imports no more."""

from __future__ import annotations
