"""Runs an official script of the family, unmodified, with every heavy package replaced by one that absorbs anything.

Started as a program of its own in the checkout; what is real: the parser, every check in Python, the arithmetic of
sizes, the choice of folders and names. What is not: tensors, weights, pictures' pixels, other processes. The last
line printed is JSON of what would have been rendered.

    $ python drive.py run sample_video.py --prompt=... | tail -1
    $ python drive.py parser generate.py | tail -1
    $ python drive.py launch .../launchers/hunyuan.py sample_video.py --prompt=... | tail -1
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

HEAVY = {
    "accelerate", "angelslim", "deepspeed", "diffusers", "einops", "flash_attn", "imageio", "loguru", "modelscope", "omegaconf",
    "packaging", "peft", "psutil", "qwen_vl_utils", "safetensors", "torch", "torchvision", "tqdm", "transformers",
    "xfuser", "yunchang", "openai", "cv2", "huggingface_hub",
}  # fmt: skip
SEEN: dict[str, Any] = {}
WORLD = int(os.environ.get("WORLD_SIZE", "1"))


class Anything:
    """Takes every call, attribute, operator and base-class list, and gives itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *args: Any, **options: Any) -> Any:
        return Anything()

    def chunk(self, count: int, *args: Any, **options: Any) -> Any:
        return tuple(Anything() for _ in range(count))

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        first = next(base for base in bases if isinstance(base, Anything))
        return (Base,) if first is self else ()

    def __getitem__(self, key: Any) -> Any:
        return Anything()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __iter__(self) -> Any:
        return iter(())

    def __contains__(self, item: Any) -> bool:
        return False

    def __len__(self) -> int:
        return 1

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def __lt__(self, other: Any) -> bool:
        return False

    __gt__ = __le__ = __ge__ = __lt__

    def __add__(self, other: Any) -> Any:
        return Anything()

    __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = __add__  # type: ignore[assignment]
    __pow__ = __rpow__ = __or__ = __ror__ = __add__


class Base:
    """What takes the place of torch.nn.Module and of diffusers' classes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def register_to_config(self, **values: Any) -> None:
        self.config = SimpleNamespace(**{**vars(getattr(self, "config", SimpleNamespace())), **values})

    def register_modules(self, **modules: Any) -> None:
        for name, module in modules.items():
            setattr(self, name, module)

    def progress_bar(self, total: int) -> Any:
        SEEN.setdefault("steps", []).append(total)
        return Anything()

    def maybe_free_model_hooks(self) -> None:
        pass


class Tensor:
    """A type, because the scripts ask for it; nothing is one."""


class Absorbing(ModuleType):
    """A package of which everything can be imported."""

    __path__: list[str] = []  # noqa: RUF012 - of a module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        special = {"register_to_config": lambda function: function, "no_grad": lambda: lambda function: function}
        return special.get(name) or _special(self.__name__, name)


def _special(module: str, name: str) -> Any:
    numbers = {
        ("torch.distributed", "get_world_size"): lambda *a: WORLD,
        ("torch.distributed", "get_rank"): lambda *a: int(os.environ.get("RANK", "0")),
        ("torch.distributed", "is_initialized"): lambda: WORLD > 1,
        ("xfuser.core.distributed", "get_sequence_parallel_world_size"): lambda: WORLD,
        ("xfuser.core.distributed", "get_sequence_parallel_rank"): lambda: int(os.environ.get("RANK", "0")),
    }
    if module == "torch" and name in ("distributed", "nn"):
        return importlib.import_module(f"torch.{name}")
    if name in ("Tensor", "Module"):
        return Tensor if name == "Tensor" else Base
    return numbers.get((module, name), Anything())


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every heavy package."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in HEAVY:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        return Absorbing(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


# ------------------------------------------------------------------------------------------- the older two members


class Transformer:
    """As large as the real one, and able to say how its input would be split."""

    patch_size = [1, 2, 2]  # noqa: RUF012 - as the real attribute
    hidden_size, heads_num, rope_dim_list = 3072, 24, [16, 56, 56]
    double_blocks: list[Any] = []  # noqa: RUF012
    single_blocks: list[Any] = []  # noqa: RUF012

    def forward(self, *args: Any, **options: Any) -> Any:
        return {"x": Anything()}

    def to(self, device: Any) -> Any:
        return self

    def load_state_dict(self, state: Any, strict: bool) -> None:
        assert strict

    def eval(self) -> None:
        pass

    def parameters(self) -> Any:
        return ()


class OlderPipeline(Anything):
    """Takes what the sampler gives to the pipeline, and tries the split of the first step."""

    def __init__(self, **parts: Any) -> None:
        self.transformer = parts["transformer"]

    def to(self, device: Any) -> Any:
        return self

    def __call__(self, **asked: Any) -> Any:
        height, width, frames = asked["height"], asked["width"], asked["video_length"]
        SEEN.update(height=int(height), width=int(width), frames=frames, steps=[asked["num_inference_steps"]])
        SEEN.update(prompt=asked["prompt"][0], guidance=asked["embedded_guidance_scale"], cfg=asked["guidance_scale"])
        latent = SimpleNamespace(shape=(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8))
        if WORLD > 1:
            self.transformer.forward(latent, None, freqs_cos=Anything(), freqs_sin=Anything())
        return ([Anything()],)


def prepare_older() -> None:
    """Put our pipeline and transformer into the place of the real ones, and note the folders and the film's name."""
    inference: Any = importlib.import_module("hyvideo.inference")
    files: Any = importlib.import_module("hyvideo.utils.file_utils")
    constants: Any = importlib.import_module("hyvideo.constants")
    inference.load_model = lambda *args, **options: Transformer()
    inference.HunyuanVideoPipeline = OlderPipeline
    inference.TextEncoder = Anything
    inference.get_nd_rotary_pos_embed = lambda *args, **options: (Anything(), Anything())
    inference.load_vae = lambda *args, **options: (Anything(), "", 8, 4)
    SEEN["folders"] = [*constants.VAE_PATH.values(), *constants.TEXT_ENCODER_PATH.values()]

    def save(videos: Any, path: str, fps: int) -> None:
        SEEN.update(film=path, fps=fps)
        with open(path, "x", encoding="utf-8"):
            pass

    original = files.save_videos_grid
    files.save_videos_grid = save
    assert callable(original)


# ------------------------------------------------------------------------------------------------------------- 1.5


def prepare_newer() -> None:
    """Put loaders that know the names of their folders into the place of the real ones."""
    base: Any = importlib.import_module("hyvideo.pipelines.hunyuan_video_pipeline")
    enlarging: Any = importlib.import_module("hyvideo.pipelines.hunyuan_video_sr_pipeline")
    torch: Any = importlib.import_module("torch")
    del torch

    class Loaded(Anything):
        @classmethod
        def from_pretrained(cls, pretrained_model_name_or_path: str, **options: Any) -> Any:
            loaded, folder = cls(), pretrained_model_name_or_path
            name = Path(folder).name
            SEEN.setdefault("folders", []).append(folder)
            size, _, rest = name.partition("_")
            loaded.config = SimpleNamespace(
                ideal_resolution=size, ideal_task=None if rest.startswith("sr") else rest.partition("_")[0],
                guidance_embed=False, use_meanflow=False, in_channels=32, block_out_channels=[1] * 5, scaling_factor=1,
                ffactor_spatial=16, ffactor_temporal=4, shift_factor=None,
            )  # fmt: skip
            return loaded

        def to(self, *args: Any) -> Any:
            return self

        def enable_group_offload(self, **options: Any) -> None:
            SEEN["group_offload"] = True

    class Encoder(Anything):
        max_length = 1000

    base.HunyuanVideo_1_5_DiffusionTransformer = Loaded
    base.SRTo720pUpsampler = base.SRTo1080pUpsampler = Loaded
    base.hunyuanvideo_15_vae.AutoencoderKLConv3D = Loaded
    base.TextEncoder = base.VisionEncoder = Encoder
    base.load_glyph_byT5_v2 = lambda *a, **k: {**_FONTS, "byt5_max_length": 256}
    base.MultilingualPromptFormat = Anything
    base.FlowMatchDiscreteScheduler = _Scheduler
    kind: Any = base.HunyuanVideo_1_5_Pipeline
    kind.encode_prompt = lambda *args, **options: (Anything(), Anything(), Anything(), Anything())
    kind.prepare_latents = _latents
    kind.get_image_condition_latents = lambda self, task, picture, height, width: SEEN.update(
        height=height, width=width
    )
    kind._prepare_cond_latents = kind._prepare_vision_states = lambda *args: Anything()
    kind._prepare_byt5_embeddings = lambda *args: {}
    enlarging.HunyuanVideo_1_5_SR_Pipeline._prepare_lq_cond_latents = lambda *args: Anything()
    for module in (base, enlarging):
        module.retrieve_timesteps = lambda scheduler, steps, device, **options: ([Anything()] * steps, steps)


_FONTS = {"byt5_model": Anything(), "byt5_tokenizer": Anything()}


class _Scheduler(Anything):
    order = 1

    def step(self, noise: Any, time: Any, latents: Any, **options: Any) -> Any:
        return (latents,)

    @classmethod
    def from_pretrained(cls, folder: str) -> Any:
        return cls()


def _latents(self: Any, count: int, channels: int, height: int, width: int, frames: int, *rest: Any) -> Any:
    """Latents with a shape and nothing in them."""
    SEEN["frames"] = 4 * (frames - 1) + 1

    class Latents(Anything):
        shape = (1, 32, frames, height, width)

        def __truediv__(self, other: Any) -> Any:
            return self

    return Latents()


# ------------------------------------------------------------------------------------------------------------ start


def dump_parser() -> None:
    """Print the parser's options in order instead of parsing."""

    def parse_args(self: argparse.ArgumentParser, *args: Any, **options: Any) -> None:
        found = []
        for action in self._actions[1:]:
            choices = sorted(action.choices) if action.choices else None
            kind = getattr(action.type, "__name__", None)
            default = list(action.default) if isinstance(action.default, tuple) else action.default
            found.append([action.option_strings, kind, default, choices, action.nargs, action.const, action.required])
        print(json.dumps(found))
        sys.exit(0)

    argparse.ArgumentParser.parse_args = parse_args  # type: ignore[assignment]


def main() -> None:
    """Become the script."""
    what, program = sys.argv[1], Path(sys.argv[2]).resolve()
    script = Path(sys.argv[3]).resolve() if what == "launch" else program  # our launcher runs it
    sys.path[0] = str(script.parent)
    sys.argv = sys.argv[2:]
    if what == "parser":
        dump_parser()
    sys.meta_path.insert(0, Finder())
    newer = (script.parent / "hyvideo" / "pipelines").is_dir()
    if what != "parser":
        prepare_newer() if newer else prepare_older()
    runpy.run_path(str(program), run_name="__main__")
    print("\n" + json.dumps(SEEN))


if __name__ == "__main__":
    main()
