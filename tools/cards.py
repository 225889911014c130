"""Writes the table of cards in README.md, from the same plans and checks as for a real run.

For each card it shows the models that make a clip from a picture, in the best quality and at less cost. It runs no
model and needs no card.

    .venv/bin/python tools/cards.py        # rewrites the table; tests/test_docs.py fails while it is stale
"""

from __future__ import annotations

from pathlib import Path

from reelwright import Settings
from reelwright.core.host import GIB
from reelwright.doctor.card_comparison import ComparedModel, compare

PAGE = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- cards: made by `make tree` -->\n", "<!-- end of cards -->\n"
CARDS = (8, 12, 16, 24, 48, 80)
#: Generator and model of a comparison's row, with the name in the table. The order is that of the table.
SHOWN = {
    ("wan2.1", "Wan2.1 i2v-14B"): "Wan2.1 i2v-14B, official script",
    ("diffusers", "wan2.1-i2v-14B i2v"): "Wan2.1 i2v-14B",
    ("diffusers", "wan2.2-ti2v-5B i2v"): "Wan2.2 ti2v-5B",
}
HEAD = """
| card | `generator` | model | clip | placement | GPU memory | host memory | with `speed: balanced` | time of a clip |
|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")


def updated(page: str) -> str:
    """The page with a new table."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{PAGE} has no line {BEGIN!r}, or no {END!r} after it.")
    return before + BEGIN + HEAD + "".join(_lines(card) for card in CARDS) + "\n" + END + after


def _lines(card: int) -> str:
    exact, balanced = (
        {
            (row.generator, row.model): row
            for row in compare(f"1x{card}GiB", Settings.model_validate({"speed": speed}))
            if row.fits
        }
        for speed in ("exact", "balanced")
    )
    shown = [name for name in SHOWN if name in exact]
    return "".join(_line(card, exact[name], balanced[name]) for name in shown)


def _line(card: int, row: ComparedModel, balanced: ComparedModel) -> str:
    same = row.generator == "wan2.1"
    cells = (
        f"{card} GB",
        f"`{row.generator}`",
        SHOWN[row.generator, row.model],
        f"{row.size}, {row.frames} frames",
        "script's own, with offloading" if same else _placement(row),
        f"{_gib(row.gpu_bytes)} GiB",
        f"{_gib(row.host_bytes)} GiB",
        "" if same else f"{_gib(balanced.gpu_bytes)} and {_gib(balanced.host_bytes)} GiB, {_placement(balanced)}",
        f"about {row.seconds / 60:.0f} min (H100)" if row.seconds else "not known",
    )
    return f"| {' | '.join(cells)} |\n"


def _placement(row: ComparedModel) -> str:
    """The placement in a row's note; ``resident`` has no note, because the weights stay on the card."""
    return f"`{row.note.split()[1] if row.note.startswith('placement ') else 'resident'}`"


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / GIB:.0f}"


if __name__ == "__main__":
    main()
