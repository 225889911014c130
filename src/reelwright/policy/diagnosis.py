"""The diagnosis of a failed attempt from its evidence: ordered rules over a table of known texts (`texts`). Pure.

The order: Reelwright's own reason for ending it, the exceptions of tracebacks (the first failing rank's first), the
signal and the kernel's OOM counter, the video and the disk, the exit status. The rules match only exceptions and the
program's last lines. The user's prompt never reaches this module (`progress` drops it).
"""

from __future__ import annotations

import errno
import itertools
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from ..core.errors import Failure
from ..core.plan import Command, Plan
from . import Diagnosis, Evidence, ExceptionSeen
from . import texts as known
from .texts import SHM_SEGMENT_BYTES, SHM_SMALL_BYTES, KnownFailure

_LITTLE_BYTES = 32 * 1024 * 1024
_TRANSIENT = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_MAX_EVIDENCE = 12
_MAX_LAST_WORDS = 5
#: Exit statuses with which a shell or a handler reports a signal: 128 + its number.
_BY_SIGNAL = frozenset(128 + number for number in (1, 4, 6, 7, 8, 9, 11, 15))
_ASKED = "Something outside Reelwright asked it to end, such as a scheduler, earlyoom or a closed terminal."
_SIGNAL_ADVICE: Mapping[int, str] = {
    **dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), _ASKED),
    signal.SIGKILL: "Something outside Reelwright killed it; if `dmesg` names the OOM killer, add memory or use fewer GPUs.",
    signal.SIGFPE: "cuBLAS does this on cards that it does not know (HunyuanVideo's README): install nvidia-cublas-cu12 "
    "12.4.5.8 or newer in the framework's environment, or torch for CUDA 11.8.",
    **dict.fromkeys(
        (signal.SIGXCPU, signal.SIGXFSZ),
        "The run reached a limit of the shell or the scheduler: raise it (`ulimit -t`, `-f`).",
    ),
    signal.SIGILL: "A package was built for another processor than this one: install a build for this one.",
}
_MIB = 1024**2
_GIB = 1024**3
#: Lines of torchrun and NCCL that explain nothing; `progress` reads rank and status from them.
_BOILERPLATE = re.compile(
    r"[=\-]{10,}$|.*ChildFailedError|.*torch[/.]distributed[/.](?:elastic|run(?:\.py|:)|launcher)|Failures:$|\s*<NO_OTHER_FAILURES>"
    r"|Root Cause \(first observed failure\):$|\[\d+\]:$|\s+(?:time|host|rank|exitcode|error_file|traceback)\s+: "
    r"|.*destroy_process_group|.*Sending process \d+ closing signal|.*(?:resource_tracker|leaked semaphore)"
    r"|.*ProcessGroupNCCL.*(?:[Tt]o avoid data inconsistency|Watchdog thread terminated|destructor)"
    r"|.*\bNCCL (?:INFO\b|WARN .*\blib[\w-]+\.so)"  # NCCL looks for libraries that it does not need
)
_PREFIX = re.compile(r"^\[(?:rank|default)(\d+)\]:\s?")
_CHILD_FAILED = "torch.distributed.elastic.multiprocessing.errors"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def diagnose(evidence: Evidence, plan: Plan) -> Diagnosis:
    """Diagnose a failed attempt: the class of its failure, with the lines that prove it."""
    for rule in (_inline, _own_reason, _not_started, _from_texts, _from_signals, _from_output):
        found = rule(evidence, plan)
        if found:
            break
    else:
        found = _unknown(evidence)
    signature = _signature(evidence, plan)
    return replace(found, phase=found.phase or evidence.phase, sampling=_sampling(evidence), signature=signature)


def described(text: str) -> KnownFailure | None:
    """The row of the table that matches an exception's text; ``None`` if no row does."""
    rows = (known.OUT_OF_MEMORY, *known.KNOWN_FAILURES)
    return next((row for row in rows if _compiled(row.pattern).search(text)), None)


def _sampling(evidence: Evidence) -> bool:
    """Whether the failure happened while the steps were computed, including the first one."""
    done = evidence.total_steps and evidence.step >= evidence.total_steps
    return evidence.phase == "denoising" and not done


def _signature(evidence: Evidence, plan: Plan) -> str:
    """The exception and the place that raised it, without addresses, folders and counts, which differ from run to run.

    Without an exception, the last words and the step replace it.
    """
    texts = _failing(evidence)
    words = () if texts else _last_words(evidence, plan)
    if not texts and not words:
        return ""
    text, place = (texts[0].text, texts[0].place) if texts else (words[-1], f"step {evidence.step}")
    text = re.sub(r"/\S+|0x[0-9a-fA-F]+|\d+", "#", text.partition("\n")[0])
    return f"{text} @ {place}"


# ------------------------------------------------------------------------------------------------ rules, in order


def _inline(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    del plan
    error = evidence.error
    if error is None:
        return None
    row = described(error.message)
    cause = row.cause if row and row.failure is error.failure else ""
    return Diagnosis(error.failure, error.message, error.evidence, error.advice, cause=cause)


def _own_reason(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    del plan
    reason = evidence.kill_reason
    lines = _lines(evidence)[-3:]
    if evidence.unkillable:
        pids = ", ".join(map(str, evidence.unkillable))
        text = f"process {pids} cannot be ended (it waits in the kernel); its GPU stays reserved"
        return Diagnosis(Failure.HANG, text, lines, "Look at `dmesg`; a reboot may be needed.", cause="unkillable")
    if reason == "cancelled":
        return Diagnosis(Failure.CANCELLED, "stopped on request")
    where = _where(evidence)
    if reason == "timeout":
        text = f"the time limit was reached {where}, after {evidence.wall_s:.0f} s"
        return Diagnosis(Failure.TIMEOUT, text, lines, "Raise `timeout`, or use fewer steps.")
    if reason == "hang":
        text = f"no progress {where} for longer than the limit; it was ended"
        advice = "Run with NCCL_DEBUG=INFO if several GPUs were used; raise `progress_timeout` if it is just slow."
        return Diagnosis(Failure.HANG, text, lines, advice)
    return None


def _not_started(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    number = evidence.start_errno
    if number is None:
        return None
    program = plan.run.argv[0] if isinstance(plan.run, Command) else "the program"
    name = errno.errorcode.get(number, str(number))
    cause = "start-transient" if number in _TRANSIENT else "start"
    advice = "The machine is short of processes, memory or open files." if cause != "start" else "Check `python`."
    return Diagnosis(Failure.ENV, f"{program} could not be started ({name})", (), advice, "starting", cause)


def _from_texts(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    """Find a known text: in the exceptions, the first failing rank's first, then in the program's last words."""
    if evidence.ran_to_end or _ended_by(evidence) == signal.SIGKILL:  # it had survived its earlier messages
        return None
    texts = list(_texts(evidence, plan))
    for text in texts:
        if _compiled(known.OUT_OF_MEMORY.pattern).search(text.text):
            return _out_of_memory(evidence, text)
    own = plan.run.dialect.failures if isinstance(plan.run, Command) else ()
    rows = (*(KnownFailure(failure, "framework", *more) for failure, *more in own), *known.KNOWN_FAILURES)
    # A lost connection in the other ranks is only the consequence of a rank that failed or was killed. NCCL's own
    # watchdog ends its rank by SIGABRT, so that signal does not rule NCCL out.
    consequence = _killed_rank(evidence) not in (None, signal.SIGABRT)
    pairs = list(itertools.product(texts, (row for row in rows if row.failure is not Failure.NCCL)))
    if not consequence:  # NCCL's exception says little: a finer cause in any line comes first
        pairs += [(text, row) for row in rows if row.failure is Failure.NCCL for text in texts]
    for text, row in pairs:
        # Quoted source is no evidence, except for an assertion without a message, which has nothing else.
        proof = f"{text.text}\n{text.line}" if _is_bare_assertion(text) else text.text
        if _compiled(row.pattern).search(proof):
            return _known(evidence, row, text)
    return None


def _is_bare_assertion(seen: ExceptionSeen) -> bool:
    return seen.text.strip().removesuffix(":") == "AssertionError"


def _texts(evidence: Evidence, plan: Plan) -> Iterator[ExceptionSeen]:
    for error in evidence.rank_errors:
        if error.message:
            yield ExceptionSeen(error.message, rank=error.rank)
    yield from _failing(evidence)
    for line in evidence.tail:
        if re.match(
            r"\S*: error: |usage: |Fatal Python error|terminate called|\s*what\(\): |(?:Syntax|Indentation|Tab)Error: "
            r"|\[.*\] *NCCL|.*\bNCCL WARN |.*ProcessGroupNCCL|\S.*: No space",
            line,
        ) and not _BOILERPLATE.match(line):
            yield ExceptionSeen(line)
    if not _failing(evidence):
        yield from (ExceptionSeen(line) for line in reversed(_last_words(evidence, plan)))


def _last_words(evidence: Evidence, plan: Plan) -> tuple[str, ...]:
    """The lines after a failing program's last log record: a C extension raises no exception."""
    if _ended_by(evidence) not in (None, signal.SIGABRT):
        return ()
    record = plan.run.dialect.record if isinstance(plan.run, Command) else None
    after = itertools.takewhile(lambda line: not (record and re.match(record, line)), reversed(_lines(evidence)))
    return tuple(itertools.islice(after, _MAX_LAST_WORDS))[::-1]


def _failing(evidence: Evidence) -> list[ExceptionSeen]:
    """The exceptions, the likeliest cause first.

    Those of the first failing rank come first. The last traceback of a single process is the one that ended it; the
    ones before it were handled. In a chain of exceptions, the first is the cause.
    """
    own = [seen for seen in evidence.exceptions if not seen.text.startswith(_CHILD_FAILED)]
    first = evidence.rank_errors[0].rank if evidence.rank_errors else None
    ordered: list[ExceptionSeen] = []
    for rank in sorted({seen.rank for seen in own}, key=lambda rank: (rank != first, rank is None, rank or 0)):
        chains: list[list[ExceptionSeen]] = []
        for seen in (seen for seen in own if seen.rank == rank):
            if seen.chained and chains:
                chains[-1].append(seen)
            else:
                chains.append([seen])
        together = rank is None and bool(evidence.rank_errors)  # several ranks that the log does not distinguish
        ordered += itertools.chain.from_iterable(chains if together else reversed(chains))
    return ordered


def _killed_rank(evidence: Evidence) -> int | None:
    """The signal that ended the first failing rank; the messages of the other ranks are only a consequence."""
    for error in evidence.rank_errors:
        if error.exit_status is not None and error.exit_status < 0 and error.exit_status != -signal.SIGTERM:
            return -error.exit_status
        if error.exit_status is not None and error.exit_status >= 0:
            return None
    return None


def _ended_by(evidence: Evidence) -> int | None:
    """The signal that ended the command, or that its exit status reports."""
    number = evidence.signal_number or _killed_rank(evidence)
    if number is None and evidence.exit_status in _BY_SIGNAL:
        return (evidence.exit_status or 0) - 128
    return number


def _from_signals(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    del plan
    number = _ended_by(evidence)
    if number is None:
        return None
    name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
    where = _where(evidence)
    shortage = _shm_shortage(evidence) if number == signal.SIGBUS else ""
    if shortage:
        text = f"{shortage}: a process was ended by SIGBUS {where}"
        return Diagnosis(Failure.ENV, text, _lines(evidence), known.SHM_ADVICE, cause="shm")
    if number == signal.SIGKILL and evidence.oom_kills:
        text = f"the kernel ended a process {where} because the host's memory ran out"
        advice = "Use fewer GPUs (each rank loads the whole model), leave t5_cpu off, or add memory or swap."
        return Diagnosis(Failure.OOM_HOST, text, _lines(evidence), advice, cause="oom-killer")
    advice = _SIGNAL_ADVICE.get(
        number, "A driver, torch or an extension crashed: check that their versions fit; try another GPU."
    )
    return Diagnosis(Failure.CRASH, f"a process was ended by {name} {where}", _lines(evidence), advice, cause=name)


def _shm_shortage(evidence: Evidence) -> str:
    """The reason why /dev/shm is too small; empty if it is large enough or unknown."""
    free, total = evidence.shm_free_bytes, evidence.shm_total_bytes
    if free is not None and free < SHM_SEGMENT_BYTES:
        return f"shared memory (/dev/shm) is full, {free / _MIB:.0f} MiB are free"
    if total is not None and total <= SHM_SMALL_BYTES:
        return f"shared memory (/dev/shm) is small, {total / _MIB:.0f} MiB in all"
    return ""


def _from_output(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    """Diagnose a generator that reported success without a verified video."""
    del plan
    if not evidence.ran_to_end:
        return None
    problem = evidence.output_problem or "it wrote no video"
    if not evidence.output_exists:
        problem = "the generator exited with status 0 and wrote no video"
    lines = tuple(
        line for line in evidence.tail if re.search(r"failed|[Ee]rror|No space|too long|Unknown|Invalid", line)
    )[-4:]
    full = any("No space left" in line for line in evidence.tail)
    if full or (evidence.disk_free_bytes is not None and evidence.disk_free_bytes < _LITTLE_BYTES):
        text = f"{problem}: the disk is full"
        return Diagnosis(
            Failure.DISK, text, lines, "Free some space, then run the same command again.", "saving", "space"
        )
    if evidence.writer_problem:
        text = f"{problem}: {evidence.writer_problem}"
        advice = "The framework writes videos through imageio-ffmpeg: check it in the framework's environment."
        return Diagnosis(Failure.ENV, text, lines, advice, "saving", "writer")
    advice = "The framework hides its own error (it prints a misleading one); the log shows what it did."
    return Diagnosis(Failure.OUTPUT, problem, lines, advice, "saving")


def _unknown(evidence: Evidence) -> Diagnosis:
    # torchrun's own status is always 1; that of the first failing rank is in its summary.
    if (evidence.rank_errors[0] if evidence.rank_errors else evidence).exit_status == 2:
        advice = "The framework refused its options: the checkout may be another version. `reel doctor` shows which."
        return Diagnosis(
            Failure.CONFIG, "the framework printed its usage and exited", _lines(evidence), advice, "starting", "usage"
        )
    text = f"the framework failed {_where(evidence)} with exit status {evidence.exit_status}"
    seen = next(iter(_failing(evidence)), None)
    if seen is None:
        return Diagnosis(Failure.FRAMEWORK, text, _lines(evidence), "The log has the full output.")
    words = seen.text.partition("\n")[0][:300]
    if not seen.text.startswith("AssertionError"):
        return Diagnosis(Failure.FRAMEWORK, f"{text}: {words}", _evidence_of(seen), "The log has the full output.")
    shown = seen.line if _is_bare_assertion(seen) and seen.line else words
    advice = "The framework checks this itself and stopped; the line shows the condition that failed."
    return Diagnosis(Failure.FRAMEWORK, f"{text}: {shown}", _evidence_of(seen), advice, cause="assertion")


# -------------------------------------------------------------------------------------------------------- wording


def _where(evidence: Evidence) -> str:
    if evidence.phase == "denoising" and evidence.total_steps:
        return f"while denoising (step {evidence.step} of {evidence.total_steps})"
    return f"while {evidence.phase}"


def _out_of_memory(evidence: Evidence, seen: ExceptionSeen) -> Diagnosis:
    kinds = {"decoding": "vae", "denoising": "dit", "encoding": "encoder", "super resolution": "super resolution"}
    cause = kinds.get(evidence.phase, "load")
    rank = "" if seen.rank is None else f" on rank {seen.rank}"
    text = f"GPU memory ran out{rank} {_where(evidence)}"
    advice = known.MEMORY_ADVICE
    if cause == "vae":
        advice = "All steps were done; decoding the clip took more memory than was free. " + known.MEMORY_ADVICE
    others = _held_by_others(seen.text)
    before = evidence.planned_used_bytes
    crowded = others is not None and before is not None and others > before + _GIB // 2
    if crowded:
        text += f"; other programs hold {(others or 0) / _GIB:.1f} GiB of the card, more than when the run was planned"
    return Diagnosis(Failure.OOM_GPU, text, _evidence_of(seen), advice, cause=cause, crowded=crowded)


_CAPACITY = re.compile(r"total capacity of ([\d.]+) ([GM])iB of which ([\d.]+) ([GM])iB is free")
_PROCESS = re.compile(r"this process has ([\d.]+) ([GM])iB memory in use")


def _held_by_others(text: str) -> float | None:
    """The memory of a card that other programs hold, in bytes, from the message of torch's allocator.

    The message comes from c10/cuda/CUDACachingAllocator.cpp: capacity, free memory and this process's own memory.
    """
    card, own = _CAPACITY.search(text), _PROCESS.search(text)
    if card is None or own is None:
        return None
    size, free, mine = (
        float(number) * (_GIB if unit == "G" else _MIB)
        for number, unit in ((card[1], card[2]), (card[3], card[4]), (own[1], own[2]))
    )
    return max(0.0, size - free - mine)


def _known(evidence: Evidence, row: KnownFailure, seen: ExceptionSeen) -> Diagnosis:
    text = seen.text.strip().partition("\n")[0] or row.cause
    if _is_bare_assertion(seen):
        text = f"{row.cause}: {seen.line or text}"
    rank = "" if seen.rank is None else f"rank {seen.rank}: "
    message = f"{rank}{text[:300]} ({_where(evidence)})"
    return Diagnosis(row.failure, message, _evidence_of(seen), row.advice, cause=row.cause)


def _evidence_of(seen: ExceptionSeen) -> tuple[str, ...]:
    """The lines of an exception's message; for an assertion without a message, its source line as well."""
    lines = [line[:600] for line in seen.text.strip().splitlines() if line.strip()]
    lines = [*lines[:1], *(line for line in lines[1:] if not _BOILERPLATE.match(line))][:_MAX_EVIDENCE]
    return (*lines, seen.line) if _is_bare_assertion(seen) and seen.line else tuple(lines)


def _lines(evidence: Evidence) -> tuple[str, ...]:
    """The framework's own last words: those of the first failing rank, if the log distinguishes ranks."""
    own = [line for line in _without_frames(evidence.tail) if not _BOILERPLATE.match(_PREFIX.sub("", line))]
    first = evidence.rank_errors[0].rank if evidence.rank_errors else None
    mine = [line for line in own if (found := _PREFIX.match(line)) and int(found[1]) == first]
    return tuple((mine or own or list(evidence.tail))[-_MAX_EVIDENCE:])


def _without_frames(tail: Sequence[str]) -> Iterator[str]:
    """The lines without the frames of tracebacks, up to torchrun's own traceback, which ends its log."""
    inside: set[str] = set()
    for place, line in enumerate(tail):
        rank = ((found := _PREFIX.match(line)) and found[1]) or ""
        text = _PREFIX.sub("", line)
        if text.startswith("Traceback "):
            if any("torch/distributed/run" in frame or "torchrun" in frame for frame in tail[place + 1 : place + 8]):
                return
            inside.add(rank)
        elif rank not in inside or not text.startswith(" "):
            inside.discard(rank)
            yield line
