"""Recognises the errors of torch: out of memory, a failed compilation.

>>> first_line(RuntimeError("CUDA out of memory.\\nTried to allocate 9.00 GiB"))
'CUDA out of memory.'
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of a message, at most 300 characters; the error's class if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU ran out of memory, by torch's class or by the messages of CUDA's libraries."""
    import torch

    words = str(error).lower()
    named = "out of memory" in words or "alloc_failed" in words or "can't allocate memory" in words
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and named)


def is_compilation_failure(error: BaseException) -> bool:
    """Whether the compiling failed, and not the compiled code."""
    import torch

    return isinstance(error, torch._dynamo.exc.TorchDynamoException)
