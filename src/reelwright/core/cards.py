"""Lists NVIDIA cards by name, with compute capability, memory and half-precision matrix throughput.

Plans for simulated cards use it, and so does the choice of the faster of two real cards. Sources: NVIDIA's table of
CUDA GPUs (capability) and the data sheets of the cards (memory; dense half-precision tensor throughput with 32-bit
sums, without sparsity; for cards without tensor cores the half-precision figure). The speeds serve only to order cards.

    >>> find("RTX 4090").capability
    (8, 9)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Capability = tuple[int, int]


@dataclass(frozen=True)
class Card:
    """One model of card.

    Attributes:
        name: The name as people write it.
        capability: CUDA compute capability.
        gib: Memory in GiB; the smallest size if the card is sold with several.
        tflops: Dense half-precision throughput, in 10^12 operations a second.
    """

    name: str
    capability: Capability
    gib: int
    tflops: float


CARDS = (
    Card("K80", (3, 7), 12, 4),
    Card("M40", (5, 2), 12, 7),
    Card("GTX 1080 Ti", (6, 1), 11, 11),
    Card("P40", (6, 1), 24, 12),
    Card("P100", (6, 0), 16, 19),
    Card("V100", (7, 0), 16, 125),
    Card("T4", (7, 5), 16, 65),
    Card("RTX 2070", (7, 5), 8, 30),
    Card("RTX 2080", (7, 5), 8, 40),
    Card("RTX 2080 Ti", (7, 5), 11, 54),
    Card("TITAN RTX", (7, 5), 24, 65),
    Card("Quadro RTX 6000", (7, 5), 24, 65),
    Card("Quadro RTX 8000", (7, 5), 48, 65),
    Card("RTX 3060", (8, 6), 12, 26),
    Card("RTX 3070", (8, 6), 8, 41),
    Card("RTX 3080", (8, 6), 10, 60),
    Card("RTX 3090", (8, 6), 24, 71),
    Card("A10", (8, 6), 24, 125),
    Card("A10G", (8, 6), 24, 70),
    Card("A16", (8, 6), 16, 18),
    Card("A30", (8, 0), 24, 165),
    Card("A40", (8, 6), 48, 150),
    Card("RTX A4000", (8, 6), 16, 77),
    Card("RTX A5000", (8, 6), 24, 111),
    Card("RTX A6000", (8, 6), 48, 155),
    Card("A100", (8, 0), 40, 312),
    Card("L4", (8, 9), 24, 121),
    Card("L40", (8, 9), 48, 181),
    Card("L40S", (8, 9), 48, 362),
    Card("RTX 4060", (8, 9), 8, 30),
    Card("RTX 4060 Ti", (8, 9), 8, 44),
    Card("RTX 4070", (8, 9), 12, 58),
    Card("RTX 4080", (8, 9), 16, 97),
    Card("RTX 4090", (8, 9), 24, 165),
    Card("RTX 6000 Ada", (8, 9), 48, 182),
    Card("H100", (9, 0), 80, 989),
    Card("H200", (9, 0), 141, 989),
    Card("H20", (9, 0), 96, 148),
    Card("GH200", (9, 0), 96, 989),
    Card("B200", (10, 0), 180, 2250),
    Card("RTX 5060 Ti", (12, 0), 8, 47),
    Card("RTX 5070", (12, 0), 12, 62),
    Card("RTX 5070 Ti", (12, 0), 16, 88),
    Card("RTX 5080", (12, 0), 16, 113),
    Card("RTX 5090", (12, 0), 32, 210),
    Card("RTX PRO 6000", (12, 0), 96, 252),
)
#: Throughput of a card that is not in the table, by the first number of its capability.
_TYPICAL_TFLOPS = {3: 4.0, 5: 7.0, 6: 12.0, 7: 60.0, 8: 120.0, 9: 800.0, 10: 2000.0, 11: 100.0, 12: 150.0}
_SLICES = 7  # compute slices of a card in MIG mode


def _plain(text: str) -> str:
    """The name in lower case, without blanks, signs and the words that most names begin with."""
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    return plain.removeprefix("nvidia").removeprefix("geforce").removeprefix("tesla")


_BY_NAME = {
    spelling: card
    for card in CARDS
    for spelling in (_plain(card.name), re.sub(r"^(rtx|gtx|quadrortx)", "", _plain(card.name)))
    if not spelling.isdigit() or len(spelling) == 4
}


def find(name: str) -> Card | None:
    """The card with this name in any spelling (``rtx4090``, ``RTX 4090``, ``4090``); ``None`` if unknown."""
    return _BY_NAME.get(_plain(name))


def _in_driver_name(name: str) -> Card | None:
    """The card that a driver's name contains, such as ``NVIDIA A100-SXM4-80GB``; ``None`` if unknown."""
    words = re.split(r"[\s_-]+", name)
    spans = [(start, end) for start in range(len(words)) for end in range(start + 1, len(words) + 1)]
    found = [(len(text), card) for start, end in spans if (card := find(text := "".join(words[start:end])))]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def speed(name: str, capability: Capability | None) -> float:
    """Throughput in 10^12 operations a second, to compare cards; a MIG instance has a share of its card's value."""
    card = _in_driver_name(name)
    whole = card.tflops if card else _TYPICAL_TFLOPS.get(capability[0] if capability else 8, 100.0)
    share = re.search(r"\bMIG (\d)(?:c\.\dg|g)\.", name)
    return whole * int(share[1]) / _SLICES if share else whole
