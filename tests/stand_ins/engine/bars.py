"""Draws progress bars as tqdm does: redrawn after a carriage return, closed by a line break.

>>> draw(1, 3, 0.2)
' 33%|███▎      | 1/3 [00:00<00:00,  5.00it/s]'
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

_WIDTH = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def draw(done: int, total: int, elapsed_s: float) -> str:
    """The bar's text without its description."""
    eighths = int(done / total * _WIDTH * 8) if total else 0
    full, part = divmod(eighths, 8)
    marks = _EIGHTHS if _unicode() else " 123456789"
    body = (marks[-1] if _unicode() else "#") * full + (marks[part] if part else "")
    rate = done / elapsed_s if done and elapsed_s else None
    left = _clock((total - done) / rate) if rate else "?"
    percent = done / total * 100 if total else 100
    return f"{percent:3.0f}%|{body:<{_WIDTH}}| {done}/{total} [{_clock(elapsed_s)}<{left}, {_pace(rate)}]"


def bar(total: int, description: str = "", shown: bool = True) -> Iterator[int]:
    """Count from 1 to ``total`` and redraw after each; ends the line even if the loop stops early."""
    begun, done = time.monotonic(), 0
    prefix = f"\r{description}: " if description else "\r"

    def redraw() -> None:
        if shown:
            sys.stderr.write(prefix + draw(done, total, time.monotonic() - begun))
            sys.stderr.flush()

    try:
        redraw()
        for number in range(1, total + 1):
            yield number
            done = number
            redraw()
    finally:
        redraw()
        if shown:
            sys.stderr.write("\n")
            sys.stderr.flush()


def _unicode() -> bool:
    # tqdm falls back to '#' if the stream cannot encode the blocks (ASCII locales).
    return "utf" in (sys.stderr.encoding or "").lower()


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


def _pace(rate: float | None) -> str:
    if rate is None:
        return "?it/s"
    return f"{rate:5.2f}it/s" if rate >= 1 else f"{1 / rate:5.2f}s/it"
