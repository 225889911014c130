"""Loads settings from defaults, YAML files, environment variables and arguments, and checks them."""

from __future__ import annotations
