"""What is asked: one clip, described in the field's own words.

A `VideoRequest` is a frozen value. It says what the caller wants, never how a generator does it, and it does not
hold the output path (the same request may be rendered twice). It checks only what is wrong for every generator;
what a certain generator can do is checked by its backend's ``plan``.

    >>> request = VideoRequest(prompt="slow push in", image=Path("cat.jpg"), seconds=5.0)
    >>> request.task
    'i2v'
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from .errors import InvalidInputError, all_of

Task = Literal["t2v", "i2v", "flf2v"]
Fit = Literal["cover", "contain", "stretch"]
Codec = Literal["h264", "av1"]

SCHEMA = 1
# One argv string may hold 131,071 bytes on Linux (MAX_ARG_STRLEN); text encoders read 512 tokens at most, so a
# prompt anywhere near the limit is a mistake (a file given in place of its text, say).
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
    """``1280x720``, ``1280*720`` or ``1280×720`` as a `Size`.

    Raises:
        InvalidInputError: the text is not of that form, or a side is 0.
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
        source: Where the user's picture lies.
        size: Pixels of the private PNG.
        source_size: Pixels of the user's picture as it is seen (after EXIF rotation).
        sha256: Of the user's file, as bytes.
        notes: What was normalised or cropped, for people.
    """

    path: Path
    source: Path
    size: Size
    source_size: Size
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """One clip to make. ``None`` means "the generator's default".

    Attributes:
        prompt: What should be seen, as text (UTF-8, no NUL, at most 100,000 bytes).
        image: First picture; ``None`` asks for text-to-video.
        last_image: Last picture, for first-last-frame-to-video.
        depth_image: Depth picture (bright is near) for the draft generator's parallax.
        generator: A generator's name, or ``auto``.
        size: Wanted size in pixels; generators may derive the real one from area and aspect (see the plan).
        num_frames: Number of frames; excludes ``seconds``.
        seconds: Length in seconds; the plan turns it into frames the generator can make.
        fps: Frames per second, where the generator has a choice.
        steps: Number of sampling steps.
        guidance_scale: Classifier-free guidance scale.
        flow_shift: Shift of the flow-matching schedule.
        seed: Random seed; ``None`` lets the plan draw one, which is then recorded.
        negative_prompt: What should not be seen, where the generator has it.
        camera: Camera move for the draft generator, such as ``push_in`` or ``pan_left slow``.
        fit: How a picture of another aspect is brought to the size: crop (``cover``), pad (``contain``) or distort
            (``stretch``); ``None`` is the generator's own rule (Wan2.1 keeps the picture's aspect, the draft crops).
        anchor: Which part survives a crop: ``center``, ``top``, ``bottom``, ``left``, ``right`` or ``x,y`` in 0..1.
        strict_input: Refuse a picture that would need normalising instead of warning.
        codec: ``h264`` or ``av1``, where we encode ourselves.
        label: Whether the draft generator writes its corner label.

    ``anchor``, ``strict_input``, ``codec`` and ``label`` are settings too: what is given here wins, whatever its value.
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
        found = _mistakes(self)
        if found:
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
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        for key in _PICTURES:
            values[key] = Path(values[key]) if values.get(key) else None
        values["size"] = parse_size(values["size"]) if values.get("size") else None
        return cls(**values)


def read_request(**values: Any) -> tuple[VideoRequest, tuple[InvalidInputError, ...]]:
    """A request from what people write (a size and paths as text), and every mistake in it.

    What is mistaken is left out of the request, or replaced by something harmless, so that everything else that is
    wrong can be found too. Do not carry out a request with mistakes.

        >>> request, mistakes = read_request(prompt="", size="big", steps=0)
        >>> [error.message for error in mistakes]
        ["'big' is not a size", 'the prompt is empty', 'steps must be above 0, not 0']
    """
    mistakes: list[InvalidInputError] = list(_unknown_options(values))
    values = {name: value for name, value in values.items() if name in VideoRequest.__dataclass_fields__}
    size = values.get("size")
    if isinstance(size, str):
        try:
            values["size"] = parse_size(size)
        except InvalidInputError as error:
            mistakes.append(error)
            values["size"] = None
    found = _mistakes(_Asked(values))
    mistakes += [error for errors in found.values() for error in errors]
    fine = {name: value for name, value in values.items() if name not in found}
    if "image" in found:
        fine.pop("last_image", None)
    return VideoRequest(**{"prompt": "(no usable prompt)", **fine}), tuple(mistakes)


def _unknown_options(values: Mapping[str, Any]) -> Iterator[InvalidInputError]:
    known = sorted(VideoRequest.__dataclass_fields__)
    for name in sorted(set(values) - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        fix = f"Did you mean {near[0]}?" if near else f"Known options: {', '.join(known)}."
        yield InvalidInputError(f"there is no option {name!r}", advice=fix)


@dataclass(frozen=True)
class _Asked:
    """Fields of a request that does not exist yet; what was not given is ``None``."""

    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.values.get(name)


def _mistakes(asked: Any) -> dict[str, list[InvalidInputError]]:
    """Everything that is wrong with a request for every generator, by the field to leave out."""
    found: dict[str, list[InvalidInputError]] = {}
    for name, test in _TESTS:
        try:
            test(name, getattr(asked, name))
        except InvalidInputError as error:
            found.setdefault(name, []).append(error)
    if asked.num_frames is not None and asked.seconds is not None:
        both = InvalidInputError("both frames and seconds were given", advice="Give only one of the two.")
        found.setdefault("seconds", []).append(both)
    if asked.last_image is not None and asked.image is None:
        fix = "Give the first picture too, or leave out --last-image."
        found.setdefault("last_image", []).append(InvalidInputError("a last picture needs a first picture", advice=fix))
    return found


def check_prompt(prompt: object, *, name: str = "prompt", may_be_empty: bool = False) -> None:
    """Refuse text that could not reach a generator's process byte for byte.

    Raises:
        InvalidInputError: empty, not a string, holds NUL or a lone surrogate, or is over `MAX_PROMPT_BYTES`.
    """
    if not isinstance(prompt, str):
        raise InvalidInputError(f"the {name} must be text, not {type(prompt).__name__}")
    if not prompt.strip() and not may_be_empty:
        raise InvalidInputError(f"the {name} is empty", advice="Say what should be seen.")
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
    if text is not None:
        check_prompt(text, name="negative prompt", may_be_empty=True)


def _check_path(name: str, value: object) -> None:
    if value is not None and not isinstance(value, (str, os.PathLike)):
        text = f"{name} must be the path of a picture file, not {type(value).__module__}.{type(value).__qualname__}"
        raise InvalidInputError(
            text, advice="Save the picture first (with Pillow: picture.save('cat.png')), then give the path."
        )
    if value is not None and not os.fspath(value):
        raise InvalidInputError(f"the path of {name} is empty", advice="Give the path of a picture file.")


def _check_size(_name: str, value: Any) -> None:
    numbers = isinstance(value, (tuple, list)) and len(value) == 2 and all(type(side) is int for side in value)
    if value is not None and not (numbers and min(value) > 0):
        raise InvalidInputError(f"size must be width x height in pixels, not {value!r:.80}", advice="Write 1280x720.")


def _check_seed(name: str, value: Any) -> None:
    _check_whole(name, value)
    if value is not None and not 0 <= value <= MAX_SEED:
        raise InvalidInputError(f"seed {value} is out of range", advice=f"Use 0 to {MAX_SEED}.")


def _check_word(name: str, value: object) -> None:
    words = get_args({"fit": Fit, "codec": Codec}[name])
    if value is not None and value not in words:
        raise InvalidInputError(f"{name} must be {' or '.join(words)}, not {value!r:.80}")


def _check_flag(name: str, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise InvalidInputError(f"{name} must be true or false, not {value!r:.80}")


def _check_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidInputError(f"{name} must be text, not {value!r:.80}")


def _check_number(name: str, value: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInputError(f"{name} must be a finite number, not {value!r}")


def _check_positive(name: str, value: float | None) -> None:
    _check_number(name, value)
    if value is not None and value <= 0:
        raise InvalidInputError(f"{name} must be above 0, not {value!r}")
    if name in ("num_frames", "steps"):
        _check_whole(name, value)


def _check_not_negative(name: str, value: float | None) -> None:
    _check_number(name, value)
    if value is not None and value < 0:
        raise InvalidInputError(f"{name} must not be below 0, and it is {value!r}")


def _check_whole(name: str, value: float | None) -> None:
    _check_number(name, value)
    if value is not None and not isinstance(value, int):
        raise InvalidInputError(f"{name} must be a whole number, not {value!r}")


_TESTS: Sequence[tuple[str, Callable[[str, Any], None]]] = (
    ("prompt", _check_prompt),
    ("negative_prompt", _check_negative_prompt),
    *((name, _check_path) for name in _PICTURES),
    ("size", _check_size),
    *((name, _check_positive) for name in ("num_frames", "seconds", "fps", "steps")),
    *((name, _check_not_negative) for name in ("guidance_scale", "flow_shift")),
    ("seed", _check_seed),
    *((name, _check_word) for name in ("fit", "codec")),
    *((name, _check_flag) for name in ("strict_input", "label")),
    *((name, _check_text) for name in ("generator", "camera", "anchor")),
)
