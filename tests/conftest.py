"""Defines factories and fixtures that many tests share."""

from __future__ import annotations

import contextlib
import functools
import getpass
import io
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from PIL import Image, ImageDraw

from tests import warm

REPOSITORY = Path(__file__).parents[1]
_Found = TypeVar("_Found")

# Tests start hundreds of Python processes. Without files of bytecode, each of them compiles the whole package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The time to run or draw an example depends on the load of the machine, so no deadline is useful.
hypothesis.settings.register_profile(
    "no deadline", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no deadline")

# A test run in the background ignores Ctrl-C and a closed terminal, and every process that it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

_STARTED = time.monotonic()


#: The lowest coverage of lines and branches together, in per cent, that a complete `make test` accepts for some rooms.
#: `make test` runs nothing of engines/diffusers, which needs torch; pyproject.toml leaves it out.
_LOWEST_COVERAGE = {
    "core, policy and backends": (98.0, ("core", "policy", "backends")),
    "all rooms but engines/diffusers": (90.0, (".",)),
}
_COVERAGE_LINES = pytest.StashKey[list[str]]()


def _coverage(config: pytest.Config) -> dict[str, float]:
    """The coverage in per cent for each key of ``_LOWEST_COVERAGE``; empty if it was not measured."""
    controller = getattr(config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if controller is None:
        return {}
    source = REPOSITORY / "src" / "reelwright"
    return {
        name: controller.cov.report(include=[str(source / room / "*") for room in rooms], file=io.StringIO())
        for name, (_, rooms) in _LOWEST_COVERAGE.items()
    }


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long tests first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Check the coverage of a complete ``make test``, and record its cases, time and coverage for ``make house``."""
    config = session.config
    whole = config.args == ["tests"] and not config.option.keyword and "not engine" in config.option.markexpr
    if not whole or hasattr(config, "workerinput") or not config.pluginmanager.hasplugin("cacheprovider"):
        return
    covered = _coverage(config)
    config.stash[_COVERAGE_LINES] = [
        f"coverage of {name}: {covered[name]:.1f} % of lines and branches; at least {lowest:.0f} % are required"
        for name, (lowest, _) in _LOWEST_COVERAGE.items()
        if name in covered
    ]
    if session.exitstatus == pytest.ExitCode.OK and any(
        per_cent < _LOWEST_COVERAGE[name][0] for name, per_cent in covered.items()
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    record = {
        "cases": session.testscollected,
        "seconds": round(time.monotonic() - _STARTED),
        "coverage": {name: f"{per_cent:.1f} %" for name, per_cent in covered.items()},
    }
    config.cache.set("reelwright/make-test", record)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the coverage above pytest's last line."""
    for line in terminalreporter.config.stash.get(_COVERAGE_LINES, []):
        terminalreporter.write_line(line)


def eventually(condition: Callable[[], Any], *, within_s: float = 60.0, what: str = "the condition") -> Any:
    """The first true value of ``condition``; fails after the deadline. Only for changes that other processes make."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {within_s} s")
        time.sleep(0.01)


def patiently(
    attempt: Callable[[float], _Found], far_enough: Callable[[_Found], Any], limits_s: tuple[float, ...]
) -> _Found:
    """The result with the shortest time limit in which this machine gets far enough, or with the longest limit.

    For tests in which a limit must run out: a short limit keeps the test fast, but may run out too early on a busy
    machine.
    """
    for limit_s in limits_s[:-1]:
        found = attempt(limit_s)
        if far_enough(found):
            return found
    return attempt(limits_s[-1])


def is_running(pid: int | str) -> bool:
    """Whether a process exists and is not a zombie, which its parent has not collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def opened_below(folder: Path) -> list[str]:
    """The files that this process has open in a folder, deleted ones included; other descriptors may come and go."""
    opened = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this listing is already closed
            opened.append(str(link.readlink()))
    return [path for path in opened if f"{path}/".startswith(f"{folder}/")]


def a_photo(path: Path, size: tuple[int, int] = (320, 180)) -> Path:
    """A picture with edges, gradients and colour, as a real file; the suffix decides the format."""
    path.write_bytes(_photo(path.suffix.lower(), size))
    return path


@functools.cache
def _photo(suffix: str, size: tuple[int, int]) -> bytes:
    width, height = size
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for index in range(12):
        x, y = (index * 97) % width, (index * 53) % height
        draw.ellipse((x, y, x + width // 8, y + height // 6), fill=(200 - index * 9, 40 + index * 15, index * 20))
    file = io.BytesIO()
    picture.save(file, Image.registered_extensions()[suffix])
    return file.getvalue()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A 320x180 PNG."""
    return a_photo(tmp_path / "photo.png")


@pytest.fixture
def hostile_path(tmp_path: Path) -> Path:
    """A folder whose name holds spaces, quotes, a line break, a shell command, emoji and a byte that is no UTF-8."""
    folder = tmp_path / "a b'\"\n;echo $HOME 🎬 -x\udcff"
    folder.mkdir()
    return folder


_HOMES = itertools.count()
#: Files and folders that tools make while tests run, and the suffixes of files that people edit meanwhile.
_PASSING = {
    ".git",
    ".import_linter_cache",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
    "demo",
}
_WRITTEN = {".py", ".md", ".txt", ".toml", ".in", ""}


def _made_in_the_tree() -> set[Path]:
    """Pictures, films, records and other products in the repository."""
    found = set()
    for place, folders, names in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if name not in _PASSING and not name.startswith(".venv")]
        found |= {Path(place, name) for name in names if Path(name).suffix not in _WRITTEN}
        found |= {Path(place, name) for name in folders if name.startswith(".")}
    return found


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the session if tests leave anything in the home, in the folder of temporary files or in the tree."""
    ground = tmp_path_factory.mktemp("ground")
    home, temporary = ground / "home", ground / "tmp"
    home.mkdir()
    temporary.mkdir()
    shared_locks = Path("/tmp") / f"reelwright-{os.geteuid()}"
    before, locks_before = _made_in_the_tree(), shared_locks.exists()
    with pytest.MonkeyPatch.context() as patch:
        _no_settings_of_the_user(patch, home, temporary)
        patch.setattr(tempfile, "tempdir", str(temporary))
        yield
    # torch keeps its precompiled headers in the folder of temporary files, even if TORCHINDUCTOR_CACHE_DIR is set.
    torchs = f"torchinductor_{getpass.getuser()}"
    kept = [path for path in temporary.rglob("*") if torchs not in path.parts]
    left = [*home.rglob("*"), *kept, *sorted(_made_in_the_tree() - before)]
    left += [shared_locks] if shared_locks.exists() and not locks_before else []
    assert not left, f"the tests left {', '.join(map(str, left[:20]))}"


def _no_settings_of_the_user(patch: pytest.MonkeyPatch, home: Path, temporary: Path) -> None:
    users = ("REELWRIGHT_", "CUDA_VISIBLE", "XDG_", "COLUMNS", "LINES")
    for name in [name for name in os.environ if name.startswith(users)]:
        patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("TMPDIR", str(temporary))
    for name in ("state", "config", "cache"):  # beside the home: files that belong in these folders are not leftovers
        patch.setenv(f"XDG_{name.upper()}_HOME", str(home.parent / f"{home.name}-{name}"))


@contextlib.contextmanager
def a_home(folder: Path) -> Iterator[None]:
    """Use a home and a temporary folder in ``folder``, for results that several tests share."""
    (folder / "tmp").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        _no_settings_of_the_user(patch, folder, folder / "tmp")
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the user's settings, state, environment of GPUs and locks from every test."""
    # Not with mktemp: to find a number, it reads a folder that grows with every test.
    home = tmp_path_factory.getbasetemp() / "homes" / str(next(_HOMES))
    (home / "tmp").mkdir(parents=True)
    _no_settings_of_the_user(monkeypatch, home, home / "tmp")


@pytest.fixture
def reel(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command line in a separate process."""
    # Pass os.environ, not the environment as C sees it: readline, which pytest loads, puts COLUMNS=80 there. The
    # processes of pytest-xdist inherit it.

    def call(*arguments: object, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "reelwright", *map(str, arguments)]
        options = {"env": dict(os.environ), **options}
        return warm.run(argv, timeout=100, cwd=cwd or tmp_path, **options)

    return call


@pytest.fixture(scope="session")
def namespace() -> list[str]:
    """The command that starts a program in its own mount namespace, with or without root's rights on this machine."""
    for words in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        probe = [*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return words
    pytest.skip("this machine lets nobody mount a small disk in a namespace of its own")
