"""Stands in for a checkout with the interface in docs/requirement.md, which no public repository has.

$ python inference.py --cfg-path a.yaml --ckpt-path weights --source-image cat.png --prompt "a cat" --save-path out.mp4
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import yaml
from hyvideo.stand_in.bars import bar
from hyvideo.stand_in.film import Film
from hyvideo.stand_in.frameworks import needs
from hyvideo.stand_in.launch import begin, refuse_dropped_flag
from hyvideo.stand_in.saving import write_scripted
from PIL import Image


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    for flag in ("--cfg-path", "--ckpt-path", "--source-image", "--prompt", "--save-path"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--fps", type=int, default=16)
    parser.add_argument("--seed", type=int, default=None)
    return parser


def main() -> None:
    """Make one clip; the configuration has its size and length."""
    if {"-h", "--help"} & set(sys.argv):
        _parser().parse_args()
    launch = begin(Path(__file__).resolve().parent)
    refuse_dropped_flag(launch.plan.get("unknown_flag", False), "--seed")
    args = _parser().parse_args()
    needs("torch")
    launch.at("start")
    config = yaml.safe_load(Path(args.cfg_path).read_text("utf-8")) or {}
    if not Path(args.ckpt_path).exists():
        raise FileNotFoundError(f"[Errno 2] No such file or directory: '{args.ckpt_path}'")
    launch.at("load")
    if launch.plan.get("touch_input"):
        with Path(args.source_image).open("ab") as file:
            file.write(b"touched")
    Image.open(args.source_image).convert("RGB")
    launch.at("encode")
    for step in bar(int(launch.plan.get("steps", args.steps)), shown=launch.plan.get("cr_bar", True)):
        launch.at(f"step {step}")
        time.sleep(float(launch.plan.get("step_s", 0)))
    launch.at("vae")
    sizes = (int(config.get("width", 320)), int(config.get("height", 192)), int(config.get("num_frames", 9)))
    launch.at("save")
    write_scripted(Film(*sizes, args.seed or 0, fps=args.fps), args.save_path, launch.plan)
    launch.at("end")


if __name__ == "__main__":
    main()
