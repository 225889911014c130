"""Starts a worker: one of Reelwright's engines, in an interpreter that has its packages.

Run by path with the ENGINE's interpreter (Python >= 3.10), by `sites.local.worker`::

    python .../launchers/resident.py diffusers READ_FD WRITE_FD

The program makes `reelwright` importable without the folder in which it is installed, because other packages in that
folder (such as another numpy) are not for this interpreter. The modules that a worker imports need only the standard
library and the engine's own packages.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

PACKAGE = "reelwright"


def make_importable(folder: str) -> None:
    """Let ``import reelwright.x`` find its files in ``folder``, without running ``reelwright/__init__.py``."""
    package = ModuleType(PACKAGE)
    package.__path__ = [folder]
    sys.modules[PACKAGE] = package


def main(argv: list[str]) -> int:
    """Serve requests until the owner ends; returns the exit status."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 -- pathlib would cost start-up time
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]  # noqa: PTH100
    make_importable(os.path.dirname(here))  # noqa: PTH120
    serving = importlib.import_module(f"{PACKAGE}.engines.serving")
    engine, read_fd, write_fd = argv
    status: int = serving.serve(engine, int(read_fd), int(write_fd))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
