"""Gives the 1.5 stand-in the official names; only a script is behind them."""

from __future__ import annotations
