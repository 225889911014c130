"""Settings and where they come from: defaults, YAML files, environment variables and arguments."""

from __future__ import annotations
