"""The program that a framework's own Python runs to tell its version, what it can import, and its CUDA.

It answers line by line on a file descriptor of its own, because frameworks print to standard output while
being imported, and names each module before importing it, so that a crash has a name. Standard library only,
Python 3.8 or newer, nothing of this package. Who asks and what is remembered: `sites.local.probes.interpreters`.

    $ python -c "$(cat interview.py)" 5 120 /opt/Wan2.1 torch flash_attn 5>&1
    {"python": "3.10.14"}
    {"begin": "torch"}
    {"module": "torch", "version": "2.4.0+cu121", "file": "/opt/venv/.../torch/__init__.py"}
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import sys
from types import ModuleType
from typing import Any

_MAX_PACKAGES = 5000


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
        lost = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        _tell(fd, broken=name, error=_words(error) + (_user_only(name.partition(".")[0]) if lost else ""))
    else:
        _tell(fd, module=name, version=version, file=getattr(module, "__file__", None))


def _user_only(name: str) -> str:
    """Where a module lies that this start does not see, because the user's own packages are switched off."""
    import site

    folder = site.getusersitepackages()
    if site.ENABLE_USER_SITE or not any(os.path.exists(os.path.join(folder, name + end)) for end in ("", ".py")):  # noqa: PTH110, PTH118 - plain names
        return ""
    return f"; it is installed for this user only (pip --user, in {folder}), which a run does not see"


def _archs(torch: Any) -> list[str]:
    """What torch was built for; its own list is empty where it sees no device."""
    said = torch.cuda.get_arch_list()
    flags = getattr(getattr(torch, "_C", None), "_cuda_getArchFlags", None)
    return list(said) or ((flags() or "").split() if flags else [])


def _tell_of_cuda(fd: int) -> None:
    _tell(fd, begin="torch.cuda")
    try:
        torch = sys.modules["torch"]
        cuda, devices = torch.version.cuda, torch.cuda.device_count()
        with contextlib.suppress(Exception):  # a torch that does not say
            _tell(fd, archs=_archs(torch))
    except BaseException as error:  # noqa: BLE001 - as above
        _tell(fd, broken="torch.cuda", error=_words(error))
    else:
        _tell(fd, cuda=cuda, devices=devices)


def _tell_of_packages(fd: int) -> None:
    """Every installed distribution: names in one spelling, so that a list of requirements can be compared."""
    from importlib import metadata

    found: dict[str, str] = {}
    for one in metadata.distributions():
        try:
            name, version = one.metadata["Name"], one.version
        except Exception:  # noqa: BLE001, S112 - a damaged installation of something else
            continue
        if isinstance(name, str) and isinstance(version, str) and len(found) < _MAX_PACKAGES:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)  # the first on the path is imported
    _tell(fd, packages=found)


def main(fd: int, limit_s: int, folder: str, names: list[str]) -> None:
    """Answer on ``fd``; ends by itself after ``limit_s`` even if nobody listens any more.

    ``folder`` is the script's, which comes first on the path when it is started; empty for none.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limit_s)
    os.set_inheritable(fd, False)
    sys.path[:] = [*([folder] if folder else []), *(entry for entry in sys.path if entry)]
    _tell(fd, python=".".join(str(part) for part in sys.version_info[:3]))
    for name in names:
        _tell_of_module(fd, name)
    if "torch" in sys.modules:
        _tell_of_cuda(fd)
    _tell_of_packages(fd)
    _tell(fd, paths=[entry for entry in sys.path if os.path.isdir(entry)])  # noqa: PTH112 - plain names
    _tell(fd, done=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
