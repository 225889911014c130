"""Where weights lie while a clip is made: a ladder from all on the GPU to a little at a time.

Every rung computes the same numbers with the same kernels, only more slowly: the weights are moved, never changed. A
rung that does not fit is left for the next one, in the same process. On a CPU all of them are the same place.

    >>> RUNGS[0], RUNGS[-1]
    ('resident', 'disk_offload')
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import ConfigurationError
from .speed import transformers

RUNGS = ("resident", "encoders_off", "group_offload", "group_offload_low", "disk_offload")
ENCODERS = ("text_encoder", "text_encoder_2", "image_encoder")
_BLOCKS_PER_GROUP = 1


class Placement:
    """Puts the components of a model where a rung wants them, and takes them back."""

    def __init__(self, components: Mapping[str, Any], device: str, ladder: Sequence[str]) -> None:
        unknown = [rung for rung in ladder if rung not in RUNGS]
        if unknown or not ladder:
            raise ConfigurationError(f"there is no placement {unknown[:1]}", advice=f"Known: {', '.join(RUNGS)}.")
        self._components = components
        self._device = device
        self._ladder = list(ladder)
        self._folder: Path | None = None
        self._holder: Any = type("Holder", (), {})()
        for name in ("transformer", "transformer_2"):
            setattr(self._holder, name, components.get(name))

    @property
    def rung(self) -> str:
        """The rung that is in force."""
        return self._ladder[0]

    @property
    def keeps_blocks_whole(self) -> bool:
        """Whether no weight is moved while its block computes."""
        return self.rung in ("resident", "encoders_off", "group_offload")

    @property
    def below(self) -> bool:
        """Whether there is a rung left to go down to."""
        return len(self._ladder) > 1

    def apply(self) -> None:
        """Bring everything to its place on the rung in force."""
        vae = self._components.get("vae")
        if vae is not None:
            vae.to(self._device)
        for encoder in self._encoders():
            self._place_encoder(encoder)
        for transformer in transformers(self._holder):
            self._place(transformer)

    def step_down(self) -> str:
        """Leave this rung for the next; returns its name. What was allocated for a clip must be gone before."""
        self.take_off()
        self._ladder.pop(0)
        self.apply()
        return self.rung

    def follow(self, ladder: Sequence[str]) -> bool:
        """Another clip, another ladder: a larger one needs a lower rung, a smaller one may go up again.

        Returns whether that is another place, to which `apply` is to bring everything now.
        """
        moves = self.rung != ladder[0]
        if moves:
            self.take_off()
        self._ladder = list(ladder)
        return moves

    def take_off(self) -> None:
        """Bring all weights to the host and give the GPU's memory back."""
        for module in (*transformers(self._holder), *self._encoders()):
            _unhook(module)
            module.to("cpu")
        vae = self._components.get("vae")
        if vae is not None:
            vae.to("cpu")
        release_memory()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def denoiser_away(self) -> None:
        """The transformers leave the GPU: a decode that did not fit gets their room."""
        if self.rung in ("resident", "encoders_off"):
            for transformer in transformers(self._holder):
                transformer.to("cpu")
        release_memory()

    def denoiser_back(self) -> None:
        """They return for the next clip; those that stream have never been there."""
        if self.rung in ("resident", "encoders_off"):
            for transformer in transformers(self._holder):
                transformer.to(self._device)

    def _encoders(self) -> list[Any]:
        found = (self._components.get(name) for name in ENCODERS)
        return [module for module in found if module is not None]

    def _place_encoder(self, encoder: Any) -> None:
        """On the GPU, or streamed through it matrix by matrix: for one pass that is as much to move as all at once."""
        if self.rung == "resident" or self._device == "cpu":
            encoder.to(self._device)
            return
        import torch
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(
            encoder,
            onload_device=torch.device(self._device),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=True,
            low_cpu_mem_usage=True,
        )

    def _place(self, transformer: Any) -> None:
        if self.rung in ("resident", "encoders_off") or self._device == "cpu":
            transformer.to(self._device)
            return
        import torch

        options: dict[str, Any] = {
            "onload_device": torch.device(self._device),
            "offload_device": torch.device("cpu"),
            "use_stream": True,  # the next group comes while this one computes
        }
        if self.rung == "group_offload":
            options |= {"offload_type": "block_level", "num_blocks_per_group": _BLOCKS_PER_GROUP, "record_stream": True}
        else:
            options |= {"offload_type": "leaf_level", "low_cpu_mem_usage": True}
        if self.rung == "disk_offload":
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="reelwright-offload-"))
            options["offload_to_disk_path"] = str(self._folder / str(id(transformer)))
        transformer.enable_group_offload(**options)


def _unhook(module: Any) -> None:
    """Take the offloading off; diffusers has the hooks' names, and no function for it."""
    from diffusers.hooks import HookRegistry
    from diffusers.hooks import group_offloading as offloading

    registry = HookRegistry.check_if_exists_or_initialize(module)
    for name in (
        offloading._GROUP_OFFLOADING,
        offloading._LAYER_EXECUTION_TRACKER,
        offloading._LAZY_PREFETCH_GROUP_OFFLOADING,
    ):
        registry.remove_hook(name, recurse=True)


def release_memory() -> None:
    """Give what nobody holds any more back to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether this is the GPU's memory running out, by torch's class or by what CUDA's libraries say."""
    import torch

    words = str(error).lower()
    told = "out of memory" in words or "alloc_failed" in words or "can't allocate memory" in words
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and told)
