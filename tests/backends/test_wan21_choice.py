"""What is decided about a clip of Wan2.1 before there is a command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reelwright import load_settings
from reelwright.backends.shared.job import Job
from reelwright.backends.wan21.backend import BACKEND
from reelwright.core.host import GIB, Host, simulated_gpus
from reelwright.core.request import Size, VideoRequest


def t5_cpu(gpus: str, *, free_gib: float | None = None, count: int | None = None) -> bool:
    """Whether the text encoder of t2v-1.3B stays on the CPU, on such cards with so much free memory."""
    request = VideoRequest(prompt="a cat", size=Size(832, 480))
    arguments = {"model": "t2v-1.3B", **({"gpu_count": count} if count else {})}
    cards = simulated_gpus(gpus)
    if free_gib is not None:
        cards = tuple(replace(card, free_bytes=round(free_gib * GIB)) for card in cards)
    settings = load_settings(environ={}, arguments=arguments)
    made = BACKEND.plan(Job(request, settings, Host(gpus=cards), Path("/out/film.mp4"), None, None, None))
    return bool(made.parameters["t5_cpu"])


@pytest.mark.parametrize(
    ("gpus", "free_gib", "count", "on_the_cpu"),
    [
        ("1x8GiB", None, None, True),
        ("1x11GiB", None, None, True),
        ("1x12GiB", None, None, False),
        ("1x24GiB", None, None, False),
        ("1x24GiB", 11.0, None, True),  # its 10.6 GiB and what CUDA itself takes do not fit any more
        ("1x24GiB", 12.0, None, False),
        ("2x80GiB", None, 2, False),
    ],
)
def test_the_text_encoder_stays_on_the_cpu_where_the_card_cannot_hold_it(
    gpus: str, free_gib: float | None, count: int | None, on_the_cpu: bool
) -> None:
    assert t5_cpu(gpus, free_gib=free_gib, count=count) is on_the_cpu
