"""Probes look at the machine and fill `core.host.Host`.

They change nothing. A value that a probe could not read is ``None``, never zero. A probe does not raise for a fault of
the machine: it returns the fault as a value. `backends` and `policy` decide what follows.

    >>> GpuReading(used_bytes=None).busy_percent is None
    True
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuReading:
    """The use of a GPU at one moment; ``None`` if the driver does not say."""

    used_bytes: int | None = None
    busy_percent: int | None = None
