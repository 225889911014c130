"""Does the work of sample_video.py and sample_image2video.py, which differ only in a few names."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from pathlib import Path

from hyvideo.config import parse_args
from hyvideo.inference import HunyuanVideoSampler
from hyvideo.stand_in.frameworks import needs
from hyvideo.stand_in.launch import Launch, begin, refuse_dropped_flag
from hyvideo.stand_in.log import log
from hyvideo.utils.file_utils import save_videos_grid

needs("loguru")


def main(home: Path) -> None:
    """Make one clip, on every rank; the first one saves."""
    if {"-h", "--help"} & set(sys.argv):
        parse_args()
    launch = begin(home)
    refuse_dropped_flag(launch.plan.get("unknown_flag", False), "--embedded-cfg-scale")
    args = parse_args()
    print(args, flush=True)
    launch.at("start")
    root = Path(args.model_base)
    if not root.exists():
        raise ValueError(f"`models_root` not exists: {root}")
    folder = args.save_path if args.save_path_suffix == "" else f"{args.save_path}_{args.save_path_suffix}"
    Path(folder).mkdir(parents=True, exist_ok=True)
    sampler = HunyuanVideoSampler.from_pretrained(root, args, launch)
    film, prompt, seed = sampler.predict()
    _save(launch, folder, prompt, (film, seed))
    launch.at("end")


def _save(launch: Launch, folder: str, prompt: str, made: tuple[object, int]) -> None:
    if int(os.environ.get("LOCAL_RANK", "0")) != 0:
        return
    launch.at("save")
    film, seed = made
    stamp = datetime.fromtimestamp(time.time()).strftime("%Y-%m-%d-%H:%M:%S")
    path = f"{folder}/{stamp}_seed{seed}_{prompt[:100].replace('/', '')}.mp4"
    save_videos_grid((film, launch.plan), path, fps=24)  # type: ignore[arg-type]
    log("INFO", "__main__:main:55", f"Sample save to: {path}")
