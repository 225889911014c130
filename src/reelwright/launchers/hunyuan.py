"""Starts an unmodified sample_video.py or sample_image2video.py, and shortens its clip's name if a disk cannot hold it.

Run by path with the FRAMEWORK's interpreter (Python >= 3.8), in the checkout, alone or as a rank of torchrun::

    python .../launchers/hunyuan.py sample_video.py --prompt=...

The scripts put the first 100 characters of the prompt into the name of the clip. In Chinese these are 300 bytes, and
saving fails with "File name too long" after the complete generation (HunyuanVideo#37). Before the script runs, as
``__main__`` and with its own argv, the launcher wraps the one function that saves, so that a longer name is cut. It
does not change the model's computation, and it never writes a file of the checkout.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import sys

TYPE_CHECKING = False  # as in typing, whose import would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

REFUSED = 3
NAME_MAX = 255


def main(argv: Sequence[str]) -> None:
    """Wrap the function that saves, and run the script."""
    script = os.path.abspath(argv[0])  # noqa: PTH100 -- standard library's own cheap function
    sys.path[0] = os.path.dirname(script)  # noqa: PTH120 -- as `python sample_video.py` sets it
    module = importlib.import_module("hyvideo.utils.file_utils")
    if not callable(getattr(module, "save_videos_grid", None)):
        print(
            "hunyuan.py: error: hyvideo/utils/file_utils.py has no save_videos_grid: use a shorter prompt",
            file=sys.stderr,
        )
        sys.exit(REFUSED)
    shorten_names(module)
    sys.argv = list(argv)
    runpy.run_path(script, run_name="__main__")


def shorten_names(module: Any) -> None:
    """Make ``save_videos_grid`` shorten the last part of its path."""
    original = module.save_videos_grid

    @functools.wraps(original)
    def save_videos_grid(videos: Any, path: str, *args: Any, **options: Any) -> Any:
        return original(videos, short_path(path), *args, **options)

    module.save_videos_grid = save_videos_grid


def short_path(path: str) -> str:
    """The path with its last part cut, between two characters, to 255 bytes; the suffix stays."""
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    if len(os.fsencode(name)) <= NAME_MAX:
        return path
    room = NAME_MAX - len(os.fsencode(suffix))
    cut = stem.encode("utf-8", "surrogateescape")[:room].decode("utf-8", "ignore")
    return os.path.join(folder, cut + suffix)  # noqa: PTH118


if __name__ == "__main__":
    main(sys.argv[1:])
