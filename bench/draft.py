"""The draft against ffmpeg's zoompan: whole processes, same picture, encoder and preset, medians in one run.

    python bench/draft.py --rounds 5

Ours plans, renders with sub-pixel moves, verifies by a full decode and publishes; zoompan only renders (it
jitters by whole pixels) and verifies nothing. Both run through the same libav inside PyAV, so no ffmpeg program
is needed; the rounds alternate, so that a busy machine is unfair to neither. Exits with 1 when a target is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PHOTO = Path(__file__).parents[1] / "examples" / "rocket.jpg"
FRAMES, WIDTH, HEIGHT, FPS = 81, 1280, 720, 16
SECONDS_LIMIT, BYTES_LIMIT, RATIO_LIMIT = 2.0, 300_000_000, 2.0  # of issue 2, for 2 cores

_ENCODER = """
import json
from reelwright.media.video import Encoding
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


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def timed(argv: list[str]) -> Run:
    """Run a program; wall-clock time of the whole process and the peak of its own resident memory."""
    started = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{argv[:4]} ended with {process.returncode}:\n{said}")
    return Run(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def draft(film: Path) -> list[str]:
    """Our whole command line, as a user types it."""
    return [
        sys.executable, "-m", "reelwright", "generate", str(PHOTO), "push in", "-o", str(film), "--generator", "draft",
        "--size", f"{WIDTH}x{HEIGHT}", "--frames", str(FRAMES), "--seed", "1", "--overwrite", "--json",
    ]  # fmt: skip


def zoompan(film: Path) -> list[str]:
    """The filter with the encoder's settings that ours has."""
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
    seconds = {name: statistics.median(run.seconds for run in found) for name, found in runs.items()}
    cpu = {name: statistics.median(run.cpu_seconds for run in found) for name, found in runs.items()}
    peaks = {name: max(run.peak_bytes for run in found) for name, found in runs.items()}
    ratio = seconds["draft"] / seconds["zoompan"]
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{FRAMES} frames {WIDTH}x{HEIGHT}, whole process, median of {rounds}, {machine}")
    for name in sides:
        print(f"  {name:8} {seconds[name]:5.2f} s  cpu {cpu[name]:5.2f} s  peak {peaks[name] / 1e6:4.0f} MB")
    targets = {
        f"under {SECONDS_LIMIT:g} s": seconds["draft"] < SECONDS_LIMIT,
        f"under {BYTES_LIMIT / 1e6:.0f} MB": peaks["draft"] < BYTES_LIMIT,
        f"at most {RATIO_LIMIT:g}x zoompan (here {ratio:.2f}x)": ratio <= RATIO_LIMIT,
    }
    for target, met in targets.items():
        print(f"  {'met' if met else 'MISSED':6} {target}")
    return 0 if all(targets.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
