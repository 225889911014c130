"""Times the draft against ffmpeg's zoompan: complete processes, same picture, encoder and preset, medians in one run.

    python -m bench.draft --rounds 5

Reelwright plans, renders with sub-pixel moves, verifies by a full decode and publishes; zoompan only renders (it
jitters by whole pixels) and verifies nothing. Both run through the same libav inside PyAV, so no ffmpeg program
is needed. The rounds alternate, so a busy machine slows both. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from .measuring import Run, machine, median, report, timed

PHOTO = Path(__file__).parents[1] / "tests" / "photos" / "rocket.jpg"
FRAMES, WIDTH, HEIGHT, FPS = 81, 1280, 720, 16
SECONDS_LIMIT, BYTES_LIMIT, RATIO_LIMIT = 2.0, 300_000_000, 2.0  # of issue 2, for 2 cores

_ENCODER = """
import json
from reelwright.media.writer import Encoding
print(json.dumps([Encoding().encoder, Encoding().threads, Encoding().options()]))
"""
_ZOOMPAN = """
import sys
import av
from av.filter import Graph
photo, film, frames, width, height, fps, encoder, threads, *options = sys.argv[1:]
frames, width, height, fps = int(frames), int(width), int(height), int(fps)
with av.open(photo) as source:
    picture = next(source.decode(video=0))
graph = Graph()
zoom = f"z='1+0.25*on/{frames - 1}':x='iw/2-iw/zoom/2':y='ih/2-ih/zoom/2':d={frames}"
chain = [
    graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base="1/16"),
    graph.add("crop", f"w=iw:h=trunc(iw*{height}/{width}/2)*2"),
    graph.add("format", "yuv420p"),
    graph.add("zoompan", f"{zoom}:s={width}x{height}:fps={fps}"),
    graph.add("buffersink"),
]
graph.link_nodes(*chain).configure()
with av.open(film, "w", format="mp4", options={"movflags": "+faststart"}) as target:
    stream = target.add_stream(encoder, rate=fps, options=dict(pair.split("=", 1) for pair in options))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = int(threads)
    picture.pts = 0
    graph.push(picture)
    for _ in range(frames):
        target.mux(stream.encode(graph.pull()))
    target.mux(stream.encode(None))
"""


def draft(film: Path) -> list[str]:
    """Reelwright's command line, as a user types it."""
    return [
        sys.executable, "-m", "reelwright", "generate", str(PHOTO), "push in", "-o", str(film), "--generator", "draft",
        "--size", f"{WIDTH}x{HEIGHT}", "--frames", str(FRAMES), "--seed", "1", "--overwrite", "--json",
    ]  # fmt: skip


def zoompan(film: Path) -> list[str]:
    """The command line of the filter, with the encoder settings of a draft."""
    asked = subprocess.run([sys.executable, "-c", _ENCODER], capture_output=True, text=True, check=True)
    encoder, threads, options = json.loads(asked.stdout)
    numbers = [str(number) for number in (FRAMES, WIDTH, HEIGHT, FPS)]
    pairs = [f"{key}={value}" for key, value in options.items()]
    return [sys.executable, "-c", _ZOOMPAN, str(PHOTO), str(film), *numbers, encoder, str(threads), *pairs]


def main() -> int:
    """Print the medians and whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        sides = {"draft": draft(Path(folder) / "a.mp4"), "zoompan": zoompan(Path(folder) / "b.mp4")}
        for argv in sides.values():
            timed(argv)  # not counted: bytecode and file cache
        runs: dict[str, list[Run]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, argv in sides.items():
                runs[name].append(timed(argv))
    found = {name: median(taken) for name, taken in runs.items()}
    ratio = found["draft"].seconds / found["zoompan"].seconds
    print(f"{FRAMES} frames {WIDTH}x{HEIGHT}, whole process, median of {rounds}, {machine()}")
    for name, run in found.items():
        print(f"  {name:8} {run.seconds:5.2f} s  cpu {run.cpu_seconds:5.2f} s  peak {run.peak_bytes / 1e6:4.0f} MB")
    return report(
        {
            f"under {SECONDS_LIMIT:g} s": found["draft"].seconds < SECONDS_LIMIT,
            f"under {BYTES_LIMIT / 1e6:.0f} MB": found["draft"].peak_bytes < BYTES_LIMIT,
            f"at most {RATIO_LIMIT:g}x zoompan (here {ratio:.2f}x)": ratio <= RATIO_LIMIT,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
