"""Stands in for torch, for the questions of a prober and of generate.py; it computes nothing.

`interpreter.make_interpreter` copies it into a stand-in interpreter and writes its version. The number of GPUs
is in `stand_in.json` in that interpreter's folder.
"""

from __future__ import annotations

from . import cuda, version
from .version import __version__

__all__ = ["__version__", "bfloat16", "cuda", "float16", "version"]

float16 = "torch.float16"
bfloat16 = "torch.bfloat16"
