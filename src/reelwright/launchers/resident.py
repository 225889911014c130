"""Starts a worker: an engine of ours in whatever interpreter has its packages.

Run by path with the ENGINE's interpreter (Python >= 3.10), by `sites.local.worker`::

    python .../launchers/resident.py diffusers READ_FD WRITE_FD

Our package is made importable without the folder that it is installed in: what else is installed there (another
numpy, say) is not for this interpreter. Nothing of ours that the worker imports needs more than the standard library
and what the engine itself is made for.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

PACKAGE = "reelwright"


def make_importable(folder: str) -> None:
    """Let ``import reelwright.x`` find its files in ``folder`` and run nothing of the package's own start."""
    package = ModuleType(PACKAGE)
    package.__path__ = [folder]
    sys.modules[PACKAGE] = package


def main(argv: list[str]) -> int:
    """Serve until the owner goes; returns the exit status."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 -- nothing is imported that is not needed
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]  # noqa: PTH100
    make_importable(os.path.dirname(here))  # noqa: PTH120
    serving = importlib.import_module(f"{PACKAGE}.engines.serving")
    engine, read_fd, write_fd = argv
    status: int = serving.serve(engine, int(read_fd), int(write_fd))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
