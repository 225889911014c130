"""Implements ``reel show``: prints a manifest as tables; ``--plot`` draws the memory curve."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import existing
from .output import cell, console, print_json, table

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.manifest import Attempt, Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("path", type=Path, metavar="MANIFEST_OR_VIDEO", help="manifest, or the video beside it")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw GPU memory over time (extra: plot)")


def run(arguments: argparse.Namespace) -> int:
    """Print the manifest; for a video without one, its own metadata."""
    from ..core.manifest import manifest_of
    from ..runs.history import load_manifest

    path = existing(arguments.path)
    if path.suffix.lower() == ".mp4":
        if not manifest_of(path).exists():
            return _show_metadata(path, as_json=arguments.json)
        path = manifest_of(path)
    manifest = load_manifest(path)
    if arguments.plot:
        from ..media.plot import draw_metrics
        from ..runs.output_paths import check_picture

        check_picture(arguments.plot, (".png", ".svg"), overwrite=False)
        draw_metrics(manifest.metrics or {}, arguments.plot)
    if arguments.json:
        print_json(json.loads(manifest.to_text()))
    else:
        _show(manifest, path.absolute().parent)
    return 0


def _show_metadata(path: Path, *, as_json: bool) -> int:
    from ..core.errors import InvalidInputError
    from ..media.verification import examine

    facts = examine(path, apart=True)
    if facts["problems"]:
        raise InvalidInputError(f"{path} is not a complete video and has no manifest", evidence=facts["problems"])
    if as_json:
        print_json(facts["metadata"])
    else:
        _pairs(console(), f"{path.name} (no manifest beside it: the metadata of the file)", facts["metadata"])
    return 0


def _show(manifest: Manifest, beside: Path) -> None:
    out = console()
    output = manifest.output or {}
    about = {
        "video": f"{output['path']}: {output.get('width')}x{output.get('height')}, {output.get('frames')} frames"
        if output
        else "none",
        "state": manifest.state + (" (quality was lowered)" if manifest.degraded else ""),
        "generator": f"{manifest.generator} ({manifest.task})" + ("" if manifest.generative else ", not generative"),
        "prompt": manifest.requested.get("prompt"),
        "seed": manifest.seed,
        "made": f"{manifest.created_at}, {manifest.seconds:.1f} s",
        **{f"input {item['role']}": _picture(item, beside) for item in manifest.inputs},
        **{str(name): _words(value) for name, value in manifest.facts.items() if name != "kept"},
    }
    _pairs(
        out,
        "film" if manifest.task == "film" else "clip",
        {name: value for name, value in about.items() if value is not None},
    )
    columns = ("shot", "frames", "size", "generator", "seed", "joined", "prompt")
    _rows(out, "shots", columns, _shots(manifest.facts))
    asked = manifest.requested
    parameters = ((name, _value(asked.get(name)), _value(value)) for name, value in manifest.effective.items())
    _rows(out, "parameters", ("parameter", "requested", "effective"), parameters)
    _pairs(out, "seconds per phase", {name: f"{value:.2f}" for name, value in manifest.phase_seconds.items()})
    _rows(out, "attempts", ("#", "outcome", "why it ended", "changed", "seconds"), _attempts(manifest.attempts))
    _pairs(out, "measured", _metric_rows(manifest.metrics or {}))
    for warning in manifest.warnings:
        out.print(cell(f"warning: {warning}", "yellow"))
    if manifest.error:
        out.print(cell(f"{manifest.error['code']}: {manifest.error['message']}", "red"))


def _picture(item: Mapping[str, Any], beside: Path) -> str:
    """The recorded path of a picture, and its present path if it differs."""
    from ..runs.runner import find_picture

    found = find_picture(item, beside)
    if found is None:
        return f"{item['path']} (gone or changed)"
    return str(item["path"]) if str(found) == str(item["path"]) else f"{item['path']} (now {found})"


def _pairs(out: Console, title: str, pairs: Mapping[str, Any]) -> None:
    _rows(out, title, ("", ""), ((cell(name, "bold"), value) for name, value in pairs.items()))


def _rows(out: Console, title: str, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """Print a table without lines; print nothing if it has no rows."""
    from rich.text import Text

    shape = table(*columns, title=title, plain=True)
    shape.show_header = any(columns)
    for row in rows:
        shape.add_row(*(value if isinstance(value, Text) else cell("-" if value is None else value) for value in row))
    if shape.rows:
        out.print(shape)


def _words(value: Any) -> object:
    """A fact as text for a row; ``None`` for records, which have separate tables or are for programs."""
    if isinstance(value, (list, tuple)) and value and not any(isinstance(item, (dict, list)) for item in value):
        return ", ".join(map(str, value))
    return None if isinstance(value, (list, tuple, dict)) else value


def _shots(facts: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """A row for each clip of a film: its length, its generator, and its joint with the clip before."""
    joints = {joint.get("part"): joint for joint in _records(facts.get("joints"))}
    for number, shot in enumerate(_records(facts.get("shots"))):
        made = _record(shot.get("manifest"))
        output, asked = _record(made.get("output")), _record(made.get("requested"))
        size = f"{output['width']}x{output.get('height')}" if output.get("width") else None
        about = (shot.get("segment"), shot.get("frames"), size, made.get("generator"), made.get("seed"))
        yield (*about, _joined(joints.get(number)), asked.get("prompt"))


def _value(value: Any) -> object:
    return None if value is None else _words(value) or value


def _records(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _record(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _joined(joint: Mapping[str, Any] | None) -> str | None:
    if joint is None:
        return None
    return f"{joint.get('kind')}" + (", a visible jump" if joint.get("jump") else "")


def _attempts(attempts: Sequence[Attempt]) -> Iterator[tuple[object, ...]]:
    for attempt in attempts:
        ended = f"{attempt.failure} in {attempt.phase}: {attempt.message}" if attempt.failure else ""
        yield attempt.number, attempt.outcome, ended, ", ".join(attempt.changed), f"{attempt.seconds:.1f}"


def _metric_rows(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The measurements in readable units; missing ones are left out."""
    rows: dict[str, str] = {}
    for name, value in metrics.items():
        if name not in ("curve", "schema") and value not in (None, {}):
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            label = re.sub(r"_(bytes|bytes_per_s|percent|s)$", "", name).replace("_", " ")
            rows[label] = ", ".join(f"{part[:12]} {_in_units(name, item)}".strip() for part, item in parts)
    return rows


def _in_units(name: str, value: Any) -> str:
    if name.endswith("bytes_per_s"):
        return f"{value / 2**20:.1f} MiB/s"
    if name.endswith("bytes"):
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    if name.endswith("percent"):
        return f"{value:.0f} %"
    return f"{value:.4g} s" if isinstance(value, float) else str(value)
