"""Gives the two older stand-ins the official names; only a script is behind them."""

from __future__ import annotations
