"""Measures the overhead over a framework started by hand, a plan with weights of true size, and a log of 200 MB.

    python -m bench.overhead --rounds 5

The framework is the imitation in the tests, which itself takes almost no time, so the rest is Reelwright's overhead.
"By hand" is the command that `reel plan` shows, started in the same folder. Both alternate in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stand_ins.checkout import make_wan_checkout, set_plan
from tests.stand_ins.checkpoints import make_wan_checkpoint
from tests.stand_ins.interpreter import Knobs, make_interpreter

from .measuring import Run, machine, median, report, timed

PHOTO = Path(__file__).parents[1] / "tests" / "photos" / "rocket.jpg"


@dataclass(frozen=True)
class Machine:
    """An imitated machine in one folder."""

    folder: Path
    env: dict[str, str]

    @property
    def checkout(self) -> Path:
        """The folder of the framework."""
        return self.folder / "Wan2.1"

    def reel(self, command: str, output: str) -> list[str]:
        """A `reel` command line."""
        return [
            sys.executable, "-m", "reelwright", command, str(PHOTO), "push in", "-o", str(self.folder / output),
            "--config", str(self.folder / "config.yaml"), "--frames", "5", "--steps", "3", "--seed", "1",
            "--size", "832x480", "--json",
        ]  # fmt: skip


def a_machine(folder: Path) -> Machine:
    """Make a machine: checkout, interpreter, weights of true (sparse) size, one simulated GPU."""
    settings: Mapping[str, Any] = {
        "generator": "wan2.1",
        "wan2_dir": str(make_wan_checkout(folder / "Wan2.1", [{}])),
        "i2v_model_dir": str(make_wan_checkpoint(folder / "i2v", "i2v-14B", true_size=True)),
        "python": str(make_interpreter(folder / "venv", Knobs())),
        "state_dir": str(folder / "state"),
        "simulate_gpus": "1x80GiB",
        "gpu_count": 1,
        "if_exists": "overwrite",
        "log_limit_mb": 8,
    }
    (folder / "config.yaml").write_text(json.dumps(settings))
    return Machine(folder, {**os.environ, "TMPDIR": str(folder)})


def by_hand(here: Machine) -> tuple[list[str], Path, dict[str, str]]:
    """The command that the plan shows, with a separate picture and output; its folder and its environment."""
    import subprocess

    done = subprocess.run(here.reel("plan", "hand.mp4"), capture_output=True, text=True, env=here.env, check=False)
    command = json.loads(done.stdout)["command"]
    picture, film = here.folder / "hand.png", here.folder / "hand.mp4"
    shutil.copyfile(PHOTO, picture)
    words = [word for word in command["argv"] if not word.startswith(("--image=", "--save_file="))]
    return [*words, f"--image={picture}", f"--save_file={film}"], Path(command["cwd"]), {**here.env, **command["env"]}


def main() -> int:
    """Print medians and whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        here = a_machine(Path(name))
        argv, cwd, env = by_hand(here)
        ours: list[Run] = []
        hand: list[Run] = []
        for counted in (False, *[True] * rounds):
            runs = timed(here.reel("generate", "a.mp4"), env=here.env), timed(argv, cwd=cwd, env=env)
            if counted:
                ours.append(runs[0])
                hand.append(runs[1])
        plans = [timed(here.reel("plan", "b.mp4"), env=here.env) for _ in range(rounds)]
        set_plan(here.checkout, [{"log_mb": 200}])
        flood = timed(here.reel("generate", "c.mp4"), env=here.env)
    return report_runs(
        rounds, {"ours": median(ours), "by hand": median(hand), "plan": median(plans), "200 MB log": flood}
    )


def report_runs(rounds: int, found: Mapping[str, Run]) -> int:
    """Print the table and the targets."""
    print(f"Wan2.1 imitation, whole processes, median of {rounds}, {machine()}")
    for name, run in found.items():
        print(f"  {name:12} {run.seconds:5.2f} s  cpu {run.cpu_seconds:5.2f} s  peak {run.peak_bytes / 1e6:4.0f} MB")
    overhead = found["ours"].seconds - found["by hand"].seconds
    growth = found["200 MB log"].peak_bytes - found["ours"].peak_bytes
    return report(
        {
            f"overhead under 0.5 s (here {overhead:.2f} s)": overhead < 0.5,
            "the runner under 60 MB": found["ours"].peak_bytes < 60e6,
            "a plan with 82 GB of weights under 1.5 s": found["plan"].seconds < 1.5,
            f"200 MB of log cost no memory (here {growth / 1e6:.1f} MB)": growth < 8e6,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
