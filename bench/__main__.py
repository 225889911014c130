"""Runs all benchmarks that need no GPU (``make bench``), or one of them (``python -m bench draft``).

They run in a temporary folder with a separate home, so they neither use nor change the user's films, settings and
records.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALL = ("startup", "draft", "overhead", "films", "engine")


def main() -> int:
    """Run the benchmarks one after the other; returns 1 if a target is missed."""
    chosen = sys.argv[1:] or ALL
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        own = {"HOME": folder, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        foreign = ("REELWRIGHT_", "XDG_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | own
        argvs = [[sys.executable, "-m", f"bench.{name}"] for name in chosen]
        statuses = [subprocess.run(argv, check=False, cwd=folder, env=environ).returncode for argv in argvs]
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
