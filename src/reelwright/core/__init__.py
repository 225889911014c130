"""The values that flow through the program: errors, events, requests, hosts, plans, manifests, and safe file access."""

from __future__ import annotations
