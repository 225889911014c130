"""The resident engine on Hugging Face diffusers: it reads the weights once, and every clip after that only denoises.

It runs in a worker (`engines.serving`), in any interpreter that has torch and diffusers; importing this module needs
neither. All models take one path: their differences are in the options of the plan, and the arguments of a pipeline
are read from its own signature.

    >>> ENGINE.versions()["engine"]
    'diffusers'

Read `engine` first; `loading`, `weight_placement`, `encodings`, `denoising`, `latents` and `decoding` are its steps in
order. `speed`, `attention`, `blocks`, `step_cache`, `lora` and `parallel` do what a plan may add. The modules named
`official` read the folders of the official Wan2.1 download.
"""

from __future__ import annotations

from .engine import DiffusersEngine

ENGINE = DiffusersEngine()
