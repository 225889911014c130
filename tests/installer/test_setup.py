"""`reel setup` as a whole, and its other parts: checkout, environment, configuration, space."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reelwright import Settings, load_settings
from reelwright.core.errors import BackendUnavailableError, BusyError, ConfigurationError, Failure
from reelwright.installer import SetupOrder, Sources
from reelwright.installer import environment as environments
from reelwright.installer import git_checkout as checkouts
from reelwright.installer.planning import gigabytes, require_space
from reelwright.installer.programs import Programs
from reelwright.installer.recipes import RECIPES, WAN21, find_models, find_recipe
from reelwright.installer.weight_sources import FolderSource, Listing, RemoteFile, Stream, TransferInterrupted
from reelwright.sites.local.probes.host import take_disk
from tests import warm
from tests.conftest import a_photo, eventually
from tests.installer.conftest import Site, snapshot
from tests.installer.hub import Hub

Reel = Callable[..., subprocess.CompletedProcess[str]]


def commits(repository: Path) -> list[str]:
    """The repository's commits, the newest first."""
    argv = ["git", "-C", str(repository), "log", "--format=%H"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture
def bare(tmp_path: Path, repository: Path) -> SetupOrder:
    """Nothing is there yet; the framework comes from a repository on this disk."""
    order = SetupOrder(WAN21, find_models(WAN21, "t2v-1.3b"), tmp_path / "wan", Sources(git=str(repository)), "latest")
    order.state.mkdir(parents=True)
    return order


def programs(lines: list[str] | None = None) -> Programs:
    return Programs(os.environ, None, (lines if lines is not None else []).append)


# A real environment takes 9 GB, ours a few megabytes: with a smaller estimate this runs on a small disk too.
SMALL = (
    "import dataclasses, sys, reelwright.cli, reelwright.installer.recipes as recipes\n"
    "recipes.RECIPES = (dataclasses.replace(recipes.WAN21, environment_bytes=20_000_000),)\n"
    "sys.exit(reelwright.cli.main(sys.argv[1:]))"
)


@pytest.fixture
def setup(tmp_path: Path) -> Reel:
    """`reel setup` in a process of its own."""

    def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", SMALL, "setup", *map(str, arguments)]
        return warm.run(argv, timeout=100, cwd=tmp_path, **options)

    return call


# ------------------------------------------------------------------------------------------------------ from nothing


def test_from_nothing_to_a_plan_of_a_clip(
    setup: Reel, reel: Reel, hub: Hub, repository: Path, wheels: Path, tmp_path: Path
) -> None:
    arguments = [
        *("wan2.1", "--models", "i2v-720p,flf2v", "--dir", "wan", "--python", sys.executable),
        *("--git-source", repository, "--commit", "latest", "--weights-source", hub.url),
        *("--pip-option=--no-index", f"--pip-option=--find-links={wheels}", "--json"),
    ]  # fmt: skip
    dry = setup(*arguments, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    planned = json.loads(dry.stdout)
    assert [part["done"] for part in planned["parts"]] == [False] * 5
    assert not (tmp_path / "wan").exists()

    done = setup(*arguments)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["changed"] == [
        "checkout",
        "environment",
        "weights i2v-720p",
        "weights flf2v-720p",
        "configuration",
    ]
    assert outcome["done"]
    assert (outcome["todo_bytes"], outcome["config_lines"], outcome["warnings"]) == (0, [], [])
    assert "Successfully installed stand-in-packages" in done.stderr

    before = snapshot(tmp_path / "wan")
    again = setup(*arguments)
    assert json.loads(again.stdout)["changed"] == []
    assert {name: seen for name, seen in snapshot(tmp_path / "wan").items() if not name.endswith("lock")} == {
        name: seen for name, seen in before.items() if not name.endswith("lock")
    }
    assert "nothing was missing" in setup(*arguments[:-1]).stderr

    a_photo(tmp_path / "a.png")
    plan = reel("plan", "a.png", "a cat", "-o", "a.mp4", "--simulate-gpus", "1x80GiB", "--json")
    command = json.loads(plan.stdout)["command"]
    assert plan.returncode == 0, plan.stdout
    assert command["argv"][0] == str(tmp_path / "wan" / "venv" / "bin" / "python")
    assert f"--ckpt_dir={tmp_path / 'wan' / 'Wan2.1-I2V-14B-720P'}" in command["argv"]


def test_a_dry_run_writes_nothing_and_names_what_is_to_come(setup: Reel, hub: Hub, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    done = setup("wan2.1", "--models", "t2v-1.3b", "--dir", "w", "--weights-source", hub.url, "--dry-run")
    assert done.returncode == 0, done.stderr
    for word in ("checkout", "environment", "weights t2v-1.3b", "configuration", "GB"):
        assert word in done.stdout
    assert snapshot(tmp_path) == before
    assert hub.total_sent == 0


def test_a_dry_run_without_a_network_takes_the_known_sizes_and_says_so(reel: Reel, tmp_path: Path) -> None:
    away = ("--weights-source", "http://127.0.0.1:9")
    arguments = ("setup", "wan2.1", "--models", "i2v-720p,t2v-1.3b", "--dir", "w", *away, "--dry-run")
    parts = json.loads(reel(*arguments, "--json").stdout)["parts"]
    assert [part["sizes_from"] for part in parts] == ["estimate", "estimate", "table", "table", "nothing"]
    assert gigabytes(parts[2]["todo_bytes"]) == "82.3 GB"
    assert "known size" in reel(*arguments, env={**os.environ, "COLUMNS": "300"}).stdout


def test_without_the_hubs_package_the_fix_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        f"sys.exit(__import__('reelwright.cli').cli.main(['setup', 'wan2.1', '--dir', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == Failure.ENV.exit_status
    assert "pip install 'reelwright[setup]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("hunyuan3d",), "wan2.1"),
        (("wan2.1", "--models", "i2v-1080p"), "flf2v-720p"),
        (("wan2.1", "--models", ""), "t2v-14b"),
        (("wan2.1", "--git-source=--upload-pack=evil", "--weights-source", "."), "--git-source"),
        (("wan2.1", "--commit=-x", "--weights-source", "."), "--commit"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_is_known(reel: Reel, arguments: tuple[str, ...], word: str) -> None:
    done = reel("setup", *arguments)
    assert done.returncode == Failure.CONFIG.exit_status
    assert word in done.stderr


# ------------------------------------------------------------------------------------------------------------- space


def test_what_does_not_fit_is_refused_before_anything_is_written(reel: Reel, hub: Hub, tmp_path: Path) -> None:
    hub.lie["diffusion_pytorch_model.safetensors"] = 10**18
    before = snapshot(tmp_path)
    done = reel("setup", "wan2.1", "--models", "t2v-1.3b", "--dir", "w", "--weights-source", hub.url)
    assert done.returncode == Failure.DISK.exit_status
    assert "1000000000.0 GB" in done.stderr
    dry = reel("setup", "wan2.1", "--models", "t2v-1.3b", "--dir", "w", "--weights-source", hub.url, "--dry-run")
    assert dry.returncode == Failure.DISK.exit_status
    assert "NOT ENOUGH" in dry.stdout
    assert snapshot(tmp_path) == before


def test_what_is_there_already_needs_no_room(site: Site) -> None:
    """Nearly everything is there: a disk with little room is enough."""
    site.run()
    (site.weights / "config.json").unlink()
    (space,) = site.look(disk=lambda path: replace(take_disk(path), free_bytes=10**9)).spaces
    assert space.enough
    assert space.need_bytes < 1000
    (site.weights / "diffusion_pytorch_model.safetensors").unlink()
    (space,) = site.look(disk=lambda path: replace(take_disk(path), free_bytes=10**6)).spaces
    assert not space.enough


def test_a_read_only_folder_is_not_called_full(site: Site) -> None:
    """A read-only file system may report no free space; freeing some would not help."""
    plan = site.look(disk=lambda path: replace(take_disk(path), free_bytes=0, writable=False))
    assert [space.to_json()["writable"] for space in plan.spaces] == [False]
    with pytest.raises(BackendUnavailableError, match="cannot be written") as caught:
        require_space(plan)
    assert all(space.obstacle is Failure.PERM for space in plan.spaces)
    assert caught.value.failure is Failure.PERM


def test_a_full_disk_in_the_middle_is_named_and_resumable(site: Site, hub: Hub) -> None:
    """A limit on the size of files stands for the disk: the same call fails."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))\n"
        "sys.exit(__import__('reelwright.cli').cli.main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, *site.argv()[3:]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == Failure.DISK.exit_status, done.stderr
    assert "run it again" in done.stderr
    hub.forget()
    site.run()
    assert hub.ranges["diffusion_pytorch_model.safetensors"] == ["bytes=400000-"]


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, site: Site) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BackendUnavailableError) as caught:
        site.with_(directory=tmp_path / "file").run()
    assert "file" in caught.value.message


# ---------------------------------------------------------------------------------------------------------- checkout


@pytest.mark.parametrize("how", ["latest", "full", "short", "branch"])
def test_the_checkout_is_at_the_commit_that_was_asked_for(bare: SetupOrder, repository: Path, how: str) -> None:
    newest, oldest = commits(repository)
    asked = {"latest": "latest", "full": oldest, "short": oldest[:8], "branch": "main"}[how]
    order = replace(bare, commit=asked)
    checkouts.make(order, programs())
    part = checkouts.look_at(order)
    assert part.done
    assert commits(order.checkout)[0] == (newest if how in ("latest", "branch") else oldest)
    assert not (order.state / "checkout").exists()


def test_without_a_commit_the_tried_one_is_taken(bare: SetupOrder) -> None:
    assert checkouts.commit_of(replace(bare, commit=None)) == WAN21.commit
    assert len(WAN21.commit) == 40


def test_a_clone_that_was_killed_is_begun_again(bare: SetupOrder) -> None:
    left = bare.state / "checkout"
    left.mkdir()
    (left / "half").write_text("x")
    checkouts.make(bare, programs())
    assert checkouts.look_at(bare).done
    assert not (bare.checkout / "half").exists()


def test_a_checkout_that_is_there_is_never_changed(bare: SetupOrder, repository: Path) -> None:
    checkouts.make(bare, programs())
    (bare.checkout / "generate.py").write_text("# my own work")
    before = snapshot(bare.checkout)
    part = checkouts.look_at(replace(bare, commit=commits(repository)[1]))
    assert part.done
    assert "left as it is" in part.note
    assert snapshot(bare.checkout) == before


def test_a_folder_in_the_place_of_the_checkout_is_refused(bare: SetupOrder) -> None:
    bare.checkout.mkdir()
    (bare.checkout / "holiday.txt").write_text("x")
    with pytest.raises(ConfigurationError, match="not a checkout of"):
        checkouts.look_at(bare)


def test_another_repository_is_refused(bare: SetupOrder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q", "other"], check=True)
    subprocess.run([*git, "-C", "other", "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    with pytest.raises(BackendUnavailableError, match=r"has no generate\.py"):
        checkouts.make(replace(bare, sources=Sources(git=str(other))), programs())
    assert not bare.checkout.exists()


def test_a_repository_that_is_not_there_is_explained_with_gits_words(bare: SetupOrder, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="git fetch failed") as caught:
        checkouts.make(replace(bare, sources=Sources(git=f"file://{tmp_path}/nowhere")), programs())
    assert any("nowhere" in line for line in caught.value.evidence)


# ------------------------------------------------------------------------------------------------------- environment


def test_flash_attn_is_left_out_of_the_requirements() -> None:
    text = "torch>=2.4.0\n# a remark\n\nflash_attn\nFlash-Attn==2.7\nnumpy>=1.23.5,<2  # old\n"
    assert environments.requirements(text, ("flash-attn",)) == ["torch>=2.4.0", "numpy>=1.23.5,<2"]


def test_a_python_that_fits_is_chosen_by_asking_it(bare: SetupOrder, tmp_path: Path) -> None:
    """A name on the PATH may be the shim of a version that is not installed."""
    for name, text in {"python3.11": "exit 127", "python3.12": "echo 3.12", "python3.10": "echo 3.10"}.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    environ = {"PATH": f"{tmp_path / 'bin'}"}
    assert environments.choose_python(bare, environ) == str(tmp_path / "bin" / "python3.12")


def test_no_python_that_fits_is_told_with_the_option(bare: SetupOrder) -> None:
    never = replace(bare, recipe=replace(WAN21, pythons=("2.7",)))
    with pytest.raises(BackendUnavailableError, match=r"no Python 2\.7") as caught:
        environments.choose_python(never, {"PATH": ""})
    assert "--python" in caught.value.advice


def test_a_python_that_is_none_is_refused(bare: SetupOrder) -> None:
    with pytest.raises(BackendUnavailableError, match="does not answer"):
        environments.choose_python(replace(bare, python=Path("/bin/false")), os.environ)


def test_a_failing_pip_is_explained_and_nothing_counts_as_installed(site: Site, wheels: Path) -> None:
    (site.order.checkout / "requirements.txt").write_text("not-there-at-all\n")
    fake_pip(site.order, 1)
    broken = site.with_(sources=replace(site.order.sources, pip_options=("--index-url=http://u:secret@127.0.0.1:9",)))
    with pytest.raises(BackendUnavailableError, match="pip install failed") as caught:
        broken.run()
    assert "no matching distribution" in caught.value.evidence[-1]
    assert "secret" not in caught.value.message + caught.value.advice
    assert not broken.look().parts[1].done


def fake_pip(order: SetupOrder, status: int) -> None:
    """The environment's Python becomes a script that notes its arguments and ends with this status."""
    order.interpreter.unlink()
    order.interpreter.write_text(
        f'#!/bin/sh\necho "$@" >> {order.state}/calls\nenv >> {order.state}/env\n'
        f'echo "ERROR: no matching distribution"\nexit {status}\n'
    )
    order.interpreter.chmod(0o755)


def test_flash_attn_that_cannot_be_built_is_a_warning(site: Site) -> None:
    order = replace(site.order, flash_attention=True, multi_gpu=True)
    fake_pip(order, 0)
    order.interpreter.write_text(
        f'#!/bin/sh\necho "$@" >> {order.state}/calls\ncase "$*" in *flash-attn*) exit 1;; esac\n'
    )
    (warning,) = environments.make(order, programs())
    assert "PyTorch's own attention" in warning
    calls = (order.state / "calls").read_text()
    assert "xfuser>=0.4.1" in calls
    assert environments.look_at(replace(order, flash_attention=False)).done
    assert not environments.look_at(order).done


def test_the_hubs_token_is_not_given_to_pip_and_git(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    fake_pip(site.order, 0)
    environments.make(replace(site.order, multi_gpu=True), programs())
    assert "hf_canary" not in (site.order.state / "env").read_text()


def test_a_folder_in_the_place_of_the_environment_is_not_replaced(bare: SetupOrder) -> None:
    checkouts.make(bare, programs())
    bare.environment.mkdir()
    (bare.environment / "mine").write_text("x")
    with pytest.raises(BackendUnavailableError, match="not made by"):
        environments.make(bare, programs())
    assert (bare.environment / "mine").exists()


def test_modules_that_cannot_be_imported_are_named(site: Site) -> None:
    """A library of the system may be missing although pip was content."""
    from tests.stand_ins.interpreter import set_package

    notes = site.order.state / "environment.json"
    notes.write_text(json.dumps({"begun": True, "made": True}))
    (site.order.environment / "lib").mkdir(exist_ok=True)
    real = site.order.interpreter.resolve()
    set_package(site.order.interpreter, "torch", "absent")
    site.order.interpreter.unlink()
    # pip is a script here; everything else is the real interpreter of the environment
    site.order.interpreter.with_name("python-real").symlink_to(real)
    site.order.interpreter.write_text(
        '#!/bin/sh\ncase " $* " in *" -m pip "*) exit 0;; esac\nexec "$(dirname "$0")/python-real" "$@"\n'
    )
    site.order.interpreter.chmod(0o755)
    with pytest.raises(BackendUnavailableError, match="cannot import torch") as caught:
        site.run()
    assert any(line.startswith("torch: ") for line in caught.value.evidence)


def test_a_killed_setups_pip_keeps_a_second_setup_out(site: Site) -> None:
    fifo = site.order.state / "fifo"
    os.mkfifo(fifo)
    (site.order.state / "environment.json").write_text(json.dumps({"begun": True, "made": True}))
    site.order.interpreter.unlink()
    site.order.interpreter.write_text(f"#!/bin/sh\nread line < {fifo}\nexit 1\n")
    site.order.interpreter.chmod(0o755)
    process = subprocess.Popen(site.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("installing the requirements" in line for line in process.stderr)
    writer = eventually(lambda: _writer(fifo), what="pip's start")
    process.kill()
    process.wait()
    process.stderr.close()
    with pytest.raises(BusyError, match="git or pip"):
        site.run()
    os.write(writer, b"go on\n")
    os.close(writer)

    def free() -> bool:
        try:
            site.run()
        except BusyError:
            return False
        except BackendUnavailableError:  # pip failed, as planned: the lock is free again
            return True
        return True

    fifo.unlink()
    site.order.interpreter.write_text("#!/bin/sh\nexit 1\n")
    eventually(free, what="a free lock")


def _writer(fifo: Path) -> int | None:
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


# ----------------------------------------------------------------------------------------------------- configuration


def test_the_written_file_is_read_back_as_these_settings(site: Site) -> None:
    outcome = site.run()
    assert outcome.config is not None
    settings = load_settings(environ=site.environ)
    assert settings.t2v_1_3b_model_dir == site.weights
    assert (settings.wan2_dir, settings.python) == (site.order.checkout, site.order.interpreter)
    assert settings.origin("wan2_dir").startswith(str(outcome.config))


def test_a_file_that_is_there_is_left_alone_and_the_lines_are_shown(site: Site, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("sample_steps: 30  # mine\nwan2_dir: /elsewhere\n")
    outcome = site.with_(config=mine).run()
    assert mine.read_text() == "sample_steps: 30  # mine\nwan2_dir: /elsewhere\n"
    assert outcome.changed == ("weights t2v-1.3b",)
    assert f"wan2_dir: {site.order.checkout}" in outcome.config_lines
    mine.write_text("".join(f"{line}\n" for line in outcome.config_lines))
    assert site.with_(config=mine).run().config_lines == ()


def test_the_lines_to_add_are_printed_for_people(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("sample_steps: 30\n")
    argv = site.argv("--config", str(tmp_path / "mine.yaml"))
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert f"  t2v_1_3b_model_dir: {site.weights}" in done.stderr


def test_of_two_models_with_one_key_the_first_one_is_configured(site: Site) -> None:
    order = replace(site.order, models=find_models(WAN21, "i2v-480p,i2v-720p"))
    assert order.settings()["i2v_model_dir"].endswith("I2V-14B-480P")


def test_hostile_paths_survive_the_configuration(site: Site, hostile_path: Path) -> None:
    from reelwright.installer import configuration

    order = replace(site.order, directory=hostile_path / "x", config=hostile_path / "c.yaml")
    assert configuration.write(order, {}) == ()
    assert load_settings(order.config, environ={}).wan2_dir == order.checkout
    assert [path.name for path in hostile_path.iterdir()] == ["c.yaml"]


def test_every_recipe_names_settings_that_exist() -> None:
    for recipe in RECIPES:
        keys = {recipe.checkout_key, "python", *(model.key for model in recipe.models)}
        assert keys <= set(Settings.model_fields)
        assert find_recipe(recipe.name) is recipe


# ------------------------------------------------------------------------------------------------- a source's contract


class Stalling:
    """A source that gives a few bytes at a time and then breaks off, for ever or until it is content."""

    name = "stalling"

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.step, self.opened = data, step, 0

    def listing(self, repository: str) -> Listing:
        return Listing(repository, (RemoteFile("a.bin", len(self.data)),))

    @contextlib.contextmanager
    def open(self, listing: Listing, file: RemoteFile, start: int) -> Iterator[Stream]:
        self.opened += 1
        yield Stream(start, self._pieces(start))

    def _pieces(self, start: int) -> Iterator[bytes]:
        yield self.data[start : start + self.step]
        raise TransferInterrupted("gone")


def test_a_source_that_always_gives_a_little_is_gone_through_to_the_end(tmp_path: Path) -> None:
    from reelwright.installer.transfer import Fetch, fetch

    source = Stalling(os.urandom(1000), 100)
    job = Fetch(source, source.listing("r"), tmp_path, source.listing("r").files, pause_s=0.0)
    fetch(job, lambda _count: None)
    assert (tmp_path / "a.bin").read_bytes() == source.data
    assert source.opened == 10


def test_a_program_that_ignores_sigterm_is_killed_when_the_setup_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reelwright.installer.programs._GRACE_S", 0.1)
    outlived = tmp_path / "outlived"
    deaf = (
        "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "
    )
    deaf += "time.sleep(15); pathlib.Path(sys.argv[1]).touch()"

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Programs(os.environ, None, interrupt).run(
            [sys.executable, "-c", deaf, str(outlived)], title="a deaf program", log=tmp_path / "log", show=("deaf",)
        )
    assert not outlived.exists()


def test_workers_end_when_the_caller_is_interrupted(tmp_path: Path, models: Path) -> None:
    from reelwright.installer.transfer import Fetch, fetch

    source = FolderSource(models)
    listing = source.listing("Wan-AI/Wan2.1-I2V-14B-720P")

    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(Fetch(source, listing, tmp_path, listing.files), interrupt)
    eventually(lambda: not any(thread.name.startswith("fetch-") for thread in threading.enumerate()))


class FakeVenv(Programs):
    """Makes an environment whose Python is a script that succeeds at everything; no package index is asked."""

    def run(self, argv: Sequence[str], *, title: str, log: Path, show: Sequence[str] = ()) -> list[str]:
        if "venv" not in argv:
            return super().run(argv, title=title, log=log, show=show)
        python = Path(argv[-1]) / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
        return []


def test_an_environment_that_is_made_again_has_no_package_of_the_earlier_one(site: Site) -> None:
    order = replace(site.order, multi_gpu=True)
    fake_pip(order, 0)
    environments.make(order, programs())
    assert environments.look_at(order).done
    shutil.rmtree(order.environment)
    assert environments.look_at(order).todo_bytes == order.recipe.environment_bytes
    environments.make(replace(order, multi_gpu=False), FakeVenv(os.environ, None, print))
    assert environments.look_at(replace(order, multi_gpu=False)).done
    assert not environments.look_at(order).done
