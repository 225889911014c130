"""Implements the resident engine on Hugging Face diffusers, which reads the weights once and keeps them for every clip.

It runs in a worker (`engines.serving`), in any interpreter that has torch and diffusers; importing this module needs
neither. All models share one path: the options of the plan hold their differences, and the arguments of a pipeline
come from its signature.

    >>> ENGINE.versions()["engine"]
    'diffusers'

Read `engine` first; `loading`, `weight_placement`, `encodings`, `denoising`, `latents` and `decoding` are its steps in
order. `speed`, `attention`, `blocks`, `step_cache`, `lora` and `parallel` are options of a plan. The modules named
`official` read the folders of the official Wan2.1 download.
"""

from __future__ import annotations

from .engine import DiffusersEngine

ENGINE = DiffusersEngine()
