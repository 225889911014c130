"""Replaces what the tests do not have (a framework, torch's launcher, weights) with stand-ins; see README.md."""

from __future__ import annotations
