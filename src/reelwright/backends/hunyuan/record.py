"""`Member`: the record of one checkout of the HunyuanVideo family. The rows are in `members`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...core.plan import Dialect
from ...core.request import Size, Task
from . import facts

OptionKind = Literal["flag", "switch", "int", "float", "text"]


#: The file that defines a member's flags, and the pattern that finds them.
FLAGS: Mapping[str, tuple[str, str]] = {
    "older_flags": ("hyvideo/config.py", r"[\"'](--[\w-]+)[\"']"),
    "newer_flags": ("generate.py", r"[\"'](--\w+)[\"']"),
    "documented_flags": ("inference.py", r"[\"'](--[\w-]+)[\"']"),
}
_SMALL = Size(832, 480)


@dataclass(frozen=True)
class Option:
    """A flag that a user may set in ``config_file``.

    Attributes:
        kind: ``flag`` takes no value (store_true); ``switch`` takes true or false.
        choices: The only allowed values of a ``text``.
    """

    kind: OptionKind
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightFolder:
    """A folder of weights below the root, with the checks of `core.host.CheckpointQuery`.

    ``{version}`` in ``folder`` is the name of a transformer.
    """

    folder: str
    required: tuple[str, ...] = ("config.json",)
    weights: tuple[str, ...] = ()
    config: str | None = None


@dataclass(frozen=True)
class TextEncoder:
    """The text encoder's folder; the script reads the ``whole`` of LLaVA there, or only the language model."""

    folder: str
    whole: bool


@dataclass(frozen=True)
class Member:
    """One checkout of the family.

    Attributes:
        title: Its name in messages.
        script: The program to start.
        marks: Files that identify the checkout; all of them must exist.
        tasks: The tasks that it can do.
        flags_in: The pattern in `FLAGS` that finds its flags.
        flags: Flags that every command needs.
        modules: Modules that its interpreter must be able to import.
        source: The origin of the checkout.
        command: Words of its command; the words of options follow, the prompt comes last. `commands` fills in ``{...}``
            and leaves out a word without a value.
        dialect: The format of its log, for the steps of the main pass and of super resolution.
        recognised_by_flags: Whether the script must also have its ``flags``.
        parallel: The way several GPUs share a clip: by two degrees, by the number of processes alone, or not at all.
        heads: Attention heads, if the weights' config does not give them.
        fps: Frames per second; every script except the documented one has a fixed rate.
        clip_frames: The length it was trained for.
        names_video: Whether it names its video itself, in a given folder.
        parts: Its weight folders; empty if only ``ckpt_path`` itself is known.
        encoder: Its text encoder, if that is made from LLaVA.
        first_rank_reads: Whether only the first process reads the transformer.
        options: The options that ``config_file`` may set.
        parameters: Flags of ``config_file`` that are effective parameters, with the names of these.
        defaults: Further effective parameters and their values.
        negative: The option for a negative prompt.
        unpublished_net: A choice of ``model`` that has no published weights.
        offload_option: The parameter that moves weights off the GPU.
        guidance, shift: Defaults; with the option ``i2v_stability`` the shift is ``stable_shift``.
        sizes: Documented sizes.
        trained_sizes: Sizes that it was trained for, if it takes any size.
        classes: The resolutions that it takes instead of a size, each with the side of a square of its area.
        stride: The step of the sides of a size, in pixels.
        crops: Whether its sizes are never longer than the picture, so that no picture is padded.
        enlarges: The resolution that super resolution makes of another, and its number of steps.
        versions: The names of its transformers.
        smaller: The size that saves memory.
        text_tokens: Tokens that its text encoder reads.
        footprint: Its memory; ``None`` if only its options are known (`is_opaque`).
    """

    title: str
    script: str
    marks: tuple[str, ...]
    tasks: tuple[Task, ...]
    flags_in: str
    flags: tuple[str, ...]
    modules: tuple[str, ...]
    source: str
    command: tuple[str, ...]
    dialect: Callable[[int, int | None], Dialect]
    recognised_by_flags: bool = False
    parallel: Literal["degrees", "world", "none"] = "none"
    heads: int = 24
    fps: float = 24.0
    clip_frames: int = 129
    names_video: bool = False
    parts: tuple[WeightFolder, ...] = ()
    encoder: TextEncoder | None = None
    first_rank_reads: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    negative: str | None = None
    unpublished_net: str | None = None
    offload_option: str = "use_cpu_offload"
    guidance: float | None = None
    shift: float = 7.0
    stable_shift: float = 7.0
    sizes: tuple[str, ...] = ()
    trained_sizes: tuple[Size, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    stride: int = 16
    crops: bool = False
    enlarges: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    versions: frozenset[str] = frozenset()
    smaller: Size = _SMALL
    text_tokens: int = 256
    footprint: facts.Footprint | None = None

    @property
    def is_opaque(self) -> bool:
        """Whether only its options are known: neither its memory, nor its weights, nor the size of its video."""
        return self.footprint is None

    @property
    def trained_s(self) -> float:
        """The length that it was trained for, in seconds."""
        return self.clip_frames / self.fps

    @property
    def own_folder(self) -> str:
        """The folder of weights that no other member has."""
        return self.parts[0].folder.partition("/")[0] if self.parts else ""

    @property
    def flags_file(self) -> str:
        """The file that defines its flags; the script cannot start without it."""
        return FLAGS[self.flags_in][0]
