"""Checks a draft film of sixty shots (five minutes): memory stays flat, the film is complete, joints are invisible.

python -m bench.long_film [SIZE]      416x240 by default; 1280x720 takes minutes
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from .films import PHOTOS, film
from .measuring import machine, report

SHOTS, CHAIN = 60, 20  # each chain of so many shots begins with a new picture
MOVES = ("push in slow", "pan left", "tilt up", "hold", "pan right", "push in", "tilt down", "pull out slow")
PICTURES = ("rocket.jpg", "coffee_first.jpg", "coffee_last.jpg")


def a_board(folder: Path, size: str) -> Path:
    """Write a storyboard of three chains of twenty shots; the second begins with a dissolve."""
    shots: list[dict[str, Any]] = []
    for number in range(SHOTS):
        shot: dict[str, Any] = {"id": f"s{number:02}", "prompt": MOVES[number % len(MOVES)], "seconds": 5.06}
        if number % CHAIN == 0:
            shot["image"] = PICTURES[number // CHAIN]
        shots.append(shot)
    shots[CHAIN]["transition"] = "dissolve 8"
    path = folder / "long.yaml"
    path.write_text(json.dumps({"size": size, "shots": shots}))
    return path


class Memory:
    """Resident memory of a process in bytes, ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.seen: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(OSError, IndexError):
                text = Path(f"/proc/{self._pid}/status").read_text()
                self.seen.append(int(text.partition("VmRSS:")[2].split()[0]) * 1024)

    def quarters(self) -> list[int]:
        """Stop measuring; returns the peaks of the four quarters of the process's life."""
        self._stop.set()
        self._thread.join()
        each = max(1, len(self.seen) // 4)
        return [max(self.seen[start : start + each]) for start in range(0, 4 * each, each)]


def made(board: Path, output: Path) -> tuple[dict[str, Any], float, list[int]]:
    """Make the film; returns the command's last message, its seconds, and its memory by quarters."""
    started = time.perf_counter()
    with subprocess.Popen(film(board, output), stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        memory = Memory(process.pid)
        assert process.stdout is not None
        last = deque(process.stdout, maxlen=1)
    if process.returncode:
        sys.exit(f"it ended with {process.returncode}: {last}")
    return json.loads(last[0]), time.perf_counter() - started, memory.quarters()


def main() -> int:
    """Print the figures and whether the targets are met."""
    from reelwright.media.video import examine

    size = sys.argv[1] if len(sys.argv) > 1 else "416x240"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for picture in PICTURES:
            shutil.copy(PHOTOS / picture, folder)
        board, output = a_board(folder, size), folder / "long.mp4"
        result, seconds, quarters = made(board, output)
        _, again, _ = made(board, output)
        facts = examine(output, limit_s=3600)
    ratios = sorted((joint["ratio"], joint["part"]) for joint in result["joints"] if joint["kind"] == "chained")
    print(f"a film of {SHOTS} shots, {result['seconds']:.0f} s of {size}, {result['frames']} frames, {machine()}")
    print(f"  made in {seconds:.1f} s, again in {again:.2f} s; {result['how']}")
    print(f"  memory of the command, peaks of its quarters: {', '.join(f'{peak / 1e6:.0f} MB' for peak in quarters)}")
    print(f"  {len(ratios)} chained joints; the greatest ratios, and where: {ratios[-4:]}")
    return report(
        {
            "memory while clips are made: the third quarter within 10 % of the first": quarters[2] < 1.1 * quarters[0],
            "joining and the contact sheet take at most 64 MB more": quarters[3] - quarters[2] < 64e6,
            "decoded completely once more: whole": not facts.problems and facts.num_frames == result["frames"],
            "every chained joint at most 3 times the median difference": ratios[-1][0] <= 3,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
