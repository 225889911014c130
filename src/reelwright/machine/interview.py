"""The program that a framework's own Python runs to tell its version, what it can import, and its CUDA.

It answers line by line on a file descriptor of its own, because frameworks print to standard output while
being imported, and names each module before importing it, so that a crash has a name. Standard library only,
Python 3.8 or newer, nothing of this package. Who asks and what is remembered: `machine.interpreters`.

    $ python -c "$(cat interview.py)" 5 120 torch flash_attn 5>&1
    {"python": "3.10.14"}
    {"begin": "torch"}
    {"module": "torch", "version": "2.4.0+cu121", "file": "/opt/venv/.../torch/__init__.py"}
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from types import ModuleType


def _tell(fd: int, **answer: object) -> None:
    os.write(fd, (json.dumps(answer) + "\n").encode("ascii"))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


def version_of(name: str, module: ModuleType) -> str:
    """The module's own version, or that of the package that brought it."""
    own = getattr(module, "__version__", None)
    if own is not None:
        return str(own)
    from importlib import metadata

    owners: dict[str, list[str]] = getattr(metadata, "packages_distributions", dict)()  # since Python 3.10
    for owner in [*owners.get(name.partition(".")[0], []), name]:
        try:
            return metadata.version(owner)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _tell_of_module(fd: int, name: str) -> None:
    _tell(fd, begin=name)
    try:
        module = importlib.import_module(name)
        version = version_of(name, module)
    except BaseException as error:  # noqa: BLE001 - a framework may raise anything, SystemExit included
        _tell(fd, broken=name, error=_words(error))
    else:
        _tell(fd, module=name, version=version, file=getattr(module, "__file__", None))


def _tell_of_cuda(fd: int) -> None:
    _tell(fd, begin="torch.cuda")
    try:
        torch = sys.modules["torch"]
        cuda, devices = torch.version.cuda, torch.cuda.device_count()
    except BaseException as error:  # noqa: BLE001 - as above
        _tell(fd, broken="torch.cuda", error=_words(error))
    else:
        _tell(fd, cuda=cuda, devices=devices)


def main(fd: int, limit_s: int, names: list[str]) -> None:
    """Answer on ``fd``; ends by itself after ``limit_s`` even if nobody listens any more."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limit_s)
    os.set_inheritable(fd, False)
    sys.path[:] = [folder for folder in sys.path if folder]
    _tell(fd, python=".".join(str(part) for part in sys.version_info[:3]))
    for name in names:
        _tell_of_module(fd, name)
    if "torch" in sys.modules:
        _tell_of_cuda(fd)
    _tell(fd, paths=[folder for folder in sys.path if os.path.isdir(folder)])  # noqa: PTH112 - plain names
    _tell(fd, done=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
