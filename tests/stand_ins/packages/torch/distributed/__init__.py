"""Exists only for `python -m torch.distributed.run`."""

from __future__ import annotations
