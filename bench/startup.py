"""Times ``reel --help`` and ``reel plan`` as complete processes.

python -m bench.startup --rounds 7
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .measuring import machine, median, report, timed

_READY = f"import sys; sys.path += {sys.path!r}; from reelwright.media.image_formats import register; register('JPEG')"
_CONFINED = f"{_READY}; from reelwright.media.confinement import confine; confine()"
PHOTO = Path(__file__).parents[1] / "tests" / "photos" / "rocket.jpg"


def main() -> int:
    """Print medians and whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    reel = [sys.executable, "-m", "reelwright"]
    sides = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "reel --help": [*reel, "--help"],
        "picture decoder": [sys.executable, "-I", "-S", "-c", _READY],
        "... confined": [sys.executable, "-I", "-S", "-c", _CONFINED],
        "reel plan": [*reel, "plan", str(PHOTO), "push in", "-o", "clip.mp4", "--generator", "draft"],
    }
    with tempfile.TemporaryDirectory() as name:  # a folder without a clip.mp4
        folder = Path(name)
        for argv in sides.values():
            timed(argv, cwd=folder)  # not counted: bytecode and file cache
        found = {name: median([timed(argv, cwd=folder) for _ in range(rounds)]) for name, argv in sides.items()}
    print(f"start-up, whole process, median of {rounds}, {machine()}")
    for name, run in found.items():
        print(f"  {name:16} {run.seconds:5.2f} s  cpu {run.cpu_seconds:5.2f} s  peak {run.peak_bytes / 1e6:4.0f} MB")
    return report(
        {
            "reel --help under 0.3 s": found["reel --help"].seconds < 0.3,
            "reel plan under 0.5 s": found["reel plan"].seconds < 0.5,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
