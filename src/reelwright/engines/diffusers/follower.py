"""Implements the engine of ranks 1 and up, which only compute with rank 0 when several GPUs make one clip.

`parallel.Ranks`, in the worker that is rank 0, starts it with the worker's own program and speaks the same protocol to
it over separate pipes: ``Load`` joins the group, each ``Generate`` computes the calls that rank 0 sends until the clip
ends. It loads the transformers only, saves nothing, and ends when its pipe closes, so no rank outlives the worker.
After a failure it answers and ends: a rank that has left a step cannot be used again.

    >>> READY
    'ready to join'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...core.events import Log, Saved
from .. import Check, Emit
from . import collective, speed
from .blocks import transformers

#: The text of the `Log` that it sends when it is loaded and waits for the other ranks.
READY = "ready to join"


class Follower:
    """An engine for `engines.serving`; ``build`` loads a pipeline that has only transformers onto a device."""

    def __init__(self, build: Callable[[Mapping[str, Any], str], Any]) -> None:
        self._build = build
        self._pipeline: Any = None
        self._shared: list[collective.SharedTransformer] = []
        self._device = "cpu"

    def versions(self) -> dict[str, str]:
        """Empty: rank 0 reports the same versions."""
        return {}

    def load(self, model: Mapping[str, Any], emit: Emit, check: Check) -> dict[str, Any]:
        """Load the transformers and join the group; ``model`` is a `collective.Rank` as JSON."""
        rank = collective.Rank(model["rank"], model["ranks"], model["store"], model["model"])
        self._device = rank.device
        self._pipeline = self._build(rank.model, rank.device)
        check()
        emit(Log(READY))
        collective.join(rank)
        self._shared = [collective.share(transformer, rank) for transformer in transformers(self._pipeline)]
        return {"rank": rank.number}

    def generate(  # rank 0 uses these arguments
        self,
        options: Mapping[str, Any],  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        emit: Emit,  # noqa: ARG002
        check: Check,  # noqa: ARG002
    ) -> Saved:
        """Compute with rank 0 until the clip ends."""
        import torch

        speed.reset(self._pipeline)
        calls = 0
        with torch.no_grad():
            while (call := collective.receive(self._device)) is not None:
                self._compute(call)
                calls += 1
        return Saved("", 0, 0, 0, {"calls": calls})

    def _compute(self, call: collective.TransformerCall) -> None:
        shared = self._shared[call.index]
        shared.fit(call.kwargs["hidden_states"].shape)
        if call.pass_name is None:
            shared.transformer(*call.args, **call.kwargs)
            return
        with shared.transformer.cache_context(call.pass_name):
            shared.transformer(*call.args, **call.kwargs)

    def unload(self) -> None:
        """Leave the group and free the memory."""
        collective.leave()
        self._pipeline, self._shared = None, []


def build_transformers(model: Mapping[str, Any], device: str) -> Any:
    """A pipeline of the model's first task with only its transformers, with the speed choices of rank 0."""
    import inspect

    import diffusers

    from .loading import load_transformers
    from .weight_placement import Placement

    streamed = model["placements"][0] not in ("resident", "encoders_off")
    loaded = load_transformers(model, "cpu" if streamed else device)
    kind = getattr(diffusers, next(iter(model["tasks"].values())))
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    required = {parameter.name: None for parameter in parameters if parameter.default is inspect.Parameter.empty}
    pipeline = kind(**{**required, **loaded})
    speed.apply(pipeline, model)
    Placement(loaded, device, model["placements"]).apply()
    return pipeline


FOLLOWER = Follower(build_transformers)
