"""The decision after a failure: another attempt with some overrides, or stop. Pure; tested as tables.

Policies: ``ladder`` (the default), ``classified`` (only changes that help against the class of the failure),
``documented`` (the requirement's ladder, also against a lack of memory) and ``none``. Overrides are always computed
from the ORIGINAL parameters; the seed never changes.

Rules for lowering quality:

- Steps and guidance are lowered for a time limit, and for an unknown failure between the first and the last step that
  is not the same one twice. Before the first step and after the last one they cannot be the cause.
- A lack of GPU memory uses the memory mitigations that the plan offers, step by step. Steps and guidance do not change
  peak memory (the same forward pass runs fewer times; guidance is a scalar), so only ``documented`` lowers them here.
- A failure with a known cause that no smaller job can cure stops at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config.settings import Settings
from ..core.errors import Failure, Retry
from ..core.plan import Mitigation, Plan
from . import Diagnosis, Next, Stop

LADDER_STEPS = 3
#: The cost of a memory mitigation -> the kind of step that uses it.
_KINDS = {"nothing": "free", "time": "free"}
#: The order in which each policy uses the kinds of memory mitigations; those that cost precision come with frames.
_DOCUMENTED_ORDER = ("free", "frames", "size")
_ORDER = ("free", "gpus", "frames", "size")
_MAX_PORT_RETRIES = 3
#: A machine out of processes, memory or open files has often recovered after some seconds.
RESOURCE_PAUSE_S = 5.0
_BEFORE_STEPS = ("starting", "encoding", "loading")
_QUALITY = ("steps", "guidance_scale", "num_frames", "size", "cfg_scale", "use_fp8")


@dataclass(frozen=True)
class RetryRules:
    """The user's rules for retries.

    Attributes:
        policy: ``ladder``, ``classified``, ``documented`` or ``none``.
        max_retries: The number of counted attempts after the first.
        budget_s: The seconds after which no further attempt starts.
        strict_quality: Whether every loss of quality is forbidden.
        allow_degrade: ``frames`` and ``size``: the values that a lack of memory may lower.
        nccl_p2p: Whether one try with NCCL_P2P_DISABLE=1 is allowed.
        fixed_gpus: Whether the user set the number of GPUs; ``ladder`` then takes no more of them.
    """

    policy: str = "ladder"
    max_retries: int = 3
    budget_s: float | None = None
    strict_quality: bool = False
    allow_degrade: frozenset[str] = frozenset()
    nccl_p2p: bool = False
    fixed_gpus: bool = False


def rules(settings: Settings) -> RetryRules:
    """The rules in the settings."""
    return RetryRules(
        policy=settings.retry_policy,
        max_retries=settings.chaining_max_retries,
        budget_s=settings.retry_budget_s,
        strict_quality=settings.strict_quality,
        allow_degrade=frozenset(settings.allow_degrade),
        nccl_p2p=settings.nccl_p2p_retry,
        fixed_gpus=bool(settings.gpu_count),
    )


@dataclass(frozen=True)
class Past:
    """A failed attempt and the decision that led to it (none for the first)."""

    diagnosis: Diagnosis
    wall_s: float = 0.0
    step: Next | None = None

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The overrides of that attempt."""
        return self.step.overrides if self.step else {}


@dataclass(frozen=True)
class _Case:
    """The inputs of a decision."""

    rules: RetryRules
    plan: Plan
    past: Sequence[Past]

    @property
    def alike(self) -> int:
        """The number of failures of this class so far."""
        return sum(item.diagnosis.failure is self.found.failure for item in self.past)

    @property
    def found(self) -> Diagnosis:
        return self.past[-1].diagnosis

    @property
    def last_step(self) -> int:
        return max((item.step.ladder_step for item in self.past if item.step), default=0)

    @property
    def current(self) -> dict[str, Any]:
        return dict(self.past[-1].overrides)


def decide(rules: RetryRules, original: Plan, past: Sequence[Past]) -> Next | Stop:
    """Choose the next attempt after the failures so far (the last one is the newest), or stop with a reason."""
    case = _Case(rules, original, past)
    decision = _resident(case) or _decide(case)
    if isinstance(decision, Stop):
        return decision
    decision = replace(decision, why=", ".join((decision.why, *decision.changed)))
    if not decision.counts:
        return decision
    retries = sum(1 for item in past if item.step and item.step.counts)
    if retries >= rules.max_retries:
        return Stop(f"All {rules.max_retries} retries are used.")
    spent = sum(item.wall_s for item in past)
    if rules.budget_s is not None and spent >= rules.budget_s:
        return Stop(f"The retry budget of {rules.budget_s:g} s is spent ({spent:.0f} s).")
    return decision


def _resident(case: _Case) -> Stop | None:
    """Stop at once if the engine itself has already tried everything that another attempt would try."""
    why = {
        Failure.OOM_GPU: "The engine has tried every placement of its weights.",
        Failure.FRAMEWORK: "The engine would fail the same way again.",
    }.get(case.found.failure)
    return Stop(why) if case.plan.stays_warm and why else None


def _decide(case: _Case) -> Next | Stop:
    failure = case.found.failure
    if case.rules.policy == "none":
        return Stop("Retries are switched off (retry_policy: none).")
    if failure is Failure.ENV and case.found.cause == "start-transient":
        why = "starting a process failed because resources ran out; once more after a pause"
        return _same_once(case, why, pause_s=RESOURCE_PAUSE_S)
    special = {Failure.OOM_GPU: _memory, Failure.NCCL: _nccl, Failure.PORT: _port, Failure.HANG: _hang}
    if failure in special:
        return special[failure](case)
    if failure.retry is Retry.SAME:
        return _same_once(
            case, "a crash may be a temporary fault; once more, on other GPUs if there are any", other_gpus=True
        )
    if failure.retry is Retry.LADDER:
        return _ladder_case(case)
    return Stop("A retry would not help.")


# ------------------------------------------------------------------------------------- the same parameters again


def _same_once(case: _Case, why: str, **more: Any) -> Next | Stop:
    return Stop("It failed the same way twice.") if case.alike > 1 else _again(case, why, **more)


def _again(case: _Case, why: str, **more: Any) -> Next:
    """The same parameters once more; ``more`` are fields of `Next`."""
    before = case.past[-1].step or Next({}, (), "")
    degrades = _degrades(case.current, case.plan)
    return Next(case.current, before.changed, why, before.helps, degrades=degrades, ladder_step=case.last_step, **more)


def _nccl(case: _Case) -> Next | Stop:
    unreachable = case.found.cause == "peer-access"
    if case.alike == (1 if unreachable else 2) and case.rules.nccl_p2p:
        return _again(case, "once without peer-to-peer between the GPUs", env={"NCCL_P2P_DISABLE": "1"})
    if unreachable:
        return Stop("The same cards would fail the same way.")
    return _same_once(case, "communication between GPUs failed; once more in fresh processes on a new port")


def _port(case: _Case) -> Next | Stop:
    if case.alike > _MAX_PORT_RETRIES:
        return Stop("No free port was found.")
    return _again(case, "the rendezvous port was taken; a new one (this does not count as a retry)", counts=False)


def _hang(case: _Case) -> Next | Stop:
    if case.found.cause == "unkillable":
        return Stop("The GPU stays busy until that process ends.")
    if not case.found.phase.startswith(_BEFORE_STEPS):
        return Stop("It hung after sampling began; another attempt would cost as much again.")
    return _same_once(case, "it hung before the first step; once more")


# ------------------------------------------------------------------------------------------------------ the ladder


def _ladder_case(case: _Case) -> Next | Stop:
    """Decide after a missing or damaged video, a time limit, or a failure of an unknown cause."""
    if case.found.failure is Failure.OUTPUT:
        # The steps were done and the writer failed: the writer is broken, not the picture.
        return _same_once(case, "the video was missing or damaged; once more with the same parameters")
    if case.found.failure is Failure.TIMEOUT:
        return _time_limit(case)
    return _unknown_cause(case)


def _time_limit(case: _Case) -> Next | Stop:
    if case.found.phase.startswith(_BEFORE_STEPS):
        return Stop("The limit was reached before the first step: fewer steps cannot help. Raise `timeout`.")
    if case.found.phase not in ("denoising", ""):
        return Stop("All steps were done when the limit was reached. Raise `timeout`.")
    return _lower(case)


def _unknown_cause(case: _Case) -> Next | Stop:
    if case.found.cause == "assertion":
        return Stop("The framework refuses these values and would refuse them again.")
    if _is_same_failure(case):
        return Stop("It failed the same way twice, at the same place.")
    ladder = case.rules.policy in ("ladder", "documented") and case.found.sampling
    if case.alike == 1 and not (ladder and case.rules.policy == "documented"):
        return _again(case, "the cause is unknown; once more with the same parameters")
    if not ladder:
        return Stop("It failed the same way twice; fewer steps or a lower guidance scale would not help.")
    return _lower(case)


def _is_same_failure(case: _Case) -> bool:
    """Whether an earlier attempt raised the same exception at the same place."""
    signature = case.found.signature
    return bool(signature) and any(item.diagnosis.signature == signature for item in case.past[:-1])


def _lower(case: _Case) -> Next | Stop:
    """Choose the next step of the ladder that changes something."""
    if case.rules.strict_quality:
        return Stop("Only lower quality could help, and --strict-quality forbids it.")
    skipped: list[str] = []
    for step in range(case.last_step + 1, LADDER_STEPS + 1):
        overrides = {**_memory_overrides(case), **quality_step(step, case.plan.parameters)}
        if overrides != _memory_overrides(case):
            return _next(case, step, overrides, "a smaller job may succeed", skipped)
        skipped.append(f"step {step} would change nothing")
    return Stop("No step of the retry ladder is left.")


def quality_step(step: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of step 1, 2 or 3 of the ladder to the original parameters; empty if it changes nothing.

    1: three quarters of the steps, rounded down (the parser refuses 37.5). 2: guidance at most 5.0 (never raised). 3:
    at most 25 steps and guidance 3.0.
    """
    steps, guidance = parameters.get("steps"), parameters.get("guidance_scale")
    wanted: dict[str, Any] = {}
    if step in (1, 3) and steps is not None:
        wanted["steps"] = max(1, math.floor(0.75 * steps)) if step == 1 else min(steps, 25)
    if step in (2, 3) and guidance is not None:
        wanted["guidance_scale"] = min(guidance, 5.0 if step == 2 else 3.0)
    return {name: value for name, value in wanted.items() if value != parameters.get(name)}


# --------------------------------------------------------------------------------------------------------- memory


def _memory(case: _Case) -> Next | Stop:
    """Choose the next memory mitigations; ``documented`` adds the ladder's own change.

    If decoding ran out of memory, all steps were done (Wan2.2#90): fewer steps would only cost quality (P02).
    """
    documented = case.rules.policy == "documented" and case.found.sampling
    held = {**case.plan.parameters, **case.current}
    skipped: list[str] = []
    for step in range(case.last_step + 1, len(_ORDER) + 1):
        mitigations = [item for item in _mitigations_of(step, case) if not item.overrides.items() <= held.items()]
        if not mitigations:
            skipped.append(f"memory step {step} has nothing left to change")
            continue
        overrides = _memory_overrides(case)
        for mitigation in mitigations:
            overrides |= mitigation.overrides
        if documented and not case.rules.strict_quality:
            overrides = {**quality_step(step, case.plan.parameters), **overrides}
        why = "; ".join(mitigation.why for mitigation in mitigations)
        return _next(case, step, overrides, why, skipped)
    if case.found.crowded and not any(item.diagnosis.crowded for item in case.past[:-1]):
        return _again(case, "the card had less free memory than planned; once more with the same parameters")
    return Stop("No permitted memory mitigation is left. " + _would_help(case))


def _mitigations_of(step: int, case: _Case) -> Iterator[Mitigation]:
    """The mitigations of a step: all without a cost in quality; then more GPUs; then frames and size, if allowed.

    Mitigations that cost precision (fp8 weights) come with the frames. Only ``documented`` uses one that costs
    guidance. --strict-quality forbids both.
    """
    rules = case.rules
    order = _DOCUMENTED_ORDER if rules.policy == "documented" else _ORDER
    kind = order[step - 1] if step <= len(order) else ""
    if kind == "gpus" and rules.policy == "ladder" and rules.fixed_gpus:
        return
    allowed = frozenset() if rules.strict_quality else rules.allow_degrade
    for mitigation in case.plan.mitigations:
        mine = "gpus" if mitigation.name == "more_gpus" else _KINDS.get(mitigation.costs, mitigation.costs)
        if mine in ("precision", "guidance"):
            forbidden = rules.strict_quality or (mine == "guidance" and rules.policy != "documented")
            if kind == "frames" and not forbidden:
                yield mitigation
        elif mine == kind and (kind not in ("frames", "size") or kind in allowed):
            yield mitigation
            if kind in ("gpus", "frames", "size"):
                return


def _memory_overrides(case: _Case) -> dict[str, Any]:
    """The overrides of mitigations that an earlier attempt used; the ladder's own values are computed again."""
    names = _of_mitigations(case)
    return {name: value for name, value in case.current.items() if name in names}


def _of_mitigations(case: _Case) -> set[str]:
    """The parameters that the plan's mitigations change."""
    return {name for mitigation in case.plan.mitigations for name in mitigation.overrides}


def _would_help(case: _Case) -> str:
    costly = {mitigation.costs for mitigation in case.plan.mitigations} & {"frames", "size"} - case.rules.allow_degrade
    hints = [f"--allow-degrade {','.join(sorted(costly))}"] if costly and not case.rules.strict_quality else []
    if any(mitigation.name == "more_gpus" for mitigation in case.plan.mitigations):
        hints.append("more GPUs (--gpus)")
    hints.append("a smaller --size, fewer --frames or a larger card")
    return f"What would help: {', or '.join(hints)}. Fewer steps and lower guidance do not change peak memory."


# ----------------------------------------------------------------------------------------------------- the result


def _next(case: _Case, step: int, overrides: Mapping[str, Any], why: str, skipped: Sequence[str]) -> Next:
    changed = {name: value for name, value in overrides.items() if case.plan.parameters.get(name) != value}
    memory = _of_mitigations(case)
    helps = tuple("memory" if name in memory else "time" if name == "steps" else "none" for name in changed)
    return Next(
        overrides,
        tuple(f"{name} {case.plan.parameters.get(name)} -> {value}" for name, value in changed.items()),
        why,
        helps,
        degrades=_degrades(overrides, case.plan),
        skipped=tuple(skipped),
        ladder_step=step,
    )


def _degrades(overrides: Mapping[str, Any], plan: Plan) -> bool:
    return any(name in overrides and overrides[name] != plan.parameters.get(name) for name in _QUALITY)
