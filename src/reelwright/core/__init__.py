"""Defines the values that flow through the program, from requests and plans to manifests, and safe file access."""

from __future__ import annotations
