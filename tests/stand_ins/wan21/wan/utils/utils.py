"""Imitates saving that never fails, and the type of --offload_model, with the habits of the official file.

>>> str2bool("Yes")
True
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wan.stand_in.film import Film
from wan.stand_in.saving import write_scripted

# The first try leaves bytes where the second expects floats, so the real code prints this for every cause.
_MASKED = "result type Float can't be cast to the desired output type Byte"


def cache_video(film: Film, save_file: str, plan: Mapping[str, Any]) -> str | None:
    """Write the video; on any error, print a line that hides its cause and continue as if it had succeeded."""
    try:
        if plan.get("swallow_save_error"):
            raise OSError(errno.EIO, "scripted")
        write_scripted(film, save_file, plan)
    except OSError as error:
        if error.errno == errno.ENOSPC and Path(save_file).exists():
            # ffmpeg reports it but the writer does not notice, and a file without an index remains.
            sys.stderr.write(
                f"[out#0/mp4 @ 0x55d0] Error writing trailer: {error.strerror}\n{save_file}: {error.strerror}\n"
            )
            return save_file
        print(f"cache_video failed, error: {_MASKED}", flush=True)
        return None
    return save_file


def str2bool(text: str) -> bool:
    """The value of a word, as in the official parser.

    Raises:
        argparse.ArgumentTypeError: the word is unknown.
    """
    for value, words in ((True, ("yes", "true", "t", "y", "1")), (False, ("no", "false", "f", "n", "0"))):
        if text.lower() in words:
            return value
    raise argparse.ArgumentTypeError("Boolean value expected (True/False)")
