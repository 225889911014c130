"""The backend of the HunyuanVideo family, through Tencent's official scripts.

Importing this package imports nothing else; the record and the plan are in `backend`.
"""

from __future__ import annotations
