"""The choice of where a model's weights stay during a clip: the fastest placement that fits, then slower ones. Pure.

Sizes of weights come from the files. The memory of a pass through the network is estimated from the tokens of the clip
and the width of the network. Both are compared with the free memory. If the estimate is too low, the engine itself
moves to the next placement; the manifest records the true peak.

    >>> PLACEMENTS[0]
    'resident'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...core.host import GIB

#: The fastest first.
PLACEMENTS = ("resident", "encoders_off", "group_offload", "group_offload_low", "disk_offload")
#: Rough factors of time against `resident`, used only to compare cards.
SLOWER: Mapping[str, float] = {
    "resident": 1.0,
    "encoders_off": 1.05,
    "group_offload": 1.3,
    "group_offload_low": 3.0,
    "disk_offload": 10.0,
}
#: CUDA's own context and the memory that the allocator keeps.
_BASE_BYTES = 1.0 * GIB
#: Tensors of the size tokens x width that a block holds at its peak, in 2 bytes each (queries, keys, values, their
#: rotated copies, the four times wider middle of the feed-forward part, the residual in four bytes).
_TENSORS = 14
_GROUPS = 2  # one block computes while the next one arrives
_LEAF_BYTES = 0.6 * GIB  # the largest single matrix, twice
_TILE_BYTES = 1.5 * GIB  # decoding a tile of 256 pixels


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's components in memory; ``loading`` is the need of the largest one while it is read."""

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
    """The work of a clip on a card; ``scores`` are the bytes that attention needs without a fused kernel."""

    tokens: int
    width: int
    area: int
    ranks: int = 1
    bytes_per_value: int = 2
    scores: int = 0

    @property
    def denoising(self) -> float:
        """Bytes of a pass through the network, without its weights."""
        return self.tokens / self.ranks * self.width * self.bytes_per_value * _TENSORS + self.scores

    @property
    def decoding(self) -> float:
        """Bytes for decoding a complete clip with Wan's VAE, which decodes frame by frame.

        They grow with the area. The official t2v-1.3B at 480p peaks at 8.19 GiB in total (assets/comp_effic.png).
        """
        return (0.2 + 2.0e-5 * self.area) * GIB


def peaks(weights: Weights, work: Work) -> Mapping[str, int]:
    """The predicted peak memory of the card for each placement, in bytes."""
    block = weights.denoiser / max(1, weights.blocks)
    denoising, decoding = work.denoising, work.decoding
    by_leaf = weights.vae + max(_LEAF_BYTES + denoising, min(decoding, _TILE_BYTES))
    found = {
        "resident": weights.total + max(denoising, decoding),
        # If decoding does not fit beside the transformer, it takes that room too (`engines.diffusers.decoding`).
        "encoders_off": weights.vae + max(weights.denoiser + denoising, min(decoding, _TILE_BYTES)),
        "group_offload": weights.vae + max(_GROUPS * block + denoising, min(decoding, _TILE_BYTES)),
        "group_offload_low": by_leaf,
        "disk_offload": by_leaf,
    }
    return {name: round(need + _BASE_BYTES) for name, need in found.items()}


def host_bytes(weights: Weights, placement: str, ranks: int = 1) -> int:
    """The predicted peak of host memory, in bytes: the weights off the card, or the largest component while loading.

    Each further rank loads its own copy of the denoiser.
    """
    encoders = weights.text + weights.image
    own = max(weights.denoiser, weights.text, weights.loading)
    if placement == "encoders_off":
        own = max(own, encoders)
    elif placement.startswith("group_offload"):
        own = weights.denoiser + encoders
    return own + (ranks - 1) * max(weights.denoiser, weights.loading)


@dataclass(frozen=True)
class Room:
    """Free bytes of the card and of the host; unknown memory (``None``) counts as enough."""

    card: int | None = None
    host: int | None = None


@dataclass(frozen=True)
class Learned:
    """Results of similar runs: the placement on which one ended because the prediction was too low, and true peaks.

    Placements faster than ``placement`` are not tried again. ``peaks`` holds the most bytes that torch allocated, by
    placement.
    """

    placement: str = PLACEMENTS[0]
    peaks: Mapping[str, int] = field(default_factory=dict)


_NOTHING_LEARNED = Learned()


@dataclass(frozen=True)
class ChosenPlacement:
    """The chosen placement with its peaks, and the slower placements.

    Attributes:
        placements: The chosen one first, then the slower ones.
        gpu_bytes, host_bytes: The peaks of the chosen one.
        fits: Whether it fits into the free memory.
        measured: Whether ``gpu_bytes`` was measured in a similar run, not predicted.
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
    """Choose the fastest placement that fits the free memory; ``wanted`` forces one."""
    predicted = peaks(weights, work)
    known = {**predicted, **{name: peak + round(_BASE_BYTES) for name, peak in learned.peaks.items()}}

    def made(name: str, *, fits: bool) -> ChosenPlacement:
        placements = PLACEMENTS[PLACEMENTS.index(name) :]
        host = host_bytes(weights, name, work.ranks)
        return ChosenPlacement(placements, known[name], host, fits, name in learned.peaks)

    def fits(name: str) -> bool:
        # A true peak may include a decode that used all free memory; with less memory the decode goes in tiles.
        return room.card is None or min(predicted[name], known[name]) <= room.card

    if wanted != "auto":
        return made(wanted, fits=fits(wanted))
    possible = [name for name in PLACEMENTS[PLACEMENTS.index(learned.placement) :] if fits(name)]
    for name in possible:
        if room.host is None or host_bytes(weights, name, work.ranks) <= room.host:
            return made(name, fits=True)
    if not possible:
        return made(PLACEMENTS[-1], fits=False)
    # The card has room and the host does not: the placement that needs the least host memory comes nearest.
    nearest = min(possible, key=lambda name: (host_bytes(weights, name, work.ranks), PLACEMENTS.index(name)))
    return replace(made(nearest, fits=False), host_short=True)
