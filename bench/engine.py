"""Measures the resident engine on a CPU: a warm film against cold clips, idle gaps, cancelling, effects of the presets.

    python -m bench.engine --engine-python .venv-engine/bin/python

The model is tiny and gets random weights in this run; the engine, its worker and the command line are the real
ones. Cold is one `reel generate` for each shot, warm is one `reel film` of the same shots. A gap is the time from a
clip's frames reaching the runner to the next clip's first phase; the engine is idle then. `bench.engine_presets`
compares the presets in the engine's interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measuring import machine, report, timed

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "tests" / "photos" / "rocket.jpg"
_MODEL = "from pathlib import Path; import sys; from tests.engine_diffusers import tiny; tiny.save(sys.argv[1], Path(sys.argv[2]))"
WARM_LIMIT, GAP_LIMIT = 1 / 3, 0.03  # of issue 6


@dataclass(frozen=True)
class Bench:
    """A folder with a model, settings and results."""

    folder: Path
    arguments: argparse.Namespace

    def reel(self, *words: str) -> list[str]:
        """A `reel` command line."""
        return [sys.executable, "-m", "reelwright", *words, "--config", str(self.folder / "config.yaml"), "--json"]

    def clip(self, number: int) -> list[str]:
        """The command for one cold shot."""
        values = self.arguments
        return self.reel(
            "generate", str(self.folder / "photo.jpg"), f"shot {number}", "-o", str(self.folder / f"cold{number}.mp4"),
            "--size", values.size, "--frames", str(values.frames), "--steps", str(values.steps), "--seed", str(number),
        )  # fmt: skip

    def film(self) -> list[str]:
        """The command for all shots, warm."""
        return self.reel("film", str(self.folder / "film.yaml"), "-o", str(self.folder / "film.mp4"))


def set_up(folder: Path, arguments: argparse.Namespace) -> Bench:
    """Make a tiny model, settings and a storyboard."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    python = str(arguments.engine_python.absolute())
    subprocess.run([python, "-W", "ignore", "-c", _MODEL, "wan2.1-i2v", str(folder / "model")], env=env, check=True)
    shutil.copy(PHOTO, folder / "photo.jpg")
    settings = {
        "generator": "diffusers", "weights": str(folder / "model"), "python": python, "engine_device": "cpu",
        "state_dir": str(folder / "state"), "if_exists": "overwrite",
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(settings))
    shots = [
        {"id": f"s{number}", "prompt": f"shot {number}", "image": "photo.jpg", "frames": arguments.frames,
         "steps": arguments.steps, "seed": number}
        for number in range(arguments.shots)
    ]  # fmt: skip
    (folder / "film.yaml").write_text(json.dumps({"size": arguments.size, "shots": shots}))
    return Bench(folder, arguments)


@dataclass(frozen=True)
class Line:
    """A line of ``--json``, and its time."""

    at: float
    message: dict[str, Any]

    def is_phase(self, name: str) -> bool:
        """Whether a phase of that name begins."""
        return self.message.get("event") == "Phase" and self.message.get("name") == name


def lines(process: subprocess.Popen[str]) -> Iterator[Line]:
    """The lines of a command, as they arrive."""
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith("{"):
            yield Line(time.perf_counter(), json.loads(text))


def all_lines(argv: Sequence[str]) -> tuple[list[Line], float]:
    """All lines of a command, and the seconds that it takes."""
    started = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = list(lines(process))
        _, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{argv[3:6]} ended with {process.returncode}:\n{errors}\n{said[-1:]}")
    return said, time.perf_counter() - started


def gaps(said: Sequence[Line]) -> tuple[list[float], list[float]]:
    """Seconds in which the engine was idle between clips, and seconds of the clips.

    The runner sends the second "saving" of a clip, when it has the frames.
    """
    idle, clips = [], []
    begun = given = 0.0
    savings = 0
    for line in said:
        if line.is_phase("encoding"):
            if given:
                idle.append(line.at - given)
            begun, savings = line.at, 0
        if line.is_phase("saving"):
            savings += 1
            if savings == 2:
                given = line.at
                clips.append(given - begun)
    return idle, clips


def cancelled(bench: Bench) -> tuple[float, float]:
    """Seconds from Ctrl-C in a step to the end of the command, and seconds of a step."""
    with subprocess.Popen(bench.clip(99), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        steps: list[float] = []
        for line in lines(process):
            if line.message.get("event") == "Progress":
                steps.append(line.at)
            if len(steps) == 3:
                break
        asked = time.perf_counter()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate()
        ended = time.perf_counter()
    if process.returncode != 130:
        sys.exit(f"Ctrl-C ended it with {process.returncode}:\n{rest}")
    return ended - asked, steps[-1] - steps[-2]


def presets(bench: Bench) -> None:
    """Print the effects of each preset."""
    argv = [str(bench.arguments.engine_python.absolute()), "-W", "ignore", "-m", "bench.engine_presets"]
    subprocess.run([*argv, "--photo", str(bench.folder / "photo.jpg")], cwd=ROOT, check=True)


def main() -> int:
    """Print the figures and whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine-python", type=Path, default=ROOT / ".venv-engine" / "bin" / "python")
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--size", default="96x64")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--without-presets", action="store_true", help="leave the slow comparison out")
    arguments = parser.parse_args()
    if not arguments.engine_python.exists():
        print(f"left out: no interpreter with torch and diffusers at {arguments.engine_python}; see make test-engine")
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits an ignored SIGINT
    with tempfile.TemporaryDirectory() as name:
        bench = set_up(Path(name), arguments)
        timed(bench.clip(98))  # not counted: bytecode and file cache
        said, warm = all_lines(bench.film())
        cold = [timed(bench.clip(number)).seconds for number in range(arguments.shots)]
        idle, clips = gaps(said)
        print(f"resident engine, tiny model, {arguments.size}, {arguments.frames} frames, {machine()}")
        print(f"  {arguments.shots} cold clips {sum(cold):6.1f} s, a warm film of them {warm:6.1f} s")
        print(
            f"  idle between clips {sum(idle):.3f} s of {sum(clips):.2f} s (longest {max(idle, default=0):.3f} s)",
            flush=True,
        )
        stop, step = cancelled(bench)
        print(f"  Ctrl-C in a step of {step:.2f} s: ended after {stop:.2f} s", flush=True)
        if not arguments.without_presets:
            presets(bench)
    share = sum(idle) / max(sum(clips), 1e-9)
    return report(
        {
            f"a warm film in under a third of cold clips (here {warm / sum(cold):.2f})": warm < WARM_LIMIT * sum(cold),
            f"idle for less than 3 % of clip time (here {share:.1%})": share < GAP_LIMIT,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
