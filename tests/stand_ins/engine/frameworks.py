"""Packages that the real framework imports: needed only where a stand-in interpreter says which are there.

Under the test suite's own Python (no torch, no flash-attn) everything counts as present.

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
    """The package, or ``None`` where nobody said what is installed.

    Raises:
        ImportError: as Python raises it, under a stand-in interpreter that lacks it or has a broken build.
    """
    if not _FACTS.exists():
        return None
    return importlib.import_module(name)


def has(name: str) -> bool:
    """Whether a package can be imported; a broken one looks absent to those who only try."""
    try:
        needs(name)
    except ImportError:
        return False
    return True


def current_device() -> int:
    """The GPU of this process in torch's numbering; asking for it initialises CUDA.

    Raises:
        AssertionError, RuntimeError: no CUDA in this build of torch, or no GPU, in torch's words.
    """
    torch = needs("torch")
    if torch is None or json.loads(_FACTS.read_text("utf-8"))["assume_cuda"]:
        return 0
    return int(torch.cuda.current_device())
