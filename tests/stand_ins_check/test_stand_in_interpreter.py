"""A stand-in interpreter shows what is installed in it, and generate.py fails there as it would in a real one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.checkout import notes
from tests.stand_ins.interpreter import Knobs, set_package
from tests.stand_ins_check.conftest import SPLIT, TWO, Bench

_ASK = (
    "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.is_available(), "
    "torch.cuda.device_count()]))"
)


def _ask(python: Path, environ: dict[str, str] | None = None) -> Any:
    done = subprocess.run(
        [python, "-c", _ASK], capture_output=True, text=True, check=True, env=environ or {}, timeout=60
    )
    return json.loads(done.stdout)


def test_torch_tells_its_version_and_gpus_without_any_environment(own_python: Callable[[Knobs], Path]) -> None:
    python = own_python(Knobs(torch="2.4.0+cu121", cuda="12.1", devices=4))
    assert _ask(python) == ["2.4.0+cu121", "12.1", True, 4]


def test_a_build_for_the_cpu_sees_no_gpu(own_python: Callable[[Knobs], Path]) -> None:
    assert _ask(own_python(Knobs(torch="2.13.0+cpu", cuda=None))) == ["2.13.0+cpu", None, False, 0]


@pytest.mark.parametrize(("visible", "count"), [("2,0", 2), ("", 0), ("-1", 0), ("1,9,2", 1), ("GPU-ab,GPU-cd", 2)])
def test_cuda_visible_devices_is_respected(python: Path, visible: str, count: int) -> None:
    assert _ask(python, {"CUDA_VISIBLE_DEVICES": visible})[3] == count


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        (Knobs(absent=("torch",)), "ModuleNotFoundError: No module named 'torch'"),
        (Knobs(absent=("easydict",)), "ModuleNotFoundError: No module named 'easydict'"),
        (Knobs(flash_attn="broken"), "_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN3c10"),
        (Knobs(cuda=None), "AssertionError: Torch not compiled with CUDA enabled"),
        (Knobs(devices=0), "RuntimeError: Found no NVIDIA driver on your system."),
    ],
)
def test_a_bad_interpreter_fails_while_importing(
    bench: Bench, own_python: Callable[[Knobs], Path], knobs: Knobs, words: str
) -> None:
    bench.python = own_python(knobs)
    assert bench.run() == 1
    assert words in bench.stderr
    assert bench.stdout == ""


def test_without_flash_attention_the_assertion_fails_before_the_first_step(
    bench: Bench, own_python: Callable[[Knobs], Path]
) -> None:
    bench.python = own_python(Knobs(flash_attn="absent"))
    assert bench.run() == 1
    assert bench.stderr.endswith("    assert FLASH_ATTN_2_AVAILABLE\nAssertionError\n")
    assert "INFO: Generating video ..." in bench.stdout
    assert "0/3 [" not in bench.stderr


def test_flash_attention_3_alone_is_not_enough_for_pictures(bench: Bench, own_python: Callable[[Knobs], Path]) -> None:
    # clip.py asks for version 2 by name.
    bench.python = own_python(Knobs(flash_attn="absent", flash_attn_interface="present"))
    assert bench.run() == 1
    assert bench.stderr.endswith("AssertionError\n")


def test_a_replaced_attention_is_called_and_noted(bench: Bench, own_python: Callable[[Knobs], Path]) -> None:
    bench.python = own_python(Knobs(flash_attn="absent"))
    bend = (
        "import runpy, sys; sys.path.insert(0, '.'); import wan.modules.clip as c, wan.modules.model as m\n"
        "def other(*a, **k): pass\n"
        "c.flash_attention = m.flash_attention = other; sys.argv = sys.argv[1:]\n"
        "runpy.run_path('generate.py', run_name='__main__')"
    )
    assert bench.run(launcher=("-c", bend)) == 0
    assert notes(bench.checkout) == [{"attention": "__main__.other"}] * 2


@pytest.mark.parametrize(("state", "words"), [("absent", "No module named 'xfuser'"), ("broken", "undefined symbol")])
def test_without_xfuser_ranks_cannot_split_the_sequence(
    bench: Bench, own_python: Callable[[Knobs], Path], state: Any, words: str
) -> None:
    bench.python = own_python(Knobs())
    set_package(bench.python, "xfuser", state)
    assert bench.run(*SPLIT, launcher=TWO) == 1
    assert words in bench.stderr
    assert bench.run("--dit_fsdp", "--t5_fsdp", launcher=TWO) == 0
