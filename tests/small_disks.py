"""Disks so small that they fill up: real ones (tmpfs), mounted in a namespace of the command's own."""

from __future__ import annotations

from dataclasses import dataclass

#: Mounts a tmpfs of a size on a folder (``empty``, ``full`` or ``read-only``), runs a command, says how it ended.
IN_NAMESPACE = """
import json, os, subprocess, sys
folder, size, kind, *argv = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
if kind == "full":
    with open(os.path.join(folder, "ballast"), "wb", buffering=0) as file:
        for chunk in (4096, 1):
            try:
                while True:
                    file.write(bytes(chunk))
            except OSError:
                pass
elif kind == "read-only":
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
done = subprocess.run(argv, capture_output=True, text=True)
print(json.dumps([done.returncode, done.stderr, sorted(os.listdir(folder))]))
"""


@dataclass(frozen=True)
class Ended:
    """What a `reel` said, and what was in the folder with the small disk when it had ended."""

    status: int
    err: str
    names: list[str]
