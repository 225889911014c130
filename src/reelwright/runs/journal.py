"""Keeps the journal of a run, and makes the manifest from it.

A `Journal` belongs to one run. The runner reports facts to it and passes every event through it. For any end of the
run, `manifest` gives one complete record with exactly one final state.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .._version import __version__
from ..core.errors import Cancelled, VideoGenerationError
from ..core.events import Event, Log, Phase
from ..core.host import Host
from ..core.manifest import Attempt, Manifest
from ..core.plan import Plan
from ..core.request import Picture, VideoRequest
from ..policy import Diagnosis, Evidence, Next
from ..sites import Emit
from ..sites.local.execution import Reports

#: The distributions whose versions can change the pixels or the file.
_SHAPING = ("av", "numpy", "opencv-python-headless", "pillow")


class Journal:
    """The growing record of one run."""

    def __init__(self, run_id: str, request: VideoRequest, emit: Emit) -> None:
        self.run_id = run_id
        self.request = request
        self.attempts: list[Attempt] = []
        self.warnings: list[str] = []
        self.inputs: list[dict[str, Any]] = []
        self.plan: Plan | None = None
        self.host: Host | None = None
        self.output: Mapping[str, Any] | None = None
        self.facts: Mapping[str, Any] = {}
        self.metrics: Mapping[str, Any] | None = None
        self.degraded = False
        self._reports = Reports(emit)
        self._created_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._phase = ("preparing", self._started)
        self._phase_seconds: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Record an event and pass it on to the caller."""
        if isinstance(event, Phase):
            self._enter(event.name)
        self._reports(event)
        if self._reports.lost:
            self.warn(f"{self._reports.lost}; the run continued without reports")

    def _enter(self, phase: str) -> None:
        now = time.monotonic()
        name, since = self._phase
        self._phase_seconds[name] = self._phase_seconds.get(name, 0.0) + now - since
        self._phase = (phase, now)

    def warn(self, text: str) -> None:
        """Add a warning for the user, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def warn_at_once(self, text: str) -> None:
        """Add a warning and emit it now; each text is emitted once."""
        if text not in self.warnings:
            self.warn(text)
            self(Log(text, "warning"))

    def took(self, role: str, picture: Picture) -> None:
        """Record an input picture."""
        self.inputs.append(
            {
                "role": role,
                "path": str(picture.source),
                "sha256": picture.sha256,
                "width": picture.source_size.width,
                "height": picture.source_size.height,
                "notes": list(picture.notes),
            }
        )
        for note in picture.notes:
            self.warn(f"{picture.source.name}: {note}")

    def planned(self, plan: Plan) -> None:
        """Record the plan of the next attempt."""
        self.plan = plan
        for finding in plan.findings:
            if finding.severity == "warning":
                self.warn(finding.message)

    def ended(self, plan: Plan, evidence: Evidence, diagnosis: Diagnosis | None, step: Next | None) -> None:
        """Record how an attempt ended; ``step`` is the decision that led to it (``None`` for the first)."""
        outcome = "completed" if diagnosis is None else "failed"
        self.metrics, self.facts = _measured(plan, evidence), evidence.facts
        self.degraded = step is not None and step.degrades
        self.attempts.append(
            Attempt(
                number=len(self.attempts) + 1,
                outcome="cancelled" if evidence.kill_reason == "cancelled" else outcome,
                phase=evidence.phase,
                step=evidence.step,
                parameters=plan.to_json()["parameters"],
                seconds=round(evidence.wall_s, 3),
                phase_seconds={name: round(value, 3) for name, value in evidence.phase_seconds.items()},
                exit_status=evidence.exit_status,
                signal_number=evidence.signal_number,
                **_named(diagnosis, "cause", "message", "evidence"),
                **_named(step, "changed", "why", "helps", "skipped", "counts"),
                failure=diagnosis.failure.name if diagnosis else None,
            )
        )
        self._warn_of(evidence, accepted=diagnosis is None)

    def _warn_of(self, evidence: Evidence, *, accepted: bool) -> None:
        """Warn of faults in an attempt, even if it gave a clip."""
        ended = evidence.leftovers - len(evidence.unkillable)
        if ended > 0:
            self.warn(f"{ended} processes that the generator left behind were ended")
        if evidence.unkillable:
            pids = ", ".join(map(str, evidence.unkillable))
            self.warn(f"process {pids} cannot be ended (it waits in the kernel); its GPU stays reserved")
        if accepted and not evidence.ran_to_end:
            how = (
                f"by signal {evidence.signal_number}"
                if evidence.signal_number
                else f"with status {evidence.exit_status}"
            )
            self.warn(f"the generator ended {how}; its clip is complete and accept_valid_on_nonzero is set")

    def manifest(self, error: VideoGenerationError | None = None) -> Manifest:
        """The record of the run so far; ``error`` is the reason for its end without a clip."""
        self._enter("done")
        plan, host = self.plan, self.host
        state = "completed" if error is None else "cancelled" if isinstance(error, Cancelled) else "failed"
        return Manifest(
            run_id=self.run_id,
            reelwright=__version__,
            generator=plan.generator if plan else self.request.generator,
            task=self.request.task,
            generative=plan.generative if plan else False,
            state=state,
            created_at=self._created_at.isoformat(timespec="seconds"),
            requested=self.request.to_json(),
            effective=plan.to_json()["parameters"] if plan else {},
            seed=plan.parameters.get("seed") if plan else None,
            inputs=tuple(self.inputs),
            output=self.output,
            plan=plan.to_json() if plan else None,
            versions=_versions(),
            machine=_machine(host),
            phase_seconds={name: round(value, 3) for name, value in self._phase_seconds.items()},
            seconds=round(time.monotonic() - self._started, 3),
            attempts=tuple(self.attempts),
            degraded=self.degraded,
            warnings=tuple(self.warnings),
            metrics=self.metrics,
            error=error.to_json() if error else None,
            facts=dict(self.facts),
        )


def _named(value: Diagnosis | Next | None, *names: str) -> dict[str, Any]:
    """Some fields of a value; without a value, the record keeps its own defaults."""
    return {name: getattr(value, name) for name in names} if value else {}


def _measured(plan: Plan, evidence: Evidence) -> Mapping[str, Any] | None:
    """The monitor's measurements, with the times of loading, one step and one frame."""
    if evidence.metrics is None:
        return None
    phases, frames = evidence.phase_seconds, plan.parameters.get("num_frames")
    loading = sum(seconds for name, seconds in phases.items() if name.startswith("loading"))
    times = {
        "load_seconds": loading or None,
        "seconds_per_step": phases["denoising"] / evidence.step if evidence.step and "denoising" in phases else None,
        "seconds_per_frame": evidence.wall_s / frames if frames else None,
    }
    return {**evidence.metrics, **{name: value and round(value, 4) for name, value in times.items()}}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "reelwright": __version__}
    for name in _SHAPING:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine(host: Host | None) -> dict[str, Any]:
    if host is None:
        return {}
    gpus = [{"index": gpu.index, "name": gpu.name, "total_bytes": gpu.total_bytes} for gpu in host.gpus or ()]
    return {"cpu_count": host.cpu_count, "gpus": gpus, "simulated": host.simulated}
