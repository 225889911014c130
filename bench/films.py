"""Films: a draft of four shots, the same again, one changed shot of twenty, and a hundred clips joined by copying.

python -m bench.films
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from .measuring import Run, machine, report, timed

EXAMPLES = Path(__file__).parents[1] / "examples"
_JOIN = """
import sys
from pathlib import Path
from reelwright.media.joining import JoinOptions, Part, join
from reelwright.request import Size
clip = Path(sys.argv[1])
told = join([Part(clip)] * 100, Path(sys.argv[2]), JoinOptions(Size(1280, 720), 16.0), measure=False)
assert told.num_frames >= 8000
assert told.how.startswith("copied")
"""


def film(board: Path, output: Path) -> list[str]:
    """The command line of a draft."""
    return [sys.executable, "-m", "reelwright", "film", str(board), "-o", str(output), "--draft", "--json"]


def a_board(folder: Path, count: int, changed: int | None = None) -> Path:
    """Shots of three seconds of one photograph each, not chained."""
    shots = [
        {"id": f"s{n}", "prompt": "push in" if n != changed else "pan left", "image": "rocket.jpg", "seconds": 5.06}
        for n in range(count)
    ]
    path = folder / "many.yaml"
    path.write_text(json.dumps({"size": "1280x720", "shots": shots}))
    return path


def main() -> int:
    """Print times and targets; one run each, for a film is long enough."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for picture in EXAMPLES.glob("*.jpg"):
            shutil.copy(picture, folder)
        text = (
            (EXAMPLES / "film.yaml")
            .read_text()
            .replace("    seconds: 3\n", "")
            .replace("    transition: dissolve 8\n", "")
        )
        (folder / "four.yaml").write_text(text)
        runs: dict[str, Run] = {}
        runs["four shots"] = timed(film(folder / "four.yaml", folder / "four.mp4"))
        runs["the same again"] = timed(film(folder / "four.yaml", folder / "four.mp4"))
        board = a_board(folder, 20)
        runs["twenty shots"] = timed(film(board, folder / "many.mp4"))
        a_board(folder, 20, changed=7)
        runs["one of them changed"] = timed(film(board, folder / "many.mp4"))
        clips = sorted((folder / ".reel" / "clips").glob("*.mp4"), key=lambda path: path.stat().st_size)
        clip = clips[-1]  # of 80 or 81 frames
        runs["100 clips copied"] = timed([sys.executable, "-c", _JOIN, str(clip), str(folder / "long.mp4")])
    print(f"films, 1280x720 drafts, whole processes, one run each, {machine()}")
    for title, run in runs.items():
        print(f"  {title:20} {run.seconds:6.2f} s  cpu {run.cpu_seconds:6.2f} s  peak {run.peak_bytes / 1e6:4.0f} MB")
    return report(
        {
            "four shots (321 frames) under 8 s": runs["four shots"].seconds < 8,
            "again, with nothing changed, under 1 s": runs["the same again"].seconds < 1,
            "100 clips joined by copying under 3 s": runs["100 clips copied"].seconds < 3,
            "that under 200 MB": runs["100 clips copied"].peak_bytes < 200e6,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
