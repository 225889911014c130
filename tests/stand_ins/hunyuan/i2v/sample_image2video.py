"""Stands in for HunyuanVideo-I2V's sample_image2video.py: its arguments, checks, log and habits, no model.

tests/real_hunyuan compares it with the real file. tests/stand_ins/README.md describes what a launch can do.

    $ python sample_image2video.py --prompt "a cat" --i2v-mode --flow-reverse --save-path ./results
"""

from __future__ import annotations

from pathlib import Path

from hyvideo.sampling import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
