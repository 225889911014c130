"""Ranks 1 and up of a clip that several GPUs compute: a resident engine that only computes with rank 0.

`parallel.Ranks`, in the worker that is rank 0, starts it with the worker's own program and speaks the same protocol
to it over pipes of its own: ``Load`` joins the group, each ``Generate`` computes what rank 0 sends until the clip is
over. It loads the transformers and nothing else, saves nothing, and ends when its pipe does, so that no rank outlives
the worker. Whatever fails is answered, and the process ends: a rank that has left a step cannot be talked to again.

    >>> READY
    'ready to join'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...core.events import Event, Log, Saved
from . import collective, speed

#: What it says (a `Log`) when nothing but the other ranks is missing.
READY = "ready to join"
Emit = Callable[[Event], None]
Check = Callable[[], None]


class Follower:
    """An engine for `engines.serving`; ``build`` loads a pipeline of transformers alone onto a device."""

    def __init__(self, build: Callable[[Mapping[str, Any], str], Any]) -> None:
        self._build = build
        self._pipeline: Any = None
        self._shared: list[collective.Shared] = []
        self._device = "cpu"

    def versions(self) -> dict[str, str]:
        """Nothing that rank 0 does not tell."""
        return {}

    def load(self, model: Mapping[str, Any], emit: Emit, check: Check) -> dict[str, Any]:
        """``model`` is a `collective.Place` as JSON."""
        place = collective.Place(model["rank"], model["ranks"], model["store"], model["model"])
        self._device = place.device
        self._pipeline = self._build(place.model, place.device)
        check()
        emit(Log(READY))
        collective.join(place)
        there = speed.transformers(self._pipeline)
        self._shared = [collective.share(transformer, place) for transformer in there]
        return {"rank": place.rank}

    def generate(  # what the contract of engines gives it is rank 0's affair
        self,
        options: Mapping[str, Any],  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        emit: Emit,  # noqa: ARG002
        check: Check,  # noqa: ARG002
    ) -> Saved:
        """Compute with rank 0 until it says that the clip is over."""
        import torch

        speed.reset(self._pipeline)
        calls = 0
        with torch.no_grad():
            while (call := collective.receive(self._device)) is not None:
                self._compute(call)
                calls += 1
        return Saved("", 0, 0, 0, {"calls": calls})

    def _compute(self, call: collective.Call) -> None:
        shared = self._shared[call.index]
        shared.fit(call.kwargs["hidden_states"].shape)
        if call.pass_name is None:
            shared.transformer(*call.args, **call.kwargs)
            return
        with shared.transformer.cache_context(call.pass_name):
            shared.transformer(*call.args, **call.kwargs)

    def unload(self) -> None:
        """Leave the others and give the memory back."""
        collective.leave()
        self._pipeline, self._shared = None, []


def transformers_alone(model: Mapping[str, Any], device: str) -> Any:
    """A pipeline of the model's first task that has its transformers and nothing else, as fast as rank 0's."""
    import inspect

    import diffusers

    from .loading import load_transformers
    from .weight_placement import Placement

    streamed = model["placements"][0] not in ("resident", "encoders_off")
    there = vars(load_transformers(model, "cpu" if streamed else device))
    kind = getattr(diffusers, next(iter(model["tasks"].values())))
    empty = inspect.Parameter.empty
    wanted = inspect.signature(kind.__init__).parameters.items()
    others = {name: None for name, value in wanted if name != "self" and value.default is empty}
    pipeline = kind(**{**others, **there})
    speed.apply(pipeline, model)
    Placement(there, device, model["placements"]).apply()
    return pipeline


FOLLOWER = Follower(transformers_alone)
