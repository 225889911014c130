"""Defines the plan of a run: the value that is printed, executed, retried from and stored in the manifest.

A backend's ``plan(job) -> Plan`` is pure: the same `backends.shared.job.Job` gives the same `Plan`. A plan holds either
a `Command` (a framework's script, run under the shim) or an `EngineCall` (one of Reelwright's engines), the promised
video (`ExpectedVideo`), every finding, and the mitigations that lower memory, as data for `policy.retry`. Its JSON
holds no secrets: variables in ``env_names`` are passed through by name, and hidden values are masked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from .errors import Failure
from .request import Size, Task

SCHEMA = 1
Severity = Literal["info", "warning", "error"]
_SECRET = re.compile(r"token|key|secret|passw|credential|auth", re.IGNORECASE)
_MIN_SECRET = 6


@dataclass(frozen=True)
class Finding:
    """A fact about a run, found before it starts.

    Attributes:
        code: Stable name, such as ``size.derived`` or ``model.incomplete``.
        severity: ``error`` stops the run before any work.
        message: The fact, with the name of the file, setting or device.
        fix: The action that the user can take.
        failure: For an error: the failure class with which the run would end.
    """

    code: str
    severity: Severity
    message: str
    fix: str = ""
    failure: Failure = Failure.CONFIG

    def to_json(self) -> dict[str, Any]:
        """``code``, ``severity``, ``message``, ``fix``, and for errors ``failure``."""
        data: dict[str, Any] = {"code": self.code, "severity": self.severity, "message": self.message, "fix": self.fix}
        if self.severity == "error":
            data["failure"] = self.failure.name
        return data


@dataclass(frozen=True)
class ExpectedVideo:
    """The video that a plan promises; verification compares every field."""

    width: int
    height: int
    num_frames: int
    fps: float

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_frames / self.fps

    def to_json(self) -> dict[str, Any]:
        """``width``, ``height``, ``frames``, ``fps`` and ``seconds``."""
        return {
            "width": self.width,
            "height": self.height,
            "frames": self.num_frames,
            "fps": self.fps,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Dialect:
    """The rules for reading a framework's log (`policy.progress`), as data.

    Attributes:
        phases: (regular expression, phase) pairs, matched against the start of a line in order.
        bars: Phases of the progress bars without a description, in the order in which the bars appear.
        totals: The number of steps to which each of those bars counts (0: any).
        output: Regular expression whose first group is the path that was written.
        user_text: Regular expressions of lines that repeat the user's text; they are never diagnosed.
        record: Regular expression of the start of a log record; other lines continue it.
        failures: Additional (failure, regular expression, advice) rows for `policy.diagnosis`, before the common ones.
    """

    phases: tuple[tuple[str, str], ...] = ()
    bars: tuple[str, ...] = ("denoising",)
    totals: tuple[int, ...] = (0,)
    output: str | None = None
    user_text: tuple[str, ...] = ()
    record: str | None = None
    failures: tuple[tuple[Failure, str, str], ...] = ()


@dataclass(frozen=True)
class Command:
    """A framework's program: its arguments, folder and environment, and the rules for reading its log.

    Attributes:
        argv: Program and arguments; every option is one ``--option=value`` word.
        cwd: Working directory.
        env: Variables that are set.
        hidden: Names in ``env`` whose values are never shown, because they may be tokens.
        env_names: Variables that are passed through from the runner's environment, by name.
        dialect: The rules for reading its log.
        quiet_limits_s: Per phase, seconds without progress after which it counts as hung; ``""`` is the default.
        ranks: Number of processes that torchrun starts (1: no torchrun).
        collects: Folder in which the framework writes the video under a name that it chooses; ``None``: it writes the
            attempt's own file.
        writer_check: Python code that fails if the framework's interpreter cannot write a video. It runs only if the
            framework claims success without a video.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    env_names: tuple[str, ...] = ()
    dialect: Dialect = Dialect()
    quiet_limits_s: Mapping[str, float] = field(default_factory=lambda: {"": 1800.0})
    ranks: int = 1
    collects: Path | None = None
    writer_check: str | None = None
    hidden: frozenset[str] = frozenset()
    #: Whether Reelwright's encoder writes the video. A framework's file is decoded in a separate process.
    trusted_output: ClassVar[bool] = False
    #: Whether the program stays loaded for the next clip.
    stays_warm: ClassVar[bool] = False

    @property
    def program(self) -> Command:
        """The program that is started: the command itself."""
        return self

    @property
    def shown_env(self) -> dict[str, str]:
        """The variables for people and manifests, with hidden values masked."""
        return {name: "***" if name in self.hidden else value for name, value in self.env.items()}

    @property
    def secrets(self) -> tuple[str, ...]:
        """Hidden values that look like secrets, which are masked in a framework's output.

        The variable's name decides: masking every value would also remove the INFO of NCCL_DEBUG=INFO from the log.
        """
        named = [value for name, value in self.env.items() if name in self.hidden and _SECRET.search(name)]
        return tuple(value for value in named if len(value) >= _MIN_SECRET)

    def to_json(self) -> dict[str, Any]:
        """``argv``, ``cwd``, ``env`` (with ``***`` for hidden values) and ``env_names``."""
        return {"argv": list(self.argv), "cwd": str(self.cwd), "env": self.shown_env, "env_names": list(self.env_names)}


@dataclass(frozen=True)
class EngineCall:
    """One of Reelwright's engines by name, with JSON options.

    Attributes:
        engine: Its name in `engines`.
        options: The options of the clip.
        model: The model to load first; empty for an engine without one.
        worker: The program that holds the engine between calls (``argv`` without the pipes' numbers, which
            `start_worker` adds); ``None``: the engine runs in this process.
    """

    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    worker: Command | None = None
    #: Whether Reelwright's encoder writes the video.
    trusted_output: ClassVar[bool] = True

    @property
    def program(self) -> Command | None:
        """The program that is started: the worker, or ``None``."""
        return self.worker

    @property
    def stays_warm(self) -> bool:
        """Whether a worker keeps the engine loaded for the next clip."""
        return self.worker is not None

    def to_json(self) -> dict[str, Any]:
        """The options and ``engine``; with a worker also ``model`` and ``worker``."""
        data = dict(self.options, engine=self.engine)
        return data if self.worker is None else {**data, "model": dict(self.model), "worker": self.worker.to_json()}


@dataclass(frozen=True)
class Mitigation:
    """One change that lowers the use of memory, which a retry may make: overrides for the next ``plan``.

    Attributes:
        name: Stable name, such as ``offload`` or ``fewer_frames``.
        overrides: Effective parameters to force.
        costs: ``nothing``, ``time``, or the quality that it lowers: ``frames``, ``size``, ``steps``, ``guidance``,
            ``precision``.
        why: One sentence for the manifest, with the source of the fact.
    """

    name: str
    overrides: Mapping[str, Any]
    costs: str
    why: str


@dataclass(frozen=True)
class PublishedTime:
    """A time that others measured for similar work, scaled; used until the machine has a history.

    Attributes:
        seconds: Duration of the complete generation.
        source: The machine, the author of the measurement, and how the figure was scaled.
    """

    seconds: float
    source: str

    def to_json(self) -> dict[str, Any]:
        """``seconds`` and ``source``."""
        return {"seconds": round(self.seconds, 1), "source": self.source}


def counted(number: int, noun: str) -> str:
    """The number and the noun, such as ``1 clip`` or ``2 clips``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_words(seconds: float) -> str:
    """The duration as people say it.

    >>> in_words(75), in_words(1491.6), in_words(9000)
    ('75 s', '25 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Plan:
    """The program that will run, and the video that it promises.

    Attributes:
        generator: The backend's name.
        task: ``t2v``, ``i2v`` or ``flf2v``.
        generative: Whether a model invents the picture (``False`` for the draft).
        run: The command or engine call; ``None`` if an error finding forbids a run.
        expected: The promised video; ``None`` if it is unknown.
        parameters: Effective parameters by the names of the field: size, num_frames, fps, steps, guidance_scale,
            flow_shift, seed, and the generator's own (offload_model, ...).
        gpus: Indices of the GPUs to lease.
        gpu_bytes: Predicted peak memory per GPU.
        host_bytes: Predicted peak of the host's memory.
        disk_bytes: Space that the private files and the video may take.
        seconds: Predicted duration; ``None`` if no measurement exists.
        published: An estimate from published figures, for a machine without a measurement.
        findings: Everything that the user should know before the run.
        mitigations: Memory mitigations, in the order in which a retry applies them.
    """

    generator: str
    task: Task
    generative: bool
    run: Command | EngineCall | None
    expected: ExpectedVideo | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    gpus: tuple[int, ...] = ()
    gpu_bytes: int | None = None
    host_bytes: int | None = None
    disk_bytes: int = 0
    seconds: float | None = None
    published: PublishedTime | None = None
    findings: tuple[Finding, ...] = ()
    mitigations: tuple[Mitigation, ...] = ()

    @property
    def program(self) -> Command | None:
        """The program that is started: a framework's script, or the worker of an engine."""
        return self.run.program if self.run else None

    @property
    def stays_warm(self) -> bool:
        """Whether a worker keeps the engine loaded for the next clip."""
        return self.run is not None and self.run.stays_warm

    def with_program(self, program: Command) -> Plan:
        """A copy that starts another program."""
        return self.evolve(run=replace(self.run, worker=program) if isinstance(self.run, EngineCall) else program)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that forbid the run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def evolve(self, **changes: Any) -> Plan:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """The object of ``reel plan --json``; it is also stored in the manifest."""
        return {
            "schema": SCHEMA,
            "generator": self.generator,
            "task": self.task,
            "generative": self.generative,
            "command": self.run.to_json() if isinstance(self.run, Command) else None,
            "engine": self.run.to_json() if isinstance(self.run, EngineCall) else None,
            "expected": self.expected.to_json() if self.expected else None,
            "parameters": {k: str(v) if isinstance(v, Size) else v for k, v in self.parameters.items()},
            "gpus": list(self.gpus),
            "gpu_bytes": self.gpu_bytes,
            "host_bytes": self.host_bytes,
            "disk_bytes": self.disk_bytes,
            "seconds": self.seconds,
            "published": self.published.to_json() if self.published else None,
            "findings": [finding.to_json() for finding in self.findings],
            "levers": [
                {"name": item.name, "helps": "memory", "costs": item.costs, "why": item.why}
                for item in self.mitigations
            ],
        }
