"""Imitates loading, sampling and super resolution as seen from outside, with faults; it computes nothing."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from PIL import Image

from hyvideo.commons import PIPELINE_CONFIGS, SIZES, SR_PIPELINE_CONFIGS, super_version
from hyvideo.stand_in import weights
from hyvideo.stand_in.bars import bar
from hyvideo.stand_in.failures import name_rank_in_tracebacks
from hyvideo.stand_in.film import Film
from hyvideo.stand_in.frameworks import needs
from hyvideo.stand_in.launch import Launch
from hyvideo.stand_in.log import log
from hyvideo.stand_in.sizes import buckets

for _name in ("diffusers", "transformers", "psutil", "safetensors"):
    needs(_name)
_LINE = "=" * 60


def transformer_version(args: argparse.Namespace, task: str) -> str:
    """The folder of the transformer that the flags select; it may be missing."""
    version = f"{args.resolution}_{task}"
    if args.enable_step_distill:
        return version + "_step_distilled"
    version += "_distilled" if args.cfg_distilled or args.sparse_attn else ""
    return version + ("_sparse" if args.sparse_attn else "")


class Pipeline:
    """A loaded model, and the model that enlarges its clips."""

    def __init__(self, args: argparse.Namespace, launch: Launch, version: str) -> None:
        self.args, self.launch = args, launch
        if launch.world > 1:  # the real code makes the process group first
            launch.barrier("joined")
            name_rank_in_tracebacks(launch.rank)
        folder = Path(args.model_path)
        self.heads = [_transformer(folder, version)]
        time.sleep(float(launch.plan.get("load_s", 0)))
        for name in ("vae", "text_encoder/llm", "vision_encoder/siglip/image_encoder"):
            _part(folder / name)
        launch.at("load")
        if not (folder / "text_encoder" / "Glyph-SDXL-v2").exists():
            raise RuntimeError("Error loading byT5 glyph processor")
        weights.open_archive(str(folder / "text_encoder" / "Glyph-SDXL-v2" / "checkpoints" / "byt5_model.pt"))
        self.steps = args.num_inference_steps or PIPELINE_CONFIGS[version][2]
        self.enlarging = super_version(version) if args.sr else None
        if self.enlarging:
            self.heads.append(_transformer(folder, self.enlarging))
            _part(folder / "upsampler" / self.enlarging)
        launch.barrier("loaded")

    def generate(self, task: str) -> Film:
        """The clip, enlarged if the arguments want it."""
        args, launch = self.args, self.launch
        width, height = self._size(task)
        self._say("HunyuanVideo Generation Task", args.prompt, (width, height), self.steps)
        launch.at("encode")
        self._denoise(int(launch.plan.get("steps", self.steps)), 0)
        if self.enlarging:
            width, height = _enlarged(width, height, SIZES[self.enlarging.partition("_")[0]])
            steps = SR_PIPELINE_CONFIGS[self.enlarging][1]
            self._say("HunyuanVideo SR Generation Task", args.prompt, (width, height), steps)
            launch.at("sr")
            self._denoise(steps, 1)
        launch.at("vae")
        launch.barrier("decoded")
        return Film(width, height, 4 * ((args.video_length - 1) // 4) + 1, args.seed, fps=24)

    def _size(self, task: str) -> tuple[int, int]:
        if task == "i2v":
            if self.launch.plan.get("touch_input"):
                with Path(self.args.image_path).open("ab") as file:
                    file.write(b"touched")
            width, height = Image.open(self.args.image_path).convert("RGB").size
        else:
            if ":" not in self.args.aspect_ratio:
                raise ValueError("aspect_ratio must be separated by a colon")
            width, height = map(int, self.args.aspect_ratio.split(":"))
        pairs = buckets(SIZES[self.args.resolution], 16)
        high, wide = min(pairs, key=lambda pair: abs(round(pair[0] / pair[1], 5) - height / width))
        return wide, high

    def _say(self, title: str, prompt: str, size: tuple[int, int], steps: int) -> None:
        if int(os.environ.get("RANK", "0")) != 0:
            return
        user = "" if "SR" in title else "User "
        print(
            f"\n{_LINE}\n🎬  {title}\n{'-' * 60}\n{user}Prompt:               {prompt}\n"
            f"Video Length:              {self.args.video_length}\nReference Image:           {self.args.image_path}\n"
            f"Seed:                      {self.args.seed}\nVideo Resolution:          {size[0]} x {size[1]}\n"
            f"Sampling Steps:            {steps}\n{_LINE}\n",
            flush=True,
        )

    def _denoise(self, steps: int, number: int) -> None:
        plan, ranks, heads = self.launch.plan, self.launch.world, self.heads[number]
        prefix = "sr " if number else ""
        for step in bar(steps, shown=plan.get("cr_bar", True)):
            self.launch.at(f"{prefix}step {step}")
            if ranks > 1:
                assert heads % ranks == 0, f"Invalid Head size: {heads}, which should be divisible by spsize {ranks}"
            self.launch.barrier(f"{prefix}step-{step}")
            time.sleep(float(plan.get("step_s", 0)))


def _transformer(folder: Path, version: str) -> int:
    """The number of heads of a transformer; the real code looks for a missing version on the hub, which fails."""
    if not (folder / "transformer" / version).exists():
        log("WARNING", "hyvideo.pipelines:create_pipeline:1462", f"Could not find {version} in {folder}.")
        raise OSError(
            "We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached "
            "files."
        )
    config = weights.open_transformer(str(folder / "transformer" / version), show_bar=False)
    return int(config["heads_num"])


def _part(folder: Path) -> None:
    if not folder.exists():
        message = f"{folder} not found. Please refer to checkpoints-download.md to download the checkpoints."
        log("ERROR", "hyvideo.pipelines:load:1590", message)
        raise FileNotFoundError(message)
    for path in sorted(folder.glob("*.safetensors")):
        weights.open_shard(path)


def _enlarged(width: int, height: int, base: int) -> tuple[int, int]:
    return min(buckets(base, 16), key=lambda pair: abs(pair[0] / pair[1] - width / height))
