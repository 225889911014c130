"""Turns samples of an attempt's resource use into the metrics that its manifest keeps.

The curve of a run of ten hours has as few points as that of ten minutes, and keeps the peaks. `sites.local.sampler`
takes the samples.

    >>> recording = Recording()
    >>> recording.add(Sample(0.0, Usage(processes=1, host_bytes=5)))
    >>> recording.metrics().host_peak_bytes
    5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .probes import GpuReading

MAX_POINTS = 600
_SCHEMA = 1


@dataclass(frozen=True)
class Usage:
    """The use of a tree of processes; ``None`` is unknown.

    ``host_bytes`` counts a page that several processes share once for each. The disk counters are those of the
    block layer, without reads from the page cache.
    """

    processes: int = 0
    host_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


@dataclass(frozen=True)
class Sample:
    """One point of the curve."""

    at_s: float
    usage: Usage = Usage()
    gpus: Mapping[str, GpuReading] = field(default_factory=dict)


@dataclass(frozen=True)
class Metrics:
    """The resources that an attempt used, for its manifest.

    Attributes:
        duration_s: Seconds from the first to the last sample.
        samples: The number of samples.
        cost_cpu_s: Processor time of the sampling itself.
        gpu_peak_bytes: Highest use of each GPU, by UUID, other programs' use included.
        gpu_busy_percent: Mean load of each GPU.
        host_peak_bytes: Highest sum over the attempt's processes.
        read_bytes: Bytes read from disks.
        written_bytes: Bytes written to disks.
        read_peak_bytes_per_s: Highest rate between two samples.
        written_peak_bytes_per_s: Highest rate between two samples.
        curve: At most `MAX_POINTS` samples; a point that merges several has their highest values.
    """

    duration_s: float = 0.0
    samples: int = 0
    cost_cpu_s: float = 0.0
    gpu_peak_bytes: Mapping[str, int] = field(default_factory=dict)
    gpu_busy_percent: Mapping[str, float] = field(default_factory=dict)
    host_peak_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    read_peak_bytes_per_s: float | None = None
    written_peak_bytes_per_s: float | None = None
    curve: tuple[Sample, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; the curve is stored as columns, one list per GPU."""
        uuids = sorted({uuid for sample in self.curve for uuid in sample.gpus})
        values = {name: value for name, value in vars(self).items() if name != "curve"}
        none = GpuReading()
        return {
            "schema": _SCHEMA,
            **{name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()},
            "curve": {
                "at_s": [round(sample.at_s, 3) for sample in self.curve],
                "usage": [list(vars(sample.usage).values()) for sample in self.curve],
                "gpus": {
                    uuid: [list(vars(sample.gpus.get(uuid, none)).values()) for sample in self.curve] for uuid in uuids
                },
            },
        }


class Recording:
    """Turns samples into metrics, in bounded memory for any length of run."""

    def __init__(self, max_points: int = MAX_POINTS) -> None:
        self._max_points = max_points
        self._curve: list[Sample] = []
        self._open: list[Sample] = []
        self._stride = 1
        self._last: Sample | None = None
        self._first_s = 0.0
        self._busy: dict[str, list[int]] = {}
        self._peak: dict[str, int] = {}
        self._rates: list[float | None] = [None, None]
        self._usage = Usage()
        self.samples = 0

    def add(self, sample: Sample) -> None:
        if self._last is None:
            self._first_s = sample.at_s
        self.samples += 1
        for uuid, reading in sample.gpus.items():
            if reading.used_bytes is not None:
                self._peak[uuid] = max(self._peak.get(uuid, 0), reading.used_bytes)
            if reading.busy_percent is not None:
                total = self._busy.setdefault(uuid, [0, 0])
                total[0] += reading.busy_percent
                total[1] += 1
        self._add_rates(sample)
        self._usage = _highest(self._usage, sample.usage)
        self._last = sample
        self._add_point(sample)

    def _add_rates(self, sample: Sample) -> None:
        seconds = sample.at_s - self._last.at_s if self._last else 0.0
        if self._last is None or seconds <= 0:
            return
        for place, name in enumerate(("read_bytes", "written_bytes")):
            before, now = getattr(self._last.usage, name), getattr(sample.usage, name)
            if before is not None and now is not None:
                self._rates[place] = max(self._rates[place] or 0.0, (now - before) / seconds)

    def _add_point(self, sample: Sample) -> None:
        self._open.append(sample)
        if len(self._open) < self._stride:
            return
        self._curve.append(_merged(self._open))
        self._open = []
        if len(self._curve) >= self._max_points:
            self._curve = [_merged(self._curve[place : place + 2]) for place in range(0, len(self._curve), 2)]
            self._stride *= 2

    def metrics(self, cost_cpu_s: float = 0.0) -> Metrics:
        """The metrics so far."""
        curve = [*self._curve, _merged(self._open)] if self._open else self._curve
        return Metrics(
            duration_s=self._last.at_s - self._first_s if self._last else 0.0,
            samples=self.samples,
            cost_cpu_s=cost_cpu_s,
            gpu_peak_bytes=dict(self._peak),
            gpu_busy_percent={uuid: round(total / count, 1) for uuid, (total, count) in self._busy.items()},
            host_peak_bytes=self._usage.host_bytes,
            read_bytes=self._usage.read_bytes,
            written_bytes=self._usage.written_bytes,
            read_peak_bytes_per_s=self._rates[0],
            written_peak_bytes_per_s=self._rates[1],
            curve=tuple(curve),
        )


def _higher(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _highest(one: Usage, other: Usage) -> Usage:
    return Usage(
        max(one.processes, other.processes),
        _higher(one.host_bytes, other.host_bytes),
        _higher(one.read_bytes, other.read_bytes),
        _higher(one.written_bytes, other.written_bytes),
    )


def _merged(samples: list[Sample]) -> Sample:
    """One sample with the latest time and the highest values."""
    usage, gpus = samples[0].usage, dict(samples[0].gpus)
    for sample in samples[1:]:
        usage = _highest(usage, sample.usage)
        for uuid, reading in sample.gpus.items():
            other = gpus.get(uuid, GpuReading())
            gpus[uuid] = GpuReading(
                _higher(reading.used_bytes, other.used_bytes),
                _higher(reading.busy_percent, other.busy_percent),
            )
    return Sample(samples[-1].at_s, usage, gpus)
