"""Prints the measurements of `bench.engine_gpu` as a table for docs/benchmarks.md and as bars."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Row:
    """One way to make a clip, measured."""

    size: str
    name: str
    step: float | None = None
    clip: float | None = None
    peak: int | None = None
    predicted: int | None = None
    note: str = ""


def table(rows: list[Row], where: str) -> str:
    """The table for docs/benchmarks.md."""
    lines = [
        where,
        "",
        "| size | way | s/step | times plain | clip (s) | peak (GB) | predicted (GB) | |",
        "|" + "---|" * 8,
    ]
    plain = {row.size: row.step for row in rows if row.name == "plain diffusers" and row.step}
    for row in rows:
        faster = f"{plain[row.size] / row.step:.2f}x" if row.step and row.size in plain else ""
        numbers = [_number(row.step, "{:.2f}"), faster, _number(row.clip, "{:.1f}")]
        memory = [_number(value and value / 1e9, "{:.1f}") for value in (row.peak, row.predicted)]
        lines.append(f"| {' | '.join([row.size, row.name, *numbers, *memory, row.note])} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, how: str) -> str:
    return how.format(value) if value else ""


def plot(rows: list[Row]) -> str:
    """Seconds per step as bars, in SVG."""
    there = [row for row in rows if row.step]
    longest = max((row.step or 0.0 for row in there), default=1.0)
    bars = []
    for number, row in enumerate(there):
        y, length = 20 + number * 22, 420 * (row.step or 0.0) / longest
        bars.append(
            f'<text x="270" y="{y + 12}" text-anchor="end">{row.size} {row.name}</text>'
            f'<rect x="278" y="{y}" width="{length:.1f}" height="16" fill="#4477aa"/>'
            f'<text x="{284 + length:.1f}" y="{y + 12}">{row.step:.2f} s</text>'
        )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="780" height="{40 + 22 * len(there)}"'
    return f'{head} font-family="sans-serif" font-size="12">\n' + "\n".join(bars) + "\n</svg>\n"
