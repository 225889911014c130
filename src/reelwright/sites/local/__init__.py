"""Runs plans on this machine: probes, GPU leases, supervised processes and resident workers."""

from __future__ import annotations
