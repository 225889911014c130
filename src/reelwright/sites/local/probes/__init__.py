"""Asking the machine: probes that fill `core.host.Host`, leases of GPUs, and the monitor of a running attempt.

Everything here only looks (leases excepted: they lock files of their own). What could not be asked is
``None``, never zero, and a probe does not raise for what it finds: it says so in the value. It decides
nothing: that is for `backends` and `policy`. ``probes`` puts the other modules together and ``checkpoints``
reads files through ``weights`` and ``checksums``; apart from that no module here knows another.

    >>> GpuReading(used_bytes=None).busy_percent is None
    True
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuReading:
    """What a GPU is doing at one moment; ``None`` = the driver does not say."""

    used_bytes: int | None = None
    busy_percent: int | None = None
