"""Where the weights of a model are kept while a clip is made: the fastest placement that fits, and the slower ones. Pure.

Sizes of weights come from the files. The memory of a pass through the network is estimated from the tokens of the clip
and the width of the network; both are compared with the free memory. Where the estimate was too low, the engine itself
takes the next placement; the manifest has the true peak.

    >>> PLACEMENTS[0]
    'resident'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...core.host import GIB

#: The fastest first.
PLACEMENTS = ("resident", "encoders_off", "group_offload", "group_offload_low", "disk_offload")
#: How many times slower than `resident`, roughly: only to compare cards.
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
    """The work of a clip on a card; ``scores`` are bytes of an attention without a fused kernel."""

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
    """Predicted peak memory of the card by placement, in bytes."""
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
    return {name: round(need + _BASE_BYTES) for name, need in found.items()}


def host_bytes(weights: Weights, placement: str, ranks: int = 1) -> int:
    """Predicted peak of the host's memory: weights that are not on the card, or the largest component while loading.

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
        }[placement]
    )


@dataclass(frozen=True)
class Room:
    """Free bytes of the card and of the host; unknown memory (``None``) counts as enough."""

    card: int | None = None
    host: int | None = None


@dataclass(frozen=True)
class Learned:
    """What similar runs showed: where one ended because the prediction was too low, and true peaks by placement.

    No faster placement than ``placement`` is tried again. ``peaks`` are the most bytes that torch had allocated.
    """

    placement: str = PLACEMENTS[0]
    peaks: Mapping[str, int] = field(default_factory=dict)


_NOTHING_LEARNED = Learned()


@dataclass(frozen=True)
class ChosenPlacement:
    """The chosen placement and the slower ones, with its peaks.

    Attributes:
        placements: The chosen one first.
        gpu_bytes, host_bytes: Its peaks.
        fits: Whether it fits; false where none does.
        measured: Whether ``gpu_bytes`` comes from a similar run, not from a prediction.
        host_short: Whether only the host's memory is too small.
    """

    placements: tuple[str, ...]
    gpu_bytes: int
    host_bytes: int
    fits: bool
    measured: bool = False
    host_short: bool = False

    @property
    def name(self) -> str:
        """The chosen placement."""
        return self.placements[0]


def choose(
    weights: Weights, work: Work, room: Room, wanted: str = "auto", learned: Learned = _NOTHING_LEARNED
) -> ChosenPlacement:
    """The fastest placement for the free memory; ``wanted`` forces one."""
    predicted = peaks(weights, work)
    known = {**predicted, **{name: peak + round(_BASE_BYTES) for name, peak in learned.peaks.items()}}

    def made(name: str, *, fits: bool) -> ChosenPlacement:
        placements = PLACEMENTS[PLACEMENTS.index(name) :]
        host = host_bytes(weights, name, work.ranks)
        return ChosenPlacement(placements, known[name], host, fits, name in learned.peaks)

    def fits(name: str) -> bool:
        # A true peak may hold a decode that used all free memory; with less memory the decode goes in tiles.
        return room.card is None or min(predicted[name], known[name]) <= room.card

    if wanted != "auto":
        return made(wanted, fits=fits(wanted))
    possible = [name for name in PLACEMENTS[PLACEMENTS.index(learned.placement) :] if fits(name)]
    for name in possible:
        if room.host is None or host_bytes(weights, name, work.ranks) <= room.host:
            return made(name, fits=True)
    if not possible:
        return made(PLACEMENTS[-1], fits=False)
    # The card has room, the host has not: the placement that needs least of the host comes nearest.
    nearest = min(possible, key=lambda name: (host_bytes(weights, name, work.ranks), PLACEMENTS.index(name)))
    return replace(made(nearest, fits=False), host_short=True)
