"""The engine: load a model once, then a clip for each request; every step in its order, nothing about how.

    load      components -> speed -> placement -> other ranks
    generate  encode -> denoise -> latents on disk -> decode -> frames on disk

A GPU that runs out of memory in denoising takes the next rung of its placement and begins the clip again, with the
same seed and the same result. Not for planning (`backends.diffusers`) or for encoding a film (`sites.local.worker_frames`).

    >>> DiffusersEngine().versions()["engine"]
    'diffusers'
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ...core.errors import ConfigurationError, OutOfMemoryError, StateError
from ...core.events import Event, LatentsSaved, Log, Memory, Phase, Saved
from . import compilation, decoding, denoising, latents, loading, speed
from .denoising import Watch
from .encodings import Encodings
from .parallel import Ranks
from .weight_placement import Placement, out_of_memory, release_memory

Emit = Callable[[Event], None]
Check = Callable[[], None]
_PACKAGES = ("torch", "diffusers", "transformers")
_NOT_COMPILED = "the blocks cannot be compiled here ({}); going on without, which takes longer"


@dataclass
class Held:
    """A model that is ready."""

    identity: str
    model: Mapping[str, Any]
    pipelines: dict[str, Any]
    placement: Placement
    encodings: Encodings
    ranks: Ranks | None
    facts: dict[str, Any]


class DiffusersEngine:
    """See `engines.ResidentEngine`."""

    def __init__(self) -> None:
        self._held: Held | None = None

    def versions(self) -> dict[str, str]:
        """Python and the packages, as far as they are installed; nothing is imported."""
        found = {"engine": "diffusers", "python": platform.python_version()}
        for name in _PACKAGES:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
        return found

    def load(self, model: Mapping[str, Any], emit: Emit, check: Check) -> dict[str, Any]:
        """Have this model ready; facts are seconds, preset and placement. Where it lies is no part of what it is."""
        identity = json.dumps({name: value for name, value in model.items() if name != "placements"}, sort_keys=True)
        held = self._held
        if held is not None and held.identity == identity and not _lost_ranks(held):
            if held.placement.follow(model["placements"]):
                _placed(held.placement, Watch(emit, check))
            return held.facts
        held = None  # else the weights of two models would lie in the host's memory
        self.unload()
        started = time.monotonic()
        self._held = self._loaded(model, identity, Watch(emit, check))
        self._held.facts["load_seconds"] = round(time.monotonic() - started, 3)
        return self._held.facts

    def _loaded(self, model: Mapping[str, Any], identity: str, watch: Watch) -> Held:
        def phase(name: str) -> None:
            watch.check()
            watch.emit(Phase(name))

        speed.asked_for(model)  # a contradiction is told before minutes of reading
        ranks = Ranks.start(model) if int(model.get("ranks", 1)) > 1 else None
        try:
            pipelines, components = loading.load(model, phase)
            first = next(iter(pipelines.values()))
            facts = dict(speed.apply(first, model))
            if facts.get("compile_problem"):
                watch.emit(Log(_NOT_COMPILED.format(facts["compile_problem"]), "warning"))
            placement = Placement(components, model["device"], model["placements"])
            _placed(placement, watch)
            encodings = Encodings()
            for pipeline in pipelines.values():
                encodings.attach(pipeline)
            if ranks is not None:
                ranks.join(first)
        except BaseException:
            if ranks is not None:
                ranks.close()
            release_memory()
            raise
        return Held(identity, model, pipelines, placement, encodings, ranks, facts)

    def generate(self, options: Mapping[str, Any], folder: Path, emit: Emit, check: Check) -> Saved:
        """One clip; see the module."""
        held, watch, clock = self._ready(), Watch(emit, check), _Clock()
        pipeline = _pipeline(held, options)
        _reset_peak(held)
        held.encodings.begin(check)
        emit(Phase("encoding"))
        speed.reset(pipeline)
        kept = _kept(options)
        denoised = latents.load(*kept) if kept else None
        resumed = denoised is not None
        if denoised is None:
            if kept and kept[0].exists():
                emit(Log(f"the latents at {kept[0]} are not used: damaged, or of another clip", "warning"))
            denoised = self._denoised(held, pipeline, options, watch)
            clock.note("denoising")
            if kept:
                _keep(kept, denoised, emit)
        else:
            emit(Log("going on from latents that an earlier attempt left"))
        emit(Phase("decoding"))
        video, way = decoding.decode(pipeline, denoised, options.get("decode", decoding.WAYS), held.placement, watch)
        clock.note("decoding")
        emit(Phase("saving"))
        path = folder / "frames.rgb"
        frames, width, height = decoding.write_frames(video, path)
        clock.note("saving")
        facts = {
            **held.facts,
            **speed.observed(pipeline),
            "compile": _compiles(held),
            "placement": held.placement.rung,
            "decoded": way,
            "resumed": resumed,
            "encoded": held.encodings.misses,
            "encodings_reused": held.encodings.hits,
            "peak_bytes": _told_memory(held, emit),
            "seconds": clock.seconds,
        }
        return Saved(str(path), frames, width, height, facts)

    def _denoised(self, held: Held, pipeline: Any, options: Mapping[str, Any], watch: Watch) -> Any:
        """Latents of the clip, on whatever rung it takes."""
        while True:
            try:
                held.placement.denoiser_back()  # also after a decode that failed, or was stopped, without it
                compilation.turn(speed.transformers(pipeline), on=_compiles(held))
                with held.ranks.clip() if held.ranks else contextlib.nullcontext():
                    return denoising.denoise(pipeline, options, watch)
            except RuntimeError as error:
                full = out_of_memory(error)
                if not full and not (compilation.failed(error) and held.ranks is None and _compiles(held)):
                    raise
                told = (str(error).strip().splitlines() or [""])[0][:300]
            if full:
                _down(held, told, watch)
            else:
                held.facts |= {"compile": False, "compile_problem": told}
                watch.emit(Log(_NOT_COMPILED.format(told), "warning"))
            speed.reset(pipeline)

    def unload(self) -> None:
        """Give everything back."""
        held, self._held = self._held, None
        if held is None:
            return
        if held.ranks is not None:
            held.ranks.close()
        held.encodings.forget()
        held.placement.take_off()
        del held
        release_memory()

    def _ready(self) -> Held:
        if self._held is None:
            raise StateError("no model is loaded")
        return self._held


def _compiles(held: Held) -> bool:
    """Whether this model's blocks compute compiled where it lies now."""
    return bool(held.facts["compile"]) and held.placement.keeps_blocks_whole


def _lost_ranks(held: Held) -> bool:
    """Whether a rank failed since: it cannot be had back alone."""
    return held.ranks is not None and held.ranks.closed


class _Clock:
    """Seconds of the parts of a clip."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def note(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self._since, 3)
        self._since = now


def _pipeline(held: Held, options: Mapping[str, Any]) -> Any:
    try:
        return held.pipelines[options["task"]]
    except KeyError:
        known = ", ".join(held.pipelines)
        raise ConfigurationError(f"{held.model['name']} cannot do {options['task']}; it does {known}") from None


def _kept(options: Mapping[str, Any]) -> tuple[Path, str] | None:
    return (Path(options["latents"]), str(options["latents_key"])) if options.get("latents") else None


def _keep(kept: tuple[Path, str], denoised: Any, emit: Emit) -> None:
    """On disk, if there is room: the clip itself needs them no more."""
    try:
        latents.save(kept[0], denoised, kept[1])
    except OSError as error:
        emit(Log(f"the latents cannot be kept in {kept[0]}: {error}; a failed decode would begin again", "warning"))
        return
    emit(LatentsSaved(str(kept[0])))


def _placed(placement: Placement, watch: Watch) -> None:
    """On the first rung that holds the weights."""
    while True:
        try:
            placement.apply()
            return
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            told = (str(error).splitlines() or [""])[0][:300]
        if not placement.below:
            raise OutOfMemoryError("the weights do not fit, wherever they are put", evidence=told)
        while placement.below:
            try:
                watch.emit(Log(f"the weights do not fit ({told}); going on with {placement.step_down()}", "warning"))
                return
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise


def _down(held: Held, told: str, watch: Watch) -> None:
    """One rung down, once everything of the failed try is gone."""
    held.encodings.forget()
    release_memory()
    if not held.placement.below or held.ranks is not None:
        raise OutOfMemoryError(
            f"out of memory while denoising, on the last placement ({held.placement.rung})",
            evidence=told,
            advice="Choose a smaller size or fewer frames, or a card with more memory; `reel plan` predicts both.",
        )
    watch.emit(Log(f"out of memory ({told}); the clip begins again with {held.placement.step_down()}", "warning"))


def _reset_peak(held: Held) -> None:
    import torch

    if held.model["device"] != "cpu":
        torch.cuda.reset_peak_memory_stats()


def _told_memory(held: Held, emit: Emit) -> int | None:
    """The peak in bytes, where it can be measured."""
    import torch

    if held.model["device"] == "cpu":
        return None
    peak = int(torch.cuda.max_memory_allocated())
    emit(Memory(int(torch.cuda.memory_allocated()), peak))
    return peak
