"""`Decision`: a backend's decisions about a clip on GPUs, and the plan that follows from them.

Each backend adds the decisions that only its framework needs. The class itself decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from ...core.host import Interpreter
from ...core.plan import Command, EngineCall, ExpectedVideo, Finding, Plan
from ...core.request import Size
from .gpu_choice import GpuChoice
from .job import Job, S_co
from .rules import disk_bytes, is_illegal


@dataclass(frozen=True, kw_only=True)
class Decision(Generic[S_co]):
    """Everything decided about a clip before it becomes a command.

    Attributes:
        job: The request and the machine.
        size: The requested size; the framework makes `output_size` of it.
        frames: The number of frames.
        interpreter: The Python that runs the framework.
        gpus: The chosen cards.
        ranks: The number of processes that share the clip.
        parameters: The effective parameters by their usual names.
    """

    job: Job[S_co]
    size: Size
    frames: int
    interpreter: Interpreter
    gpus: GpuChoice = field(default_factory=GpuChoice)
    ranks: int = 1
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output_size(self) -> Size:
        """The size of the video."""
        return self.size

    @property
    def expected(self) -> ExpectedVideo | None:
        """The expected video; ``None`` if the framework does not define its size and length."""
        return ExpectedVideo(*self.output_size, self.frames, self.parameters["fps"])

    def plan(
        self,
        generator: str,
        findings: tuple[Finding, ...],
        run: Callable[[], Command | EngineCall | None],
        *,
        more_disk_bytes: int = 0,
        **needs: Any,
    ) -> Plan:
        """Make the plan; it has a command only if no finding makes the request illegal."""
        return Plan(
            generator=generator,
            task=self.job.request.task,
            generative=True,
            run=None if is_illegal(findings) else run(),
            expected=self.expected,
            parameters=self.parameters,
            gpus=tuple(gpu.index for gpu in self.gpus.gpus),
            disk_bytes=disk_bytes(self.job.settings, self.expected) + more_disk_bytes,
            findings=findings,
            **needs,
        )
