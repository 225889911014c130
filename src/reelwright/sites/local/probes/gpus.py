"""Finds the GPUs that this process may use, and reads their use.

A separate process (`sites.local.probes.nvml`) asks NVML with a deadline, so that a hung driver cannot hang a run.
`CUDA_VISIBLE_DEVICES` is applied by CUDA's rules, but an entry that CUDA would silently skip is refused: a run on
fewer or other GPUs than configured wastes an hour. `backends` choose which of the GPUs a run takes.

    >>> taken = take_gpus({"CUDA_VISIBLE_DEVICES": "0,1"})  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ....core.errors import BackendUnavailableError, Failure
from ....core.host import Gpu, GpuProcess
from ....core.line_channel import LineBuffer
from ....media.child_starts import starting
from ..bounded_run import end_session, run_bounded
from . import GpuReading

VARIABLE = "CUDA_VISIBLE_DEVICES"
# The first nvmlInit after boot initialises every GPU, one after the other, when persistence mode is off.
DEADLINE_S = 30.0
_ADVICE: Mapping[str, tuple[str, str]] = {
    "NVMLError_LibraryNotFound": (
        "no NVIDIA driver is installed here (libnvidia-ml.so.1 is missing)",
        "Install the NVIDIA driver; start a container with the host's GPUs (docker run --gpus all).",
    ),
    "NVMLError_DriverNotLoaded": (
        "the NVIDIA driver is installed but not loaded",
        "Load it with `sudo modprobe nvidia`, or reboot the machine.",
    ),
    "NVMLError_LibRmVersionMismatch": (
        "the NVIDIA driver was updated while loaded: reboot the machine",
        "Reboot the machine: until then the old driver is running and the new one is installed.",
    ),
    "NVMLError_NoPermission": (
        "this user may not open the NVIDIA devices",
        "Get access to /dev/nvidia*: on most systems, join the group `video` or `render`.",
    ),
}
# /dev/kfd is the compute device of amdgpu, the driver under ROCm (Linux, drivers/gpu/drm/amd/amdkfd/kfd_chardev.c).
_AMD = (
    "this machine has an AMD GPU (/dev/kfd), and Reelwright can use NVIDIA GPUs only",
    "Use a machine with an NVIDIA GPU.",
)
_REPAIR = "Run `nvidia-smi`: where it fails as well, repair the NVIDIA driver or reboot the machine."
#: Words that a mistake or a scheduler writes into CUDA_VISIBLE_DEVICES: the fault and the fix for each.
_WORDS: Mapping[str, tuple[str, str]] = {
    "nodevfiles": (
        "was set by Slurm, which gave this job no GPU",
        "Request one from Slurm, for example with --gres=gpu:1 or --gpus=1.",
    ),
    "all": (
        "means all GPUs to NVIDIA_VISIBLE_DEVICES only; CUDA would see none",
        f"Unset {VARIABLE}: without it every GPU can be used.",
    ),
    **dict.fromkeys(
        ("none", "void", "null"),
        ("hides every GPU", f"Unset {VARIABLE}, or name the GPUs that may be used, such as 0,1."),
    ),
}
Command = Sequence[str]


class Taken(NamedTuple):
    """The usable GPUs, the problem, the fix, and the driver's version and CUDA."""

    gpus: tuple[Gpu, ...] | None
    problem: str | None = None
    advice: str | None = None
    driver_version: str | None = None
    driver_cuda: tuple[int, int] | None = None


def nvml_program() -> tuple[str, ...]:
    """The command that starts `sites.local.probes.nvml`, isolated from the caller's environment."""
    return (sys.executable, "-I", str(Path(__file__).with_name("nvml.py")))


def take_gpus(
    environ: Mapping[str, str],
    *,
    program: Command | None = None,
    deadline_s: float = DEADLINE_S,
    devices: Path = Path("/dev"),
) -> Taken:
    """The usable GPUs and the problem; ``devices`` is the folder of device files, which shows an AMD GPU.

    ``gpus`` is ``None`` if the driver could not be asked or `CUDA_VISIBLE_DEVICES` cannot be applied, and empty if the
    machine has none. ``problem`` may also say that one of several GPUs does not answer.
    """
    answer = _ask([*(program or nvml_program()), "once"], environ, deadline_s)
    if "problem" in answer:
        return Taken(None, *_explained(str(answer["problem"]), (devices / "kfd").exists()))
    gpus = tuple(_gpu(item) for item in answer["gpus"])
    remarks = "; ".join(answer["problems"]) or None
    version, number = answer["driver"]["version"], answer["driver"]["cuda"]
    driver = (version, (number // 1000, number % 1000 // 10) if number else None)
    value = environ.get(VARIABLE)
    if not gpus:
        advice = "Give the container or the virtual machine a GPU; `nvidia-smi -L` lists what the driver knows."
        return Taken((), remarks or "the NVIDIA driver finds no GPU", advice, *driver)
    if value is None:
        return Taken(gpus, remarks, None, *driver)
    try:
        chosen = visible_gpus(gpus, value, in_bus_order=environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")
    except BackendUnavailableError as error:
        return Taken(None, "; ".join(filter(None, [error.message, remarks])), error.advice, *driver)
    return Taken(chosen, remarks, None, *driver)


def visible_gpus(gpus: tuple[Gpu, ...], value: str, *, in_bus_order: bool) -> tuple[Gpu, ...]:
    """The GPUs that a value of `CUDA_VISIBLE_DEVICES` names, in its order.

    Raises:
        BackendUnavailableError: the value names no GPU, a missing GPU, one GPU twice, MIG instances that one process
            cannot use together, or numbers that may mean other GPUs to CUDA. Each mistake has its own advice.
    """
    if not value.strip():
        raise _refusal(value, "is empty and hides every GPU", f"Unset {VARIABLE}, or name GPUs, such as 0,1.")
    if value.strip().lower() in _WORDS:
        raise _refusal(value, *_WORDS[value.strip().lower()])
    entries = [entry.strip() for entry in value.split(",")]
    _check_form(gpus, entries, value)
    chosen = tuple(_named(gpus, entry, value) for entry in entries)
    twice = next((gpu for place, gpu in enumerate(chosen) if gpu in chosen[:place]), None)
    if twice is not None:
        once = ",".join(dict.fromkeys(entries)) if len(set(entries)) < len(entries) else twice.uuid
        raise _refusal(value, f"names a GPU twice ({twice.uuid}); CUDA would see none", f"Set {VARIABLE}={once}.")
    instances = [gpu for gpu in chosen if gpu.parent is not None]
    if instances and len(chosen) > 1:
        text = f"names {instances[0].uuid}, an instance of MIG, beside others: a process can use only one instance"
        raise _refusal(value, text, f"Name one instance, such as {VARIABLE}={instances[0].uuid}.")
    kinds = {gpu.name.partition(" MIG ")[0] for gpu in gpus}
    if any(map(_is_number, entries)) and not in_bus_order and len(kinds) > 1 and len(chosen) < len(gpus):
        # By default CUDA numbers the fastest GPU first; NVML numbers by bus.
        text = "is ambiguous on a machine with different GPUs: set CUDA_DEVICE_ORDER=PCI_BUS_ID too"
        raise _refusal(value, text, "Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPUs by UUID (`nvidia-smi -L`).")
    return chosen


def _check_form(gpus: tuple[Gpu, ...], entries: list[str], value: str) -> None:
    """Refuse a value that is neither a list of numbers nor of UUIDs, and advise the list that was probably meant."""
    if entries == ["-1"]:
        raise _refusal(value, "hides every GPU", f"Unset {VARIABLE}, or name the GPUs that may be used, such as 0,1.")
    kept = ",".join(entry for entry in entries if entry)
    if "" in entries:
        text = "holds an empty entry, which is neither a number nor a UUID: CUDA stops reading there"
        raise _refusal(value, text, f"Set {VARIABLE}={kept}." if kept else f"Unset {VARIABLE}.")
    wrong = next((entry for entry in entries if not _is_number(entry) and not entry.startswith(("GPU-", "MIG-"))), None)
    if wrong is not None:
        raise _refusal(value, *_misspelt(gpus, wrong, value))
    numbers = [entry for entry in entries if _is_number(entry)]
    if numbers and len(numbers) < len(entries):
        uuids = [gpu.uuid for entry in entries for gpu in gpus if entry in (str(gpu.index), gpu.uuid)]
        same = f"Set {VARIABLE}={','.join(dict.fromkeys(uuids))}." if uuids else "Use one of the two."
        raise _refusal(value, "mixes numbers and UUIDs: CUDA reads one kind only", same)
    if not numbers and value != ",".join(entries):
        text = "holds spaces, after which CUDA knows no UUID"
        raise _refusal(value, text, f"Set {VARIABLE}={','.join(entries)}, without spaces.")


def _misspelt(gpus: tuple[Gpu, ...], entry: str, value: str) -> tuple[str, str]:
    """The fault of an entry that is neither a number nor a UUID, and the fix."""
    if entry.startswith("-") and entry[1:].isdigit():
        text = f"holds {entry}, which is neither a number of a GPU nor a UUID: CUDA stops reading there"
        before = value.partition(entry)[0].strip(", ")
        return (
            text,
            f"Set {VARIABLE}={before}."
            if before
            else f"Unset {VARIABLE}, or name the GPUs that may be used, such as 0,1.",
        )
    if re.fullmatch(r"\d+\s*-\s*\d+", entry):
        first, last = map(int, re.findall(r"\d+", entry))
        spelt = ",".join(map(str, range(first, min(last, first + 64) + 1)))
        return f"holds the range {entry!r}, which CUDA does not know", f"Write each number: {spelt}."
    if re.fullmatch(r"\d+(\s+\d+)+", entry):
        return f"holds {entry!r} without commas", f"Set {VARIABLE}={','.join(entry.split())}."
    if re.fullmatch(r"\d+[:.]\d+", entry):
        return (
            f"holds {entry!r}, which is not the name of a MIG instance here",
            "Name the instance by its UUID, MIG-..., as `nvidia-smi -L` lists it.",
        )
    bare = re.sub(r"cuda|gpu|device|[^0-9,;]", "", value.lower()).replace(";", ",").strip(",")
    if re.fullmatch(r"(?:cuda|gpu|device|[\s\[\](){}'\":=;,0-9])+", value.lower()) and re.fullmatch(
        r"\d+(,\d+)*", bare
    ):
        return f"holds {entry!r}, which is neither a number nor a UUID", f"Set {VARIABLE}={bare}."
    near = [gpu.uuid for gpu in gpus if gpu.uuid.lower().startswith(entry.lower()) or gpu.uuid[4:].startswith(entry)]
    fix = (
        f"Set {VARIABLE}={near[0]}." if len(near) == 1 else "Write numbers, such as 0,1, or UUIDs from `nvidia-smi -L`."
    )
    return f"holds {entry!r}, which is neither a number nor a GPU-... or MIG-... name", fix


def _named(gpus: tuple[Gpu, ...], entry: str, value: str) -> Gpu:
    if _is_number(entry):
        # CUDA takes the first instance of a GPU in MIG mode.
        found = [gpu for gpu in gpus if int(entry) == (gpu.index if gpu.parent is None else gpu.parent)][:1]
        if not found:
            numbers = sorted({gpu.index if gpu.parent is None else gpu.parent for gpu in gpus})
            known = ", ".join(map(str, numbers))
            fix = f"The numbers are {known}: correct or unset {VARIABLE}."
            raise _refusal(value, f"names GPU {entry}, but there are only {len(numbers)}", fix)
        return found[0]
    exact = [gpu for gpu in gpus if gpu.uuid == entry]
    found = exact or [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    if len(found) > 1:
        names = ", ".join(gpu.uuid for gpu in found)
        raise _refusal(value, f"names {entry}, which is not unique", f"Write more of the name: {names}.")
    if not found:
        raise _refusal(value, *_unknown(gpus, entry))
    return found[0]


def _unknown(gpus: tuple[Gpu, ...], entry: str) -> tuple[str, str]:
    """Why no device has this UUID, and the UUIDs that exist."""
    instances = [gpu for gpu in gpus if gpu.parent is not None]
    if entry.startswith("MIG-") and not instances:
        names = ", ".join(gpu.uuid for gpu in gpus)
        return (
            f"names {entry}, which is not a GPU of this machine: no card here is in MIG mode",
            f"Name a card, such as {names}, or make instances with `nvidia-smi mig`.",
        )
    same_kind = instances if entry.startswith("MIG-") else [gpu for gpu in gpus if gpu.parent is None]
    names = ", ".join(gpu.uuid for gpu in same_kind or gpus)
    split = ": every card here is in MIG mode" if not same_kind else ""
    fix = f"This machine has {names}: correct or unset {VARIABLE}."
    return f"names {entry}, which is not a GPU of this machine{split}", fix


def _is_number(entry: str) -> bool:
    return entry.isascii() and entry.isdigit()


def _refusal(value: str, what: str, advice: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"{VARIABLE}={value!r} {what}", failure=Failure.ENV, advice=advice)


def _explained(problem: str, has_amd: bool) -> tuple[str, str]:
    kind = problem.partition(":")[0]
    if has_amd and kind == "NVMLError_LibraryNotFound":
        return _AMD
    if kind in _ADVICE:
        return _ADVICE[kind]
    return f"the NVIDIA driver does not answer: {problem}", _REPAIR


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
        parent=item["parent"],
    )


def process_name(pid: int, proc: Path = Path("/proc")) -> str | None:
    """The program's name; ``None`` if it is unknown or the pid belongs to another process here.

    In a container NVML returns pids of the host. A local process without an NVIDIA library has the same pid by chance.
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
    """The one line of JSON that the program prints; if it prints none, a ``problem`` instead."""
    try:
        done = run_bounded(command, deadline_s=deadline_s, env=_passed(environ))
    except OSError as error:
        return {"problem": f"cannot start {command[0]}: {error}"}
    if done.given_up:
        return {"problem": f"no answer within {deadline_s:g} s (the driver hangs)"}
    try:
        answer: dict[str, Any] = json.loads(done.output)
    except ValueError:
        return {"problem": f"the query ended with status {done.status}: {done.last_line}"}
    return answer


def _passed(environ: Mapping[str, str]) -> dict[str, str]:
    # Some systems have the driver's libraries only on this path.
    return {name: environ[name] for name in ("LD_LIBRARY_PATH",) if name in environ}


class GpuWatch:
    """Reads the GPUs at intervals in a separate process, which ends when this process ends, even if it is killed."""

    def __init__(self, environ: Mapping[str, str], *, interval_s: float = 1.0, program: Command | None = None) -> None:
        command = [*(program or nvml_program()), "watch", str(interval_s)]
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = LineBuffer()
        with contextlib.suppress(OSError):
            with starting():
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=_passed(environ),
                    start_new_session=True,
                )
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)

    def read(self) -> Mapping[str, GpuReading] | None:
        """The newest reading since the last call; ``None`` if there is none. It never blocks and never raises."""
        if self._process is None or self._process.stdout is None or self._process.stdout.closed:
            return None
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            lines = self._lines.feed(os.read(self._process.stdout.fileno(), 1 << 20))
            newest = json.loads(lines[-1]) if lines else {"problem": ""}
            return None if "problem" in newest else {uuid: GpuReading(*pair) for uuid, pair in newest.items()}
        return None

    def close(self) -> None:
        """End the reader; a second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            end_session(process)
