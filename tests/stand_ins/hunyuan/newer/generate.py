"""Stands in for HunyuanVideo-1.5's generate.py: its arguments, checks, log and habits, no model.

tests/real_hunyuan compares it with the real file. tests/stand_ins/README.md describes what a launch can do.

    $ python generate.py --prompt "a cat" --resolution 480p --model_path ckpts --output_path out.mp4
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from hyvideo.pipelines.hunyuan_video_pipeline import Pipeline, transformer_version
from hyvideo.stand_in.frameworks import needs
from hyvideo.stand_in.launch import Launch, begin, refuse_dropped_flag
from hyvideo.stand_in.log import log
from hyvideo.stand_in.saving import write_scripted

for _name in ("torch", "loguru", "einops", "imageio"):
    needs(_name)


def str_to_bool(value: str | bool | None) -> bool:
    """The value of a word, as in the official parser; the flag alone means yes.

    Raises:
        argparse.ArgumentTypeError: the word is unknown.
    """
    if value is None or isinstance(value, bool):
        return value is not False
    for answer, words in ((True, ("true", "1", "yes", "on")), (False, ("false", "0", "no", "off"))):
        if value.lower().strip() in words:
            return answer
    raise argparse.ArgumentTypeError(f"Boolean value expected, got: {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Generate video using HunyuanVideo-1.5")
    add = parser.add_argument

    def switch(flag: str, default: bool | None) -> None:
        add(flag, type=str_to_bool, nargs="?", const=True, default=default)

    add("--prompt", type=str, required=True)
    add("--negative_prompt", type=str, default="")
    add("--resolution", type=str, required=True, choices=["480p", "720p"])
    add("--model_path", type=str, required=True)
    add("--aspect_ratio", type=str, default="16:9")
    add("--num_inference_steps", type=int, default=None)
    add("--video_length", type=int, default=121)
    switch("--sr", True)
    switch("--save_pre_sr_video", False)
    switch("--rewrite", False)
    switch("--cfg_distilled", False)
    switch("--enable_step_distill", False)
    switch("--sparse_attn", False)
    switch("--offloading", True)
    switch("--group_offloading", None)
    switch("--overlap_group_offloading", True)
    add("--dtype", type=str, default="bf16", choices=["bf16", "fp32"])
    add("--seed", type=int, default=123)
    add("--image_path", type=str, default=None)
    add("--output_path", type=str, default=None)
    _add_speed(add, switch)
    return parser


def _add_speed(add: Any, switch: Any) -> None:
    switch("--use_sageattn", False)
    add("--sage_blocks_range", type=str, default="0-53")
    switch("--enable_torch_compile", False)
    switch("--enable_cache", False)
    add("--cache_type", type=str, default="deepcache")
    add("--no_cache_block_id", type=str, default="53")
    add("--cache_start_step", type=int, default=11)
    add("--cache_end_step", type=int, default=45)
    add("--total_steps", type=int, default=50)
    add("--cache_step_interval", type=int, default=4)
    switch("--save_generation_config", True)
    add("--checkpoint_path", type=str, default=None)
    add("--lora_path", type=str, default=None)
    switch("--use_fp8_gemm", False)
    add("--quant_type", type=str, default="fp8-per-token-sgl")
    add("--include_patterns", type=str, default="double_blocks")


def generate_video(args: argparse.Namespace, launch: Launch) -> None:
    """Make one clip, on every rank; the first one saves."""
    if args.sparse_attn and args.use_sageattn:
        raise ValueError(
            "sparse_attn and use_sageattn cannot be enabled simultaneously. Please enable only one of them."
        )
    if args.enable_step_distill and args.enable_cache:
        raise ValueError("Enabling both step distilled model and cache will lead to performance degradation.")
    task = "i2v" if args.image_path else "t2v"
    version = transformer_version(args, task)
    pipeline = Pipeline(args, launch, version)
    log("INFO", "__main__:generate_video:228", f"enable_offloading={args.offloading} enable_group_offloading=False")
    if args.video_length != 121 and launch.rank == 0:
        text = f"Warning: 121 frames is the optimal value for best quality. Attempting to generate {args.video_length} frames..."
        log("WARNING", "__main__:rank0_log:50", text)
    film = pipeline.generate(task)
    if int(os.environ.get("RANK", "0")) == 0:
        _save(args, launch, film)


def _save(args: argparse.Namespace, launch: Launch, film: Any) -> None:
    launch.at("save")
    path = args.output_path or "./outputs/output.mp4"
    folder = os.path.dirname(path)  # noqa: PTH120 - as in the real file
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    write_scripted(film, path, launch.plan)
    print(f"Saved {'SR ' if args.sr else ''}video to: {path}", flush=True)
    if args.save_generation_config:
        config = os.path.splitext(path)[0] + "_config.json"  # noqa: PTH122
        Path(config).write_text("{}", "utf-8")
        print(f"Saved generation config to: {config}")


def main() -> None:
    """Parse the arguments, then make the clip."""
    if {"-h", "--help"} & set(sys.argv):
        _parser().parse_args()  # --help is no launch
    launch = begin(Path(__file__).resolve().parent)
    refuse_dropped_flag(launch.plan.get("unknown_flag", False), "--seed")
    args = _parser().parse_args()
    if args.image_path is not None and args.image_path.lower().strip() == "none":
        args.image_path = None
    launch.at("start")
    generate_video(args, launch)
    launch.at("end")


if __name__ == "__main__":
    main()
