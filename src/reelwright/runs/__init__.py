"""Carries out one run from order to published clip: prepare, attempt, verify, publish, recover."""

from __future__ import annotations
