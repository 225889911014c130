"""Makes two drafts and a film of four shots on any computer, with contact sheets, and verifies the results.

`make demo` runs it; it only calls the command line, as a user does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parent / "demo"


def reel(*arguments: str) -> None:
    """Show a command and run it; stop at the first failure."""
    print(f"\n$ reel {' '.join(repr(word) if ' ' in word else word for word in arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "reelwright", *arguments], check=True)


def main() -> None:
    """Make and check the clips and the film, and print their paths."""
    OUT.mkdir(exist_ok=True)
    clip, pair = OUT / "clip.draft.mp4", OUT / "first-to-last.draft.mp4"
    photo, first, last = (str(HERE / name) for name in ("americas.jpg", "earth_first.jpg", "earth_last.jpg"))
    common = ("--generator", "draft", "--overwrite")
    reel("generate", photo, "slow push in, slight tilt up", "-o", str(clip), *common)
    reel("generate", first, "the camera moves closer", "--last-image", last, "-o", str(pair), *common)
    sheets = [film.with_suffix(".sheet.png") for film in (clip, pair)]
    for film, sheet in zip((clip, pair), sheets, strict=True):
        reel("contact-sheet", str(film), "-o", str(sheet), "--overwrite")
        reel("probe", str(film))
    story = OUT / "film.draft.mp4"
    reel("film", str(HERE / "film.yaml"), "-o", str(story), "--draft")
    reel("probe", str(story))
    print("\nMade on this computer, without a GPU:")
    for path in (clip, pair, *sheets, story, story.with_suffix(".sheet.png")):
        print(f"  {path}")


if __name__ == "__main__":
    main()
