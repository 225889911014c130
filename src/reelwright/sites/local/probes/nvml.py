"""Asks NVML, as a separate program: once, or at intervals until its standard input ends.

The driver can hang inside a call (a GPU has fallen off the bus). Neither a thread nor a signal ends such a call, but a
process can be left behind. The program is started by path, and imports only pynvml and the standard library. A value
that a device does not support is ``null``. `sites.local.probes.gpus` decides which GPUs may be used.

    $ python -I nvml.py once
    {"gpus": [{"index": 0, "uuid": "GPU-...", "name": "NVIDIA H100", ...}], "problems": []}
    $ python -I nvml.py watch 1.0
    {"GPU-...": [1073741824, 97]}
"""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any

Nvml = Any  # the pynvml module, or an object with the same functions


def _asked(nvml: Nvml, function: Callable[..., Any], *arguments: Any) -> Any:
    """The answer; ``None`` if this device or driver has none."""
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _devices(nvml: Nvml, problems: list[str]) -> Iterator[tuple[int, Any, Any, int | None]]:
    """(number, handle, handle of the card, number of the card) of each device that CUDA could use.

    A card has NVML's number, and ``None`` as number of the card. The instances of cards in MIG mode are numbered after
    the last card, so that no two devices share a number.
    """
    count = following = nvml.nvmlDeviceGetCount()
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            nvml.nvmlDeviceGetUUID(handle)
        except nvml.NVMLError as error:  # this GPU is lost or hidden from this process; the others still work
            problems.append(f"GPU {index} does not answer: {error}")
            continue
        mode = _asked(nvml, nvml.nvmlDeviceGetMigMode, handle)
        if not mode or mode[0] != 1:
            yield index, handle, handle, None
            continue
        instances = list(_instances(nvml, handle))
        if not instances:
            problems.append(f"GPU {index} is in MIG mode but has no instance")
        for instance in instances:
            yield following, instance, handle, index
            following += 1


def _instances(nvml: Nvml, handle: Any) -> Iterator[Any]:
    for place in range(_asked(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        instance = _asked(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        if instance is not None:
            yield instance


def _processes(nvml: Nvml, handle: Any) -> list[dict[str, Any]]:
    used: dict[int, Any] = {}
    for function in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _asked(nvml, function, handle) or []:
            used[process.pid] = used.get(process.pid) or process.usedGpuMemory
    return [{"pid": pid, "used_bytes": used[pid]} for pid in sorted(used)]


def describe(nvml: Nvml) -> dict[str, Any]:
    """All devices, with their memory and the processes that use them."""
    problems: list[str] = []
    gpus = []
    for index, handle, card, parent in _devices(nvml, problems):
        memory = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        gpus.append(
            {
                "index": index,
                "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
                "name": _text(_asked(nvml, nvml.nvmlDeviceGetName, handle) or "unknown GPU"),
                "total_bytes": memory and memory.total,
                "free_bytes": memory and memory.free,
                "capability": _asked(nvml, nvml.nvmlDeviceGetCudaComputeCapability, card),
                "processes": _processes(nvml, handle),
                "parent": parent,
            }
        )
    return {"gpus": gpus, "problems": problems, "driver": _driver(nvml)}


def _driver(nvml: Nvml) -> dict[str, Any]:
    """The driver's version, and the newest CUDA that it runs (12040 for 12.4)."""
    version = _asked(nvml, nvml.nvmlSystemGetDriverVersion)
    return {"version": version and _text(version), "cuda": _asked(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)}


def readings(nvml: Nvml) -> dict[str, list[int | None]]:
    """Used bytes and busy percent of every device, by UUID."""
    found: dict[str, list[int | None]] = {}
    for _, handle, _, _ in _devices(nvml, []):
        memory = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        busy = _asked(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
        found[_text(nvml.nvmlDeviceGetUUID(handle))] = [memory and memory.used, busy and busy.gpu]
    return found


def _print(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(arguments: list[str], nvml: Nvml) -> int:
    """Print one answer, or one per interval until standard input ends. An error of the driver is an answer too."""
    try:
        nvml.nvmlInit()
        if arguments[0] == "once":
            _print(describe(nvml))
            return 0
        while True:
            _print(readings(nvml))
            if select.select([sys.stdin], [], [], float(arguments[1]))[0]:
                return 0
    except nvml.NVMLError as error:
        _print({"problem": f"{type(error).__name__}: {error}"})
        return 1


if __name__ == "__main__":
    import pynvml

    sys.exit(main(sys.argv[1:], pynvml))
