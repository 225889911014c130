"""Places the weights while a clip is made: all on the GPU, or more and more of them streamed from the host or the disk.

Every placement computes the same numbers with the same kernels; each is slower than the one before. Weights move but
never change. If one placement does not fit, the same process uses the next one. On a CPU all placements are the same.

    >>> PLACEMENTS[0], PLACEMENTS[-1]
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
from .blocks import TRANSFORMERS

PLACEMENTS = ("resident", "encoders_off", "group_offload", "group_offload_low", "disk_offload")
_ENCODERS = ("text_encoder", "text_encoder_2", "image_encoder")
_ON_GPU = ("resident", "encoders_off")  # the complete transformers are on the GPU
_BLOCKS_PER_GROUP = 1


class Placement:
    """The components of a model and the placements allowed for them, the current one first."""

    def __init__(self, components: Mapping[str, Any], device: str, placements: Sequence[str]) -> None:
        self._device = device
        self._left = _checked(placements)
        self._folder: Path | None = None
        self._transformers, self._encoders, self._vaes = (
            [components[name] for name in names if components.get(name) is not None]
            for names in (TRANSFORMERS, _ENCODERS, ("vae",))
        )

    @property
    def current(self) -> str:
        """The placement in force."""
        return self._left[0]

    @property
    def is_last(self) -> bool:
        """Whether no other placement is allowed after this one."""
        return len(self._left) == 1

    @property
    def keeps_blocks_whole(self) -> bool:
        """Whether no weight moves while its block computes."""
        return self.current in (*_ON_GPU, "group_offload")

    def apply(self) -> None:
        """Move every component to where the placement wants it."""
        for module in self._vaes:
            module.to(self._device)
        for module in self._encoders:
            self._place_encoder(module)
        for module in self._transformers:
            self._place_transformer(module)

    def use_next(self) -> str:
        """Change to the next placement, and return its name. Free a clip's own memory first."""
        self.move_to_host()
        self._left.pop(0)
        self.apply()
        return self.current

    def follow(self, placements: Sequence[str]) -> bool:
        """Take the placements of another clip: a larger clip needs a later placement, a smaller clip an earlier one.

        Returns whether the current placement changed, and `apply` must be called.
        """
        allowed = _checked(placements)
        changed = self.current != allowed[0]
        if changed:
            self.move_to_host()
        self._left = allowed
        return changed

    def move_to_host(self) -> None:
        """Move all weights to the host and free the GPU's memory."""
        for module in (*self._transformers, *self._encoders):
            _remove_offloading(module)
            module.to("cpu")
        for module in self._vaes:
            module.to("cpu")
        release_memory()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def move_denoiser_away(self) -> None:
        """Move the transformers to the host, so that a decode that did not fit gets their room."""
        if self.current in _ON_GPU:
            for module in self._transformers:
                module.to("cpu")
        release_memory()

    def move_denoiser_back(self) -> None:
        """Move the transformers back for the next clip; streamed ones are never completely on the GPU."""
        if self.current in _ON_GPU:
            for module in self._transformers:
                module.to(self._device)

    def _place_encoder(self, encoder: Any) -> None:
        """Put an encoder on the GPU, or stream it matrix by matrix. It runs once, so streaming moves no more bytes."""
        if self.current == "resident" or self._device == "cpu":
            encoder.to(self._device)
            return
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(encoder, **self._streaming(), offload_type="leaf_level", low_cpu_mem_usage=True)

    def _place_transformer(self, transformer: Any) -> None:
        if self.current in _ON_GPU or self._device == "cpu":
            transformer.to(self._device)
            return
        options = self._streaming()
        if self.current == "group_offload":
            options |= {"offload_type": "block_level", "num_blocks_per_group": _BLOCKS_PER_GROUP, "record_stream": True}
        else:
            options |= {"offload_type": "leaf_level", "low_cpu_mem_usage": True}
        if self.current == "disk_offload":
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="reelwright-offload-"))
            options["offload_to_disk_path"] = str(self._folder / str(id(transformer)))
        transformer.enable_group_offload(**options)

    def _streaming(self) -> dict[str, Any]:
        """Options for streaming; with ``use_stream`` the next group arrives while this one computes."""
        import torch

        return {
            "onload_device": torch.device(self._device),
            "offload_device": torch.device("cpu"),
            "use_stream": True,
        }


def _checked(placements: Sequence[str]) -> list[str]:
    unknown = [str(name) for name in placements if name not in PLACEMENTS]
    if unknown or not placements:
        wrong = f"names {', '.join(unknown)}" if unknown else "is empty"
        raise ConfigurationError(f"`placements` {wrong}", advice=f"Allowed: {', '.join(PLACEMENTS)}.")
    return list(placements)


def _remove_offloading(module: Any) -> None:
    """Remove the offloading hooks; diffusers has names for them, but no function that removes them."""
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
    """Free unused memory on the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
