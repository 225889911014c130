"""Facts about the Wan models that both of their generators share: files, sizes, lengths, noise levels.

Source: the official checkout of Wan2.1 at 9737cba (2026-03-05), wan/configs and wan/image2video.py.

    >>> output_size(832 * 480, Size(832, 480))
    Size(width=832, height=464)
"""

from __future__ import annotations

import math

from ...core.request import Size

FPS = 16.0  # sample_fps in shared_config.py; no flag changes it
CLIP_FRAMES = 81  # the trained length, 5.06 s
VAE_STRIDE, PATCH = 8, 2

T5_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE_FILE = "Wan2.1_VAE.pth"
TOKENIZER = "google/umt5-xxl/"
T5_BYTES = 11_361_920_418
_AREA_480P = 832 * 480


def default_shift(model_type: str, size: Size) -> float:
    """The default shift of generate.py: 16 for flf2v, 3 for image-to-video at 480p, else 5."""
    if model_type == "flf2v":
        return 16.0
    return 3.0 if model_type == "i2v" and size.area <= _AREA_480P else 5.0


def output_size(area: int, picture: Size, side: int = VAE_STRIDE) -> Size:
    """The size that the image-to-video code derives from the area of ``--size`` and the picture's aspect.

    This is the framework's own float expression, not exact integers: an 832x480 picture at 832*480 gives 832x464,
    because the square root is 479.99999 (tried on the real code). ``side`` is the VAE's stride.
    """
    aspect = picture.height / picture.width
    height = round(math.sqrt(area * aspect) // side // PATCH * PATCH) * side
    width = round(math.sqrt(area / aspect) // side // PATCH * PATCH) * side
    return Size(width, height)


def tokens(size: Size, frames: int, side: int = VAE_STRIDE) -> int:
    """The length of the transformer's sequence: latent frames x latent rows / 2 x latent columns / 2."""
    return ((frames - 1) // 4 + 1) * (size.height // (side * PATCH)) * (size.width // (side * PATCH))


def short_name(model: str) -> str:
    """A model's name in lower case without ``wan2.1-``: the engine's names have this prefix, generate.py's do not."""
    return model.lower().removeprefix("wan2.1-")
