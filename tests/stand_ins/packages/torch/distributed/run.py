"""Stands in for `python -m torch.distributed.run` on one machine, with torchrun's habits and messages.

Every worker has its own session. SIGTERM, SIGINT, SIGHUP and SIGQUIT are passed on to the workers' process
groups, and SIGKILL follows after a grace; SIGKILL to this process orphans them. The first failure ends all
workers. The exit status is 1 for every status of a worker. The store listens on the master port while the
workers run. It is not elastic: one node, no restarts. The grace is 30 s as in torch, or
TORCHELASTIC_SHUTDOWN_TIMEOUT / --shutdown-timeout.

    $ python -m torch.distributed.run --standalone --nproc_per_node=2 generate.py --task i2v-14B ...
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

_POLL_S = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_NO_TRACEBACK = "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html"


class SignalException(Exception):
    """This process received a signal; raised in the code that was running."""

    __module__ = "torch.distributed.elastic.multiprocessing.api"

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class ChildFailedError(Exception):
    """The error with which torchrun ends if a worker fails."""

    __module__ = "torch.distributed.elastic.multiprocessing.errors"


class DistNetworkError(RuntimeError):
    """Another process has the store's port."""

    __module__ = "torch.distributed"


@dataclass
class _Worker:
    rank: int
    process: subprocess.Popen[bytes]
    error_file: Path
    ended_at: float = field(default=0.0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torchrun", description="Torch Distributed Elastic Training Launcher")
    parser.add_argument(
        "--nproc-per-node", "--nproc_per_node", type=str, default=os.environ.get("PET_NPROC_PER_NODE", "1")
    )
    parser.add_argument("--nnodes", type=str, default="1:1")
    parser.add_argument("--standalone", action="store_true")
    parser.add_argument("--rdzv-backend", "--rdzv_backend", default="static")
    parser.add_argument("--rdzv-endpoint", "--rdzv_endpoint", default="")
    parser.add_argument("--rdzv-id", "--rdzv_id", default="none")
    parser.add_argument("--max-restarts", "--max_restarts", type=int, default=0)
    parser.add_argument("--monitor-interval", "--monitor_interval", type=float, default=0.1)
    parser.add_argument("--log-dir", "--log_dir", default=os.environ.get("PET_LOG_DIR"))
    parser.add_argument("-r", "--redirects", default="0")
    parser.add_argument("-t", "--tee", default="0")
    parser.add_argument("--master-addr", "--master_addr", default="127.0.0.1")
    parser.add_argument("--local-addr", "--local_addr", default=None)
    parser.add_argument("--master-port", "--master_port", type=int, default=None)
    grace = int(os.environ.get("TORCHELASTIC_SHUTDOWN_TIMEOUT", "30"))
    parser.add_argument("--shutdown-timeout", "--shutdown_timeout", type=int, default=grace)
    parser.add_argument("training_script")
    parser.add_argument("training_script_args", nargs=argparse.REMAINDER)
    return parser


def _say(level: str, place: str, text: str) -> None:
    stamp = datetime.now().strftime("%m%d %H:%M:%S.%f")
    print(f"{level}{stamp} {os.getpid()} torch/distributed/elastic/{place}] {text}", file=sys.stderr, flush=True)


def _listen(args: argparse.Namespace) -> socket.socket:
    """The store's socket: a free port with --standalone, else the requested one, 29500 by default.

    Raises:
        DistNetworkError: another process has the port.
    """
    endpoint = args.rdzv_endpoint.rpartition(":")[2] or "29500"
    port = 0 if args.standalone else (args.master_port or int(endpoint))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise DistNetworkError(
            f"The server socket has failed to listen on any local network address. port: {port}, useIpv6: "
            "false, code: -98, "
            "name: EADDRINUSE, message: address already in use"
        ) from None
    return listener


def _start(args: argparse.Namespace, port: int, logs: Path) -> list[_Worker]:
    count = int(args.nproc_per_node)
    if "OMP_NUM_THREADS" not in os.environ and count > 1:
        stars = "*" * 41
        print(
            f"\n{stars}\n"
            "Setting OMP_NUM_THREADS environment variable for each process to be 1 in default, to avoid your "
            "system being "
            f"overloaded, please further tune the variable for optimal performance in your application as "
            f"needed. \n{stars}",
            file=sys.stderr,
            flush=True,
        )
        os.environ["OMP_NUM_THREADS"] = "1"
    workers = []
    for rank in range(count):
        folder = logs / "attempt_0" / str(rank)
        folder.mkdir(parents=True)
        error_file = folder / "error.json"
        world = {name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE")}
        own = {name: str(rank) for name in ("RANK", "LOCAL_RANK", "ROLE_RANK")}
        extra = {
            "GROUP_RANK": "0",
            "GROUP_WORLD_SIZE": "1",
            "ROLE_NAME": "default",
            # With its own rendezvous, torchrun gives the workers this machine's name, even if nothing resolves it.
            "MASTER_ADDR": args.local_addr or (socket.getfqdn() if args.standalone else args.master_addr),
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": str(args.max_restarts),
            "TORCHELASTIC_RUN_ID": args.rdzv_id,
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
            "TORCHELASTIC_ERROR_FILE": str(error_file),
        }
        command = [sys.executable, "-u", args.training_script, *args.training_script_args]
        # A worker has its own session, so killing torchrun's process group does not reach it (pytorch#113231).
        process = subprocess.Popen(command, env={**os.environ, **world, **own, **extra}, start_new_session=True)
        workers.append(_Worker(rank, process, error_file))
    return workers


def _close(workers: list[_Worker], number: signal.Signals, grace_s: float) -> None:
    """Send a signal to the running workers, wait, then send SIGKILL."""
    for worker in workers:
        if worker.process.poll() is None:
            _say(
                "W",
                "multiprocessing/api.py:1028",
                f"Sending process {worker.process.pid} closing signal {number.name}",
            )
            os.killpg(worker.process.pid, number)
    deadline = time.monotonic() + grace_s
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _say(
                "W",
                "multiprocessing/api.py:1046",
                f"Unable to shutdown process {worker.process.pid} via {number}, forcefully exiting via "
                f"{signal.SIGKILL}",
            )
            os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()


def _watch(workers: list[_Worker], script: str, grace_s: float) -> None:
    """Wait until all workers are done; stop the others when one fails.

    Raises:
        ChildFailedError: a worker failed.
    """
    while True:
        codes = [worker.process.poll() for worker in workers]
        failed = [worker for worker, code in zip(workers, codes, strict=True) if code]
        if failed:
            # The real torchrun looks every 0.1 s, and blames the failed worker with the earliest time stamp.
            root = min(failed, key=_failed_at)
            _close(workers, signal.SIGTERM, grace_s)
            _say(
                "E",
                "multiprocessing/api.py:1002",
                f"failed (exitcode: {root.process.returncode}) local_rank: {root.rank} (pid: "
                f"{root.process.pid}) of binary: {sys.executable}",
            )
            raise ChildFailedError(
                _summary(root, [w for w in workers if w.process.returncode and w is not root], script)
            )
        if all(code == 0 for code in codes):
            return
        time.sleep(_POLL_S)


def _failed_at(worker: _Worker) -> float:
    data = _error_data(worker)
    return float(data["message"]["extraInfo"]["timestamp"]) if data else time.time()


def _error_data(worker: _Worker) -> dict[str, Any] | None:
    """The worker's own report of its error; generate.py writes none, because it is not decorated with @record."""
    if not worker.error_file.is_file():
        return None
    data: dict[str, Any] = json.loads(worker.error_file.read_text("utf-8"))
    return data


def _summary(root: _Worker, others: list[_Worker], script: str) -> str:
    first = _block(0, root)
    rest = [_block(index, worker) for index, worker in enumerate(others, 1)]
    title = f"{script} FAILED"
    lines = [title, *"\n".join([first, *rest]).split("\n")]
    width = min(60, max(len(line) for line in lines))
    border, section = "=" * width, "-" * width
    failures = "\n".join(rest or ["  <NO_OTHER_FAILURES>"])
    listed = f"{border}\n{title}\n{section}\nFailures:\n{failures}\n{section}"
    return f"\n{listed}\nRoot Cause (first observed failure):\n{first}\n{border}"


def _block(index: int, worker: _Worker) -> str:
    code, pid = worker.process.returncode, worker.process.pid
    name = signal.Signals(-code).name if code < 0 else ""
    data = _error_data(worker)
    message = f"Signal {-code} ({name}) received by PID {pid}" if code < 0 else _NO_TRACEBACK
    if data:
        message = data["message"]["extraInfo"]["py_callstack"].replace("\n", "\n  ")
    return (
        f"[{index}]:\n  time      : {datetime.now():%Y-%m-%d_%H:%M:%S}\n  host      : "
        f"{socket.gethostname()}\n"
        f"  rank      : {worker.rank} (local_rank: {worker.rank})\n  exitcode  : {code} (pid: {pid}) "
        f"{f' ({name})' if name else ''}\n"
        f"  error_file: {worker.error_file if data else '<N/A>'}\n  traceback : {message}"
    )


def _on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    raise SignalException(f"Process {os.getpid()} got signal: {number}", number)


def main() -> None:
    """Run the workers; every failure leaves through an exception, so the status is 1."""
    args = _parser().parse_args()
    for number in _SIGNALS:
        signal.signal(number, _on_signal)
    logs = Path(args.log_dir) if args.log_dir else Path(tempfile.mkdtemp(prefix="torchelastic_"))
    with _listen(args) as listener:
        workers: list[_Worker] = []
        try:
            workers = _start(args, listener.getsockname()[1], logs / f"{args.rdzv_id}_stand_in")
            _watch(workers, args.training_script, args.shutdown_timeout)
        except SignalException as error:
            _say("W", "agent/server/api.py:753", f"Received {error.number} death signal, shutting down workers")
            _close(workers, signal.Signals(error.number), args.shutdown_timeout)
            raise


if __name__ == "__main__":
    main()
