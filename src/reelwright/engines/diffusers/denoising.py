"""A clip's latents: the pipeline is called as its own signature wants, watched and stopped between its steps.

Every pipeline steps its scheduler exactly once for each denoising step, so that is where steps are counted and where
a request to stop is seen, whether or not the pipeline knows callbacks. The scheduler is made anew for every clip.

    >>> latents = denoise(pipeline, options, watch)  # doctest: +SKIP
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.events import Event, Phase, Progress


@dataclass(frozen=True)
class Watch:
    """Who is told, and who may say stop."""

    emit: Callable[[Event], None]
    check: Callable[[], None]


def denoise(pipeline: Any, options: Mapping[str, Any], watch: Watch) -> Any:
    """Latents of the clip, as the pipeline returns them. Raises what ``watch.check`` raises."""
    import torch

    _schedule(pipeline, options)
    _follow(pipeline.scheduler, int(options["steps"]), watch)
    with torch.no_grad():
        return pipeline(**arguments(pipeline, options)).frames


def arguments(pipeline: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the pipeline is called with: of all that we have, what its signature names.

    The generator is that of the device, as in the official scripts: noise of one seed differs between devices.
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
    if "height" not in wanted:  # HunyuanVideo-1.5 would choose among its own sizes; the plan has promised one
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
    """A scheduler without memory of another clip, with the clip's flow shift; a guider with its guidance."""
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


def _follow(scheduler: Any, total: int, watch: Watch) -> None:
    original, original_times = scheduler.step, scheduler.set_timesteps
    done = 0

    @functools.wraps(original)
    def step(*given: Any, **more: Any) -> Any:
        nonlocal done
        result = original(*given, **more)
        done += 1
        watch.emit(Progress("denoising", done, total))
        watch.check()
        return result

    @functools.wraps(original_times)
    def set_timesteps(*given: Any, **more: Any) -> Any:
        watch.check()
        watch.emit(Phase("denoising"))
        return original_times(*given, **more)

    scheduler.step, scheduler.set_timesteps = step, set_timesteps
