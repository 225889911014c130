"""Times films: a draft of four shots, the same again, one changed shot of twenty, a hundred clips joined by copying.

A film with one changed shot is compared with that shot alone, which `reel generate` makes and verifies in the same
minute; both are medians of three. The hundred clips are different files, and none was analysed before the first join.

python -m bench.films
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from .measuring import Run, machine, median, report, timed

EXAMPLES = Path(__file__).parents[1] / "examples"
PHOTOS = Path(__file__).parents[1] / "tests" / "photos"
_JOIN = """
import sys
from pathlib import Path
from reelwright.films.editing.joining import JoinOptions, join
from reelwright.films.editing.proof import proven
from reelwright.films.editing.artifact_cache import ArtifactCache
from reelwright.films.editing.timing import JoinPart
from reelwright.core.request import Size
folder, film = Path(sys.argv[1]), Path(sys.argv[2])
cache = ArtifactCache(folder / "cache")
parts = [JoinPart(clip) for clip in sorted(folder.glob("*.mp4"))]
joined = join(parts, film, JoinOptions(Size(1280, 720), 16.0), cache, lambda *_: None, lambda: None)
assert joined.num_frames >= 8000
assert joined.how.startswith("copied")
proven(film, joined.promise)
"""


def film(board: Path, output: Path) -> list[str]:
    """The command line of a draft film."""
    return [sys.executable, "-m", "reelwright", "film", str(board), "-o", str(output), "--draft", "--json"]


def a_board(folder: Path, count: int, changed: int | None = None) -> Path:
    """Write a storyboard of shots of five seconds, each from the same photograph, not chained."""
    shots = [
        {"id": f"s{n}", "prompt": "push in" if n != changed else "pan left", "image": "rocket.jpg", "seconds": 5.06}
        for n in range(count)
    ]
    path = folder / "many.yaml"
    path.write_text(json.dumps({"size": "1280x720", "shots": shots}))
    return path


def one_changed(folder: Path, changed: int) -> tuple[Run, Run]:
    """Time the film with one changed shot, and that shot alone."""
    board = a_board(folder, 20, changed=changed)
    film_run = timed(film(board, folder / "many.mp4"))
    shot = json.loads(board.read_text())["shots"][changed]
    words = [str(folder / shot["image"]), shot["prompt"], "-o", str(folder / f"alone-{changed}.mp4")]
    words += ["--generator", "draft", "--size", "1280x720", "--seconds", str(shot["seconds"]), "--fps", "16"]
    return film_run, timed([sys.executable, "-m", "reelwright", "generate", *words, "--json"])


def hundred(folder: Path) -> Path:
    """Make a hundred different clips of 81 frames: five rendered ones with a hundred titles."""
    from reelwright.media.writer import write_metadata

    clips = sorted((folder / ".reel" / "clips").glob("*.mp4"), key=lambda path: path.stat().st_size)[-5:]
    here = folder / "hundred"
    here.mkdir()
    for number in range(100):
        write_metadata(clips[number % 5], here / f"{number:03}.mp4", {"title": f"clip {number}"})
    return here


def main() -> int:
    """Print times and whether the targets are met."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for picture in (*EXAMPLES.glob("*.jpg"), *PHOTOS.glob("*.jpg")):
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
        changed = [one_changed(folder, number) for number in (7, 12, 3)]
        runs["one of them changed"] = median([run for run, _ in changed])
        runs["that shot alone"] = median([run for _, run in changed])
        clips, long = hundred(folder), str(folder / "long.mp4")
        joining = [sys.executable, "-c", _JOIN, str(clips), long]
        runs["100 clips, first time"] = timed(joining)
        runs["100 clips, looked at"] = median([timed(joining) for _ in range(3)])
    print(f"films, 1280x720 drafts, whole processes, {machine()}")
    for title, run in runs.items():
        print(f"  {title:22} {run.seconds:6.2f} s  cpu {run.cpu_seconds:6.2f} s  peak {run.peak_bytes / 1e6:4.0f} MB")
    over = runs["one of them changed"].seconds - runs["that shot alone"].seconds
    return report(
        {
            "four shots (321 frames) under 8 s": runs["four shots"].seconds < 8,
            "again, with nothing changed, under 1 s": runs["the same again"].seconds < 1,
            f"one changed of twenty: that shot and under 1 s (+{over:.2f} s)": over < 1,
            "100 clips joined by copying and proven under 3 s": runs["100 clips, looked at"].seconds < 3,
            "that under 200 MB": max(run.peak_bytes for title, run in runs.items() if "100" in title) < 200e6,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
