"""The table of Wan2.1's models: each row is one task of generate.py with one model. A new model is a new row.

Source: the official checkout at 9737cba (2026-03-05), generate.py and wan/configs. The times come from the published
table (assets/comp_effic.png).

    >>> [variant.task for variant in VARIANTS if variant.makes == "t2v"]
    ['t2v-14B', 't2v-1.3B']
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...core.request import Size, Task
from ..shared.wan import CLIP_FILE, T5_FILE, TOKENIZER, VAE_FILE

#: Sizes in generate.py's own tables (720p and 480p), and the sizes that Reelwright's launcher adds to them.
OWN_SIZES = (Size(1280, 720), Size(720, 1280), Size(832, 480), Size(480, 832))
SMALL_SIZES = OWN_SIZES[2:]
ADDED_SIZES = (Size(1024, 576), Size(576, 1024), Size(720, 480), Size(480, 720))


@dataclass(frozen=True)
class PublishedTimes:
    """A row of the published table: seconds of a complete clip of 81 frames by number of GPUs."""

    card: str
    size: Size
    steps: int
    seconds: Mapping[int, float]


@dataclass(frozen=True)
class FixedLength:
    """A model that makes exactly 81 frames.

    Attributes:
        pattern: The pattern of the checkout query that finds the code with the fixed length.
        code, text, fix: The finding for another length; ``{frames}`` is the requested number.
        old: Whether a newer checkout makes other lengths. If none does, no retry lowers the number.
    """

    pattern: str
    code: str
    text: str
    fix: str
    old: bool = False


@dataclass(frozen=True)
class Variant:
    """One task of generate.py with one model.

    Attributes:
        task: The ``--task`` value.
        makes: The task of a request, and ``model_type`` in the weights' config.json.
        key: The setting that names its weights.
        setup: Its name for ``reel setup wan2.1 --models``.
        published: Published times of this model, or of one of the same size.
        heads: Attention heads, which the ulysses degree must divide.
        dim, layers: Width and depth of the transformer.
        weight_bytes: Bytes of the transformer's fp32 weights, on disk and on the GPU.
        sizes: Sizes of the parser's table for the task.
        added_sizes: Sizes that Reelwright's launcher adds to the table.
        framework_steps: Default of ``--sample_steps``; flf2v does not contain "i2v" and so has 50.
        channels: Input channels of the transformer (``in_dim``).
        clip: Whether the image encoder is loaded.
        fixed: Set if some checkouts make 81 frames only.
    """

    task: str
    makes: Task
    key: str
    setup: str
    published: PublishedTimes
    heads: int = 40
    dim: int = 5120
    layers: int = 40
    weight_bytes: int = 57_200_000_000
    sizes: tuple[Size, ...] = OWN_SIZES
    added_sizes: tuple[Size, ...] = ADDED_SIZES
    framework_steps: int = 50
    channels: int = 16
    clip: bool = False
    fixed: FixedLength | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that its folder of weights must hold; folders end with a slash (wan/configs/*.py)."""
        common = (T5_FILE, VAE_FILE, TOKENIZER, "config.json")
        return (*common, CLIP_FILE, "xlm-roberta-large/") if self.clip else common


I2V_14B = Variant(
    "i2v-14B", "i2v", "i2v_model_dir", "i2v-720p (or i2v-480p)",
    PublishedTimes("H100", Size(1280, 720), 40, {1: 1491.6, 2: 753.9, 4: 403.9, 8: 238.8}),
    weight_bytes=65_600_000_000, framework_steps=40, channels=36, clip=True,
    fixed=FixedLength(
        "i2v_81", "frames.old_checkout",
        "this checkout is older than 2025-12-02: its image-to-video code makes exactly 81 frames, not {frames}",
        "Update it: git pull, in wan2_dir.", old=True,
    ),
)  # fmt: skip
FLF2V_14B = replace(
    I2V_14B, task="flf2v-14B", makes="flf2v", key="flf2v_model_dir", setup="flf2v-720p", framework_steps=50,
    fixed=FixedLength(
        "flf2v_81", "frames.flf2v",
        "first-last-frame clips have exactly 81 frames (5.06 s) in this checkout, not {frames}",
        "Leave out --frames and --seconds, or use 81 frames.",
    ),
)  # fmt: skip
T2V_14B = Variant(
    "t2v-14B", "t2v", "t2v_model_dir", "t2v-14b",
    PublishedTimes("H100", Size(1280, 720), 50, {1: 1837.9, 2: 945.1, 4: 497.0, 8: 287.9}),
)  # fmt: skip
T2V_1_3B = Variant(
    "t2v-1.3B", "t2v", "t2v_1_3b_model_dir", "t2v-1.3b",
    PublishedTimes("RTX 4090", Size(832, 480), 50, {1: 261.4, 2: 188.5, 4: 120.8, 8: 112.3}),
    heads=12, dim=1536, layers=30, weight_bytes=5_680_000_000, sizes=SMALL_SIZES, added_sizes=(),
)  # fmt: skip
VARIANTS = (I2V_14B, FLF2V_14B, T2V_14B, T2V_1_3B)
