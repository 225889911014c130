"""Put each mistake of the table into a copy of the tree and run the tests near it; a mistake that no test sees survives.

    python -m tests.mutants                      # all, in two processes
    python -m tests.mutants frames workers       # those areas, or those whose name holds a word
    python -m tests.mutants --list

Exit status 1 if a mutant survives or a text of the table is no longer in the source exactly once, 2 if the tests fail
without any mistake.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from .table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
_COPIED = ("src", "tests", "tools", "docs", "examples", "bench", "constraints")
_FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "NOTICE", "Makefile")
_LIMIT_S = 900
_FAILED, _PASSED = 1, 0


class Copy:
    """A copy of the tree in which one mistake at a time is made; its own home and temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.tree.mkdir()
        for name in _COPIED:
            shutil.copytree(ROOT / name, self.tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in _FILES:
            shutil.copy(ROOT / name, self.tree / name)
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        self._environ = {**os.environ, **own, "PYTHONPATH": os.pathsep.join([str(self.tree / "src"), str(self.tree)])}

    def tested(self, tests: str) -> tuple[int, str]:
        """Exit status of pytest, and its last lines."""
        argv = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            *words(tests),
        ]
        try:
            done = subprocess.run(
                argv, cwd=self.tree, env=self._environ, capture_output=True, text=True, timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return _FAILED, "the tests hang"
        return done.returncode, "\n".join((done.stdout + done.stderr).strip().splitlines()[-3:])

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """The tree with the mistake in it, for as long as the ``with`` lasts."""
        path = self.tree / "src" / "reelwright" / mutant.file
        text = path.read_text("utf-8")
        path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
        try:
            yield
        finally:
            path.write_text(text, "utf-8")


def words(tests: str) -> list[str]:
    """The arguments of pytest: paths first, and what stands after ``-k`` is one word."""
    paths, sign, expression = tests.partition(" -k ")
    return [*paths.split(), *(["-k", expression] if sign else [])]


def misplaced(mutants: Sequence[Mutant]) -> list[str]:
    """Those whose text is not in its file exactly once, or changes nothing."""
    found = []
    for mutant in mutants:
        path = ROOT / "src" / "reelwright" / mutant.file
        count = path.read_text("utf-8").count(mutant.old) if path.is_file() else 0
        if count != 1 or mutant.old == mutant.new:
            found.append(f"{mutant.name}: found {count} times in {mutant.file}: {mutant.old!r}")
    names = [mutant.name for mutant in mutants]
    return [*found, *(f"{name}: the name is taken twice" for name in sorted(set(names)) if names.count(name) > 1)]


def outcome(copy: Copy, mutant: Mutant) -> tuple[str, str]:
    """``killed``, ``SURVIVES`` or ``BROKEN`` (the tests could not even be collected), and what pytest said."""
    with copy.mutated(mutant):
        status, said = copy.tested(mutant.tests)
    return {_FAILED: "killed", _PASSED: "SURVIVES"}.get(status, "BROKEN"), said


def run(mutants: Sequence[Mutant], jobs: int, *, baseline: bool) -> int:
    """Try them all, several at once; prints a line for each."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name, ThreadPoolExecutor(jobs) as pool:
        Path(name).chmod(0o755)  # some tests look at it as another user
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(jobs):
            folder = Path(name) / str(number)
            folder.mkdir()
            copies.put(Copy(folder))

        def in_a_copy(
            work: Callable[[Copy, Any], tuple[Any, str]], argument: Any
        ) -> tuple[Any, tuple[Any, str], float]:
            copy, since = copies.get(), time.monotonic()
            try:
                return argument, work(copy, argument), time.monotonic() - since
            finally:
                copies.put(copy)

        if baseline:
            sound = [pool.submit(in_a_copy, Copy.tested, tests) for tests in sorted({item.tests for item in mutants})]
            for future in as_completed(sound):
                tests, (status, said), _ = future.result()
                if status != _PASSED:
                    print(f"without any mistake: {tests}\n{said}", flush=True)
                    return 2
        tried = [pool.submit(in_a_copy, outcome, mutant) for mutant in mutants]
        bad = 0
        for future in as_completed(tried):
            mutant, (verdict, said), seconds = future.result()
            print(f"{verdict:8} {seconds:5.0f} s  {mutant.area}: {mutant.name}", flush=True)
            if verdict != "killed":
                bad += 1
                print("   " + said.replace("\n", "\n   "), flush=True)
    print(f"{len(mutants) - bad} of {len(mutants)} mutants were noticed")
    return 1 if bad else 0


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="areas, or words of the names; all without one")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--list", action="store_true", help="only list them, and check that each can be made")
    parser.add_argument("--without-baseline", action="store_true", help="do not run the tests without a mistake first")
    asked = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not asked.words or any(word == mutant.area or word in mutant.name for word in asked.words)
    ]
    if asked.list:
        for mutant in chosen:
            print(f"{mutant.area}: {mutant.name} ({mutant.tests})")
    if wrong := misplaced(MUTANTS):
        print("\n".join(wrong))
        return 1
    return 0 if asked.list else run(chosen, asked.jobs, baseline=not asked.without_baseline)


if __name__ == "__main__":
    sys.exit(main())
