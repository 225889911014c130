"""``python -m reelwright`` is ``reel``."""

from __future__ import annotations

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it without a word; `main` takes over

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
