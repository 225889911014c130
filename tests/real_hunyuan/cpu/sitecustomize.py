"""Bends the real HunyuanVideo to a CPU and to tiny weights, without touching its files.

The transformer is made small where its table of sizes is read, and the one tensor that is asked for on "cuda" by name
(attenion.py: get_cu_seqlens) is made where the others are.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys

TINY = {
    "mm_double_blocks_depth": 1,
    "mm_single_blocks_depth": 1,
    "rope_dim_list": [8, 8, 8],
    "hidden_size": 96,
    "heads_num": 4,
    "mlp_width_ratio": 2,
}


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "hyvideo.modules.models":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            for table in module.HUNYUAN_VIDEO_CONFIG.values():
                table.update(TINY)
            bend(module.torch)

        spec.loader.exec_module = exec_module
        return spec


def bend(torch):
    zeros = torch.zeros

    def on_cpu(*size, **options):
        return zeros(*size, **{**options, **({"device": "cpu"} if options.get("device") == "cuda" else {})})

    torch.zeros = on_cpu


sys.meta_path.insert(0, Finder())
