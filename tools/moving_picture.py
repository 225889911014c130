"""Makes docs/film.webp: the draft film of examples/film.yaml as a small moving picture for the README.

It calls `reel film` as a user does, and keeps every third frame of the film, made smaller. The file stays below 2 MB.

    .venv/bin/python tools/moving_picture.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import av
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURE = REPOSITORY / "docs" / "film.webp"
WIDTH, EVERY, QUALITY, LIMIT = 560, 3, 60, 2_000_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        story = REPOSITORY / "examples" / "film.yaml"
        subprocess.run([sys.executable, "-m", "reelwright", "film", story, "-o", film, "--draft"], check=True)
        frames, fps = small_frames(film)
    first, *others = frames
    options = {"save_all": True, "append_images": others, "duration": round(1000 * EVERY / fps), "loop": 0}
    first.save(PICTURE, "WEBP", quality=QUALITY, method=3, **options)
    size = PICTURE.stat().st_size
    print(f"{PICTURE}: {len(frames)} frames, {size} bytes")
    if size >= LIMIT:
        raise SystemExit("That is 2 MB or more: lower QUALITY or WIDTH.")


def small_frames(film: Path) -> tuple[list[Image.Image], float]:
    """Every third frame, and the film's frames per second."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        height = WIDTH * stream.height // stream.width
        kept = [frame for index, frame in enumerate(container.decode(stream)) if index % EVERY == 0]
        return [Image.fromarray(frame.to_ndarray(format="rgb24", width=WIDTH, height=height)) for frame in kept], float(
            stream.average_rate or 16
        )


if __name__ == "__main__":
    main()
