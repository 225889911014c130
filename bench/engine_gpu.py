"""Measures seconds per step and per clip, and memory against its prediction, at the size of Wan2.1 i2v-14B.

    python -m bench.engine_gpu --table engine.md --plot engine.svg --wan21 CHECKOUT      # an NVIDIA GPU of 80 GB
    python -m bench.engine_gpu --tiny --device cpu                                      # tests the script itself

Run this with the engine's interpreter. One run measures plain diffusers, every preset through the engine, and, with a
checkout, the loop of the official generate.py, at 480p and 720p with 81 frames, on random weights made on the device.
The seconds of a step are the median of the steps after the first; those of a clip with the official number of steps
are extrapolated. The hits of a step cache depend on trained weights: give their folder with --weights to measure that
row.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .engine_models import TINY, TRUE, a_lora, components
from .engine_table import Row, plot, table

STEPS_OF_A_CLIP = 40
CACHE = {"kind": "first_block", "threshold": 0.1}


@dataclass(frozen=True)
class Clip:
    """Size, length and steps."""

    width: int
    height: int
    frames: int
    steps: int

    @property
    def name(self) -> str:
        """The size, such as ``832x480``."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Way:
    """One way through the engine: its attention, speed, guidance and number of steps."""

    name: str
    speed: Mapping[str, Any]
    attention: str = "auto"
    guidance: float = 5.0
    clip_steps: int = STEPS_OF_A_CLIP


def ways(lora: Path, *, cuda: bool) -> list[Way]:
    """Every preset, and the preset exact without each of its parts."""
    exact = {"preset": "exact", "compile": cuda}
    balanced = {"preset": "balanced", "cache": CACHE, "fp8": True, "compile": cuda}
    fast = {"preset": "fast", "lora": [{"path": str(lora)}], "compile": cuda}
    return [
        Way("exact", exact),
        Way("exact, PyTorch's attention", exact, "native"),
        Way("exact, not compiled", {"preset": "exact"}),
        Way("exact, neither", {"preset": "exact"}, "native"),
        Way("balanced", balanced),
        Way("fast, 4 steps", fast, guidance=1.0, clip_steps=4),
    ]


@dataclass
class Times:
    """When phases and steps began and ended, from the engine's events."""

    phases: dict[str, float] = field(default_factory=dict)
    steps: list[float] = field(default_factory=list)

    def record(self, event: Any) -> None:
        """Record an event; a step on a GPU ends when the device has synchronised."""
        _synchronise()
        name = type(event).__name__
        if name == "Phase":
            self.phases[event.name] = time.perf_counter()
        if name == "Progress":
            self.steps.append(time.perf_counter())

    @property
    def step(self) -> float:
        """Median of the steps after the first."""
        return statistics.median(b - a for a, b in zip(self.steps, self.steps[1:], strict=False))


def _choices(facts: Mapping[str, Any]) -> str:
    """The choices for this device, as in the manifest."""
    words = [f"placement {facts['placement']}", f"attention {facts['attention']}"]
    if facts["attention_difference"]:
        words.append(f"off by {facts['attention_difference']:.0e}")
    words.append("compiled" if facts["compile"] else facts.get("compile_problem") or "not compiled")
    if "passes" in facts:
        words.append(f"{facts['cache_hits']} of {facts['passes']} passes cached")
    return ", ".join(words)


def _synchronise() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextlib.contextmanager
def freed(device: str) -> Iterator[Callable[[], int | None]]:
    """Free everything that a row used before the next one begins; gives the peak of the GPU's memory."""
    import torch

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        yield lambda: int(torch.cuda.max_memory_allocated()) if cuda else None
    finally:
        torch.compiler.reset()
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()


class Bench:
    """One device, one folder, one size of model."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        from PIL import Image

        self._arguments = arguments
        self._folder = folder
        self._sizes = TINY if arguments.tiny else TRUE
        self._photo = folder / "photo.png"
        Image.new("RGB", (320, 180), (90, 120, 60)).save(self._photo)
        self._lora = a_lora(folder / "distilled.safetensors", self._sizes["transformer"])

    def rows(self, clip: Clip) -> Iterator[Row]:
        """Every way, one after the other; the row of a failed way has the reason as its note."""
        device = self._arguments.device
        attempts: list[tuple[str, Callable[[], Row]]] = [("plain diffusers", functools.partial(self.plain, clip))]
        for way in ways(self._lora, cuda=device.startswith("cuda")):
            attempts.append((way.name, functools.partial(self.ours, clip, way)))  # noqa: PERF401 -- reads better
        if self._arguments.wan21:
            attempts.append(("official generate.py", functools.partial(self.official, clip)))
        for name, attempt in attempts:
            with freed(device) as peak:
                try:
                    row = attempt()
                    row.peak = row.peak or peak()
                except Exception as error:  # noqa: BLE001 -- a way that fails must not end the others
                    row = Row(clip.name, name, note=(str(error).splitlines() or [type(error).__name__])[0][:90])
            print(f"  {name}: {row.step or float('nan'):.2f} s/step {row.note}", file=sys.stderr, flush=True)
            yield row

    def plain(self, clip: Clip) -> Row:
        """Measure diffusers as its own example calls it."""
        import torch
        from diffusers import WanImageToVideoPipeline
        from PIL import Image

        pipeline = WanImageToVideoPipeline(**components(self._sizes, self._arguments.device, official=False))
        pipeline.set_progress_bar_config(disable=True)
        times = Times()

        def after(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            _synchronise()
            times.steps.append(time.perf_counter())
            return values

        started = time.perf_counter()
        pipeline(
            Image.open(self._photo).convert("RGB"), "a cat", "dull", height=clip.height, width=clip.width,
            num_frames=clip.frames, num_inference_steps=clip.steps, guidance_scale=5.0, callback_on_step_end=after,
            generator=torch.Generator(self._arguments.device).manual_seed(1),
        )  # fmt: skip
        _synchronise()
        around = time.perf_counter() - started - (times.steps[-1] - times.steps[0]) - times.step
        return Row(clip.name, "plain diffusers", times.step, around + STEPS_OF_A_CLIP * times.step)

    def ours(self, clip: Clip, way: Way) -> Row:
        """Measure the engine, as a worker runs it."""
        from reelwright.engines.diffusers import loading
        from reelwright.engines.diffusers.engine import DiffusersEngine

        read, engine, model = loading.load, DiffusersEngine(), self._model(way)
        if not self._arguments.weights:
            loading.load = self._made
        try:
            engine.load(model, lambda _: None, lambda: None)
        finally:
            loading.load = read
        engine.generate(self._options(clip, way, 2), self._folder, lambda _: None, lambda: None)  # compiles, warms up
        times = Times()
        saved = engine.generate(self._options(clip, way, clip.steps), self._folder, times.record, lambda: None)
        ended = time.perf_counter()
        around = times.phases["denoising"] - times.phases["encoding"] + ended - times.steps[-1]
        row = Row(clip.name, way.name, times.step, around + way.clip_steps * times.step, saved.facts["peak_bytes"])
        row.predicted, row.note = self._predicted(clip, engine), _choices(saved.facts)
        engine.unload()
        return row

    def official(self, clip: Clip) -> Row:
        """Measure the loop of the real generate.py, in an interpreter that has the packages it imports."""
        asked = {"clip": asdict(clip), "device": self._arguments.device, "sizes": dict(self._sizes["transformer"])}
        program = str(Path(__file__).with_name("engine_official.py"))
        argv = [str(self._arguments.wan21_python), "-W", "ignore", program, str(self._arguments.wan21.resolve())]
        done = subprocess.run([*argv, json.dumps(asked)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
        values = json.loads(done.stdout.splitlines()[-1])
        return Row(clip.name, "official generate.py", values["step"], peak=values["peak"], note="its loop alone")

    def _made(self, model: Mapping[str, Any], _phase: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        from diffusers import WanImageToVideoPipeline

        found = components(self._sizes, str(model["device"]), official=True)
        pipeline = WanImageToVideoPipeline(**found)
        pipeline.set_progress_bar_config(disable=True)
        return {"i2v": pipeline}, found

    def _model(self, way: Way) -> dict[str, Any]:
        return {
            "name": "wan2.1-i2v-14B", "family": "wan", "directory": str(self._arguments.weights or ""),
            "layout": self._arguments.layout, "tasks": {"i2v": "WanImageToVideoPipeline"}, "dtype": "bfloat16",
            "device": self._arguments.device, "ranks": 1, "attention": way.attention,
            "placements": ["resident", "encoders_off"], "speed": dict(way.speed),
        }  # fmt: skip

    def _options(self, clip: Clip, way: Way, steps: int) -> dict[str, Any]:
        return {
            "task": "i2v", "prompt": "a cat", "negative_prompt": "dull", "image": str(self._photo),
            "width": clip.width, "height": clip.height, "num_frames": clip.frames, "fps": 16, "steps": steps,
            "guidance_scale": way.guidance, "flow_shift": 3.0, "seed": 1,
        }  # fmt: skip

    def _predicted(self, clip: Clip, engine: Any) -> int:
        """The planner's prediction for the placement that the engine used, in bytes."""
        from reelwright.backends.diffusers.placement import Weights, Work, peaks

        pipeline = next(iter(engine._loaded.pipelines.values()))
        network = self._sizes["transformer"]
        text, eye, vae = (_bytes(getattr(pipeline, name)) for name in ("text_encoder", "image_encoder", "vae"))
        weights = Weights(_bytes(pipeline.transformer), text, eye, vae, network["num_layers"])
        tokens = ((clip.frames - 1) // 4 + 1) * (clip.height // 16) * (clip.width // 16)
        width = network["num_attention_heads"] * network["attention_head_dim"]
        return int(peaks(weights, Work(tokens, width, clip.width * clip.height))[engine._loaded.placement.current])


def _bytes(module: Any) -> int:
    return sum(value.numel() * value.element_size() for value in module.parameters())


def machine(arguments: argparse.Namespace) -> str:
    """Hardware and versions: figures mean nothing without them."""
    import diffusers
    import torch

    cuda = arguments.device.startswith("cuda")
    name = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    weights = (
        "tiny random weights" if arguments.tiny else "weights of a user" if arguments.weights else "random weights"
    )
    return f"{name}, torch {torch.__version__}, diffusers {diffusers.__version__}, Wan2.1 i2v-14B, {weights}."


def main() -> int:
    """Measure, and write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and clip")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--wan21", type=Path, help="official checkout, for its own loop")
    parser.add_argument("--wan21-python", default=sys.executable, help="an interpreter with what the checkout imports")
    parser.add_argument("--weights", type=Path, help="a folder of real weights instead of random ones")
    parser.add_argument("--layout", choices=("diffusers", "official"), default="diffusers")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    sizes = ((96, 64, 9),) if arguments.tiny else ((832, 480, 81), (1280, 720, 81))
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(arguments, Path(name))
        rows = [row for size in sizes for row in bench.rows(Clip(*size, arguments.steps))]
    text = table(rows, machine(arguments))
    print(text)
    if arguments.table:
        arguments.table.write_text(text)
    if arguments.plot:
        arguments.plot.write_text(plot(rows))
    return 0 if any(row.step for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
