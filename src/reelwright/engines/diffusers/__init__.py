"""The resident engine on Hugging Face diffusers: weights are read once, every clip after that only denoises.

It lives in a worker (`engines.serving`), in whatever interpreter has torch and diffusers; importing this module needs
neither. One path for every model: what differs between them is in the options of the plan, and what pipelines want to
be called with is read from their own signatures.

    >>> ENGINE.versions()["engine"]
    'diffusers'

Read `resident` first; `loading`, `placement`, `encodings`, `denoising`, `decoding` and `latents` are its steps in
their order, `speed`, `attention`, `fp8`, `lora` and `parallel` what a plan may ask for beside them, and the files
named `official` read the folders of the official Wan2.1 download.
"""

from __future__ import annotations

from .engine import DiffusersEngine

ENGINE = DiffusersEngine()
