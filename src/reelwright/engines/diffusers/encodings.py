"""Encodes each text and picture once: shots of a film share a negative prompt, a style, often the picture.

It wraps the pipelines' own ``encode_prompt`` and ``encode_image``, and keeps results by the content of the arguments.

    >>> encodings = Encodings()
    >>> encodings.attach(pipeline)  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

#: Encodings kept: some megabytes each.
CAPACITY = 64
_METHODS = ("encode_prompt", "encode_image")


class Encodings:
    """Encodings by the digest of their arguments."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._check: Callable[[], None] = lambda: None
        self.hits = self.misses = 0

    def begin(self, check: Callable[[], None]) -> None:
        """Begin a clip: count from zero; ``check`` may raise between two encodings."""
        self._check = check
        self.hits = self.misses = 0

    def attach(self, pipeline: Any) -> None:
        """Make the pipeline look up its encodings here first."""
        for name in _METHODS:
            original = getattr(pipeline, name, None)
            if original is not None:
                setattr(pipeline, name, self._remembering(name, original))

    def _remembering(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def encode(*arguments: Any, **options: Any) -> Any:
            hasher = hashlib.sha256()
            _feed(hasher, (name, arguments, sorted(options.items())))
            key = hasher.hexdigest()
            if key in self._known:
                self.hits += 1
                self._known.move_to_end(key)
                return self._known[key]
            self._check()
            self.misses += 1
            found = original(*arguments, **options)
            self._known[key] = found
            while len(self._known) > CAPACITY:
                self._known.popitem(last=False)
            return found

        return encode

    def forget(self) -> None:
        """Drop all encodings, because they take GPU memory."""
        self._known.clear()


def _feed(hasher: Any, value: Any) -> None:
    """Hash the arguments of a pipeline: words, numbers, pictures, tensors, and collections of them."""
    hasher.update(type(value).__name__.encode() + b"\0")
    if isinstance(value, (list, tuple)):
        hasher.update(b"%d\0" % len(value))  # else (["a"], "b") would be (["a", "b"],)
        for item in value:
            _feed(hasher, item)
    elif isinstance(value, dict):
        _feed(hasher, sorted(value.items()))
    elif hasattr(value, "tobytes") and hasattr(value, "size"):  # a picture, or an array
        hasher.update(repr((value.size, getattr(value, "mode", ""))).encode() + value.tobytes())
    elif hasattr(value, "untyped_storage"):  # a tensor
        import torch

        plain = value.detach().cpu().contiguous()
        hasher.update(repr((plain.shape, plain.dtype)).encode() + plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    else:
        hasher.update(repr(value).encode() + b"\0")
