"""Claims leases for tests, reports on standard output, and obeys one word per line on standard input.

python claimant.py DIRECTORY NAME claim UUID,UUID WAIT_S     then: release | shim | (killed)
python claimant.py DIRECTORY NAME rounds SEED COUNT          random claims, checked to be alone on each GPU
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from reelwright.core.errors import VideoGenerationError
from reelwright.sites.local.leases import Leases


def say(*words: object) -> None:
    print(*words, flush=True)


def claim(leases: Leases, name: str, uuids: str, wait_s: str) -> None:
    try:
        lease = leases.claim(uuids.split(","), wait_s=float(wait_s), owner={"run": name})
    except VideoGenerationError as error:
        say(error.code, error.message)
        return
    say("got", name)
    for line in sys.stdin:
        if line.strip() == "shim":
            shim = subprocess.Popen(["cat"], stdin=sys.stdin, pass_fds=lease.fds)
            say("shim", shim.pid)
        elif line.strip() == "release":
            lease.close()
            say("released")


def rounds(directory: Path, leases: Leases, name: str, seed: str, count: str) -> None:
    source = random.Random(int(seed))
    for _ in range(int(count)):
        uuids = source.sample(["0", "1", "2"], source.randint(1, 3))  # in any order
        with leases.claim(uuids, wait_s=60, owner={"run": name}):
            for uuid in uuids:  # fails if another process is on the GPU
                os.close(os.open(directory / f"used-{uuid}", os.O_CREAT | os.O_EXCL))
            for uuid in uuids:
                (directory / f"used-{uuid}").unlink()
    say("done")


if __name__ == "__main__":
    folder, name, task, *arguments = sys.argv[1:]
    found = Leases(
        Path(folder) / "leases",
        poll_s=0.002 if task == "rounds" else 0.02,
        on_wait=lambda holder: say("waiting", holder),
    )
    if task == "claim":
        claim(found, name, *arguments)
    else:
        found = Leases(Path(folder) / "leases", poll_s=0.002)
        rounds(Path(folder), found, name, *arguments)
