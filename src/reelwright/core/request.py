"""Defines the request for one clip, in the terms of the field.

A `VideoRequest` is a frozen value. It describes the clip, not how a generator makes it, and it does not hold the output
path (the same request may be rendered twice). It refuses only mistakes that are wrong for every generator; a backend's
``plan`` checks the limits of its generator.

`FIELDS` has the check and the command-line option of every field; ``reel`` derives its options from it.

    >>> request = VideoRequest(prompt="slow push in", image=Path("cat.jpg"), seconds=5.0)
    >>> request.task
    'i2v'
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from .errors import InvalidInputError, all_of, guess

Task = Literal["t2v", "i2v", "flf2v"]
Fit = Literal["cover", "contain", "stretch"]
Codec = Literal["h264", "av1"]

SCHEMA = 1
# One argv string may hold 131,071 bytes on Linux (MAX_ARG_STRLEN). Text encoders read at most 512 tokens, so a prompt
# near the limit is a mistake, such as a file given in place of its text.
MAX_PROMPT_BYTES = 100_000
MAX_SEED = 2**63 - 1
_PICTURES = ("image", "last_image", "depth_image")
_SIZE = re.compile(r"\s*(\d{1,6})\s*[xX*×]\s*(\d{1,6})\s*")


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def area(self) -> int:
        """Width times height."""
        return self.width * self.height


def parse_size(text: str) -> Size:
    """The `Size` in a text such as ``1280x720``, ``1280*720`` or ``1280×720``.

    Raises:
        InvalidInputError: the text does not have that form, or a side is 0.
    """
    match = _SIZE.fullmatch(text)
    if not match or 0 in (int(match[1]), int(match[2])):
        raise InvalidInputError(
            f"{text!r} is not a size", advice="Write width x height in pixels, for example 1280x720."
        )
    return Size(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Picture:
    """A picture that has passed the intake: a private, upright, 8-bit sRGB PNG.

    Attributes:
        path: The private PNG.
        source: The path of the user's picture.
        size: Pixels of the private PNG.
        source_size: Pixels of the user's picture after EXIF rotation.
        sha256: SHA-256 of the bytes of the user's file.
        notes: One sentence for people about each normalisation or crop.
    """

    path: Path
    source: Path
    size: Size
    source_size: Size
    sha256: str
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------ request


@dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """One clip to make. ``None`` means "the generator's default".

    Attributes:
        prompt: Description of the clip, as text (UTF-8, no NUL, at most 100,000 bytes).
        image: First picture; ``None`` means text-to-video.
        last_image: Last picture, for first-last-frame-to-video.
        depth_image: Depth picture (bright is near) for the draft generator's parallax.
        generator: A generator's name, or ``auto``.
        size: Size in pixels; generators may derive the real size from its area and aspect (see the plan).
        num_frames: Number of frames; excludes ``seconds``.
        seconds: Length in seconds; the plan turns it into a number of frames that the generator can make.
        fps: Frames per second, if the generator has a choice.
        steps: Number of sampling steps.
        guidance_scale: Classifier-free guidance scale.
        flow_shift: Shift of the flow-matching schedule.
        seed: Random seed; ``None`` lets the plan draw one, which is then recorded.
        negative_prompt: Things that should not appear, if the generator supports it.
        camera: Camera move for the draft generator, such as ``push_in`` or ``pan_left slow``.
        fit: How a picture of another aspect is fitted to the size: crop (``cover``), pad (``contain``) or distort
            (``stretch``); ``None`` is the generator's own rule (Wan2.1 keeps the picture's aspect, the draft crops).
        anchor: The part that a crop keeps: ``center``, ``top``, ``bottom``, ``left``, ``right`` or ``x,y`` in 0..1.
        strict_input: Refuse a picture that needs normalising, instead of warning.
        codec: ``h264`` or ``av1``, if Reelwright encodes the clip.
        label: Whether the draft generator writes its corner label.

    ``anchor``, ``strict_input``, ``codec`` and ``label`` are settings too; a value in the request wins over them.
    """

    prompt: str
    image: Path | None = None
    last_image: Path | None = None
    depth_image: Path | None = None
    generator: str = "auto"
    size: Size | None = None
    num_frames: int | None = None
    seconds: float | None = None
    fps: float | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    flow_shift: float | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    camera: str | None = None
    fit: Fit | None = None
    anchor: str | None = None
    strict_input: bool | None = None
    codec: Codec | None = None
    label: bool | None = None

    def __post_init__(self) -> None:
        if found := _mistakes(vars(self)):
            raise all_of([error for errors in found.values() for error in errors])
        if self.size is not None:
            object.__setattr__(self, "size", Size(*self.size))
        for name in _PICTURES:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))

    @property
    def task(self) -> Task:
        """``t2v`` without a picture, ``flf2v`` with a first and a last one, else ``i2v``."""
        if self.image is None:
            return "t2v"
        return "i2v" if self.last_image is None else "flf2v"

    def evolve(self, **changes: Any) -> VideoRequest:
        """A copy with some fields changed, checked again."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, with the schema number."""
        data = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        data["size"] = str(self.size) if self.size else None
        return {"schema": SCHEMA, **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VideoRequest:
        """The request that `to_json` wrote; fields of a newer minor version are ignored."""
        values = {key: value for key, value in data.items() if key in FIELDS}
        for key in _PICTURES:
            values[key] = Path(values[key]) if values.get(key) else None
        values["size"] = parse_size(values["size"]) if values.get("size") else None
        return cls(**values)


def read_request(**values: Any) -> tuple[VideoRequest, tuple[InvalidInputError, ...]]:
    """A request from values as people write them (a size and paths as text), and every mistake in them.

    A wrong value is left out of the request or replaced by a harmless one, so that later checks can find other
    mistakes. Do not carry out a request with mistakes.

        >>> request, mistakes = read_request(prompt="", size="big", steps=0)
        >>> [error.message for error in mistakes]
        ["'big' is not a size", 'the prompt is empty', 'steps must be above 0, not 0']
    """
    mistakes: list[InvalidInputError] = list(_unknown_options(values))
    values = {name: value for name, value in values.items() if name in FIELDS}
    if isinstance(values.get("size"), str):
        try:
            values["size"] = parse_size(values["size"])
        except InvalidInputError as error:
            mistakes.append(error)
            values["size"] = None
    found = _mistakes(values)
    mistakes += [error for errors in found.values() for error in errors]
    fine = {name: value for name, value in values.items() if name not in found}
    if "image" in found:
        fine.pop("last_image", None)
    return VideoRequest(**{"prompt": "(no usable prompt)", **fine}), tuple(mistakes)


def _unknown_options(values: Mapping[str, Any]) -> Iterator[InvalidInputError]:
    known = sorted(FIELDS)
    for name in sorted(set(values) - set(known)):
        advice = guess(name, known) or f"Known options: {', '.join(known)}."
        yield InvalidInputError(f"there is no option {name!r}", advice=advice)


def _mistakes(values: Mapping[str, Any]) -> dict[str, list[InvalidInputError]]:
    """The mistakes that are wrong for every generator, by the field to leave out."""
    found: dict[str, list[InvalidInputError]] = {}
    for name, field in FIELDS.items():
        value = values.get(name)
        if value is None and name != "prompt":
            continue
        try:
            field.check(name, value)
        except InvalidInputError as error:
            found.setdefault(name, []).append(error)
    if values.get("num_frames") is not None and values.get("seconds") is not None:
        both = InvalidInputError("both frames and seconds were given", advice="Give only one of the two.")
        found.setdefault("seconds", []).append(both)
    if values.get("last_image") is not None and values.get("image") is None:
        advice = "Give the first picture too, or leave out --last-image."
        alone = InvalidInputError("a last picture needs a first picture", advice=advice)
        found.setdefault("last_image", []).append(alone)
    return found


# ------------------------------------------------------------------------------------------------------------- checks


def check_prompt(prompt: object, *, name: str = "prompt", may_be_empty: bool = False) -> None:
    """Refuse text that could not reach a generator's process byte for byte.

    Raises:
        InvalidInputError: the text is empty, not a string, longer than `MAX_PROMPT_BYTES`, or holds NUL or a lone
            surrogate.
    """
    if not isinstance(prompt, str):
        raise InvalidInputError(f"the {name} must be text, not {type(prompt).__name__}")
    if not prompt.strip() and not may_be_empty:
        raise InvalidInputError(f"the {name} is empty", advice="Describe what the video should show.")
    if "\0" in prompt:
        raise InvalidInputError(f"the {name} holds a NUL character", advice="Remove it: no process can receive it.")
    try:
        size = len(prompt.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the {name} holds a lone surrogate at character {error.start}", advice="Give valid UTF-8 text."
        ) from None
    if size > MAX_PROMPT_BYTES:
        raise InvalidInputError(
            f"the {name} is {size:,} bytes long; the limit is {MAX_PROMPT_BYTES:,}",
            advice="Shorten it: text encoders read about 512 tokens and drop the rest.",
        )


def _check_prompt(_name: str, text: object) -> None:
    check_prompt(text)


def _check_negative_prompt(_name: str, text: object) -> None:
    check_prompt(text, name="negative prompt", may_be_empty=True)


def _check_path(name: str, value: object) -> None:
    if not isinstance(value, (str, os.PathLike)):
        text = f"{name} must be the path of a picture file, not {type(value).__module__}.{type(value).__qualname__}"
        raise InvalidInputError(
            text, advice="Save the picture first (with Pillow: picture.save('cat.png')), then give the path."
        )
    if not os.fspath(value):
        raise InvalidInputError(f"the path of {name} is empty", advice="Give the path of a picture file.")


def _check_size(_name: str, value: Any) -> None:
    numbers = isinstance(value, (tuple, list)) and len(value) == 2 and all(type(side) is int for side in value)
    if not numbers or min(value) <= 0:
        raise InvalidInputError(f"size must be width x height in pixels, not {value!r:.80}", advice="Write 1280x720.")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be text, not {value!r:.80}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} must be true or false, not {value!r:.80}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInputError(f"{name} must be a finite number, not {value!r}")


def _check_positive(name: str, value: Any) -> None:
    _check_number(name, value)
    if value <= 0:
        raise InvalidInputError(f"{name} must be above 0, not {value!r}")


def _check_not_negative(name: str, value: Any) -> None:
    _check_number(name, value)
    if value < 0:
        raise InvalidInputError(f"{name} must be 0 or more, not {value!r}")


def _check_count(name: str, value: Any) -> None:
    _check_positive(name, value)
    _check_whole(name, value)


def _check_whole(name: str, value: Any) -> None:
    _check_number(name, value)
    if not isinstance(value, int):
        raise InvalidInputError(f"{name} must be a whole number, not {value!r}")


def _check_seed(name: str, value: Any) -> None:
    _check_whole(name, value)
    if not 0 <= value <= MAX_SEED:
        raise InvalidInputError(f"seed {value} is out of range", advice=f"Use 0 to {MAX_SEED}.")


def _check_word(words: Any) -> Callable[[str, Any], None]:
    def check(name: str, value: object) -> None:
        if value not in get_args(words):
            raise InvalidInputError(f"{name} must be {' or '.join(get_args(words))}, not {value!r:.80}")

    return check


# ------------------------------------------------------------------------------------------------------------- fields


@dataclass(frozen=True)
class RequestField:
    """The check and the command-line option of one field of a request.

    Attributes:
        check: Refuses a value that no generator can use; called with the field's name and a value that is not None.
        option: The option, as help texts show it, such as ``--frames N``; empty for a field without an option.
        help: The help text of the option.
        group: The heading above the option in help texts.
        choices: The only words that the option takes.
        sets: The value that an option without a value sets.
    """

    check: Callable[[str, Any], None]
    option: str = ""
    help: str = ""
    group: str = "the clip"
    choices: tuple[str, ...] = ()
    sets: bool = True

    @property
    def kind(self) -> Literal["number", "path", "text"]:
        """The kind of the option's value."""
        if self.check in (_check_count, _check_positive, _check_not_negative, _check_seed):
            return "number"
        return "path" if self.check is _check_path else "text"


_PICTURE = "pictures and drafts"
#: Every field of a `VideoRequest`. The CLI derives its options from here, in this order.
FIELDS: Mapping[str, RequestField] = {
    "prompt": RequestField(_check_prompt),
    "image": RequestField(_check_path),
    "generator": RequestField(_check_text),
    "last_image": RequestField(_check_path, "--last-image IMG", "last picture (first-last-frame-to-video)"),
    "size": RequestField(_check_size, "--size WxH", "size in pixels, such as 1280x720"),
    "num_frames": RequestField(_check_count, "--frames N", "number of frames (or --seconds)"),
    "seconds": RequestField(_check_positive, "--seconds S", "length in seconds"),
    "fps": RequestField(_check_positive, "--fps N", "frames per second, where the generator has a choice"),
    "steps": RequestField(_check_count, "--steps N", "sampling steps"),
    "guidance_scale": RequestField(_check_not_negative, "--guidance X", "guidance scale"),
    "flow_shift": RequestField(_check_not_negative, "--shift X", "flow shift"),
    "seed": RequestField(_check_seed, "--seed N", "random seed; drawn and recorded if not given"),
    "negative_prompt": RequestField(_check_negative_prompt, "--negative-prompt TEXT", "what to avoid, where supported"),
    "fit": RequestField(_check_word(Fit), "--fit", "crop, pad or distort a picture to the size", _PICTURE, get_args(Fit)),
    "anchor": RequestField(_check_text, "--anchor WHERE", "what a crop keeps: center, top, ... or x,y (0..1)", _PICTURE),
    "strict_input": RequestField(_check_flag, "--strict-input", "refuse pictures that need normalising", _PICTURE),
    "camera": RequestField(_check_text, "--camera MOVE", "draft: camera move, such as 'pan_left slow'", _PICTURE),
    "depth_image": RequestField(_check_path, "--depth IMG", "draft: depth picture for parallax (bright is near)", _PICTURE),
    "label": RequestField(_check_flag, "--no-label", "draft: no corner label", _PICTURE, sets=False),
    "codec": RequestField(_check_word(Codec), "--codec", "video codec, where Reelwright encodes", _PICTURE, get_args(Codec)),
}  # fmt: skip
