"""The public names: what is in ``__all__`` stays, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import reelwright

PUBLIC = [
    "AttemptError", "BackendUnavailableError", "BusyError", "Cancelled", "ConfigurationError", "DiffusersGenerator",
    "DraftGenerator", "FilmResult",
    "GenerationTimeoutError", "HunyuanVideoGenerator", "ImageValidator", "Interrupted", "InvalidInputError", "Manifest",
    "ModelNotFoundError", "OutOfMemoryError", "OutputError", "Plan", "Result", "Settings", "Size", "StateError", "Storyboard",
    "VideoGenerationError", "VideoGenerator", "VideoRequest", "Wan21Generator", "__version__",
    "afilm", "agenerate", "create_video_generator", "film", "generate", "load_settings", "load_storyboard", "release",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert reelwright.__all__ == PUBLIC == sorted(PUBLIC)


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert [name for name in PUBLIC if not getattr(reelwright, name).__doc__] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        reelwright.Nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, reelwright; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"av", "cv2", "numpy", "pydantic", "PIL", "rich", "torch", "yaml", "subprocess", "argparse"}
    assert not heavy & set(done.stdout.split())
