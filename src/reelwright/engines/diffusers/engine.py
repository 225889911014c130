"""Loads a model once, then makes a clip for each request.

    load      components -> speed -> placement -> other ranks
    generate  encode -> denoise -> latents on disk -> decode -> frames on disk

If the GPU runs out of memory while denoising, the engine changes to the next placement and starts the clip again, with
the same seed and the same result. `backends.diffusers` plans, and `sites.local.worker_frames` encodes the video.

    >>> DiffusersEngine().versions()["engine"]
    'diffusers'
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ...core.errors import ConfigurationError, OutOfMemoryError, StateError
from ...core.events import LatentsSaved, Log, Memory, Phase, Saved
from .. import Check, Emit
from . import decoding, denoising, latents, loading, speed
from .blocks import transformers, use_compiled
from .denoising import Callbacks
from .encodings import Encodings
from .parallel import Ranks
from .torch_errors import first_line, is_compilation_failure, is_out_of_memory
from .weight_placement import Placement, release_memory

_PACKAGES = ("torch", "diffusers", "transformers")
_NOT_COMPILED = "the blocks cannot be compiled here ({}); continuing without, which is slower"


@dataclass
class LoadedModel:
    """A loaded model, and facts about it for the manifest."""

    identity: str
    model: Mapping[str, Any]
    pipelines: dict[str, Any]
    placement: Placement
    ranks: Ranks | None
    facts: dict[str, Any]
    encodings: Encodings = field(default_factory=Encodings)

    @property
    def compiles(self) -> bool:
        """Whether the blocks compute compiled in the current placement."""
        return bool(self.facts["compile"]) and self.placement.keeps_blocks_whole

    @property
    def lost_ranks(self) -> bool:
        """Whether a rank has failed; all ranks must then be loaded again."""
        return self.ranks is not None and self.ranks.closed


class DiffusersEngine:
    """See `engines.ResidentEngine`."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None

    def versions(self) -> dict[str, str]:
        """Versions of Python and the installed packages, read without importing them."""
        found = {"engine": "diffusers", "python": platform.python_version()}
        for name in _PACKAGES:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
        return found

    def load(self, model: Mapping[str, Any], emit: Emit, check: Check) -> dict[str, Any]:
        """Load this model, or keep it; another placement does not make another model. Returns facts."""
        identity = json.dumps({name: value for name, value in model.items() if name != "placements"}, sort_keys=True)
        callbacks, loaded = Callbacks(emit, check), self._loaded
        if loaded is not None and loaded.identity == identity and not loaded.lost_ranks:
            if loaded.placement.follow(model["placements"]):
                _place(loaded.placement, callbacks)
            return loaded.facts
        loaded = None  # else the host's memory would hold the weights of two models
        self.unload()
        started = time.monotonic()
        self._loaded = _load(model, identity, callbacks)
        self._loaded.facts["load_seconds"] = round(time.monotonic() - started, 3)
        return self._loaded.facts

    def generate(self, options: Mapping[str, Any], folder: Path, emit: Emit, check: Check) -> Saved:
        """Make one clip; the steps are in the module's docstring."""
        if self._loaded is None:
            raise StateError("no model is loaded")
        loaded, callbacks, seconds = self._loaded, Callbacks(emit, check), dict[str, float]()
        pipeline = _pipeline(loaded, options)
        _reset_peak(loaded)
        loaded.encodings.begin(check)
        emit(Phase("encoding"))
        speed.reset(pipeline)
        kept = (Path(options["latents"]), str(options["latents_key"])) if options.get("latents") else None
        denoised = latents.load(*kept) if kept else None
        resumed = denoised is not None
        if denoised is not None:
            emit(Log("continuing with the latents of an earlier attempt"))
        else:
            if kept and kept[0].exists():
                emit(Log(f"the latents at {kept[0]} are not used: damaged, or of another clip", "warning"))
            with _timed(seconds, "denoising"):
                denoised = _denoise(loaded, pipeline, options, callbacks)
            if kept:
                _keep(kept, denoised, emit)
        emit(Phase("decoding"))
        with _timed(seconds, "decoding"):
            ways = options.get("decode", decoding.WAYS)
            video, way = decoding.decode(pipeline, denoised, ways, loaded.placement, callbacks)
        emit(Phase("saving"))
        path = folder / "frames.rgb"
        with _timed(seconds, "saving"):
            frames, width, height = decoding.write_frames(video, path)
        facts = {
            **loaded.facts,
            **speed.observed(pipeline),
            "compile": loaded.compiles,
            "placement": loaded.placement.current,
            "decoded": way,
            "resumed": resumed,
            "encoded": loaded.encodings.misses,
            "encodings_reused": loaded.encodings.hits,
            "peak_bytes": _report_memory(loaded, emit),
            "seconds": seconds,
        }
        return Saved(str(path), frames, width, height, facts)

    def unload(self) -> None:
        """End the other ranks and free the model's memory."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        if loaded.ranks is not None:
            loaded.ranks.close()
        loaded.encodings.forget()
        loaded.placement.move_to_host()
        del loaded
        release_memory()


def _load(model: Mapping[str, Any], identity: str, callbacks: Callbacks) -> LoadedModel:
    def phase(name: str) -> None:
        callbacks.check()
        callbacks.emit(Phase(name))

    speed.speed_choice(model)  # a contradiction is reported before minutes of reading
    ranks = Ranks.start(model) if int(model.get("ranks", 1)) > 1 else None
    try:
        pipelines, components = loading.load(model, phase)
        first = next(iter(pipelines.values()))
        facts = speed.apply(first, model)
        if facts.get("compile_problem"):
            callbacks.emit(Log(_NOT_COMPILED.format(facts["compile_problem"]), "warning"))
        placement = Placement(components, model["device"], model["placements"])
        _place(placement, callbacks)
        loaded = LoadedModel(identity, model, pipelines, placement, ranks, facts)
        for pipeline in pipelines.values():
            loaded.encodings.attach(pipeline)
        if ranks is not None:
            ranks.join(first)
    except BaseException:
        if ranks is not None:
            ranks.close()
        release_memory()
        raise
    return loaded


def _place(placement: Placement, callbacks: Callbacks) -> None:
    """Use the first placement that holds the weights."""
    reason = ""
    while True:
        try:
            if not reason:
                placement.apply()
            else:
                callbacks.emit(
                    Log(f"the weights do not fit ({reason}); continuing with {placement.use_next()}", "warning")
                )
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = reason or first_line(error)
        if placement.is_last:
            raise OutOfMemoryError("the weights do not fit in any placement", evidence=reason)


def _denoise(loaded: LoadedModel, pipeline: Any, options: Mapping[str, Any], callbacks: Callbacks) -> Any:
    """The clip's latents, in the first placement that has enough memory."""
    while True:
        try:
            loaded.placement.move_denoiser_back()  # also after a decode that failed or was stopped
            for transformer in transformers(pipeline):
                use_compiled(transformer, compiled=loaded.compiles)
            with loaded.ranks.clip() if loaded.ranks else contextlib.nullcontext():
                return denoising.denoise(pipeline, options, callbacks)
        except RuntimeError as error:
            full = is_out_of_memory(error)
            if not full and not (is_compilation_failure(error) and loaded.ranks is None and loaded.compiles):
                raise
            reason = first_line(error)
        if full:  # outside the handler, which would keep the memory of the failed attempt
            _use_next_placement(loaded, reason, callbacks)
        else:
            loaded.facts |= {"compile": False, "compile_problem": reason}
            callbacks.emit(Log(_NOT_COMPILED.format(reason), "warning"))
        speed.reset(pipeline)


def _use_next_placement(loaded: LoadedModel, reason: str, callbacks: Callbacks) -> None:
    loaded.encodings.forget()
    release_memory()
    if loaded.placement.is_last or loaded.ranks is not None:
        raise OutOfMemoryError(
            f"out of memory while denoising, in the last placement ({loaded.placement.current})",
            evidence=reason,
            advice="Choose a smaller size or fewer frames, or a card with more memory; `reel plan` predicts both.",
        )
    callbacks.emit(
        Log(f"out of memory ({reason}); starting the clip again with {loaded.placement.use_next()}", "warning")
    )


def _pipeline(loaded: LoadedModel, options: Mapping[str, Any]) -> Any:
    try:
        return loaded.pipelines[options["task"]]
    except KeyError:
        known = ", ".join(loaded.pipelines)
        raise ConfigurationError(f"{loaded.model['name']} cannot do {options['task']}; it does {known}") from None


def _keep(kept: tuple[Path, str], denoised: Any, emit: Emit) -> None:
    """Save the latents; the clip goes on without them if the disk is full."""
    try:
        latents.save(kept[0], denoised, kept[1])
    except OSError as error:
        emit(Log(f"the latents cannot be kept in {kept[0]}: {error}; a failed decode would begin again", "warning"))
        return
    emit(LatentsSaved(str(kept[0])))


@contextlib.contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[part] = round(time.monotonic() - started, 3)


def _reset_peak(loaded: LoadedModel) -> None:
    import torch

    if loaded.model["device"] != "cpu":
        torch.cuda.reset_peak_memory_stats()


def _report_memory(loaded: LoadedModel, emit: Emit) -> int | None:
    """The clip's peak in bytes, on a GPU."""
    import torch

    if loaded.model["device"] == "cpu":
        return None
    peak = int(torch.cuda.max_memory_allocated())
    emit(Memory(int(torch.cuda.memory_allocated()), peak))
    return peak
