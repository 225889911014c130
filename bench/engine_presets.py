"""Measures each preset's error against exact, and its growth over a chain of clips, on a small random model.

    .venv-engine/bin/python -m bench.engine_presets --photo tests/photos/rocket.jpg

Run this with the engine's interpreter. Every clip of a chain begins with the last frame of the one before, as chained
shots do. Random weights amplify or damp differences unlike trained ones: the figures compare presets with each other,
and say nothing about the look of a trained model. Times are those of a CPU.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE, FRAMES, STEPS, CLIPS = (96, 64), 9, 8, 4


def _cache(threshold: float) -> dict[str, Any]:
    return {"kind": "first_block", "threshold": threshold}


#: Name, dtype, attention, speed. The first choice is the one that the others are compared with.
CHOICES: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = (
    ("exact", "bfloat16", "native", {"preset": "exact"}),
    ("exact, mathematical attention", "bfloat16", "_native_math", {"preset": "exact"}),
    ("exact, compiled", "bfloat16", "native", {"preset": "exact", "compile": True}),
    ("fp8 weights", "bfloat16", "native", {"preset": "balanced", "fp8": True}),
    ("cache 0.05", "bfloat16", "native", {"preset": "balanced", "cache": _cache(0.05)}),
    ("cache 0.1", "bfloat16", "native", {"preset": "balanced", "cache": _cache(0.1)}),
    ("cache 0.2", "bfloat16", "native", {"preset": "balanced", "cache": _cache(0.2)}),
    ("balanced: cache 0.1, fp8", "bfloat16", "native", {"preset": "balanced", "cache": _cache(0.1), "fp8": True}),
    ("exact, float32", "float32", "native", {"preset": "exact"}),
)


def chain(folder: Path, photo: Path, choice: tuple[str, str, str, Mapping[str, Any]]) -> tuple[list[Any], Any]:
    """The clips of a chain as arrays, and (mean seconds of the clips after the first, facts of the last)."""
    from tests.engine_diffusers import tiny

    from reelwright.engines.diffusers.engine import DiffusersEngine

    _, dtype, attention, speed = choice
    engine, picture, clips, seconds = DiffusersEngine(), photo, [], []
    engine.load(
        tiny.model("wan2.1-i2v", folder / "model", dtype=dtype, attention=attention, speed=dict(speed)),
        lambda _: None,
        lambda: None,
    )
    for number in range(CLIPS):
        options = {
            "task": "i2v", "prompt": "a cat", "negative_prompt": "", "image": str(picture), "width": SIZE[0],
            "height": SIZE[1], "num_frames": FRAMES, "fps": 16, "steps": STEPS, "guidance_scale": 5.0,
            "flow_shift": 3.0, "seed": number,
        }  # fmt: skip
        started = time.perf_counter()
        saved = engine.generate(options, folder, lambda _: None, lambda: None)
        seconds.append(time.perf_counter() - started)
        clips.append(np.fromfile(saved.path, dtype=np.uint8).reshape(saved.frames, saved.height, saved.width, 3))
        picture = folder / f"last{number}.png"
        Image.fromarray(clips[-1][-1]).save(picture)
    engine.unload()
    return clips, (sum(seconds[1:]) / len(seconds[1:]), dict(saved.facts))


def psnr(found: Any, expected: Any) -> float:
    """The PSNR of 8-bit frames, in decibels."""
    error = float(np.mean((found.astype(np.float64) - expected.astype(np.float64)) ** 2))
    return math.inf if not error else 10 * math.log10(255**2 / error)


def main() -> int:
    """Print the table of all choices."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photo", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model(folder / "model")
        picture = folder / "first.png"
        with Image.open(arguments.photo) as opened:
            opened.convert("RGB").resize(SIZE).save(picture)
        print(f"| choice | PSNR of clips 1 to {CLIPS} of a chain against exact (dB) | cache hits | clip (s) |")
        print("|---|---|---|---|")
        exact: list[Any] = []
        for choice in CHOICES:
            clips, (seconds, facts) = chain(folder, picture, choice)
            exact = exact or clips
            errors = " ".join(f"{psnr(found, wanted):.1f}" for found, wanted in zip(clips, exact, strict=True))
            hits = f"{facts['cache_hits']} of {facts['passes']}" if "passes" in facts else "-"
            print(f"| {choice[0]} | {errors} | {hits} | {seconds:.2f} |", flush=True)
    return 0


def model(folder: Path) -> None:
    """Write a tiny model of six blocks: with two, a cache would skip half of them or none."""
    import torch
    from tests.engine_diffusers import tiny

    torch.manual_seed(0)
    pipeline = tiny._wan_i2v(num_layers=6)
    pipeline.save_pretrained(str(folder), safe_serialization=True)


if __name__ == "__main__":
    sys.exit(main())
