"""Compiled blocks in the engine: when they are used, what happens where they cannot be, and that every clip says which.

What torch makes of a block is in `test_speed`; here its compiler is replaced by one whose blocks can be recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.events import Log
from tests.engine_diffusers import tiny
from tests.engine_diffusers.clips import Engine, asked

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

Folders = Callable[[str], Path]


class Compiler:
    """Stands for ``torch.compile``: its blocks give results that are a little larger, or raise a chosen error."""

    def __init__(self) -> None:
        self.raises: BaseException | None = None
        self.calls = 0

    def __call__(self, written: Callable[..., Any], **_options: Any) -> Callable[..., Any]:
        def compiled(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.raises is not None:
                raise self.raises
            return written(*arguments, **options) * 1.01

        return compiled


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(torch, "compile", made)
    return made


@pytest.fixture
def model(folder_of: Folders) -> dict[str, Any]:
    return tiny.model("wan2.1-t2v", folder_of("wan2.1-t2v"))


def _compiled(model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**model, "speed": {"preset": "exact", "compile": True}, **changes}


@pytest.fixture
def written(model: dict[str, Any], tmp_path: Path) -> bytes:
    """The clip of blocks as they are written."""
    return Engine(model).film(asked("t2v"), tmp_path / "written")


def _warnings(engine: Engine) -> list[str]:
    return [event.text for event in engine.said if isinstance(event, Log) and event.level == "warning"]


def test_a_clip_says_whether_its_blocks_were_compiled(
    model: dict[str, Any], written: bytes, compiler: Compiler, tmp_path: Path
) -> None:
    engine = Engine(_compiled(model))
    saved = engine.clip(asked("t2v"), tmp_path / "clip")
    assert saved.facts["compile"] is True
    assert Path(saved.path).read_bytes() != written
    assert compiler.calls > 1
    assert _warnings(engine) == []


@pytest.mark.parametrize(
    ("placement", "compiles"),
    [("encoders_off", True), ("group_offload", True), ("group_offload_low", False), ("disk_offload", False)],
)
@pytest.mark.usefixtures("compiler")
def test_weights_that_move_inside_a_block_are_not_compiled(
    model: dict[str, Any], written: bytes, tmp_path: Path, placement: str, *, compiles: bool
) -> None:
    saved = Engine(_compiled(model, placements=[placement])).clip(asked("t2v"), tmp_path / "clip")
    assert saved.facts["compile"] is compiles
    assert (Path(saved.path).read_bytes() == written) is not compiles


def test_a_block_that_cannot_be_compiled_computes_as_it_is_written_and_the_clip_is_not_lost(
    model: dict[str, Any], written: bytes, compiler: Compiler, tmp_path: Path
) -> None:
    engine = Engine(_compiled(model))
    compiler.raises = torch._dynamo.exc.Unsupported("Graph break under fullgraph")
    saved = engine.clip(asked("t2v"), tmp_path / "1")
    assert Path(saved.path).read_bytes() == written
    assert saved.facts["compile"] is False
    (warning,) = _warnings(engine)
    assert "Graph break under fullgraph" in warning
    calls = compiler.calls
    assert engine.film(asked("t2v"), tmp_path / "2") == written
    assert compiler.calls == calls, "and it is not tried again"
    assert _warnings(engine) == []


def test_what_fails_in_a_compiled_block_is_no_failure_of_the_compiler(
    model: dict[str, Any], compiler: Compiler, tmp_path: Path
) -> None:
    engine = Engine(_compiled(model))
    compiler.raises = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.clip(asked("t2v"), tmp_path / "clip")


def test_without_memory_in_a_compiled_block_the_clip_goes_on_where_nothing_is_compiled(
    model: dict[str, Any], written: bytes, compiler: Compiler, tmp_path: Path
) -> None:
    engine = Engine(_compiled(model, placements=["resident", "group_offload_low"]))
    compiler.raises = torch.OutOfMemoryError("CUDA out of memory")
    saved = engine.clip(asked("t2v"), tmp_path / "clip")
    assert (saved.facts["placement"], saved.facts["compile"]) == ("group_offload_low", False)
    assert Path(saved.path).read_bytes() == written


def test_a_machine_without_a_compiler_is_reported_once_when_the_model_is_loaded(
    model: dict[str, Any], written: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", missing)
    engine = Engine(_compiled(model))
    (warning,) = _warnings(engine)
    assert "No working C++ compiler found" in warning
    assert engine.facts["compile"] is False
    assert engine.film(asked("t2v"), tmp_path / "clip") == written
    assert _warnings(engine) == []
