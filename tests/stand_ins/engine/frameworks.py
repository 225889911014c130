"""Checks for the packages that the real framework imports, if a stand-in interpreter says which are installed.

Under the test suite's own Python (no torch, no flash-attn) every package counts as installed.

    >>> needs("torch")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

_FACTS = Path(sys.prefix) / "stand_in.json"


def needs(name: str) -> ModuleType | None:
    """The package, or ``None`` outside a stand-in interpreter.

    Raises:
        ImportError: the stand-in interpreter lacks the package or has a broken build.
    """
    if not _FACTS.exists():
        return None
    return importlib.import_module(name)


def has(name: str) -> bool:
    """Whether a package can be imported; a broken package counts as absent."""
    try:
        needs(name)
    except ImportError:
        return False
    return True


def current_device() -> int:
    """The GPU of this process in torch's numbering; the call initialises CUDA.

    Raises:
        AssertionError, RuntimeError: no CUDA in this build of torch, or no GPU, in torch's words.
    """
    torch = needs("torch")
    if torch is None or json.loads(_FACTS.read_text("utf-8"))["assume_cuda"]:
        return 0
    return int(torch.cuda.current_device())
