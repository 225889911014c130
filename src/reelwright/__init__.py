"""Reelwright makes video on your own GPUs, and every film is really there, really valid and reproducible.

    import reelwright
    result = reelwright.generate("slow push in", "cat.jpg", "clip.mp4")

Everything in ``__all__`` is public; anything else may change. Importing this package imports no heavy dependency.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ._version import __version__

if sys.version_info < (3, 11):  # noqa: UP036 -- a copy of the package may lie on the path of any interpreter
    raise ImportError(f"Reelwright needs Python 3.11 or newer; this is Python {sys.version.split()[0]}")

if TYPE_CHECKING:
    from .api import (
        DiffusersGenerator,
        DraftGenerator,
        HunyuanVideoGenerator,
        ImageValidator,
        VideoGenerator,
        Wan21Generator,
        create_video_generator,
        film,
        generate,
        release,
    )
    from .api.asynchronous import afilm, agenerate
    from .backends.settings import FlatSettings as Settings
    from .backends.settings import load_settings
    from .core.errors import (
        AttemptError,
        BackendUnavailableError,
        BusyError,
        Cancelled,
        ConfigurationError,
        GenerationTimeoutError,
        Interrupted,
        InvalidInputError,
        ModelNotFoundError,
        OutOfMemoryError,
        OutputError,
        StateError,
        VideoGenerationError,
    )
    from .core.manifest import Manifest, Result
    from .core.plan import Plan
    from .core.request import Size, VideoRequest
    from .films.assembly import FilmResult
    from .films.storyboard import Storyboard, load_storyboard

_HOMES = {
    "api.asynchronous": ("afilm", "agenerate"),
    "core.errors": (
        "AttemptError",
        "BackendUnavailableError",
        "BusyError",
        "Cancelled",
        "ConfigurationError",
        "GenerationTimeoutError",
        "Interrupted",
        "InvalidInputError",
        "ModelNotFoundError",
        "OutOfMemoryError",
        "OutputError",
        "StateError",
        "VideoGenerationError",
    ),
    "films.assembly": ("FilmResult",),
    "films.storyboard": ("Storyboard", "load_storyboard"),
    "api": (
        "DraftGenerator",
        "DiffusersGenerator",
        "HunyuanVideoGenerator",
        "ImageValidator",
        "VideoGenerator",
        "Wan21Generator",
        "create_video_generator",
        "film",
        "generate",
        "release",
    ),
    "core.plan": ("Plan",),
    "core.request": ("Size", "VideoRequest"),
    "core.manifest": ("Manifest", "Result"),
    "backends.settings": ("Settings", "load_settings"),
}
#: Public names of what is called otherwise at its home.
_HOME_NAMES = {"Settings": "FlatSettings"}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AttemptError",
    "BackendUnavailableError",
    "BusyError",
    "Cancelled",
    "ConfigurationError",
    "DiffusersGenerator",
    "DraftGenerator",
    "FilmResult",
    "GenerationTimeoutError",
    "HunyuanVideoGenerator",
    "ImageValidator",
    "Interrupted",
    "InvalidInputError",
    "Manifest",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "OutputError",
    "Plan",
    "Result",
    "Settings",
    "Size",
    "StateError",
    "Storyboard",
    "VideoGenerationError",
    "VideoGenerator",
    "VideoRequest",
    "Wan21Generator",
    "__version__",
    "afilm",
    "agenerate",
    "create_video_generator",
    "film",
    "generate",
    "load_settings",
    "load_storyboard",
    "release",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'reelwright' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), _HOME_NAMES.get(name, name))
