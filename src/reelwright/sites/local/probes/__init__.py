"""Probes: they look at the machine and fill `core.host.Host`.

They change nothing. A value that could not be asked is ``None``, never zero, and a probe does not raise for what it
finds: the value says it. They decide nothing: `backends` and `policy` do.

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
