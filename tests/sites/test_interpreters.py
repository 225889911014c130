from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reelwright import load_settings
from reelwright.backends.shared.launch import ENV_NAMES, interpreter_query
from reelwright.core.host import Interpreter, InterpreterQuery, passed_through
from reelwright.core.plan import Command
from reelwright.sites.local.child import program_of
from reelwright.sites.local.probes import interview
from reelwright.sites.local.probes.interpreters import ask_interpreter
from tests.conftest import eventually, is_running, patiently
from tests.wan21.planning import BACKEND, World

MODULES = {
    "torch": "from types import SimpleNamespace as S\n__version__ = '2.4.0+cu121'\n"
    "version = S(cuda='12.1')\ncuda = S(device_count=lambda: 2)\n",
    "diffusers": "print('noise on stdout ' * 10000)\nimport sys; print('on stderr', file=sys.stderr)\n"
    "import os; os.system('echo from a child')\n__version__ = '0.31'\n",
    "flash_attn": "raise ImportError('flash_attn_2_cuda.so: undefined symbol: _ZN3c10')",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "gives_up": "import os; os._exit(3)",
    "exits": "raise SystemExit('no GPU')",
    "hangs": "import signal; signal.pause()",
    "plain": "",
}


@pytest.fixture
def framework(tmp_path: Path) -> Path:
    """The path of an interpreter with the modules above; it counts its starts in ``starts``."""
    (tmp_path / "site").mkdir()
    for name, source in MODULES.items():
        (tmp_path / f"site/{name}.py").write_text(source)
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\necho start >> {tmp_path}/starts\nPYTHONPATH={tmp_path}/site exec {sys.executable} "$@"\n'
    )
    program.chmod(0o755)
    return program


def ask(
    path: Path, *modules: str, cache_dir: Path | None = None, environ: Mapping[str, str] | None = None, **options: Any
) -> Interpreter:
    query = InterpreterQuery(path, modules, env_names=ENV_NAMES)
    return ask_interpreter(query, environ=os.environ if environ is None else environ, cache_dir=cache_dir, **options)


def ask_within(far_enough: Callable[[Interpreter], object], framework: Path, *modules: str) -> Interpreter:
    """The answer under a time limit that runs out, but only after this machine has got far enough."""
    return patiently(lambda limit_s: ask(framework, *modules, timeout_s=limit_s), far_enough, (1.0, 8.0, 40.0))


def starts(program: Path) -> int:
    return len((program.parent / "starts").read_text().splitlines())


def test_an_interpreter_reports_its_version_modules_and_cuda_in_one_start(framework: Path) -> None:
    found = ask(framework, "torch", "diffusers", "plain", "nowhere")
    assert replace(found, packages={}) == Interpreter(
        framework,
        python_version=".".join(map(str, sys.version_info[:3])),
        modules={"torch": "2.4.0+cu121", "diffusers": "0.31", "plain": "unknown"},
        broken={"nowhere": "ModuleNotFoundError: No module named 'nowhere'"},
        cuda_version="12.1",
        cuda_devices=2,
    )
    assert starts(framework) == 1


def test_p27_the_text_of_a_failed_import_is_kept(framework: Path) -> None:
    found = ask(framework, "flash_attn", "exits")
    assert found.broken == {
        "flash_attn": "ImportError: flash_attn_2_cuda.so: undefined symbol: _ZN3c10",
        "exits": "SystemExit: no GPU",
    }
    assert found.problem is None


@pytest.mark.parametrize(("module", "words"), [("crashes", "killed by SIGSEGV"), ("gives_up", "exit status 3")])
def test_p27_a_module_that_kills_the_interpreter_does_not_hide_the_others(
    framework: Path, module: str, words: str
) -> None:
    found = ask(framework, "torch", module, "diffusers", "flash_attn")
    assert found.modules == {"torch": "2.4.0+cu121", "diffusers": "0.31"}
    assert words in found.broken[module]
    assert "undefined symbol" in found.broken["flash_attn"]
    assert found.cuda_devices == 2
    assert starts(framework) == 2


def test_p27_a_module_that_hangs_costs_the_time_limit_and_is_named(framework: Path) -> None:
    started = time.monotonic()
    found = ask_within(lambda answer: "torch" in answer.modules, framework, "torch", "hangs", "diffusers")
    assert time.monotonic() - started < 90
    assert found.modules == {"torch": "2.4.0+cu121"}
    assert found.broken == dict.fromkeys(("hangs", "diffusers"), "no answer in time while importing hangs")


def test_p27_nothing_survives_an_interpreter_that_hangs(framework: Path) -> None:
    pid = framework.parent / "pid"
    source = f"import os, signal\nwith open({str(pid)!r}, 'w') as file: file.write(str(os.getpid()))\nsignal.pause()"
    (framework.parent / "site/hangs.py").write_text(source)
    ask_within(lambda _: pid.exists() and pid.read_text(), framework, "hangs")
    eventually(lambda: not is_running(pid.read_text()), what="the end of the interpreter")


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "no", "does not exist"),
        (lambda path: path, "is a folder"),
        (lambda path: (path / "link").symlink_to("gone") or path / "link", "dangling link"),
        (lambda path: (path / "text").write_text("hello") and path / "text", "not executable"),
        (lambda path: script(path / "arm", "\x7fELF garbage"), "wrong architecture"),
        (lambda path: script(path / "lost", "#!/nowhere/sh\n"), "cannot be started: No such file"),
        (lambda path: script(path / "echo", "#!/bin/sh\necho hello world\n"), "(exit status 0): hello world"),
        (
            lambda path: script(path / "fail", "#!/bin/sh\necho GLIBC_2.38 not found >&2; exit 1\n"),
            "GLIBC_2.38",
        ),
        (lambda path: script(path / "kill", "#!/bin/sh\nkill -ILL $$\n"), "killed by SIGILL"),
        (lambda path: script(path / "hang", "#!/bin/sh\nexec sleep 1000\n"), "no answer in time"),
        (
            lambda path: script(path / "lies", "#!/bin/sh\nhead -c 5000000 /dev/zero\n"),
            "does not answer like",
        ),
    ],
)
def test_p27_an_unusable_interpreter_is_a_problem_with_its_reason(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    found = ask(make(tmp_path), "torch", timeout_s=1.0 if words == "no answer in time" else 60.0)
    assert found.problem is not None
    assert words in found.problem
    assert found.modules == {}


def test_c04_the_callers_python_variables_do_not_reach_the_interpreter(
    framework: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (framework.parent / "site/plain.py").write_text(
        "import os; names = {'RANK', 'PYTHONSTARTUP', 'LD_PRELOAD', 'HOME'}\n"
        "__version__ = ' '.join(sorted(names & set(os.environ)))"
    )
    for name in ("HOME", "RANK", "PYTHONSTARTUP", "LD_PRELOAD"):
        monkeypatch.setenv(name, "/nowhere")
    assert ask(framework, "plain").modules == {"plain": "HOME"}


def test_the_modules_beside_the_interview_do_not_hide_the_frameworks(framework: Path) -> None:
    beside = {path.stem for path in Path(interview.__file__).parent.glob("*.py") if path.stem != "__init__"}
    assert {"memory", "gpus", "interview"} <= beside
    assert ask(framework, *sorted(beside)).broken.keys() == beside


def test_a_folder_in_the_working_folder_is_not_taken_for_a_module(framework: Path) -> None:
    assert ask(framework, "proc").broken.keys() == {"proc"}


def test_p27_a_process_that_a_dead_module_left_behind_is_not_waited_for(framework: Path) -> None:
    source = "import os, signal\nos.system('sleep 1000 &')\nos.kill(os.getpid(), signal.SIGSEGV)"
    (framework.parent / "site/crashes.py").write_text(source)
    started = time.monotonic()
    assert "SIGSEGV" in ask(framework, "crashes", timeout_s=100).broken["crashes"]
    assert time.monotonic() - started < 90


def test_p27_a_program_that_prints_for_ever_is_given_up(tmp_path: Path) -> None:
    found = ask(script(tmp_path / "yes", "#!/bin/sh\nexec yes\n"), timeout_s=60)
    assert found.problem is not None
    assert "does not answer like a Python interpreter (endless output): y / y" in found.problem


def test_an_answer_is_remembered_until_the_interpreter_or_its_packages_change(framework: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = ask(framework, "torch", "plain", cache_dir=cache)
    assert ask(framework, "torch", "plain", cache_dir=cache) == first
    assert starts(framework) == 1
    (framework.parent / "site/torch.py").write_text(MODULES["torch"].replace("2.4.0", "2.10.0"))
    assert ask(framework, "torch", "plain", cache_dir=cache).modules["torch"] == "2.10.0+cu121"
    (framework.parent / "site/new_package.py").touch()
    ask(framework, "torch", "plain", cache_dir=cache)
    framework.write_text(framework.read_text() + "#\n")
    ask(framework, "torch", "plain", cache_dir=cache)
    assert starts(framework) == 4


@pytest.mark.parametrize("change", [{"CUDA_VISIBLE_DEVICES": "1"}, {"LD_LIBRARY_PATH": "/opt/cuda"}])
def test_an_answer_for_another_environment_is_not_used(framework: Path, tmp_path: Path, change: dict[str, str]) -> None:
    cache = tmp_path / "cache"
    ask(framework, "torch", cache_dir=cache)
    ask(framework, "torch", cache_dir=cache, environ={**os.environ, **change})
    ask(framework, "torch", "plain", cache_dir=cache)
    assert starts(framework) == 3


@pytest.mark.parametrize("module", ["crashes", "hangs"])
def test_an_incomplete_answer_is_not_remembered(framework: Path, tmp_path: Path, module: str) -> None:
    ask(framework, module, cache_dir=tmp_path / "cache", timeout_s=1.0)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"answer": {"new": 1}, "files": {}}', b"\xff"])
def test_a_damaged_memory_is_ignored_and_replaced(framework: Path, tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "cache"
    first = ask(framework, "torch", cache_dir=cache)
    (file,) = cache.iterdir()
    file.write_bytes(content)
    assert ask(framework, "torch", cache_dir=cache) == first
    assert json.loads(file.read_bytes())["answer"]["cuda_devices"] == 2
    assert list(cache.iterdir()) == [file]


def test_a_memory_that_cannot_be_written_is_no_error(framework: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert ask(framework, "plain", cache_dir=tmp_path / "file/cache").modules == {"plain": "unknown"}


# ---------------------------------------------------------------------------------- the environment of the run itself


def as_in_a_run(
    path: str | Path, *modules: str, environ: Mapping[str, str] | None = None, folder: Path | None = None, **env: str
) -> Interpreter:
    """The interpreter's answer when it starts as in a run, with these variables in the setting `env`."""
    settings = load_settings(environ={}, arguments={"env": env})
    query = interpreter_query(settings, Path(path), modules, folder=folder)
    return ask_interpreter(query, environ=os.environ if environ is None else environ, cache_dir=None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a package as ``pip --user`` installs it, for the interpreter behind this virtual environment."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = tmp_path / "home/.local/lib" / version / "site-packages"
    folder.mkdir(parents=True)
    (folder / "lonely.py").write_text("__version__ = '1.0'")
    return tmp_path / "home"


def test_a_package_of_the_user_alone_is_missing_in_the_interview_as_it_is_in_the_run(home: Path) -> None:
    base = sys._base_executable  # type: ignore[attr-defined]
    found = as_in_a_run(base, "lonely", environ={"HOME": str(home), "PATH": os.environ["PATH"]})
    assert found.modules == {}
    assert "installed for this user only (pip --user" in found.broken["lonely"]
    able = as_in_a_run(base, "lonely", environ={"HOME": str(home), "PATH": "/bin"}, PYTHONNOUSERSITE="")
    assert able.modules == {"lonely": "1.0"}


def test_a_path_of_the_callers_is_not_seen_and_one_that_the_settings_give_is(tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra/beside.py").write_text("__version__ = '2'")
    extra = str(tmp_path / "extra")
    assert "beside" in as_in_a_run(sys.executable, "beside", environ={"PYTHONPATH": extra}).broken
    assert as_in_a_run(sys.executable, "beside", environ={}, PYTHONPATH=extra).modules == {"beside": "2"}


def test_a_module_in_the_checkout_hides_an_installed_one_as_it_will_in_the_run(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise ImportError('this is no yaml')")
    assert as_in_a_run(sys.executable, "yaml").broken == {}
    assert as_in_a_run(sys.executable, "yaml", folder=tmp_path).broken == {"yaml": "ImportError: this is no yaml"}
    (tmp_path / "where.py").write_text("import os; __version__ = os.getcwd()")
    assert as_in_a_run(sys.executable, "where", folder=tmp_path).modules == {"where": str(tmp_path)}


def test_the_interview_has_the_variables_of_the_run() -> None:
    environ = {"PATH": "/bin", "HOME": "/home/me", "NCCL_DEBUG": "INFO", "RANK": "1", "LD_LIBRARY_PATH": "/opt/cuda"}
    world = World("1x80GiB", settings={"env": {"HF_TOKEN": "x", "PYTHONPATH": "/opt/extra"}})
    job = world.job()
    (query,) = BACKEND.query(job.request, job.settings).interpreters
    command = world.plan().run
    assert isinstance(command, Command)
    run = program_of(command, environ).env
    assert {**passed_through(environ, query.env_names), **query.env} == run
    assert "RANK" not in run
    assert query.folder == command.cwd


def test_an_answer_for_other_variables_or_another_folder_is_not_used(framework: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    plain = InterpreterQuery(framework, ("plain",))
    for query in (plain, replace(plain, env={"PYTHONPATH": "/opt"}), replace(plain, folder=tmp_path), plain):
        ask_interpreter(query, environ={}, cache_dir=cache)
    assert starts(framework) == 3


def test_installed_distributions_are_reported_in_one_spelling(tmp_path: Path) -> None:
    for name in ("Imageio_FFmpeg-0.6.0", "broken-1"):
        (tmp_path / f"{name}.dist-info").mkdir()
    text = "Metadata-Version: 2.1\nName: Imageio_FFmpeg\nVersion: 0.6.0\n"
    (tmp_path / "Imageio_FFmpeg-0.6.0.dist-info/METADATA").write_text(text)
    found = as_in_a_run(sys.executable, environ={}, PYTHONPATH=str(tmp_path))
    assert found.packages["imageio-ffmpeg"] == "0.6.0"


@pytest.mark.parametrize(
    ("source", "archs"),
    [
        ("cuda.get_arch_list = lambda: ['sm_80', 'compute_90']", ("sm_80", "compute_90")),
        ("cuda.get_arch_list = list; _C = S(_cuda_getArchFlags=lambda: 'sm_50 sm_90')", ("sm_50", "sm_90")),
        ("cuda.get_arch_list = list", ()),
        ("", ()),
    ],
)
def test_torch_reports_the_architectures_that_it_was_built_for_also_without_a_card(
    framework: Path, source: str, archs: tuple[str, ...]
) -> None:
    (framework.parent / "site/torch.py").write_text(f"{MODULES['torch']}{source}\n")
    found = ask(framework, "torch")
    assert (found.cuda_archs, found.cuda_devices) == (archs, 2)
