"""The package of the two older stand-ins: the official names, nothing behind them but a script."""

from __future__ import annotations
