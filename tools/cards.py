"""Writes the tables of cards in README.md and docs/engine.md, from the same plans and checks as for a real run.

Both come from `doctor.card_comparison`, which plans published models for cards that it imagines. The script runs no
model and needs no card.

    .venv/bin/python -m tools.cards        # rewrites the tables; tests/test_docs.py fails while one is stale
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from tools.page import replaced

from reelwright import Settings
from reelwright.backends.diffusers.models import MODELS
from reelwright.core.host import GIB
from reelwright.core.plan import in_words
from reelwright.doctor.card_comparison import ComparedModel, compare

REPOSITORY = Path(__file__).resolve().parent.parent
README, ENGINE = REPOSITORY / "README.md", REPOSITORY / "docs" / "engine.md"
MARKS = "<!-- cards: made by `make tree` -->\n", "<!-- end of cards -->\n"

CARDS = (8, 12, 16, 24, 48, 80)
SMALL, LARGE = "832x480", "1280x720"


class Shown(NamedTuple):
    """A model in README.md: its row of a comparison, the size, its name, and the input of a clip."""

    generator: str
    model: str
    size: str
    name: str
    made_from: str


SHOWN = (
    Shown("diffusers", "wan2.1-t2v-1.3B t2v", SMALL, "Wan2.1 t2v-1.3B", "text"),
    Shown("wan2.1", "Wan2.1 t2v-1.3B", SMALL, "Wan2.1 t2v-1.3B", "text"),
    Shown("diffusers", "wan2.1-i2v-14B i2v", "", "Wan2.1 i2v-14B", "picture"),
    Shown("diffusers", "wan2.2-ti2v-5B i2v", "", "Wan2.2 ti2v-5B", "picture"),
    Shown("wan2.1", "Wan2.1 i2v-14B", "", "Wan2.1 i2v-14B", "picture"),
)
HEAD = """
| card | clip from | model | `generator` | clip | placement | GPU memory | host memory (own) | `balanced`: GPU, host, placement |
|---|---|---|---|---|---|---|---|---|
"""
#: Sizes in which host memory is sold, and what the rest of the system takes of it.
SOLD_GB, SYSTEM_GIB = (16, 32, 64, 96, 128, 192), 4
#: Times that Wan2.1's makers published for their script: card, and model of a comparison.
TIMED = (("RTX4090", "RTX 4090", "Wan2.1 t2v-1.3B", SMALL), ("H100", "H100", "Wan2.1 i2v-14B", LARGE))

ENGINE_CARDS = (*CARDS, 141)
#: Rows of docs/engine.md: one task of each model that differs from the others in its memory.
ENGINE_MODELS = (
    "wan2.1-t2v-1.3B",
    "wan2.1-i2v-14B",
    "wan2.2-ti2v-5B",
    "wan2.2-i2v-A14B",
    "hunyuanvideo-i2v",
    "hunyuanvideo-1.5-i2v",
)


def main() -> None:
    for page in (README, ENGINE):
        page.write_text(updated(page), "utf-8")


def updated(page: Path) -> str:
    """The text of a page with a new table."""
    table = "".join(_readme() if page == README else _engine())
    return replaced(page, page.read_text("utf-8"), MARKS, table + "\n")


@cache
def _compared(cards: str, size: str = "", **settings: str) -> dict[tuple[str, str], ComparedModel]:
    """The comparison for simulated cards, by generator and model."""
    values: dict[str, Any] = {**settings, **({"size": size} if size else {})}
    rows = compare(f"1x{cards}", Settings.model_validate(values))
    return {(row.generator, row.model): row for row in rows}


# -------------------------------------------------------------------------------------------------------------- README


def _readme() -> Iterator[str]:
    yield HEAD
    for shown in SHOWN:
        cells = {card: made for card in CARDS if (made := _cells(card, shown))}
        for text, same in groupby(cells.items(), key=lambda item: item[1]):
            yield f"| {_range([card for card, _ in same])} {text}"
    yield "\n" + _times()


def _cells(card: int, shown: Shown) -> str:
    """All cells of a row but the first; empty if the model does not fit the card."""
    script = shown.generator != "diffusers"
    exact, balanced = (
        _compared(f"{card}GiB", shown.size, **({} if script else {"speed": speed}))[shown.generator, shown.model]
        for speed in ("exact", "balanced")
    )
    if not exact.fits or "may run out" in exact.note:
        return ""
    cells = (
        shown.made_from,
        shown.name,
        f"`{shown.generator}`" + (", the official script" if script else ""),
        f"{exact.size}, {exact.frames} frames",
        "with offloading" if script else _placement(exact),
        _gib(exact.gpu_bytes),
        f"{_gib(exact.host_bytes)} ({_sold(exact.host_bytes)} GB)",
        "" if script else f"{_gib(balanced.gpu_bytes)}, {_gib(balanced.host_bytes)}, {_placement(balanced)}",
    )
    return f"| {' | '.join(cells)} |\n"


def _times() -> str:
    """The published times in one sentence."""
    times = []
    for card, name, model, size in TIMED:
        row = _compared(card, size)["wan2.1", model]
        assert row.seconds, model
        times.append(f"{in_words(row.seconds)} for {model} at {size} on an {name}")
    text = (
        "The time of a clip is an estimate from the figures that Wan2.1's makers published for their script: about "
        f"{' and about '.join(times)}. No time is published for the generator `diffusers`; `reel plan` predicts it "
        "after your first clip."
    )
    return "\n".join(textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)) + "\n"


def _range(cards: list[int]) -> str:
    return f"{cards[0]} GB" if len(cards) == 1 else f"{cards[0]} to {cards[-1]} GB"


def _sold(size: int | None) -> int:
    """The smallest usual host memory that has room for a run and the rest of the system."""
    return next(sold for sold in SOLD_GB if sold >= (size or 0) / GIB + SYSTEM_GIB)


# ---------------------------------------------------------------------------------------------------------- engine.md


def _engine() -> Iterator[str]:
    yield f"\n| model, size | {' | '.join(f'{card} GB' for card in ENGINE_CARDS)} | host memory for streaming |\n"
    yield f"|{'---|' * (len(ENGINE_CARDS) + 2)}\n"
    for model in ENGINE_MODELS:
        for size in (SMALL, LARGE):
            cells = [_engine_cell(model, size, card) for card in ENGINE_CARDS]
            streamed = _row(model, _compared(f"{ENGINE_CARDS[-1]}GiB", size, placement="group_offload").values())
            yield f"| {model}, {size} | {' | '.join(cells)} | {_gib(streamed.host_bytes)} |\n"


def _engine_cell(model: str, size: str, card: int) -> str:
    row = _row(model, _compared(f"{card}GiB", size).values())
    return f"{_placement(row).strip('`')} ({_gib(row.gpu_bytes, unit='')})" if row.fits else "refused"


def _row(model: str, rows: Iterable[ComparedModel]) -> ComparedModel:
    """The row of a model's own task: from a picture if it can."""
    task = "i2v" if "i2v" in MODELS[model].tasks else "t2v"
    return next(row for row in rows if (row.generator, row.model) == ("diffusers", f"{model} {task}"))


def _placement(row: ComparedModel) -> str:
    """The placement in a row's note; ``resident`` has no note, because the weights stay on the card."""
    return f"`{row.note.split()[1] if row.note.startswith('placement ') else 'resident'}`"


def _gib(size: int | None, unit: str = " GiB") -> str:
    return "?" if size is None else f"{size / GIB:.0f}{unit}"


if __name__ == "__main__":
    main()
