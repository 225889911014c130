"""Stands in for Wan2.1's generate.py: its arguments, checks, log and habits, no model.

tests/stand_ins_check/test_wan21_faithful.py compares it with the real file. It makes no video from a prompt;
tests/stand_ins/README.md describes what a launch can do.

    $ python generate.py --task i2v-14B --size '832*480' --ckpt_dir DIR --image photo.png --save_file out.mp4
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import wan
from PIL import Image
from wan.configs import MAX_AREA_CONFIGS, SIZE_CONFIGS, SUPPORTED_SIZES, WAN_CONFIGS
from wan.stand_in.failures import name_rank_in_tracebacks
from wan.stand_in.film import Film
from wan.stand_in.frameworks import needs
from wan.stand_in.launch import Launch, begin
from wan.stand_in.pipeline import Place, Sampling, seed_of
from wan.utils.utils import cache_video, str2bool

#: The defaults for missing arguments. They include the picture, so a missing --image is no error.
EXAMPLE_PROMPT: dict[str, dict[str, str]] = {
    "t2v-1.3B": {"prompt": "Two cats in boxing gear fight on a stage."},
    "t2v-14B": {"prompt": "Two cats in boxing gear fight on a stage."},
    "t2i-14B": {"prompt": "一个朴素端庄的美人"},
    "i2v-14B": {"prompt": "A white cat with sunglasses on a surfboard.", "image": "examples/i2v_input.JPG"},
    "flf2v-14B": {
        "prompt": "A blue bird takes off.",
        "first_frame": "examples/flf2v_input_first_frame.png",
        "last_frame": "examples/flf2v_input_last_frame.png",
    },
    "vace-1.3B": {"prompt": "A girl plays with a snake."},
    "vace-14B": {"prompt": "A girl plays with a snake."},
}
_PIPELINES = {"t2v": "WanT2V", "t2i": "WanT2V", "i2v": "WanI2V", "flf2v": "WanFLF2V", "vace": "VACE"}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", type=str, default="t2v-14B", choices=list(WAN_CONFIGS.keys()))
    parser.add_argument("--size", type=str, default="1280*720", choices=list(SIZE_CONFIGS.keys()))
    parser.add_argument("--frame_num", type=int, default=None)
    parser.add_argument("--ckpt_dir", type=str, default=None)
    parser.add_argument("--offload_model", type=str2bool, default=None)
    parser.add_argument("--ulysses_size", type=int, default=1)
    parser.add_argument("--ring_size", type=int, default=1)
    parser.add_argument("--t5_fsdp", action="store_true", default=False)
    parser.add_argument("--t5_cpu", action="store_true", default=False)
    parser.add_argument("--dit_fsdp", action="store_true", default=False)
    parser.add_argument("--save_file", type=str, default=None)
    parser.add_argument("--src_video", type=str, default=None)
    parser.add_argument("--src_mask", type=str, default=None)
    parser.add_argument("--src_ref_images", type=str, default=None)
    parser.add_argument("--prompt", type=str, default=None)
    parser.add_argument("--use_prompt_extend", action="store_true", default=False)
    parser.add_argument("--prompt_extend_method", type=str, default="local_qwen", choices=["dashscope", "local_qwen"])
    parser.add_argument("--prompt_extend_model", type=str, default=None)
    parser.add_argument("--prompt_extend_target_lang", type=str, default="zh", choices=["zh", "en"])
    parser.add_argument("--base_seed", type=int, default=-1)
    parser.add_argument("--image", type=str, default=None)
    parser.add_argument("--first_frame", type=str, default=None)
    parser.add_argument("--last_frame", type=str, default=None)
    parser.add_argument("--sample_solver", type=str, default="unipc", choices=["unipc", "dpm++"])
    parser.add_argument("--sample_steps", type=int, default=None)
    parser.add_argument("--sample_shift", type=float, default=None)
    parser.add_argument("--sample_guide_scale", type=float, default=5.0)


def _parse_args(unknown_flag: str | bool = False) -> argparse.Namespace:
    """The arguments with their defaults; ``unknown_flag`` is a flag that this version of the framework has dropped."""
    parser = argparse.ArgumentParser(description="Generate a image or video from a text prompt or image using Wan")
    _add_arguments(parser)
    dropped = "--base_seed" if unknown_flag is True else unknown_flag
    given = [argument for argument in sys.argv[1:] if dropped and argument.partition("=")[0] == dropped]
    if given:
        parser.error(f"unrecognized arguments: {' '.join(given)}")
    args = parser.parse_args()
    _validate_args(args)
    return args


def _validate_args(args: argparse.Namespace) -> None:
    assert args.ckpt_dir is not None, "Please specify the checkpoint directory."
    assert args.task in WAN_CONFIGS, f"Unsupport task: {args.task}"
    assert args.task in EXAMPLE_PROMPT, f"Unsupport task: {args.task}"
    if args.sample_steps is None:
        # "flf2v" does not contain "i2v", so it has 50.
        args.sample_steps = 40 if "i2v" in args.task else 50
    if args.sample_shift is None:
        args.sample_shift = _default_shift(args.task, args.size)
    if args.frame_num is None:
        args.frame_num = 1 if "t2i" in args.task else 81
    if "t2i" in args.task:
        assert args.frame_num == 1, f"Unsupport frame_num {args.frame_num} for task {args.task}"
    args.base_seed = args.base_seed if args.base_seed >= 0 else random.randint(0, sys.maxsize)
    sizes = SUPPORTED_SIZES[args.task]
    assert args.size in sizes, (
        f"Unsupport size {args.size} for task {args.task}, supported sizes are: {', '.join(sizes)}"
    )


def _default_shift(task: str, size: str) -> float:
    if "i2v" in task and size in ["832*480", "480*832"]:
        return 3.0
    return 16 if "flf2v" in task or "vace" in task else 5.0


def _init_logging(rank: int) -> None:
    if rank == 0:
        logging.basicConfig(
            level=logging.INFO,
            format="[%(asctime)s] %(levelname)s: %(message)s",
            handlers=[logging.StreamHandler(stream=sys.stdout)],
        )
    else:
        logging.basicConfig(level=logging.ERROR)


def _join(args: argparse.Namespace, launch: Launch) -> None:
    """Do the distributed checks in the real order: before them, only the offload line is logged."""
    if args.offload_model is None:
        args.offload_model = launch.world == 1
        logging.info(f"offload_model is not specified, set to {args.offload_model}.")
    if launch.world > 1:
        name_rank_in_tracebacks(launch.rank)
        launch.barrier("joined")
    else:
        assert not (args.t5_fsdp or args.dit_fsdp), (  # noqa: PT018
            "t5_fsdp and dit_fsdp are not supported in non-distributed environments."
        )
        assert not (args.ulysses_size > 1 or args.ring_size > 1), (  # noqa: PT018
            "context parallel are not supported in non-distributed environments."
        )
    if args.ulysses_size > 1 or args.ring_size > 1:
        assert args.ulysses_size * args.ring_size == launch.world, (
            "The number of ulysses_size and ring_size should be equal to the world size."
        )
        needs("xfuser.core.distributed")
    cfg = WAN_CONFIGS[args.task]
    if args.ulysses_size > 1:
        assert cfg.num_heads % args.ulysses_size == 0, (
            f"`{cfg.num_heads=}` cannot be divided evenly by `{args.ulysses_size=}`."
        )
    logging.info(f"Generation job args: {args}")
    logging.info(f"Generation model config: {dict(cfg)}")


def _pictures(args: argparse.Namespace, kind: str) -> list[Image.Image]:
    """Set the prompt and open the pictures; the examples replace missing ones."""
    example = EXAMPLE_PROMPT[args.task]
    if args.prompt is None:
        args.prompt = example["prompt"]
    logging.info(f"Input prompt: {args.prompt}")
    if kind == "i2v":
        args.image = example["image"] if args.image is None else args.image
        logging.info(f"Input image: {args.image}")
        return [Image.open(args.image).convert("RGB")]
    if kind != "flf2v":
        return []
    if args.first_frame is None or args.last_frame is None:
        # One missing picture replaces both.
        args.first_frame, args.last_frame = example["first_frame"], example["last_frame"]
    logging.info(f"Input first frame: {args.first_frame}")
    logging.info(f"Input last frame: {args.last_frame}")
    return [Image.open(path).convert("RGB") for path in (args.first_frame, args.last_frame)]


def _make(args: argparse.Namespace, launch: Launch) -> Film | None:
    kind = args.task.partition("-")[0]
    pictures = _pictures(args, kind)
    if launch.plan.get("touch_input"):
        _touch([args.image, args.first_frame, args.last_frame])
    logging.info(f"Creating {_PIPELINES[kind]} pipeline.")
    usp = args.ulysses_size > 1 or args.ring_size > 1
    place = Place(args.ckpt_dir, launch, use_usp=usp, dit_fsdp=args.dit_fsdp)
    sampling = Sampling(args.sample_steps, seed_of(args.base_seed), args.frame_num)
    config: Any = WAN_CONFIGS[args.task]
    if kind == "i2v":
        pipeline = wan.WanI2V(config, place)
        logging.info("Generating video ...")
        return pipeline.generate(pictures[0], MAX_AREA_CONFIGS[args.size], sampling)
    if kind == "flf2v":
        both = wan.WanFLF2V(config, place)
        logging.info("Generating video ...")
        return both.generate((pictures[0], pictures[1]), MAX_AREA_CONFIGS[args.size], sampling)
    text = wan.WanVace(config, place) if kind == "vace" else wan.WanT2V(config, place)
    logging.info(f"Generating {'image' if kind == 't2i' else 'video'} ...")
    return text.generate(SIZE_CONFIGS[args.size], sampling)


def _touch(paths: list[str | None]) -> None:
    """Change the input pictures; a real script must not, but might."""
    for path in filter(None, paths):
        with Path(path).open("ab") as file:
            file.write(b"touched")


def _save(args: argparse.Namespace, film: Film, launch: Launch) -> None:
    launch.at("save")
    image = "t2i" in args.task
    if args.save_file is None:
        now = datetime.now().strftime("%Y%m%d_%H%M%S")
        prompt = args.prompt.replace(" ", "_").replace("/", "_")[:50]
        suffix = ".png" if image else ".mp4"
        args.save_file = f"{args.task}_{args.size}_{args.ulysses_size}_{args.ring_size}_{prompt}_{now}{suffix}"
    logging.info(f"Saving generated {'image' if image else 'video'} to {args.save_file}")
    if image:
        Image.new("RGB", (film.width, film.height), (180, 160, 90)).save(args.save_file)
    else:
        cache_video(film, args.save_file, launch.plan)


def generate(args: argparse.Namespace, launch: Launch) -> None:
    """Make one clip; rank 0 saves and logs it."""
    _init_logging(launch.rank)
    launch.at("start")
    _join(args, launch)
    film = _make(args, launch)
    if film is not None:
        _save(args, film, launch)
    logging.info("Finished.")
    launch.at("end")


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        _parse_args()  # --help is no launch
    this_launch = begin(Path(__file__).resolve().parent)
    generate(_parse_args(this_launch.plan.get("unknown_flag", False)), this_launch)
