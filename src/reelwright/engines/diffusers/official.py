"""Reads the components of a diffusers pipeline from a folder in the official layout of Wan2.1.

The official download is one folder: the transformer's shards in its root, `Wan2.1_VAE.pth`, the umT5 and the CLIP
weights as `.pth` files, and the tokenizer in `google/umt5-xxl`. The components compute what the official script
computes. Nothing is written, and no weight is in memory twice.

Folders in the layout of diffusers (`*-Diffusers`) are read by `loading`, which also makes the pipelines.

    >>> sorted(TASKS)
    ['flf2v', 'i2v', 't2v']
    >>> load_components(Path("no such folder"), "i2v", "bfloat16")
    Traceback (most recent call last):
        ...
    reelwright.core.errors.ModelNotFoundError: no such folder/config.json does not exist.
      fix: Give the complete folder of the official download; `reel doctor` lists its files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...core.errors import ModelNotFoundError
from .official_encoders import load_image_encoder, load_text_encoder, load_vae
from .official_pictures import clip_processor
from .official_transformer import load_transformer
from .official_weights import ADVICE

_TEXT_WEIGHTS = "models_t5_umt5-xxl-enc-bf16.pth"
_VAE_WEIGHTS = "Wan2.1_VAE.pth"
_CLIP_WEIGHTS = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
_TOKENIZER = Path("google", "umt5-xxl")
#: The tasks, each with whether it takes a picture.
TASKS = {"i2v": True, "flf2v": True, "t2v": False}


def load_components(
    directory: Path,
    task: str,
    dtype: Any,
    before: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Every component of the pipeline for ``task`` in the host's memory, by the name of its constructor's argument.

    Args:
        directory: The official folder.
        task: ``i2v``, ``flf2v`` or ``t2v``.
        dtype: The transformer's type (a torch dtype or its name). The text encoder stays as stored, in bfloat16; the
            VAE and CLIP are float32.
        before: Called with the name of each phase before it begins; it may raise to stop the loading.

    Raises:
        ModelNotFoundError: a file or a weight is missing, unknown, unreadable, or for another task.
    """
    _require(directory / "config.json")
    before("loading text encoder")
    components: dict[str, Any] = {
        "tokenizer": _load_tokenizer(directory / _TOKENIZER),
        "text_encoder": load_text_encoder(_require(directory / _TEXT_WEIGHTS)),
        "scheduler": official_scheduler(),
    }
    before("loading VAE")
    components["vae"] = load_vae(_require(directory / _VAE_WEIGHTS))
    if TASKS[task]:
        before("loading CLIP")
        components["image_encoder"] = load_image_encoder(_require(directory / _CLIP_WEIGHTS))
        components["image_processor"] = clip_processor(components["image_encoder"].config.image_size)
    before("loading transformer")
    components["transformer"] = load_transformer(directory, task, dtype)
    return components


def _require(path: Path) -> Path:
    if path.is_file() or path.is_dir():  # nothing else is opened: a named pipe would wait for ever
        return path
    raise ModelNotFoundError(
        f"{path} does not exist.",
        advice="Give the complete folder of the official download; `reel doctor` lists its files.",
    )


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(_require(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"{folder} holds no readable tokenizer.", evidence=str(error)[:2000], advice=ADVICE
        ) from error


def official_scheduler(shift: float = 5.0) -> Any:
    """The UniPC scheduler with the noise levels of the official script.

    diffusers spaces them between 1 and 0.001, the official script between 0.999 and 0 (fm_solvers_unipc.py takes the
    ends from its table of 1000 training steps). That moves every step of a clip by up to 0.001.
    """
    import numpy as np
    from diffusers import UniPCMultistepScheduler

    class OfficialUniPC(UniPCMultistepScheduler):  # type: ignore[misc]
        def set_timesteps(self, num_inference_steps: int, device: Any = None, **more: Any) -> None:
            least = 1 / self.config.num_train_timesteps
            more.setdefault("sigmas", np.linspace(1 - least, 0, num_inference_steps + 1)[:-1])
            super().set_timesteps(num_inference_steps, device=device, **more)

    return OfficialUniPC(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
