"""Loads a folder of weights into pipelines, one for each task, that share their components.

This module downloads nothing and runs no code from the folder: weights are safetensors, or, in the official layout,
read with ``weights_only``. Both layouts of Wan2.1 get the official noise levels and picture filters, so a clip does not
depend on the layout (`official`).

    >>> pipelines, components = load(model, lambda phase: None)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import ConfigurationError, ModelNotFoundError
from .blocks import TRANSFORMERS
from .official_precision import compute_officially, transformer_class
from .official_weights import read_object
from .torch_errors import first_line

_INDEX = "model_index.json"
#: Phases by the start of a component's name; other components are small.
_PHASES = {
    "text_encoder": "loading text encoder",
    "vae": "loading VAE",
    "image_encoder": "loading CLIP",
    "transformer": "loading transformer",
}
#: The official scripts run these in float32.
_FLOAT32 = ("vae", "image_encoder")


def load(model: Mapping[str, Any], phase: Callable[[str], object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pipelines by task, and the components that they share, all in the host's memory.

    ``phase`` is called before each phase; it may raise to stop the loading.

    Raises:
        ModelNotFoundError: a part is missing, damaged or of another kind.
        ConfigurationError: diffusers has no such pipeline.
    """
    kinds = {task: _pipeline_class(name) for task, name in model["tasks"].items()}
    directory = Path(model["directory"])
    if model["layout"] == "official":
        from .official import load_components

        task = next(iter(kinds))
        components = load_components(directory, task, model["dtype"], before=phase)
        config: Mapping[str, Any] = {}
    else:
        components, config = _components(directory, model["dtype"], phase)
    _refuse_first_hunyuan(directory, components.get("transformer"))
    pipelines = {task: _pipeline(kind, components, config) for task, kind in kinds.items()}
    if model["family"] == "wan":
        _prepare_pictures_officially(pipelines.values())
    return pipelines, components


def load_transformers(model: Mapping[str, Any], device: str) -> dict[str, Any]:
    """The transformers by name, on a device, for the other ranks of a clip (`follower`)."""
    directory = Path(model["directory"])
    if model["layout"] == "official":
        from .official_transformer import load_transformer

        task = next(iter(model["tasks"]))
        return {"transformer": load_transformer(directory, task, model["dtype"], device)}
    index = read_object(directory / _INDEX)
    named = {name: index[name] for name in TRANSFORMERS if index.get(name, [None])[0]}
    return {name: _component(directory, name, kind, model["dtype"]).to(device) for name, kind in named.items()}


def _pipeline_class(name: str) -> Any:
    import diffusers

    try:
        return getattr(diffusers, name)
    except (AttributeError, RuntimeError) as error:
        raise ConfigurationError(
            f"diffusers {diffusers.__version__} has no {name}: {error}",
            advice="Install the version of diffusers in the extra `engine`.",
        ) from error


def _components(
    directory: Path, dtype: str, phase: Callable[[str], object]
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Every component that the folder's index names, and the pipeline's own configuration in it."""
    index = read_object(directory / _INDEX)
    named = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    config = {name: value for name, value in index.items() if name not in named and not name.startswith("_")}
    components: dict[str, Any] = {}
    for name in sorted(named, key=_order):
        library, kind = named[name]
        if kind is None:
            components[name] = None
            continue
        begins = next((title for start, title in _PHASES.items() if name.startswith(start)), None)
        if begins:
            phase(begins)
        components[name] = _component(directory, name, [library, kind], dtype)
    return components, config


def _order(name: str) -> int:
    """Encoders before the transformer, as in the order of the phases."""
    return next((place for place, start in enumerate(_PHASES) if name.startswith(start)), -1)


def _class(directory: Path, name: str, kind: list[Any]) -> Any:
    """The class of a component: only classes that read data, never one that runs code from the folder."""
    import diffusers
    import transformers
    from diffusers.guiders import BaseGuidance
    from torch import nn
    from transformers.image_processing_base import ImageProcessingMixin

    library, wanted = (str(part) for part in kind)
    source = {"diffusers": diffusers, "transformers": transformers}.get(library)
    cls: Any = getattr(source, wanted, None) or getattr(diffusers.guiders, wanted, None)
    known = (
        nn.Module,
        diffusers.SchedulerMixin,
        transformers.PreTrainedTokenizerBase,
        transformers.AutoTokenizer,  # some folders name it; it chooses among the tokenizers of transformers
        transformers.ProcessorMixin,
        ImageProcessingMixin,
        BaseGuidance,
    )
    if isinstance(cls, type) and issubclass(cls, known):
        return cls
    raise ModelNotFoundError(
        f"{directory}/model_index.json names {library}.{wanted} as its {name}, which is not installed or is not a component",
        advice="Code that is not part of diffusers or transformers is never run from a folder of weights.",
    )


def _component(directory: Path, name: str, kind: list[Any], dtype: str) -> Any:
    import torch
    from safetensors import SafetensorError

    cls = _class(directory, name, kind)
    officially = cls.__name__ == "WanTransformer3DModel" and dtype == "bfloat16"
    cls = transformer_class() if officially else cls
    options: dict[str, Any] = {"local_files_only": True}
    if kind[0] == "transformers":
        options["trust_remote_code"] = False  # without it, the auto classes ask on a terminal
    has_weights = issubclass(cls, torch.nn.Module)
    if has_weights:
        precision = "float32" if name in _FLOAT32 else dtype
        key = "torch_dtype" if kind[0] == "diffusers" else "dtype"
        options |= {key: getattr(torch, precision), "use_safetensors": True, "output_loading_info": True}
    try:
        loaded = cls.from_pretrained(str(directory / name), **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _unreadable(directory / name, first_line(error), str(error)[:2000]) from error
    if not has_weights:
        return loaded
    module, info = loaded
    # transformers fills missing weights with random numbers; no pipeline uses the language model's head
    lost = sorted(weight for weight in info["missing_keys"] if not weight.startswith("lm_head."))
    if lost:
        raise _unreadable(directory / name, f"its files lack {lost[0]} and {len(lost) - 1} more", "\n".join(lost[:40]))
    if officially:
        compute_officially(module)
    return module.eval()


def _unreadable(folder: Path, reason: str, evidence: str) -> ModelNotFoundError:
    advice = "Download that folder again; only safetensors are read."
    return ModelNotFoundError(f"{folder} cannot be read: {reason}", evidence=evidence, advice=advice)


def _pipeline(kind: Any, components: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """A pipeline of the components that its constructor takes."""
    import inspect

    wanted = inspect.signature(kind.__init__).parameters
    given = {name: value for name, value in {**config, **components}.items() if name in wanted}
    missing = [
        name
        for name, value in wanted.items()
        if name != "self" and value.default is inspect.Parameter.empty and name not in given
    ]
    if missing:
        raise ModelNotFoundError(
            f"{kind.__name__} needs {', '.join(missing)}, which this folder does not have",
            advice="This model cannot do the task; `reel doctor` lists what it can.",
        )
    pipeline = kind(**given)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _refuse_first_hunyuan(directory: Path, transformer: Any) -> None:
    """Refuse the first HunyuanVideo-I2V: its pipeline makes four frames too few, and incomplete latents."""
    if getattr(getattr(transformer, "config", None), "image_condition_type", None) == "latent_concat":
        raise ModelNotFoundError(
            f"{directory} holds the first release of HunyuanVideo-I2V, with the picture as further channels",
            advice="Download the present release (its transformer has image_condition_type token_replace).",
        )


def _prepare_pictures_officially(pipelines: Any) -> None:
    """Prepare Wan's pictures as the official script does, in both layouts."""
    from .official_pictures import clip_processor, video_processor

    for pipeline in pipelines:
        pipeline.video_processor = video_processor(pipeline.vae_scale_factor_spatial)
        pipeline.text_encoder.set_attn_implementation("eager")  # sums in the order of the official code
        encoder = getattr(pipeline, "image_encoder", None)
        if encoder is not None:
            pipeline.image_processor = clip_processor(encoder.config.image_size)
