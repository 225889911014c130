"""The GPUs this process may use, and a reader of what they are doing.

NVML is asked in a process of its own (`machine.nvml`) with a deadline, so that a hung driver cannot hang a
run. `CUDA_VISIBLE_DEVICES` is applied by CUDA's rules, but what CUDA would silently skip is refused: a run on
fewer or other GPUs than asked for is a wasted hour. Which of them a run takes is decided elsewhere
(`backends`).

    >>> gpus, problem = take_gpus({"CUDA_VISIBLE_DEVICES": "0,1"})  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BackendUnavailableError, Failure
from ..host import Gpu, GpuProcess
from . import GpuReading

VARIABLE = "CUDA_VISIBLE_DEVICES"
# The first nvmlInit after boot initialises every GPU, one after the other, when persistence mode is off.
DEADLINE_S = 30.0
_KILL_S = 1.0
_ADVICE: Mapping[str, str] = {
    "NVMLError_LibraryNotFound": "no NVIDIA driver is installed here (libnvidia-ml.so.1 is missing)",
    "NVMLError_DriverNotLoaded": "the NVIDIA driver is installed but not loaded",
    "NVMLError_LibRmVersionMismatch": "the NVIDIA driver was updated while loaded: reboot the machine",
    "NVMLError_NoPermission": "this user may not open the NVIDIA devices",
}
Command = Sequence[str]
Taken = tuple[tuple[Gpu, ...] | None, str | None]


def nvml_program() -> tuple[str, ...]:
    """How to start `machine.nvml`: isolated, so that nothing of the caller changes it."""
    return (sys.executable, "-I", str(Path(__file__).with_name("nvml.py")))


def take_gpus(environ: Mapping[str, str], *, program: Command | None = None, deadline_s: float = DEADLINE_S) -> Taken:
    """The usable GPUs and what is wrong.

    ``(None, why)`` if they could not be asked or `CUDA_VISIBLE_DEVICES` makes no sense; ``((), why)`` if
    there is none to use; otherwise the GPUs, with a remark if one of the machine's GPUs does not answer.
    """
    answer = _ask([*(program or nvml_program()), "once"], environ, deadline_s)
    if "problem" in answer:
        return None, _explained(str(answer["problem"]))
    gpus = tuple(_gpu(item) for item in answer["gpus"])
    remarks = "; ".join(answer["problems"]) or None
    if not gpus:
        return (), remarks or "the NVIDIA driver knows no GPU"
    value = environ.get(VARIABLE)
    if value is None:
        return gpus, remarks
    try:
        chosen = visible_gpus(gpus, value, in_bus_order=environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")
    except BackendUnavailableError as error:
        return None, "; ".join(filter(None, [error.message, remarks]))
    return chosen, remarks if chosen else f"{VARIABLE}={value!r} hides every GPU"


def visible_gpus(gpus: tuple[Gpu, ...], value: str, *, in_bus_order: bool) -> tuple[Gpu, ...]:
    """The GPUs that a value of `CUDA_VISIBLE_DEVICES` names, in its order; empty and -1 name none.

    Raises:
        BackendUnavailableError: a name that no GPU has, one GPU twice, or numbers that may mean other GPUs to
        CUDA.
    """
    entries = [entry.strip() for entry in value.split(",")]
    if entries in ([""], ["-1"]):
        return ()
    chosen = tuple(_named(gpus, entry, value) for entry in entries)
    uuids = [gpu.uuid for gpu in chosen]
    if len(set(uuids)) < len(uuids):
        raise _refusal(value, "names a GPU twice; CUDA would see none")
    numbered = any(map(_is_number, entries))
    if numbered and not in_bus_order and len({gpu.name for gpu in gpus}) > 1 and len(chosen) < len(gpus):
        # CUDA numbers the fastest GPU first unless told otherwise; NVML numbers by bus.
        raise _refusal(value, "is ambiguous on a machine with different GPUs: set CUDA_DEVICE_ORDER=PCI_BUS_ID too")
    return chosen


def _named(gpus: tuple[Gpu, ...], entry: str, value: str) -> Gpu:
    if _is_number(entry):
        # Of a GPU in MIG mode CUDA takes the first instance.
        found = [gpu for gpu in gpus if gpu.index == int(entry)][:1]
        if not found:
            raise _refusal(value, f"names GPU {entry}, but there are only {len({gpu.index for gpu in gpus})}")
    elif entry.startswith(("GPU-", "MIG-")):
        exact = [gpu for gpu in gpus if gpu.uuid == entry]
        found = exact or [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
        if len(found) != 1:
            raise _refusal(value, f"names {entry}, which is {'not unique' if found else 'no GPU of this machine'}")
    else:
        raise _refusal(value, f"holds {entry!r}, which is neither a number nor a GPU-... or MIG-... name")
    return found[0]


def _is_number(entry: str) -> bool:
    return entry.isascii() and entry.isdigit()


def _refusal(value: str, what: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"{VARIABLE}={value!r} {what}", failure=Failure.ENV, advice=f"Correct or unset {VARIABLE}."
    )


def _explained(problem: str) -> str:
    kind = problem.partition(":")[0]
    return f"{_ADVICE[kind]} ({problem})" if kind in _ADVICE else f"the NVIDIA driver cannot be asked: {problem}"


def _gpu(item: Mapping[str, Any]) -> Gpu:
    capability = item["capability"]
    return Gpu(
        index=item["index"],
        uuid=item["uuid"],
        name=item["name"],
        total_bytes=item["total_bytes"],
        free_bytes=item["free_bytes"],
        capability=(capability[0], capability[1]) if capability else None,
        processes=tuple(
            GpuProcess(one["pid"], one["used_bytes"], process_name(one["pid"])) for one in item["processes"]
        ),
    )


def process_name(pid: int, proc: Path = Path("/proc")) -> str | None:
    """The program's name, or ``None`` if unknown or if that number means another process here.

    In a container NVML gives the host's process numbers; one that maps no NVIDIA library is a namesake.
    """
    try:
        with contextlib.suppress(PermissionError):
            maps = (proc / str(pid) / "maps").read_text(errors="replace")
            if "nvidia" not in maps and "libcuda" not in maps:
                return None
        words = (proc / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return None
    return " ".join(Path(word).name for word in words[:2]).strip()[:80] or None


def _ask(command: Command, environ: Mapping[str, str], deadline_s: float) -> dict[str, Any]:
    """The program's one line; its failure to give one is a ``problem`` too."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_passed(environ),
        )
    except OSError as error:
        return {"problem": f"cannot start {command[0]}: {error}"}
    try:
        said, complained = process.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        return {"problem": f"no answer within {deadline_s:g} s (the driver hangs)"}
    finally:
        _end(process)
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        last = complained.decode("utf-8", "replace").strip().splitlines()[-1:]
        return {"problem": f"the query ended with status {process.returncode}: {''.join(last)}"}
    return answer


def _passed(environ: Mapping[str, str]) -> dict[str, str]:
    # Some systems have the driver's libraries only on this path.
    return {name: environ[name] for name in ("LD_LIBRARY_PATH",) if name in environ}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill and reap, but never wait long: a process inside a hung driver call does not die."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_KILL_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


class GpuWatch:
    """Reads the GPUs again and again in a process of its own, which ends with this one, even a killed one."""

    def __init__(self, environ: Mapping[str, str], *, interval_s: float = 1.0, program: Command | None = None) -> None:
        command = [*(program or nvml_program()), "watch", str(interval_s)]
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_passed(environ),
            )
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)

    def read(self) -> Mapping[str, GpuReading] | None:
        """The newest reading since the last call; ``None`` if there is none. Never blocks, never raises."""
        if self._process is None or self._process.stdout is None or self._process.stdout.closed:
            return None
        chunk: bytes | None = b""
        with contextlib.suppress(OSError):
            chunk = os.read(self._process.stdout.fileno(), 1 << 20)
        *lines, self._rest = (self._rest + (chunk or b"")).split(b"\n")
        try:
            newest = json.loads(lines[-1]) if lines else {"problem": ""}
            return None if "problem" in newest else {uuid: GpuReading(*pair) for uuid, pair in newest.items()}
        except (ValueError, TypeError):
            return None

    def close(self) -> None:
        """End the reader; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)
