"""The stand-in's arguments and tables are those of the real generate.py, read from both sources.

Needs a checkout of the official repository in WAN21_DIR; not part of an ordinary run.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.checkout import SOURCE

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not os.environ.get("WAN21_DIR"), reason="WAN21_DIR names no checkout of the real Wan2.1"),
]


@pytest.fixture
def real() -> Path:
    """The official checkout."""
    return Path(os.environ["WAN21_DIR"])


def _arguments(source: Path) -> list[tuple[str, dict[str, str]]]:
    """Each add_argument call in order: its flag, and its keywords as source, without the help."""
    calls = []
    for node in ast.walk(ast.parse((source / "generate.py").read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            words = {str(k.arg): ast.unparse(k.value) for k in node.keywords if k.arg != "help"}
            calls.append((node.lineno, ast.literal_eval(node.args[0]), words))
    return [(flag, words) for _, flag, words in sorted(calls, key=lambda call: call[0])]


def _tables(source: Path) -> dict[str, Any]:
    """The tables of sizes, and the tasks."""
    scope: dict[str, Any] = {}
    for node in ast.parse((source / "wan" / "configs" / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name == "WAN_CONFIGS" and isinstance(node.value, ast.Dict):
                keys = [ast.literal_eval(key) for key in node.value.keys if key is not None]
                scope[name] = dict(zip(keys, (ast.unparse(value) for value in node.value.values), strict=True))
            elif name.endswith(("_CONFIGS", "_SIZES", "_SMALL", "_ALL")):
                scope[name] = eval(compile(ast.Expression(node.value), "tables", "eval"), {"tuple": tuple}, scope)
    return {name: scope[name] for name in ("SIZE_CONFIGS", "MAX_AREA_CONFIGS", "SUPPORTED_SIZES", "WAN_CONFIGS")}


def _assertions(source: Path) -> list[str]:
    """The words of every assertion, in order, placeholders as in the source."""
    tree = ast.parse((source / "generate.py").read_text("utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Assert) and node.msg is not None]
    texts = [ast.unparse(node.msg) for node in sorted(found, key=lambda node: node.lineno) if node.msg is not None]
    return [re.sub(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", "{}", text).lstrip("f").strip("'\"") for text in texts]


def test_the_flags_their_order_types_defaults_and_choices_are_the_real_ones(real: Path) -> None:
    assert _arguments(SOURCE) == _arguments(real)


def test_the_tables_of_sizes_and_tasks_are_the_real_ones(real: Path) -> None:
    assert _tables(SOURCE) == _tables(real)


def test_the_assertions_have_the_real_words_in_the_real_order(real: Path) -> None:
    assert _assertions(SOURCE) == _assertions(real)


@pytest.mark.parametrize("config", ["i2v_14B", "t2v_14B", "t2v_1_3B"])
def test_the_numbers_of_the_models_are_the_real_ones(real: Path, config: str) -> None:
    text = (real / "wan" / "configs" / f"wan_{config}.py").read_text("utf-8")
    numbers = dict(re.findall(rf"^{config}\.(\w+) = (\d+|\(.*\)|'.*')$", text, re.MULTILINE))
    table = {key: ast.literal_eval(value) for key, value in numbers.items()}
    assert "num_heads" in table
    assert {key: _stand_in_config(config)[key] for key in table} == table


def _stand_in_config(name: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "configs"}
    exec((SOURCE / "wan" / "configs" / "__init__.py").read_text("utf-8"), scope)
    config: dict[str, Any] = scope[name]
    return config


@pytest.mark.parametrize("name", ["i2v_input.JPG", "flf2v_input_first_frame.png", "flf2v_input_last_frame.png"])
def test_the_example_pictures_have_the_real_names(real: Path, name: str) -> None:
    assert (real / "examples" / name).is_file()
    assert (SOURCE / "examples" / name).is_file()


@pytest.mark.parametrize(("file", "length"), [("image2video.py", "F"), ("first_last_frame2video.py", "81")])
def test_the_length_of_the_mask_reads_the_same(real: Path, file: str, length: str) -> None:
    pattern = re.compile(r"torch\.ones\(\s*1,\s*(\w+)")
    found = [pattern.findall((source / "wan" / file).read_text("utf-8")) for source in (real, SOURCE)]
    assert found == [[length], [length]]
