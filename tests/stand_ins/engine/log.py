"""Writes log lines as loguru does: on standard error, from every rank.

>>> log("INFO", "hyvideo.inference:predict:560", "Success, time: 1.5")  # doctest: +SKIP
"""

from __future__ import annotations

import sys
from datetime import datetime


def log(level: str, place: str, text: str) -> None:
    """Write one record; ``place`` is module:function:line."""
    stamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    print(f"{stamp} | {level:<8} | {place} - {text}", file=sys.stderr, flush=True)
