"""Stand-ins for what the tests do not have: a framework, torch's launcher, weights. See README.md."""

from __future__ import annotations
