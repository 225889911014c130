"""Code that several backends share: decisions, rules for requests, framework launches, GPU choice and compatibility."""

from __future__ import annotations
