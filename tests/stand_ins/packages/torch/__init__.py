"""A stand-in for torch that a prober and generate.py can ask; it computes nothing.

`interpreter.make_interpreter` copies it into a stand-in interpreter and writes its version. How many GPUs
there are is read from `stand_in.json` in that interpreter's folder.
"""

from __future__ import annotations

from . import cuda, version
from .version import __version__

__all__ = ["__version__", "bfloat16", "cuda", "float16", "version"]

float16 = "torch.float16"
bfloat16 = "torch.bfloat16"
