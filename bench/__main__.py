"""All benchmarks that need no GPU: ``make bench``, or ``python -m bench draft`` for one."""

from __future__ import annotations

import subprocess
import sys

ALL = ("startup", "draft", "overhead", "films", "engine")


def main() -> int:
    """Run them one after the other; 1 when a target is missed."""
    chosen = sys.argv[1:] or ALL
    statuses = [subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode for name in chosen]
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
