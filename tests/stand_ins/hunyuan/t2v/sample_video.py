"""Stands in for HunyuanVideo's sample_video.py: its arguments, checks, log and habits, no model.

tests/real_hunyuan compares it with the real file. tests/stand_ins/README.md describes what a launch can do.

    $ python sample_video.py --prompt "a cat" --video-size 720 1280 --flow-reverse --save-path ./results
"""

from __future__ import annotations

from pathlib import Path

from hyvideo.sampling import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
