"""Fakes a driver: runs `sites.local.probes.nvml` on a fake pynvml that plays a scenario (JSON).

    python fake_nvml.py NVML_PROGRAM SCENARIO once|watch [INTERVAL]

Scenario keys: ``hang`` (block for ever at the first call), ``fail`` (name of the error nvmlInit raises),
``gpus``: a list of {uuid, name, total, used, busy, capability, processes: [[pid, used]], lost,
unsupported: [function], mig: [...]}; ``driver``: [version, CUDA as 12040].
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """The base class of all errors, as in pynvml."""


class FakeNvml:
    """The functions of pynvml that Reelwright uses, with answers from a scenario."""

    NVMLError = NVMLError

    def __init__(self, scenario: Mapping[str, Any]) -> None:
        self.scenario = scenario
        self.gpus = scenario.get("gpus", [])

    def __getattr__(self, name: str) -> Callable[[Mapping[str, Any]], Any]:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)
        fields: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "nvmlDeviceGetUUID": lambda gpu: gpu["uuid"],
            "nvmlDeviceGetName": lambda gpu: gpu.get("name", "NVIDIA H100"),
            "nvmlDeviceGetMemoryInfo": self.memory,
            "nvmlDeviceGetCudaComputeCapability": lambda gpu: gpu.get("capability", [9, 0]),
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=gpu.get("busy", 0)),
            "nvmlDeviceGetMigMode": lambda gpu: [int("mig" in gpu)] * 2,
            "nvmlDeviceGetMaxMigDeviceCount": lambda gpu: 7,
            "nvmlDeviceGetComputeRunningProcesses": self.processes,
            "nvmlDeviceGetGraphicsRunningProcesses": lambda gpu: [],
        }
        field = fields[name]

        def asked(gpu: Mapping[str, Any]) -> Any:
            if name.removeprefix("nvmlDeviceGet") in gpu.get("unsupported", ()):
                raise NVMLError("Not Supported")
            return field(gpu)

        return asked

    def nvmlInit(self) -> None:
        if self.scenario.get("hang"):
            signal.pause()
        if "fail" in self.scenario:
            raise type(self.scenario["fail"], (NVMLError,), {})("no luck")

    def nvmlSystemGetDriverVersion(self) -> Any:
        return self.scenario.get("driver", ["580.95.05", 13000])[0]

    def nvmlSystemGetCudaDriverVersion_v2(self) -> Any:
        return self.scenario.get("driver", ["580.95.05", 13000])[1]

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        if self.gpus[index].get("lost"):
            raise NVMLError("GPU is lost")
        return self.gpus[index]

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Mapping[str, Any], place: int) -> Any:
        if place >= len(gpu["mig"]):
            raise NVMLError("Not Found")
        return gpu["mig"][place]

    def memory(self, gpu: Mapping[str, Any]) -> SimpleNamespace:
        total, used = gpu.get("total", 1 << 30), gpu.get("used", 0)
        return SimpleNamespace(total=total, used=used, free=total - used)

    def processes(self, gpu: Mapping[str, Any]) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.get("processes", [])]


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("nvml", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    nvml = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nvml)
    sys.exit(nvml.main(sys.argv[3:], FakeNvml(json.loads(sys.argv[2]))))
