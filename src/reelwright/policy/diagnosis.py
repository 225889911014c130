"""What went wrong, from the evidence of an attempt. Pure: a table of texts, each with its source, and an order.

The order: our own reason for ending it, the signal and the kernel's OOM counter, per-rank errors (the first failing
rank), the exceptions of tracebacks, the film and the disk, the exit status. Only exception lines and the program's
own last words are matched: the user's prompt never reaches this module (`progress` drops it).
"""

from __future__ import annotations

import errno
import itertools
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ..errors import Failure
from ..plan import Command, Plan
from . import GPU_FAULT, Diagnosis, Evidence, ExceptionSeen

_LITTLE_BYTES = 32 * 1024 * 1024
_TRANSIENT = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_MAX_EVIDENCE = 12
#: Exit statuses by which a shell or a handler reports a signal: 128 + its number.
_BY_SIGNAL = frozenset(128 + number for number in (1, 4, 6, 7, 8, 9, 11, 15))
_DOWNLOAD = "Download the named file again; `reel doctor` checks the whole folder in a second."
_MEMORY_ADVICE = (
    "Use a smaller --size, fewer --frames or more --gpus (with FSDP), or let a retry do it: --allow-degrade "
    "frames,size. Fewer steps and a lower guidance scale do not change peak memory, and fewer GPUs raise it."
)


@dataclass(frozen=True)
class Row:
    """One known failure: its class, a finer cause, the texts that prove it and what the user can do."""

    failure: Failure
    cause: str
    pattern: str
    advice: str


#: GPU memory outranks everything: one rank's out-of-memory surfaces as NCCL timeouts in the others.
_OOM = Row(
    Failure.OOM_GPU,
    "",
    r"(?:torch\.|torch\.cuda\.)?OutOfMemoryError: |CUDA out of memory|CUDA error: out of memory|HIP out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED",
    _MEMORY_ADVICE,
)
#: In this order; texts from issue threads of the frameworks and from runs of the real code.
_ROWS = (
    Row(Failure.CRASH, GPU_FAULT,
        r"CUDA error: (?:an illegal memory access|unspecified launch failure|device-side assert|uncorrectable)"
        r"|uncorrectable ECC error|\bXid\b.*\d|GPU has fallen off the bus|device-side assert triggered",
        "The GPU or its driver failed. Look at `dmesg` for Xid lines; try another card; update the driver."),
    Row(Failure.ENV, "flash-attn",
        r"FLASH_ATTN_2_AVAILABLE|FLASH_ATTN_3_AVAILABLE|No module named 'flash_attn|flash_attn.*undefined symbol"
        r"|undefined symbol.*flash_attn",
        "Install a flash-attn wheel that fits this torch, CUDA and Python, or set `attention: sdpa`."),
    Row(Failure.ENV, "xfuser",
        r"No module named 'xfuser|requires xfuser package|not use the latest yunchang|Attempted to reuse key: 'SAGE_FP16"
        r"|No module named 'torch\.distributed\.tensor\.experimental'|No module named 'yunchang|this xfuser cannot compute",
        "Several GPUs need xfuser in a version that fits this torch: install it, or use one GPU."),
    Row(Failure.ENV, "launcher", r"^(?:wan21|hunyuan)\.py: error: ",  # launchers/: a refusal before anything is loaded
        "The checkout is not as this version of Reelwright knows it; `reel doctor` tells what it is."),
    Row(Failure.ENV, "no-gpu",
        r"Found no NVIDIA driver|Torch not compiled with CUDA enabled|no CUDA GPUs are available|[Nn]o CUDA-capable device"
        r"|invalid device ordinal|CUDA driver version is insufficient|CUDA unknown error",
        "`reel doctor` tells what the driver and the framework's torch see."),
    Row(Failure.MODEL, "corrupt",
        r"Error while deserializing header|HeaderTooLarge|HeaderTooSmall|InvalidHeaderDeserialization"
        r"|MetadataIncompleteBuffer|incomplete metadata|header too large|PytorchStreamReader failed"
        r"|invalid load key|UnpicklingError|^EOFError|Error\(s\) in loading state_dict|size mismatch for |unexpected EOF, expected|checkpoint.*corrupt",
        _DOWNLOAD),
    Row(Failure.MODEL, "missing",
        r"No such file or directory: .*(?:models_t5|models_clip|VAE|\.pth|\.pt|\.safetensors|config\.json|tokenizer|ckpt)"
        r"|does not appear to have (?:a file|files) named|model_path not exists|`models_root` not exists|VAE checkpoint not found|Error no file named|HFValidationError"
        r"|(?:Incorrect path_or_model_id|is not a local folder and is not a valid model|outgoing traffic has been disabled)"
        r"|LocalEntryNotFoundError|(?:couldn't|can't) (?:connect to|load) .*(?:huggingface|tokenizer)",
        "The folder of weights is not complete, or it is a -Diffusers download. `reel doctor` names what is missing."),
    Row(Failure.INPUT, "image",
        r"UnidentifiedImageError|No such file or directory: .*\.(?:png|PNG|jpe?g|JPE?G|webp)\b|cannot identify image file|image file is truncated|DecompressionBombError",
        "Give a JPEG, PNG or WebP picture that other programs can open."),
    Row(Failure.CRASH, "signal", r"SignalException: Process \d+ got signal|^KeyboardInterrupt",
        "Somebody sent the framework a signal; Reelwright did not."),
    Row(Failure.PORT, "port",
        r"EADDRINUSE|[Aa]ddress already in use|server socket has failed to listen",
        "Another program took the port between choosing and using it."),
    Row(Failure.CONFIG, "arguments",
        r"error: argument |error: unrecognized arguments|error: the following arguments|error: ambiguous option"
        r"|Unsupport size|Unsupport task|Unsupport frame_num|cannot be divided evenly|should be equal to the world size"
        r"|not supported in non-distributed environments|Please specify the checkpoint directory"
        r"|number of GPUs should be equal|Cannot enable use_cpu_offload in the distributed|Invalid Head size",
        "The framework refused the options: the checkout may be of another version. `reel doctor` tells what it is."),
    Row(Failure.CONFIG, "shape",
        r"Sizes of tensors must match except in dimension 0\. Expected size 21|is invalid for input of size"
        r"|Cannot split video sequence|must be a multiple of 4|Please set ALLOW_RESIZE_FOR_SP",
        "This number of frames or size does not fit the model or the number of GPUs."),
    Row(Failure.DISK, "space", r"No space left on device|ENOSPC|Disk quota exceeded",
        "Free some space, then run the same command again."),
    Row(Failure.OOM_HOST, "allocation", r"DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|MemoryError",
        "Host memory ran out: use fewer GPUs (each rank loads the whole model) or add memory or swap."),
    Row(Failure.ENV, "import", r"ModuleNotFoundError: No module named|ImportError: |undefined symbol",
        "The framework's environment is not complete: install its requirements, or set `python` to the right interpreter."),
    Row(Failure.NCCL, "nccl",
        r"Watchdog caught collective operation timeout|DistBackendError|NCCL [Ee]rror|unhandled (?:cuda|system) error"
        r"|ncclInternalError|ncclSystemError|ncclUnhandledCudaError|Connection closed by peer|DistNetworkError|DistStoreError",
        "Communication between the GPUs failed. Run with NCCL_DEBUG=INFO; allow nccl_p2p_retry; or use one GPU."),
)  # fmt: skip


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def diagnose(evidence: Evidence, plan: Plan) -> Diagnosis:
    """The class of a failed attempt, with the lines that prove it."""
    for rule in (_inline, _own_reason, _not_started, _from_texts, _from_signals, _from_film):
        found = rule(evidence, plan)
        if found:
            return found
    return _unknown(evidence)


# ------------------------------------------------------------------------------------------------ rules, in order


def _inline(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    del plan
    error = evidence.error
    if error is None:
        return None
    return Diagnosis(error.failure, error.message, error.evidence, error.advice, evidence.phase)


def _own_reason(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    del plan
    reason, phase = evidence.kill_reason, evidence.phase
    lines = tuple(evidence.tail[-3:])
    if evidence.unkillable:
        pids = ", ".join(map(str, evidence.unkillable))
        text = f"process {pids} cannot be ended (it waits in the kernel); its GPU stays reserved"
        return Diagnosis(Failure.HANG, text, lines, "Look at `dmesg`; a reboot may be needed.", phase, "unkillable")
    if reason == "cancelled":
        return Diagnosis(Failure.CANCELLED, "stopped on request", (), "", phase)
    where = _where(evidence)
    if reason == "timeout":
        text = f"the time limit was reached {where}, after {evidence.wall_s:.0f} s"
        return Diagnosis(Failure.TIMEOUT, text, lines, "Raise `timeout`, or ask for fewer steps.", phase)
    if reason == "hang":
        text = f"no progress {where} for longer than the limit; it was ended"
        advice = "Run with NCCL_DEBUG=INFO if several GPUs were used; raise `progress_timeout` if it is only slow."
        return Diagnosis(Failure.HANG, text, lines, advice, phase)
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
    """Exceptions first, the first failing rank's before the others'; then the program's last words."""
    if evidence.ran_to_end:
        return None
    texts = list(_texts(evidence))
    for text in texts:
        if _compiled(_OOM.pattern).search(text.text):
            return _out_of_memory(evidence, text)
    own = plan.run.dialect.failures if isinstance(plan.run, Command) else ()
    rows = (*(Row(failure, "framework", pattern, advice) for failure, pattern, advice in own), *_ROWS)
    # What the others say of a lost connection is only the consequence of a rank that failed or was killed. NCCL's own
    # watchdog ends its rank by SIGABRT, so that signal proves nothing against it.
    consequence = _killed_rank(evidence) not in (None, signal.SIGABRT)
    secondary = [] if consequence else [row for row in rows if row.failure is Failure.NCCL]
    for group in ([row for row in rows if row.failure is not Failure.NCCL], secondary):
        for text, row in itertools.product(texts, group):
            if any(_compiled(row.pattern).search(part) for part in (text.text, text.where)):
                return _told(evidence, row, text)
    return None


def _texts(evidence: Evidence) -> Iterator[ExceptionSeen]:
    first = evidence.rank_errors[0].rank if evidence.rank_errors else None
    for error in evidence.rank_errors:
        if error.message:
            yield ExceptionSeen(error.message, rank=error.rank)
    yield from sorted(evidence.exceptions, key=lambda seen: seen.rank != first)
    for line in evidence.tail:
        if re.match(
            r"\S*: error: |usage: |Fatal Python error|terminate called|\[.*\] *NCCL|.*ProcessGroupNCCL|.*: No space",
            line,
        ):
            yield ExceptionSeen(line)


def _killed_rank(evidence: Evidence) -> int | None:
    """The signal that took the first failing rank; what the other ranks then said is only a consequence."""
    for error in evidence.rank_errors:
        if error.exit_status is not None and error.exit_status < 0 and error.exit_status != -signal.SIGTERM:
            return -error.exit_status
        if error.exit_status is not None and error.exit_status >= 0:
            return None
    return None


def _from_signals(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    del plan
    number = evidence.signal_number or _killed_rank(evidence)
    if number is None and evidence.exit_status is not None and evidence.exit_status in _BY_SIGNAL:
        number = evidence.exit_status - 128
    if number is None:
        return None
    name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
    where = _where(evidence)
    if number == signal.SIGKILL and evidence.oom_kills:
        text = f"the kernel ended a process {where} because the host's memory ran out"
        advice = "Use fewer GPUs (each rank loads the whole model), leave t5_cpu off, or add memory or swap."
        return Diagnosis(Failure.OOM_HOST, text, _lines(evidence), advice, evidence.phase, "oom-killer")
    advice = "Somebody or something killed it; if `dmesg` tells of the OOM killer, add memory or use fewer GPUs."
    if number != signal.SIGKILL:
        advice = "A driver, torch or an extension crashed: check that their versions fit; try another GPU."
    return Diagnosis(
        Failure.CRASH, f"a process was ended by {name} {where}", _lines(evidence), advice, evidence.phase, name
    )


def _from_film(evidence: Evidence, plan: Plan) -> Diagnosis | None:
    """The generator said that all is well, and there is no good film."""
    del plan
    if not evidence.ran_to_end:
        return None
    problem = evidence.output_problem or "it wrote no film"
    if not evidence.output_exists:
        problem = "the generator ended with success and wrote no film"
    lines = tuple(line for line in evidence.tail if re.search(r"failed|[Ee]rror|No space|too long", line))[-4:]
    full = any("No space left" in line for line in evidence.tail)
    if full or (evidence.disk_free_bytes is not None and evidence.disk_free_bytes < _LITTLE_BYTES):
        text = f"{problem}: the disk is full"
        return Diagnosis(
            Failure.DISK, text, lines, "Free some space, then run the same command again.", "saving", "space"
        )
    if evidence.writer_problem:
        text = f"{problem}: {evidence.writer_problem}"
        advice = "The framework writes films through imageio-ffmpeg: check it in the framework's environment."
        return Diagnosis(Failure.ENV, text, lines, advice, "saving", "writer")
    advice = "The framework hides its own error (it prints a misleading one); the log tells what it did."
    return Diagnosis(Failure.OUTPUT, problem, lines, advice, "saving")


def _unknown(evidence: Evidence) -> Diagnosis:
    status = _usage_status(evidence)
    if status == 2:
        advice = "The framework refused its options: the checkout may be of another version."
        return Diagnosis(
            Failure.CONFIG, "the framework printed its usage and ended", _lines(evidence), advice, "starting", "usage"
        )
    text = f"the framework failed {_where(evidence)} with exit status {evidence.exit_status}"
    if evidence.exceptions:
        text += f": {evidence.exceptions[0].text[:200]}"
    return Diagnosis(Failure.FRAMEWORK, text, _lines(evidence), "The log has the whole story.", evidence.phase)


# -------------------------------------------------------------------------------------------------------- wording


def _usage_status(evidence: Evidence) -> int | None:
    """The exit status that counts: torchrun's own is always 1, the first failing rank's is in its summary."""
    return evidence.rank_errors[0].exit_status if evidence.rank_errors else evidence.exit_status


def _where(evidence: Evidence) -> str:
    if evidence.phase == "denoising" and evidence.total_steps:
        return f"while denoising (step {evidence.step} of {evidence.total_steps})"
    return f"while {evidence.phase}"


def _out_of_memory(evidence: Evidence, seen: ExceptionSeen) -> Diagnosis:
    kinds = {"decoding": "vae", "denoising": "dit", "encoding": "encoder", "super resolution": "super resolution"}
    cause = kinds.get(evidence.phase, "load")
    rank = "" if seen.rank is None else f" on rank {seen.rank}"
    text = f"GPU memory ran out{rank} {_where(evidence)}"
    advice = _MEMORY_ADVICE
    if cause == "vae":
        advice = "All steps were done; decoding the film took more memory than is free. " + _MEMORY_ADVICE
    return Diagnosis(Failure.OOM_GPU, text, (seen.text[:600],), advice, evidence.phase, cause)


def _told(evidence: Evidence, row: Row, seen: ExceptionSeen) -> Diagnosis:
    text = seen.text.strip() or row.cause
    if text in ("AssertionError", "AssertionError:"):
        text = f"{row.cause}: {seen.where.splitlines()[-1].strip() if seen.where else text}"
    rank = "" if seen.rank is None else f"rank {seen.rank}: "
    message = f"{rank}{text[:300]} ({_where(evidence)})"
    return Diagnosis(row.failure, message, (text[:600],), row.advice, evidence.phase, row.cause)


def _lines(evidence: Evidence) -> tuple[str, ...]:
    return tuple(evidence.tail[-_MAX_EVIDENCE:])
