"""The HunyuanVideo family through Tencent's official scripts. `backend` holds the record and the plan; importing this package imports no more."""

from __future__ import annotations
