"""Answers the questions about GPUs that frameworks ask."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from torch import version


def device_count() -> int:
    """The number of GPUs in `stand_in.json` that CUDA_VISIBLE_DEVICES leaves."""
    there = int(json.loads((Path(sys.prefix) / "stand_in.json").read_text("utf-8"))["cuda_devices"])
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None or version.cuda is None:
        return there if version.cuda else 0
    visible = 0
    for name in wanted.split(","):
        # CUDA stops at the first name that is no device.
        if not name.strip().startswith(("GPU-", "MIG-")) and not (name.strip().isdigit() and int(name) < there):
            break
        visible += 1
    return visible


def is_available() -> bool:
    """Whether a GPU can be used."""
    return device_count() > 0


def current_device() -> int:
    """The device; the call initialises CUDA.

    Raises:
        AssertionError, RuntimeError: no CUDA in this build, or no GPU, in torch's words.
    """
    if version.cuda is None:
        raise AssertionError("Torch not compiled with CUDA enabled")
    if not is_available():
        raise RuntimeError(
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a "
            "driver from "
            "http://www.nvidia.com/Download/index.aspx"
        )
    return 0
