"""Where the weights of a model go on a card: the fastest rung that fits, and those below it. Pure.

Sizes of weights come from the files. What a pass through the network needs beside them is estimated from the tokens
of the clip and the width of the network; both are compared with what is free. The engine goes down the ladder by
itself if the estimate was too low, and the true peak is in the manifest.

    >>> RUNGS[0]
    'resident'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...core.host import GIB

RUNGS = ("resident", "encoders_off", "group_offload", "group_offload_low", "disk_offload")
#: Times that of weights that lie on the card, roughly: only to compare cards.
SLOWER: Mapping[str, float] = {
    "resident": 1.0,
    "encoders_off": 1.05,
    "group_offload": 1.3,
    "group_offload_low": 3.0,
    "disk_offload": 10.0,
}
#: CUDA's own context and what the allocator keeps.
_BASE_BYTES = 1.0 * GIB
#: Tensors of the size tokens x width that a block holds at its peak, in 2 bytes each (queries, keys, values, their
#: rotated copies, the four times wider middle of the feed-forward part, the residual in four bytes).
_TENSORS = 14
_GROUPS = 2  # one block computes while the next one arrives
_LEAF_BYTES = 0.6 * GIB  # the largest single matrix, twice
_TILE_BYTES = 1.5 * GIB  # decoding a tile of 256 pixels


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's components as they lie in memory; ``loading`` is what the largest needs while it is read."""

    denoiser: int
    text: int
    image: int
    vae: int
    blocks: int
    loading: int = 0

    @property
    def total(self) -> int:
        return self.denoiser + self.text + self.image + self.vae


@dataclass(frozen=True)
class Work:
    """What a clip asks of a card; ``scores`` are bytes of an attention without a fused kernel."""

    tokens: int
    width: int
    area: int
    ranks: int = 1
    bytes_per_value: int = 2
    scores: int = 0

    @property
    def denoising(self) -> float:
        """Bytes of a pass through the network, beside its weights."""
        return self.tokens / self.ranks * self.width * self.bytes_per_value * _TENSORS + self.scores

    @property
    def decoding(self) -> float:
        """Bytes of decoding a whole clip with Wan's VAE, which goes frame by frame.

        The official t2v-1.3B at 480p peaks at 8.19 GiB altogether (assets/comp_effic.png); it follows the area.
        """
        return (0.2 + 2.0e-5 * self.area) * GIB


def peaks(weights: Weights, work: Work) -> Mapping[str, int]:
    """Predicted peak memory of the card on every rung, in bytes."""
    block = weights.denoiser / max(1, weights.blocks)
    denoising, decoding = work.denoising, work.decoding
    found = {
        "resident": weights.total + max(denoising, decoding),
        # A decode that does not fit beside the transformer gets its room (`engines.diffusers.decoding`).
        "encoders_off": weights.vae + max(weights.denoiser + denoising, min(decoding, _TILE_BYTES)),
        "group_offload": weights.vae + max(_GROUPS * block + denoising, min(decoding, _TILE_BYTES)),
        "group_offload_low": weights.vae + max(_LEAF_BYTES + denoising, min(decoding, _TILE_BYTES)),
        "disk_offload": weights.vae + max(_LEAF_BYTES + denoising, min(decoding, _TILE_BYTES)),
    }
    return {rung: round(need + _BASE_BYTES) for rung, need in found.items()}


def host_bytes(weights: Weights, rung: str, ranks: int = 1) -> int:
    """Predicted peak of the host's memory: what does not lie on the card, and while loading the largest component.

    Each further rank reads the denoiser for itself.
    """
    encoders = weights.text + weights.image
    largest = max(weights.denoiser, weights.text, weights.loading)
    others = (ranks - 1) * max(weights.denoiser, weights.loading)
    return (
        others
        + {
            "resident": largest,
            "encoders_off": max(largest, encoders),
            "group_offload": weights.denoiser + encoders,
            "group_offload_low": weights.denoiser + encoders,
            "disk_offload": largest,
        }[rung]
    )


@dataclass(frozen=True)
class Room:
    """Free bytes of the card and of the host; what could not be asked (``None``) is taken to be enough."""

    card: int | None = None
    host: int | None = None


@dataclass(frozen=True)
class Learned:
    """What runs like this one showed: the rung where one ended when the prediction was too low, true peaks by rung.

    Nothing above that rung is tried again, and where less is free than then, a lower one is taken. ``peaks`` are what
    torch had allocated at most, in bytes.
    """

    rung: str = RUNGS[0]
    peaks: Mapping[str, int] = field(default_factory=dict)


_NOTHING_LEARNED = Learned()


@dataclass(frozen=True)
class Choice:
    """The ladder from the chosen rung down, and its peaks, as ``measured`` by a run like this one or predicted.

    ``fits`` is false when no rung does; ``host_short`` when it is the host's memory that does not suffice.
    """

    ladder: tuple[str, ...]
    gpu_bytes: int
    host_bytes: int
    fits: bool
    measured: bool = False
    host_short: bool = False

    @property
    def rung(self) -> str:
        return self.ladder[0]


def choose(
    weights: Weights, work: Work, room: Room, wanted: str = "auto", learned: Learned = _NOTHING_LEARNED
) -> Choice:
    """The fastest rung for the room there is; ``wanted`` forces one."""
    predicted = peaks(weights, work)
    known = {**predicted, **{rung: peak + round(_BASE_BYTES) for rung, peak in learned.peaks.items()}}

    def made(rung: str, *, fits: bool) -> Choice:
        ladder = RUNGS[RUNGS.index(rung) :]
        return Choice(ladder, known[rung], host_bytes(weights, rung, work.ranks), fits, rung in learned.peaks)

    def fits(rung: str) -> bool:
        # A true peak may hold a decode that took the room there was; with less room it goes in tiles.
        return room.card is None or min(predicted[rung], known[rung]) <= room.card

    if wanted != "auto":
        return made(wanted, fits=fits(wanted))
    possible = [rung for rung in RUNGS[RUNGS.index(learned.rung) :] if fits(rung)]
    for rung in possible:
        if room.host is None or host_bytes(weights, rung, work.ranks) <= room.host:
            return made(rung, fits=True)
    if not possible:
        return made(RUNGS[-1], fits=False)
    # The card would do. Of the rungs that fit it, the one that asks least of the host comes nearest.
    nearest = min(possible, key=lambda rung: (host_bytes(weights, rung, work.ranks), RUNGS.index(rung)))
    return replace(made(nearest, fits=False), host_short=True)
