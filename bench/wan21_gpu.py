"""Measures the real generate.py on a real GPU, by hand and through Reelwright: overhead, memory, memory after a stop.

    python -m bench.wan21_gpu --wan21 CHECKOUT --python ENV/bin/python --weights FOLDER

If FOLDER is empty, the script makes weights of true size with random values in it (46 GB; about as much host memory).
Figures belong in docs/benchmarks.md with the hardware, the versions and this command. With ``--simulate-gpus`` the
script runs without a GPU, to try the script itself; the memory figures are then missing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reelwright.core.host import GIB, HostQuery
from reelwright.sites.local.probes.host import take_host

from .measuring import machine, report, timed

PHOTO = Path(__file__).parents[1] / "tests" / "photos" / "rocket.jpg"


def used_bytes() -> list[int] | None:
    """Memory in use on each GPU; ``None`` if it cannot be read."""
    gpus = take_host(HostQuery(gpus=True), environ=os.environ, simulated=None, state_dir=None).gpus
    if not gpus or any(gpu.total_bytes is None or gpu.free_bytes is None for gpu in gpus):
        return None
    return [(gpu.total_bytes or 0) - (gpu.free_bytes or 0) for gpu in gpus]


class Bench:
    """One machine, one configuration."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.folder = folder
        values = {
            "generator": "wan2.1", "wan2_dir": str(arguments.wan21.resolve()), "python": str(arguments.python.absolute()),
            "i2v_model_dir": str(arguments.weights.resolve()), "gpu_count": 1, "if_exists": "overwrite",
            "state_dir": str(folder / "state"), "simulate_gpus": arguments.simulate_gpus,
        }  # fmt: skip
        (folder / "config.yaml").write_text(json.dumps({key: value for key, value in values.items() if value}))
        self._ask = ["--size", arguments.size, "--frames", str(arguments.frames), "--steps", str(arguments.steps)]

    def reel(self, command: str, output: str) -> list[str]:
        """A `reel` command line."""
        where = ["-o", str(self.folder / output), "--config", str(self.folder / "config.yaml"), "--json", "--seed", "1"]
        return [sys.executable, "-m", "reelwright", command, str(PHOTO), "the rocket lifts off", *where, *self._ask]

    def plan(self) -> dict[str, Any]:
        """The plan of the run."""
        done = subprocess.run(self.reel("plan", "hand.mp4"), capture_output=True, text=True, check=False)
        plan: dict[str, Any] = json.loads(done.stdout)
        if plan["command"] is None or done.returncode:
            sys.exit("\n".join(f"{item['code']}: {item['message']}" for item in plan["findings"]))
        return plan

    def by_hand(self, plan: dict[str, Any]) -> float:
        """Seconds of the planned command, started by hand."""
        film, command = self.folder / "hand.mp4", plan["command"]
        words = [word for word in command["argv"] if not word.startswith(("--image=", "--save_file="))]
        picture = self.folder / "hand.png"
        subprocess.run(
            [sys.executable, "-c", f"from PIL import Image; Image.open({str(PHOTO)!r}).save({str(picture)!r})"],
            check=True,
        )
        argv = [*words, f"--image={picture}", f"--save_file={film}"]
        return timed(argv, cwd=Path(command["cwd"]), env={**os.environ, **command["env"]}).seconds

    def stopped(self, number: int) -> list[int] | None:
        """Stop a run in its first step; returns the GPU memory in use five seconds later."""
        process = subprocess.Popen(self.reel("generate", "stop.mp4"), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if '"Progress"' in line:
                break
        process.send_signal(number)
        process.communicate()
        time.sleep(5)  # the driver takes a moment; this is what is measured
        return used_bytes()


def main() -> int:
    """Make weights if needed, measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wan21", type=Path, required=True, help="official checkout")
    parser.add_argument("--python", type=Path, required=True, help="the framework's own interpreter")
    parser.add_argument("--weights", type=Path, required=True, help="folder of i2v weights; made if it is empty")
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--simulate-gpus", help="try the script without a GPU")
    arguments = parser.parse_args()
    if not (arguments.weights / "config.json").exists():
        script = Path(__file__).with_name("wan21_weights.py")
        env = {**os.environ, "PYTHONPATH": "."}
        target = str(arguments.weights.absolute())
        subprocess.run(
            [str(arguments.python.absolute()), str(script), target], cwd=arguments.wan21, env=env, check=True
        )
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(arguments, Path(name))
        before, plan = used_bytes(), bench.plan()
        hand = bench.by_hand(plan)
        ours = timed(bench.reel("generate", "ours.mp4"))
        manifest = json.loads((Path(name) / "ours.reel.json").read_text())
        after = {"Ctrl-C": bench.stopped(signal.SIGINT), "kill -9": bench.stopped(signal.SIGKILL)}
    return report_runs(plan, manifest, (hand, ours.seconds, ours.peak_bytes), {"before": before, **after})


def report_runs(
    plan: dict[str, Any], manifest: dict[str, Any], runs: tuple[float, float, int], memory: dict[str, Any]
) -> int:
    """Print the figures and whether the targets are met."""
    hand, ours, peak = runs
    metrics = manifest.get("metrics") or {}
    print(f"Wan2.1 i2v-14B, {machine()}")
    print(f"  by hand {hand:.1f} s, ours {ours:.1f} s, runner's own memory {peak / 1e6:.0f} MB")
    print(f"  seconds per phase: {manifest['phase_seconds']}")
    print(f"  predicted GPU memory {plan['gpu_bytes'] / GIB:.1f} GiB, measured: {metrics.get('gpu_peak_bytes')}")
    print(f"  samples of the memory curve: {len(metrics.get('curve') or ())}")
    for moment, used in memory.items():
        print(f"  GPU memory in use, {moment}: {used}")
    free = [memory[key] for key in ("Ctrl-C", "kill -9") if memory[key] is not None]
    base = memory["before"]
    given_back = all(max(now) <= max(base) + 256 * 2**20 for now in free) if base else True
    return report(
        {f"overhead under 0.5 s (here {ours - hand:.2f} s)": ours - hand < 0.5, "memory given back": given_back}
    )


if __name__ == "__main__":
    sys.exit(main())
