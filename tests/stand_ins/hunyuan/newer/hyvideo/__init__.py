"""The package of the 1.5 stand-in: the official names, nothing behind them but a script."""

from __future__ import annotations
