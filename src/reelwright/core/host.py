"""Describes the machine as values: GPUs, memory, disks, interpreters, checkouts and checkpoint folders.

A backend asks (`HostQuery`), a site looks and returns a `Host`, and the backend's pure ``plan`` decides from it.
``None`` always means "could not ask", never zero. This module does not look at the machine.

    >>> host = Host(gpus=simulated_gpus("2x80GiB"), simulated=True)
    >>> host.gpus[1].free_bytes
    85899345920
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import cards
from .errors import ConfigurationError

GIB = 1024**3
#: A run is refused only above this share of the machine's memory, because predictions of host memory are cautious.
_HOPELESS_HOST = 1.5


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    used_bytes: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Gpu:
    """One CUDA device: a card, or an instance of a card in MIG mode.

    Attributes:
        index: NVML's number (PCI bus order) for a card. Instances are numbered after the last card, so that no two
            devices share a number.
        uuid: The driver's name, ``GPU-...`` or ``MIG-...``, as `CUDA_VISIBLE_DEVICES` takes it.
        name: The model.
        total_bytes, free_bytes: Memory of the device; for an instance its own, not the card's.
        capability: CUDA compute capability.
        processes: The processes that hold memory of it.
        parent: The number of an instance's card; ``None`` for a card.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int | None
    free_bytes: int | None
    capability: tuple[int, int] | None = None
    processes: tuple[GpuProcess, ...] = ()
    parent: int | None = None

    @property
    def speed(self) -> float:
        """A figure for comparing cards (`cards.speed`)."""
        return cards.speed(self.name, self.capability)

    @property
    def users(self) -> str:
        """The processes that hold its memory, as text for people."""
        used = (f", {one.used_bytes / GIB:.1f} GiB" if one.used_bytes else "" for one in self.processes)
        return ", ".join(
            f"pid {one.pid} ({one.name or 'unknown'}{size})" for one, size in zip(self.processes, used, strict=True)
        )


@dataclass(frozen=True)
class Disk:
    """The file system of a folder; ``folder`` is the nearest folder that exists."""

    folder: Path
    free_bytes: int | None
    writable: bool | None


@dataclass(frozen=True)
class InterpreterQuery:
    """A query for an interpreter's version and the versions of some modules, which it imports.

    The interpreter is started as the run starts it: otherwise the answer would be about another Python.

    Attributes:
        path: The interpreter.
        modules: The modules to import.
        env: Variables that the run sets.
        env_names: Variables that the run passes through, by name or with a trailing ``*``.
        folder: The script's folder, which is the working folder and comes first on the module path; ``None``: neither.
    """

    path: Path
    modules: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_names: tuple[str, ...] = ()
    folder: Path | None = None


@dataclass(frozen=True)
class Interpreter:
    """The answer of a framework's own Python.

    ``modules`` maps a module to its version; a module that cannot be imported is in ``broken`` instead, with the
    error's text. ``problem`` says why the interpreter itself could not answer. ``packages`` maps every installed
    distribution (name in lower case, with dashes) to its version. ``cuda_archs`` are the GPU architectures that torch
    was built for, such as ``sm_80``; empty if torch does not say.
    """

    path: Path
    problem: str | None = None
    python_version: str | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    cuda_version: str | None = None
    cuda_devices: int | None = None
    cuda_archs: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckoutQuery:
    """A query for a source checkout: which of ``files`` exist, and the matches of ``patterns`` (name -> file, regex).

    A pattern's value is its first group (or the complete match) of every occurrence, in order.
    """

    directory: Path
    files: tuple[str, ...] = ()
    patterns: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkout:
    """The findings in a source checkout; ``commit`` and ``committed_at`` (ISO date) are ``None`` if git knows none.

    ``elsewhere`` is a folder just above or below that holds the first requested file, if this folder lacks it.
    """

    directory: Path
    problem: str | None = None
    files: frozenset[str] = frozenset()
    matches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    commit: str | None = None
    committed_at: str | None = None
    elsewhere: Path | None = None


@dataclass(frozen=True)
class Kind:
    """The kind of a folder of weights that is not the expected one.

    Attributes:
        code: Stable name: ``cache``, ``layout``, ``family``, ``level``, ``comfyui``, ``gguf``, ``lora``, ``fp8``, ...
        what: Its description, as the end of a sentence that begins with the folder.
        fix: The value to set or the weights to download instead.
    """

    code: str
    what: str
    fix: str


@dataclass(frozen=True)
class CheckpointQuery:
    """A query for a folder of weights. Names in it are relative to the folder.

    Attributes:
        directory: The folder.
        required: Files and folders that must exist (a folder ends with ``/``).
        weights: Globs of the tensor files to open (headers only).
        config: JSON file whose content the backend needs.
        configs: More JSON files whose content it needs, if they exist.
        components: The folder has diffusers' layout: all components that ``model_index.json`` names must be complete.
        otherwise: The query to use instead if the folder has no ``model_index.json``.
        foreign: Names that reveal another layout, such as ``model_index.json``.
        verify: Compare the hash of every file with the checksums stored beside it.
        layout: The expected layout (``wan2.1``, ``engine``, ``hunyuan``), so that another one can be recognised; empty:
            no recognition.
    """

    directory: Path
    required: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    config: str | None = None
    foreign: tuple[str, ...] = ()
    verify: bool = False
    configs: tuple[str, ...] = ()
    components: bool = False
    otherwise: CheckpointQuery | None = None
    layout: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """The findings in a folder of weights.

    Attributes:
        directory: The folder.
        problems: One sentence for each missing, partial or corrupt file, naming the file.
        files: Size in bytes of every file that was checked, by relative name.
        config: The content of the requested JSON file.
        foreign: The foreign names that exist.
        configs: The contents of the ``configs`` that exist.
        fingerprint: A hash of names, sizes and pieces of content; the same files have the same hash in any folder.
        kind: The kind of a folder with another layout; ``problems`` then holds only the sentence about it.
        dtypes: The number formats in the first tensor file, as safetensors calls them: ``F32``, ``BF16``, ...
        names: The names in the folder.
    """

    directory: Path
    problems: tuple[str, ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    foreign: frozenset[str] = frozenset()
    configs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    fingerprint: str = ""
    kind: Kind | None = None
    dtypes: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes in ``files``."""
        return sum(self.files.values())


@dataclass(frozen=True)
class OptionsFile:
    """A YAML file of a framework's options: its top-level mapping and the line of each key, or its problem."""

    path: Path
    problem: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class HostQuery:
    """Everything that a backend needs to know before it can plan."""

    gpus: bool = False
    disks: tuple[Path, ...] = ()
    interpreters: tuple[InterpreterQuery, ...] = ()
    checkouts: tuple[CheckoutQuery, ...] = ()
    checkpoints: tuple[CheckpointQuery, ...] = ()
    options_files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Host:
    """The answers to a `HostQuery`.

    ``gpus`` are the GPUs that this process may use (``CUDA_VISIBLE_DEVICES`` applied); ``None`` means that the driver
    could not be asked. ``gpu_problem`` says why, and ``gpu_advice`` is the fix. ``driver_version`` and ``driver_cuda``
    (the newest CUDA that it runs) are the NVIDIA driver's. ``memory_simulated``: the user chose the amount;
    ``memory_limited``: a control group (a container, a job) limits it. ``swap_bytes`` is not part of the total.
    ``shm_total_bytes`` and ``shm_free_bytes`` are those of /dev/shm.
    """

    gpus: tuple[Gpu, ...] | None = None
    gpu_problem: str | None = None
    gpu_advice: str | None = None
    driver_version: str | None = None
    driver_cuda: tuple[int, int] | None = None
    simulated: bool = False
    memory_simulated: bool = False
    cpu_count: int = 1
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    memory_limited: bool = False
    swap_bytes: int = 0
    shm_total_bytes: int | None = None
    shm_free_bytes: int | None = None
    disks: tuple[Disk, ...] = ()
    interpreters: Mapping[Path, Interpreter] = field(default_factory=dict)
    checkouts: Mapping[Path, Checkout] = field(default_factory=dict)
    checkpoints: Mapping[Path, Checkpoint] = field(default_factory=dict)
    options_files: Mapping[Path, OptionsFile] = field(default_factory=dict)

    def uuids(self, indices: Sequence[int]) -> tuple[str, ...]:
        """The UUIDs of the GPUs with these indices, in the host's order."""
        return tuple(gpu.uuid for gpu in self.gpus or () if gpu.index in indices)


def passed_through(environ: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The variables that are passed through to a program, chosen by name or with a trailing ``*``."""
    return {
        name: value for name, value in environ.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in names)
    }


def host_too_small(need: int | None, host: Host) -> bool:
    """Whether the kernel would surely kill a script that needs so many bytes of host memory, even on an idle host."""
    total = host.memory_total_bytes
    return need is not None and total is not None and need > _HOPELESS_HOST * total + host.swap_bytes


_MEMORY = re.compile(r"(\d{1,5}(?:\.\d{1,6})?)\s*(?:GiB|GB|G)?", re.IGNORECASE)
_GRAMMAR = (
    "write count x memory, count x model or both, such as 8x80GiB, 2xRTX4090, 1xV100-32GiB, 1x24GiB@8.6; 0x0 is no GPU."
)


def simulated_gpus(text: str) -> tuple[Gpu, ...]:
    """Simulated GPUs, for plans and tests: ``8x80GiB``, ``2xRTX4090,1xV100-32GiB``, ``1x24GiB@7.5``.

    A model sets the compute capability and, unless the text has one, the memory; ``@7.5`` is a capability. A card
    without model and capability has Hopper's capability, 9.0.

    Raises:
        ConfigurationError: the text has another form, or names an unknown model.
    """
    gpus: list[Gpu] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*[x×]\s*(\S.*?)\s*", part, re.IGNORECASE)
        if not match:
            raise ConfigurationError(f"{text!r} does not describe GPUs: {_GRAMMAR}", advice="Correct it.")
        name, gib, capability = _kind(match[2], text)
        for _ in range(int(match[1])):
            index, size = len(gpus), int(gib * GIB)
            gpus.append(Gpu(index, f"GPU-simulated-{index}", f"simulated {name}", size, size, capability))
    return tuple(gpus)


def _kind(words: str, text: str) -> tuple[str, float, tuple[int, int]]:
    """Name, GiB and capability of one kind of card."""
    whole = cards.find(words)
    if whole:
        return whole.name, float(whole.gib), whole.capability
    match = re.fullmatch(
        r"(?:(.*?)[\s-]+)??(?:(\d{1,5}(?:\.\d{1,6})?)\s*(?:GiB|GB|G)?)?(?:\s*@\s*(\d{1,2})\.(\d))?",
        words,
        re.IGNORECASE,
    )
    model = match[1] if match else None
    card = cards.find(model) if model else None
    if match is None or (model and card is None) or not (card or match[2]):
        named = match[1] if match and match[1] else words
        why = f"{named!r} is not a known model; {_GRAMMAR}"
        raise ConfigurationError(f"{text!r} does not describe GPUs: {why}", advice="Correct it.")
    gib = float(match[2]) if match[2] else float(card.gib if card else 0)
    capability = (int(match[3]), int(match[4])) if match[3] else card.capability if card else (9, 0)
    return " ".join(filter(None, [card.name if card else "", f"{match[2]} GiB" if match[2] else ""])), gib, capability


def simulated_memory(text: str) -> int:
    """Bytes of simulated host memory, from a text such as ``64GiB``.

    Raises:
        ConfigurationError: the text is not an amount of memory.
    """
    match = _MEMORY.fullmatch(text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigurationError(f"{text!r} is not an amount of memory", advice="Write it in GiB, such as 64GiB.")
    return int(float(match[1]) * GIB)
