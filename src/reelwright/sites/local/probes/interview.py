"""Reports, as a program in a framework's own Python, its version, the modules that it can import, and its CUDA.

It answers line by line on standard output; text that frameworks print during their import goes to standard error. It
names each module before importing it, so that a crash has a name. It uses the standard library only, no module of
Reelwright, and runs on Python 3.8 or newer. `sites.local.probes.interpreters` starts it and remembers the answers.

    $ python -c "$(cat interview.py)" 120 /opt/Wan2.1 torch flash_attn
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


def _report(fd: int, **answer: object) -> None:
    data = (json.dumps(answer) + "\n").encode("ascii")
    while data:
        data = data[os.write(fd, data) :]


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


def version_of(name: str, module: ModuleType) -> str:
    """The module's own version, or that of the package that installed it."""
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


def _report_module(fd: int, name: str) -> None:
    _report(fd, begin=name)
    try:
        module = importlib.import_module(name)
        version = version_of(name, module)
    except BaseException as error:  # noqa: BLE001 - a framework may raise anything, SystemExit included
        lost = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        _report(fd, broken=name, error=_text(error) + (_user_only(name.partition(".")[0]) if lost else ""))
    else:
        _report(fd, module=name, version=version, file=getattr(module, "__file__", None))


def _user_only(name: str) -> str:
    """A hint if the module is in the user's own packages, which this start does not see; else empty."""
    import site

    folder = site.getusersitepackages()
    if site.ENABLE_USER_SITE or not any(os.path.exists(os.path.join(folder, name + end)) for end in ("", ".py")):  # noqa: PTH110, PTH118 - plain names
        return ""
    return f"; it is installed for this user only (pip --user, in {folder}), which a run does not see"


def _archs(torch: Any) -> list[str]:
    """The architectures that torch was built for; its own list is empty if it sees no device."""
    said = torch.cuda.get_arch_list()
    flags = getattr(getattr(torch, "_C", None), "_cuda_getArchFlags", None)
    return list(said) or ((flags() or "").split() if flags else [])


def _report_cuda(fd: int) -> None:
    _report(fd, begin="torch.cuda")
    try:
        torch = sys.modules["torch"]
        cuda, devices = torch.version.cuda, torch.cuda.device_count()
        with contextlib.suppress(Exception):  # a torch without such a list
            _report(fd, archs=_archs(torch))
    except BaseException as error:  # noqa: BLE001 - as above
        _report(fd, broken="torch.cuda", error=_text(error))
    else:
        _report(fd, cuda=cuda, devices=devices)


def _report_packages(fd: int) -> None:
    """Report every installed distribution, with names in one spelling for comparison with a list of requirements."""
    from importlib import metadata

    found: dict[str, str] = {}
    for one in metadata.distributions():
        try:
            name, version = one.metadata["Name"], one.version
        except Exception:  # noqa: BLE001, S112 - a damaged installation of something else
            continue
        if isinstance(name, str) and isinstance(version, str) and len(found) < _MAX_PACKAGES:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)  # the first on the path is imported
    _report(fd, packages=found)


def main(limit_s: int, folder: str, names: list[str]) -> None:
    """Report everything; a timer ends the program after ``limit_s`` seconds, even if nobody reads the answers.

    ``folder`` is the framework script's folder, which is first on the path when the script runs; empty for none.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limit_s)
    fd = os.dup(1)  # no child inherits it
    os.dup2(2, 1)
    os.write(fd, b"\n")  # the interpreter's own start may have printed something
    sys.path[:] = [*([folder] if folder else []), *(entry for entry in sys.path if entry)]
    _report(fd, python=".".join(str(part) for part in sys.version_info[:3]))
    for name in names:
        _report_module(fd, name)
    if "torch" in sys.modules:
        _report_cuda(fd)
    _report_packages(fd)
    _report(fd, paths=[entry for entry in sys.path if os.path.isdir(entry)])  # noqa: PTH112 - plain names
    _report(fd, done=True)
    os._exit(0)  # threads and exit handlers of a framework may hang


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
