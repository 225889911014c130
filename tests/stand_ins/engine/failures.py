"""Reproduces the real texts of failures, as exceptions or as bytes on the streams.

The texts come from the sources of torch and NCCL and from the logs under tests/logs. The exception classes
have torch's module name, because a traceback shows it and torch itself is not installed.

    >>> str(out_of_memory(0)).startswith("CUDA out of memory. Tried to allocate")
    True
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import traceback
from datetime import datetime
from typing import Any, NoReturn

_MB = 1_000_000


def _class_of(module: str, name: str) -> type[RuntimeError]:
    return type(name, (RuntimeError,), {"__module__": module})


OutOfMemoryError = _class_of("torch", "OutOfMemoryError")
AcceleratorError = _class_of("torch", "AcceleratorError")
DistBackendError = _class_of("torch.distributed", "DistBackendError")
DistNetworkError = _class_of("torch.distributed", "DistNetworkError")

_ASYNCHRONOUS = (
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below "
    "might be incorrect.\n"
    "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)
_BUSY_PORT = (
    "The server socket has failed to listen on any local network address. port: {port}, useIpv6: false, "
    "code: -98, "
    "name: EADDRINUSE, message: address already in use"
)
_NCCL_INIT = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled system error (run with "
    "NCCL_DEBUG=INFO for details), NCCL version 2.27.5\n"
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error. \n"
    "Last error:\nsocketPollConnect: Connect to 127.0.0.1<40235> returned 111(Connection refused) errno "
    "115(Operation now in progress)"
)
_NCCL_WATCHDOG = (
    "[rank{rank}]:[E{stamp} ProcessGroupNCCL.cpp:632] [Rank {rank}] Watchdog caught collective operation "
    "timeout: "
    "WorkNCCL(SeqNum=12, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600026 "
    "milliseconds before timing out.\n"
    "[rank{rank}]:[E{stamp} ProcessGroupNCCL.cpp:684] [Rank {rank}] Some NCCL operations have failed or "
    "timed out. Due to the "
    "asynchronous nature of CUDA kernels, subsequent GPU operations might run on corrupted/incomplete data.\n"
    "terminate called after throwing an instance of 'c10::DistBackendError'\n"
    "  what():  [PG ID 0 PG GUID 0(default_pg) Rank {rank}] Process group watchdog thread terminated with "
    "exception: [Rank {rank}] "
    "Watchdog caught collective operation timeout\n"
)


def out_of_memory(device: int) -> RuntimeError:
    """The error that torch 2.4 and newer raises on an H100."""
    return OutOfMemoryError(
        f"CUDA out of memory. Tried to allocate 5.20 GiB. GPU {device} has a total capacity of 79.15 GiB of "
        "which 3.12 GiB is free. "
        "Including non-PyTorch memory, this process has 76.02 GiB memory in use. Of the allocated memory "
        "74.10 GiB is allocated by "
        "PyTorch, and 1.20 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is "
        "large try setting "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for "
        "Memory Management  "
        "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )


def nccl(kind: Any) -> NoReturn:
    """Fail as NCCL does: ``"watchdog"`` is the timeout and SIGABRT, any other value a failed first connection."""
    if kind != "watchdog":
        raise DistBackendError(_NCCL_INIT)
    stamp = datetime.now().strftime("%m%d %H:%M:%S.%f000")
    sys.stderr.write(_NCCL_WATCHDOG.format(rank=os.environ.get("RANK", "0"), stamp=stamp))
    sys.stderr.flush()
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGABRT)
    raise AssertionError("SIGABRT is ignored")


def xid(words: Any) -> NoReturn:
    """Raise torch's error for a lost GPU; a text replaces the kind of error."""
    kind = words if isinstance(words, str) else "unspecified launch failure"
    raise AcceleratorError(f"CUDA error: {kind}\n{_ASYNCHRONOUS}")


def print_traceback(text: str) -> NoReturn:
    """Write any text to standard error and exit with status 1."""
    sys.stdout.flush()
    sys.stderr.write(text if text.endswith("\n") else text + "\n")
    raise SystemExit(1)


def print_bytes(text: str) -> None:
    """Write raw bytes to standard output: each character of the script's string is one byte."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("latin-1"))
    sys.stdout.flush()


def flood_lines(megabytes: float) -> None:
    """Write many log lines."""
    line = ("[2026-11-23 10:00:00,000] INFO: " + "x" * 967 + "\n").encode()
    for _ in range(int(megabytes * _MB / len(line))):
        sys.stdout.buffer.write(line)
    sys.stdout.flush()


def flood_line(megabytes: float) -> None:
    """Write one line without an end."""
    for _ in range(int(megabytes)):
        sys.stderr.buffer.write(b"x" * _MB)
    sys.stderr.flush()


def bind_port(port: int) -> None:
    """Hold a port until this process ends; raises torch's error if another process has it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise DistNetworkError(_BUSY_PORT.format(port=port)) from None
    listener.detach()


def name_rank_in_tracebacks(rank: int) -> None:
    """Begin every line of an uncaught exception with the rank, as torch does after init_process_group."""

    def show(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        sys.stdout.flush()
        lines = "".join(traceback.format_exception(kind, error, trace)).splitlines()
        sys.stderr.write("".join(f"[rank{rank}]: {line}\n" for line in lines))
        sys.stderr.flush()

    sys.excepthook = show
