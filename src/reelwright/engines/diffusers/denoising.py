"""Denoises a clip: calls the pipeline with the arguments in its signature, and reports and stops between steps.

Every pipeline calls its scheduler exactly once for each denoising step. This module counts steps and checks for
cancellation in that call, so the pipeline needs no callbacks. Every clip gets a new scheduler.

    >>> latents = denoise(pipeline, options, callbacks)  # doctest: +SKIP
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.events import Phase, Progress
from .. import Check, Emit


@dataclass(frozen=True)
class Callbacks:
    """``emit`` reports events; ``check`` raises when the caller cancels."""

    emit: Emit
    check: Check


def denoise(pipeline: Any, options: Mapping[str, Any], callbacks: Callbacks) -> Any:
    """Latents of the clip, as the pipeline returns them. Raises what ``callbacks.check`` raises."""
    import torch

    _schedule(pipeline, options)
    _report_steps(pipeline.scheduler, int(options["steps"]), callbacks)
    with torch.no_grad():
        return pipeline(**arguments(pipeline, options)).frames


def arguments(pipeline: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for the pipeline: those that its signature has.

    The random generator runs on the device, as in the official scripts: one seed gives different noise on two devices.
    """
    import torch

    device = pipeline._execution_device
    generator = torch.Generator(device).manual_seed(int(options["seed"]))
    ours: dict[str, Any] = {
        "prompt": options["prompt"],
        "negative_prompt": options.get("negative_prompt") or None,
        "image": _picture(options.get("image")),
        "last_image": _picture(options.get("last_image")),
        "width": options["width"],
        "height": options["height"],
        "num_frames": options["num_frames"],
        "num_inference_steps": options["steps"],
        "guidance_scale": options["guidance_scale"],
        "generator": generator,
        "output_type": "latent",
    }
    wanted = inspect.signature(type(pipeline).__call__).parameters
    if "height" not in wanted:  # HunyuanVideo-1.5 would choose its own size, but the plan has promised one
        size = options["height"], options["width"]
        pipeline.video_processor.calculate_default_height_width = lambda **_: size
    return {name: value for name, value in ours.items() if name in wanted and value is not None}


def _picture(path: Any) -> Any:
    from PIL import Image

    if not path:
        return None
    with Image.open(Path(path)) as picture:
        return picture.convert("RGB")


def _schedule(pipeline: Any, options: Mapping[str, Any]) -> None:
    """Set a new scheduler with the clip's flow shift, and a guider with its guidance."""
    before = pipeline.scheduler
    shift = options.get("flow_shift")
    if "flow_shift" in before.config:
        from .official import official_scheduler

        pipeline.scheduler = official_scheduler(float(shift or before.config["flow_shift"]))
    else:
        changed = {} if shift is None else {"shift": float(shift)}
        pipeline.scheduler = type(before).from_config(before.config, **changed)
    guider = getattr(pipeline, "guider", None)
    if guider is not None:
        pipeline.guider = guider.new(guidance_scale=float(options["guidance_scale"]))


def _report_steps(scheduler: Any, total: int, callbacks: Callbacks) -> None:
    original, original_times = scheduler.step, scheduler.set_timesteps
    done = 0

    @functools.wraps(original)
    def step(*given: Any, **more: Any) -> Any:
        nonlocal done
        result = original(*given, **more)
        done += 1
        callbacks.emit(Progress("denoising", done, total))
        callbacks.check()
        return result

    @functools.wraps(original_times)
    def set_timesteps(*given: Any, **more: Any) -> Any:
        callbacks.check()
        callbacks.emit(Phase("denoising"))
        return original_times(*given, **more)

    scheduler.step, scheduler.set_timesteps = step, set_timesteps
