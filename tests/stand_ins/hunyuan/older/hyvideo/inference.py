"""Imitates loading and sampling as seen from outside, with faults; it computes nothing."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from pathlib import Path

from PIL import Image

from hyvideo.config import is_i2v
from hyvideo.constants import TEXT_ENCODER_PATH, VAE_PATH
from hyvideo.stand_in import weights
from hyvideo.stand_in.bars import bar
from hyvideo.stand_in.failures import name_rank_in_tracebacks
from hyvideo.stand_in.film import Film
from hyvideo.stand_in.frameworks import has, needs
from hyvideo.stand_in.launch import Launch
from hyvideo.stand_in.log import log
from hyvideo.stand_in.sizes import buckets

for _name in ("torch", "transformers", "diffusers", *(("deepspeed", "tensorboard") if is_i2v() else ())):
    needs(_name)
_BASES = {"720p": 960, "540p": 720, "360p": 480}


class HunyuanVideoSampler:
    """A loaded model."""

    def __init__(self, args: argparse.Namespace, launch: Launch) -> None:
        self.args, self.launch = args, launch

    @classmethod
    def from_pretrained(cls, root: Path, args: argparse.Namespace, launch: Launch) -> HunyuanVideoSampler:
        """Do the checks for several GPUs, then load all weights, in the real order."""
        _log("from_pretrained:154", f"Got text-to-video model root path: {root}")
        parallel = args.ulysses_degree > 1 or args.ring_degree > 1
        if parallel:
            assert has("xfuser"), "Ulysses Attention and Ring Attention requires xfuser package."
            assert args.use_cpu_offload is False, "Cannot enable use_cpu_offload in the distributed environment."
            launch.barrier("joined")
            name_rank_in_tracebacks(launch.rank)
            assert launch.world == args.ring_degree * args.ulysses_degree, (
                "number of GPUs should be equal to ring_degree * ulysses_degree."
            )
        else:
            launch = launch.alone()  # every process does the complete job, on the first GPU
        _load_transformer(args, launch)
        _load_vae(VAE_PATH[args.vae], launch)
        for kind in ("llm-i2v" if getattr(args, "i2v_mode", False) else args.text_encoder, args.text_encoder_2):
            _load_text_encoder(kind)
        if parallel and hasattr(args, "i2v_mode"):
            _log("from_pretrained:345", f"Rank {launch.rank}: Broadcasting model parameters")
        launch.barrier("loaded")
        return cls(args, launch)

    def predict(self) -> tuple[Film, str, int]:
        """The clip, its prompt and its seed."""
        args = self.args
        seed = random.randint(0, 1_000_000) if args.seed is None else args.seed
        height, width = args.video_size[0], args.video_size[1]
        if (args.video_length - 1) % 4 != 0:
            raise ValueError(f"`video_length-1` must be a multiple of 4, got {args.video_length}")
        _log("predict:548", f"Input (height, width, video_length) = ({height}, {width}, {args.video_length})")
        self.launch.at("encode")
        height, width = (math.ceil(side / 16) * 16 for side in (height, width))
        if not isinstance(args.prompt, str):
            raise TypeError(f"`prompt` must be a string, but got {type(args.prompt)}")
        prompt = args.prompt.strip()
        if getattr(args, "i2v_mode", False):
            height, width = self._picture_size()
        block = f"\n                        height: {height}\n                         width: {width}"
        block += f"\n                        prompt: {[prompt]}\n                    neg_prompt: {['']}"
        log("DEBUG", "hyvideo.inference:predict:620", block)
        begun = time.monotonic()
        self._denoise((height, width))
        self.launch.at("vae")
        # Without the reversed schedule the real result is noise.
        film = Film(width, height, args.video_length, seed, black=not args.flow_reverse, fps=24)
        self.launch.barrier("decoded")
        _log("predict:671", f"Success, time: {time.monotonic() - begun}")
        return film, prompt, seed

    def _picture_size(self) -> tuple[int, int]:
        """(height, width) of the bucket for the picture; several GPUs must be able to split it."""
        args, ranks = self.args, self.launch.world
        if self.launch.plan.get("touch_input"):
            with Path(args.i2v_image_path).open("ab") as file:
                file.write(b"touched")
        picture = Image.open(args.i2v_image_path).convert("RGB")
        aspect = picture.height / picture.width
        pairs = [(h, w, round(h / w, 5) - aspect) for h, w in buckets(_BASES[args.i2v_resolution], 32)]
        pairs = [pair for pair in pairs if (pair[2] <= 0) == (aspect >= 1)]
        height, width, _ = min(pairs, key=lambda pair: abs(pair[2]))
        if ranks > 1 and height % (ranks * 16) and width % (ranks * 16):
            assert os.getenv("ALLOW_RESIZE_FOR_SP") is not None, (
                f"The image resolution is {picture.size}. Please set ALLOW_RESIZE_FOR_SP=1 in the environment to "
                "allow xDiT to resize the image. "
            )
        return height, width

    def _denoise(self, size: tuple[int, int]) -> None:
        plan, ranks = self.launch.plan, self.launch.world
        for step in bar(int(plan.get("steps", self.args.infer_steps)), shown=plan.get("cr_bar", True)):
            self.launch.at(f"step {step}")
            if step == 1 and not has("flash_attn"):
                raise TypeError("'NoneType' object is not callable")
            if ranks > 1 and size[0] // 16 % ranks and size[1] // 16 % ranks:
                text = f"Cannot split video sequence into ulysses_degree x ring_degree ({ranks}) parts evenly"
                raise ValueError(text)
            self.launch.barrier(f"step-{step}")
            time.sleep(float(plan.get("step_s", 0)))


def _log(place: str, text: str) -> None:
    log("INFO", f"hyvideo.inference:{place}", text)


def _load_transformer(args: argparse.Namespace, launch: Launch) -> None:
    _log("from_pretrained:189", "Building model...")
    path = Path(args.i2v_dit_weight if getattr(args, "i2v_mode", False) else args.dit_weight)
    if args.use_fp8 and not Path(str(args.dit_weight).replace(".pt", "_map.pt")).exists():
        raise ValueError(f"Invalid fp8_map path: {str(args.dit_weight).replace('.pt', '_map.pt')}.")
    if not path.is_file():
        raise ValueError(f"Invalid model path: {path}")
    _log("load_state_dict:339", f"Loading torch model {path}...")
    time.sleep(float(launch.plan.get("load_s", 0)))
    weights.open_archive(str(path))


def _load_vae(folder: str, launch: Launch) -> None:
    _log("load_vae:29", f"Loading 3D VAE model (884-16c-hy) from: {folder}")
    if not (Path(folder) / "config.json").exists():
        raise OSError(f"Error no file named config.json found in directory {folder}.")
    path = Path(folder) / "pytorch_model.pt"
    assert path.exists(), f"VAE checkpoint not found: {path}"
    weights.open_archive(str(path))
    _log("load_vae:55", "VAE to dtype: torch.float16")
    launch.at("load")


def _load_text_encoder(kind: str) -> None:
    folder = TEXT_ENCODER_PATH[kind]
    _log("load_text_encoder:28", f"Loading text encoder model ({kind}) from: {folder}")
    weights.open_tokenizer(folder)
    json.loads((Path(folder) / "config.json").read_text("utf-8"))
    for path in sorted(Path(folder).glob("*.safetensors")):
        weights.open_shard(path)
    _log("load_tokenizer:63", f"Loading tokenizer ({kind}) from: {folder}")
