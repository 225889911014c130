"""Checks files before a commit: text ends with one line end and has no trailing spaces, and no file is too large.

.venv/bin/python tools/check_files.py README.md docs/films.md     # prints the problems; the exit status is then 1
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

LIMIT = 200_000
#: Larger files that belong to the project: photographs of examples/, and pictures of README.md.
LARGE = ("examples/", "docs/film.webp", "tests/photos/")
TEXT = {".cfg", ".in", ".json", ".md", ".py", ".sh", ".svg", ".toml", ".txt", ".yaml", ".yml"}
#: Real output of programs, kept unchanged.
AS_IT_WAS = ("tests/logs/", "tests/golden/")


def problems(path: Path) -> Iterator[str]:
    """The problems of one file; its path is relative to the repository."""
    data = path.read_bytes()
    if len(data) > LIMIT and not str(path).startswith(LARGE):
        yield f"{path}: {len(data)} bytes; weights, clips and other large files do not belong into the repository"
    if path.suffix not in TEXT or str(path).startswith(AS_IT_WAS):
        return
    if data and (not data.endswith(b"\n") or data.endswith(b"\n\n")):
        yield f"{path}: must end with exactly one line end"
    for number, line in enumerate(data.split(b"\n"), 1):
        if line != line.rstrip():
            yield f"{path}:{number}: trailing spaces"


def main(names: list[str]) -> int:
    found = [problem for name in names for problem in problems(Path(name))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
