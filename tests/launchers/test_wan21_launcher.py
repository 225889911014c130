"""launchers/wan21.py in front of an unmodified checkout (the stand-in): more sizes, PyTorch's attention, refusals."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from reelwright.launchers import wan21
from tests.stand_ins.checkout import launches, make_wan_checkout, notes
from tests.stand_ins.checkpoints import make_wan_checkpoint
from tests.stand_ins.interpreter import Knobs, make_interpreter, set_package
from tests.wan21.conftest import WanMachine

LAUNCHER = Path(wan21.__file__)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=0")


class Machine:
    """A checkout, an interpreter and weights, started by hand."""

    def __init__(self, folder: Path, knobs: Knobs | None = None) -> None:
        self.checkout = make_wan_checkout(folder / "Wan2.1")
        self.python = make_interpreter(folder / "env", knobs)
        self.weights = make_wan_checkpoint(folder / "i2v", "i2v-14B")
        self.out = folder / "out.mp4"

    def start(
        self, *before: str, size: str = "832*480", more: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        script = ("generate.py", "--task=i2v-14B", f"--size={size}", "--frame_num=5", "--sample_steps=3")
        where = (f"--ckpt_dir={self.weights}", f"--save_file={self.out}", "--base_seed=1", "--prompt=--add-size=1*1")
        return subprocess.run(
            [str(self.python), *before, *script, *where, *more], cwd=self.checkout, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"]}, timeout=100, check=False,
        )  # fmt: skip

    def launched(self, *options: str, **values: object) -> subprocess.CompletedProcess[str]:
        return self.start(str(LAUNCHER), *options, "--", **values)  # type: ignore[arg-type]

    def digest(self) -> dict[str, str]:
        files = [path for path in self.checkout.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        ours = [path for path in files if not path.name.startswith("fake_") and "fake_state" not in path.parts]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in ours}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("size", ["1024*576", "720*480"])
def test_a_documented_size_is_refused_without_the_launcher_and_made_with_it(machine: Machine, size: str) -> None:
    assert "invalid choice" in machine.start(size=size).stderr or "Unsupport size" in machine.start(size=size).stderr
    assert not machine.out.exists()
    done = machine.launched(f"--add-size={size}", size=size)
    assert done.returncode == 0, done.stderr
    assert machine.out.exists()


def test_no_file_of_the_checkout_is_written(machine: Machine) -> None:
    before = machine.digest()
    machine.launched("--add-size=1024*576", "--attention=sdpa", size="1024*576")
    assert machine.digest() == before


def test_the_script_sees_itself_as_if_it_had_been_started_directly(machine: Machine) -> None:
    machine.start()
    machine.launched("--add-size=1024*576")
    direct, launched = launches(machine.checkout)
    assert launched["argv"] == direct["argv"]
    assert launched["cwd"] == direct["cwd"]


#: What a script can see of how it was started.
_PROBE = """
import json, sys
own = sys.modules["__main__"]
seen = {"name": __name__, "argv": sys.argv, "path": sys.path[0], "file": __file__, "main": own.__dict__ is globals(),
        "package": __package__, "shim": any(name.startswith("shim") for name in __import__("os").listdir(sys.path[0]))}
print(json.dumps(seen))
"""


def test_the_script_is_main_with_its_own_arguments_and_path(machine: Machine) -> None:
    (machine.checkout / "generate.py").write_text(_PROBE)
    (machine.checkout / "wan" / "__init__.py").write_text("")
    direct = json.loads(machine.start().stdout.splitlines()[-1])
    launched = json.loads(machine.launched("--add-size=1024*576").stdout.splitlines()[-1])
    assert launched.pop("file") in (direct.pop("file"), "generate.py")
    assert launched.pop("package") in ("", None)  # only runpy's own answer differs
    direct.pop("package")
    assert launched == direct
    assert direct["main"]


def test_the_folder_of_the_launcher_is_not_on_the_path(machine: Machine) -> None:
    """It holds our modules, which a framework's import could find instead of its own."""
    (machine.checkout / "generate.py").write_text("import sys; print(*sys.path, sep='\\n')")
    shown = machine.launched("--add-size=1024*576").stdout.splitlines()
    assert str(machine.checkout) in shown
    assert str(LAUNCHER.parent) not in shown


def test_it_says_what_it_changes_and_only_once_for_all_ranks(machine: Machine) -> None:
    split = ("--ulysses_size=2", "--dit_fsdp", "--t5_fsdp")
    done = machine.start(*TORCHRUN, str(LAUNCHER), "--add-size=1024*576", "--", size="1024*576", more=split)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wan21.py: 1024*576 added") == 1
    assert len(launches(machine.checkout)) == 2


def test_without_flash_attention_pytorchs_takes_its_place(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Knobs(flash_attn="absent"))
    without = machine.start()
    assert without.returncode == 1
    assert "AssertionError" in without.stderr
    done = machine.launched("--attention=sdpa")
    assert done.returncode == 0, done.stderr
    assert "scaled_dot_product_attention" in done.stdout
    served = {note["attention"] for note in notes(machine.checkout)}
    assert served == {"__main__.flash_attention_of.<locals>.flash_attention"}


@pytest.mark.parametrize(
    ("knobs", "options"),
    [
        (Knobs(flash_attn="broken"), ("--attention=sdpa",)),
        (Knobs(flash_attn="broken", flash_attn_interface="broken"), ("--attention=sdpa",)),
        (Knobs(flash_attn="broken", flash_attn_interface="present"), ("--attention=sdpa",)),
        (Knobs(flash_attn="present", flash_attn_interface="broken"), ()),
    ],
)
def test_a_build_of_flash_attention_for_another_torch_is_left_out(
    tmp_path: Path, knobs: Knobs, options: tuple[str, ...]
) -> None:
    machine = Machine(tmp_path, knobs)
    assert "undefined symbol" in machine.start().stderr
    done = machine.launched(*options)
    assert done.returncode == 0, done.stderr
    assert "cannot be imported and is left out" in done.stdout
    assert machine.out.exists()


def test_between_gpus_without_flash_attention_xfuser_is_asked_for_pytorchs_kernel(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Knobs(flash_attn="absent"))
    split = ("--ulysses_size=2", "--dit_fsdp", "--t5_fsdp")
    done = machine.start(*TORCHRUN, str(LAUNCHER), "--attention=sdpa", "--", more=split)
    assert done.returncode == 0, done.stderr
    assert [note["between"] for note in notes(machine.checkout) if "between" in note] == ["TORCH", "TORCH"]


def test_an_xfuser_that_cannot_be_asked_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    """Before 0.4.1 it had no attn_type."""
    machine = Machine(tmp_path, Knobs(flash_attn="absent"))
    (module,) = (tmp_path / "env").rglob("long_ctx_attention/__init__.py")
    module.write_text("class xFuserLongContextAttention:\n  def __init__(self, scatter_idx=2): pass\n")
    done = machine.start(*TORCHRUN, str(LAUNCHER), "--attention=sdpa", "--", more=("--ulysses_size=2",))
    assert "wan21.py: error: this xfuser cannot compute" in done.stderr
    assert launches(machine.checkout) == []


REFUSALS = {
    "unknown option": ("--add-sizes=1*1",),
    "not a size": ("--add-size=1024x576",),
    "too large": ("--add-size=1024000*576",),
    "zero": ("--add-size=0*576",),
    "wrong attention": ("--attention=magic",),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_wrong_option_ends_it_with_status_3_and_one_line(machine: Machine, case: str) -> None:
    done = machine.launched(*REFUSALS[case])
    assert done.returncode == wan21.REFUSED
    assert len(done.stderr.splitlines()) == 1
    assert launches(machine.checkout) == []


OTHER_TABLES = {
    "sizes": "SIZE_CONFIGS['1280*720'] = (720, 1280)",
    "areas": "del MAX_AREA_CONFIGS['1280*720']",
    "a list": "SUPPORTED_SIZES = ['1280*720']",
    "a task": "del SUPPORTED_SIZES['flf2v-14B']",
    "a row": "SUPPORTED_SIZES['i2v-14B'] = ('832*480',)",
    "a set": "SUPPORTED_SIZES['t2v-14B'] = {'1280*720'}",
    "none": "del SIZE_CONFIGS",
}


@pytest.mark.parametrize("case", OTHER_TABLES)
def test_a_checkout_with_other_tables_is_refused_before_anything_is_changed(machine: Machine, case: str) -> None:
    configs = machine.checkout / "wan" / "configs" / "__init__.py"
    configs.write_text(f"{configs.read_text()}\n{OTHER_TABLES[case]}\n")
    done = machine.launched("--add-size=1024*576", size="1024*576")
    assert done.returncode == wan21.REFUSED
    assert len(done.stderr.splitlines()) == 1
    assert "not those of Wan2.1" in done.stderr
    assert launches(machine.checkout) == []


def test_something_that_is_no_checkout_is_refused(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "generate.py").write_text("")
    done = subprocess.run(
        [str(machine.python), str(LAUNCHER), "--add-size=1024*576", "--", "generate.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == wan21.REFUSED
    assert "not a checkout of Wan2.1" in done.stderr


@pytest.mark.parametrize("argv", [[], ["--add-size=1024*576"], ["--"], ["generate.py"]])
def test_without_a_script_there_is_a_usage(argv: list[str]) -> None:
    with pytest.raises(wan21.CheckoutRefused, match="usage"):
        wan21.parse(argv)


def test_a_prompt_cannot_ask_for_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not wan21._sequence_parallel(["--ulysses_size=2"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert wan21._sequence_parallel(["--ulysses_size=2"])
    assert wan21._sequence_parallel(["--ring_size", "2"])
    assert not wan21._sequence_parallel(["--ulysses_size=1", "--prompt=--ulysses_size=2"])


# ---------------------------------------------------------------------------------------------- through the runner


@pytest.mark.parametrize(("size", "expected"), [("1024x576", (1024, 576)), ("720x480", None)])
def test_a_documented_size_goes_through_the_whole_runner(
    wan: WanMachine,
    size: str,
    expected: tuple[int, int] | None,
) -> None:
    outcome = wan.run({}, size=size)
    assert outcome.code == "ok", outcome.error
    assert outcome.result is not None
    if expected:
        assert (outcome.result.width, outcome.result.height) == expected
    plan = outcome.manifest.plan
    assert plan is not None
    assert f"--add-size={size.replace('x', '*')}" in plan["command"]["argv"]
    wan.check()


def test_missing_flash_attention_is_told_and_survived(wan: WanMachine, tmp_path: Path) -> None:
    python = make_interpreter(tmp_path / "bare", Knobs(flash_attn="absent"))
    outcome = wan.run({}, python=str(python))
    assert outcome.code == "ok", outcome.error
    assert any("PyTorch's own attention" in warning for warning in outcome.manifest.warnings)
    assert outcome.manifest.effective["attention"] == "sdpa"
    wan.check()


@pytest.mark.parametrize(
    ("knobs", "attention"),
    [
        (Knobs(flash_attn="broken"), "sdpa"),
        (Knobs(flash_attn="present", flash_attn_interface="broken"), "flash"),
        (Knobs(flash_attn="absent", flash_attn_interface="present"), "sdpa"),  # the image encoder asks for version 2
    ],
)
def test_broken_flash_attention_is_survived(wan: WanMachine, tmp_path: Path, knobs: Knobs, attention: str) -> None:
    outcome = wan.run({}, python=str(make_interpreter(tmp_path / "broken", knobs)))
    assert outcome.code == "ok", outcome.error
    assert len(outcome.manifest.attempts) == 1
    assert outcome.manifest.effective["attention"] == attention
    wan.check()


def test_a_checkout_that_the_launcher_does_not_know_is_told_and_not_tried_again(wan: WanMachine) -> None:
    configs = wan.checkout / "wan" / "configs" / "__init__.py"
    configs.write_text(configs.read_text() + "\ndel MAX_AREA_CONFIGS['1280*720']\n")
    outcome = wan.run({}, size="1024x576")
    assert outcome.code == "ENV"
    assert outcome.error is not None
    assert "not those of Wan2.1" in outcome.error.message
    assert len(outcome.manifest.attempts) == 1
    wan.check()


def test_missing_flash_attention_is_survived_by_two_ranks_too(wan: WanMachine, tmp_path: Path) -> None:
    python = make_interpreter(tmp_path / "bare", Knobs(flash_attn="absent"))
    outcome = wan.run({}, python=str(python), gpu_count=2)
    assert outcome.code == "ok", outcome.error
    assert {note["between"] for note in notes(wan.checkout) if "between" in note} == {"TORCH"}
    wan.check()


def test_an_old_xfuser_without_flash_attention_is_the_environments_fault(wan: WanMachine, tmp_path: Path) -> None:
    python = make_interpreter(tmp_path / "bare", Knobs(flash_attn="absent"))
    (module,) = (tmp_path / "bare").rglob("long_ctx_attention/__init__.py")
    module.write_text("class xFuserLongContextAttention:\n  def __init__(self, scatter_idx=2): pass\n")
    outcome = wan.run({}, python=str(python), gpu_count=2)
    assert outcome.code == "ENV"
    assert len(outcome.manifest.attempts) == 1
    assert "this xfuser cannot compute" in json.dumps(outcome.error.to_json() if outcome.error else {})
    wan.check()


def test_a_pinned_flash_attention_that_is_missing_is_an_error_before_the_start(
    wan: WanMachine,
    tmp_path: Path,
) -> None:
    python = make_interpreter(tmp_path / "bare", Knobs())
    set_package(python, "flash_attn", "broken")
    outcome = wan.run({}, python=str(python), attention="flash")
    assert outcome.code == "ENV"
    assert launches(wan.checkout) == []
    assert "undefined symbol" in json.dumps(outcome.error.to_json() if outcome.error else {})
