"""Arguments that several subcommands share, and their way into a request, settings and an order."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..core.errors import Failure, InvalidInputError, VideoGenerationError, all_of
from ..core.files import unusable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..config.settings import Settings
    from ..core.request import VideoRequest
    from ..runs.order import Order

# Control characters, and those that turn the direction of text or break its lines.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text without control characters, so that a prompt or a log line cannot drive the terminal (row C06)."""
    clean = _CONTROL.sub(_escaped, text.replace("\n", "\\n"))
    return clean.encode("utf-8", "backslashreplace").decode()


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def cell(value: object, style: str = "") -> Text:
    """A value as a table cell that cannot drive the terminal either."""
    from rich.text import Text

    return Text(printable(str(value)), style)


def existing(path: Path) -> Path:
    """The path of a file that can be read.

    Raises:
        InvalidInputError: there is none, or it is a folder, a pipe or a device.
        BackendUnavailableError: PERM, this user may not read it.
    """
    if (error := unusable(path)) is not None:
        raise error
    return path


def console() -> Console:
    """Standard output for tables: as wide as the terminal; in a pipe a row is one line, for grep and for copying."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # `main` gives it its exit status

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Piped(highlight=False, width=None if "COLUMNS" in os.environ else 10_000, file=_Unpadded(sys.stdout))


class _Unpadded(io.StringIO):
    """Writes whole lines on, without the spaces that make a table's last column as wide as its longest row."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind it, from which rich chooses its characters."""
        return self._out.encoding

    def write(self, text: str) -> int:
        """Write the lines that are complete; the rest waits for its end."""
        *lines, self._begun = (self._begun + text).split("\n")
        self._out.write("".join(f"{line.rstrip()}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind it."""
        self._out.flush()


def table(*columns: str, title: str = "") -> Table:
    """A table with lines on a terminal, and without any in a pipe, where a row may be thousands of columns wide."""
    from rich import box
    from rich.table import Table

    shape = Table(title=title or None, title_justify="left", box=box.HEAVY_HEAD if sys.stdout.isatty() else None)
    for name in columns:
        shape.add_column(name, overflow="fold")  # a path that is cut off names nothing
    return shape


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``."""
    group = parser.add_argument_group("settings")
    group.add_argument("--config", type=Path, metavar="FILE", help="settings file (YAML)")
    group.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE", help="one setting (repeatable)"
    )


def add_simulation_arguments(parser: argparse._ActionsContainer) -> None:
    """``--simulate-gpus`` and ``--simulate-memory``."""
    parser.add_argument("--simulate-gpus", metavar="8x80GiB", help="plan for GPUs that are not there (2xRTX4090, ...)")
    parser.add_argument("--simulate-memory", metavar="64GiB", help="plan for host memory that is not there")


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that describes one clip and how to make it."""
    parser.add_argument(
        "image", metavar="IMAGE", help="first picture (JPEG, PNG, WebP, HEIC, AVIF, ...); - for none (text-to-video)"
    )
    parser.add_argument("prompt", type=_text, metavar="PROMPT", help="what should be seen")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.mp4", help="where the film goes")
    clip = parser.add_argument_group("the clip")
    clip.add_argument("--last-image", metavar="IMG", help="last picture (first-last-frame-to-video)")
    clip.add_argument("--size", metavar="WxH", help="size in pixels, such as 1280x720")
    # A text that is no number is for the request to refuse, together with whatever else is wrong.
    clip.add_argument("--frames", type=_number, metavar="N", help="number of frames (or --seconds)")
    clip.add_argument("--seconds", type=_number, metavar="S", help="length in seconds")
    clip.add_argument("--fps", type=_number, metavar="N", help="frames per second, where the generator has a choice")
    clip.add_argument("--steps", type=_number, metavar="N", help="sampling steps")
    clip.add_argument("--guidance", type=_number, metavar="X", help="guidance scale")
    clip.add_argument("--shift", type=_number, metavar="X", help="flow shift")
    clip.add_argument("--seed", type=_number, metavar="N", help="random seed; drawn and recorded if not given")
    clip.add_argument("--negative-prompt", type=_text, metavar="TEXT", help="what should not be seen, where supported")
    _add_picture_arguments(parser)
    _add_run_arguments(parser)
    add_config_arguments(parser)
    add_json_argument(parser)


def _text(word: str) -> str:
    """What was typed, also where the locale says that the terminal is ASCII only."""
    with contextlib.suppress(UnicodeError):
        return os.fsencode(word).decode("utf-8")
    return word


def _number(text: str) -> Any:
    """A whole number, a number, or the text as it is."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    picture = parser.add_argument_group("pictures and drafts")
    picture.add_argument("--fit", choices=("cover", "contain", "stretch"), help="crop, pad or distort to the size")
    picture.add_argument("--anchor", metavar="WHERE", help="center, top, ... or x,y (0..1)")
    picture.add_argument("--strict-input", action="store_true", help="refuse pictures that need normalising")
    picture.add_argument("--camera", metavar="MOVE", help="draft: camera move, such as 'pan_left slow'")
    picture.add_argument("--depth", metavar="IMG", help="draft: depth picture for parallax (bright is near)")
    picture.add_argument("--no-label", action="store_true", help="draft: no corner label")
    picture.add_argument("--codec", choices=("h264", "av1"), help="video codec, where we encode")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("the run")
    how.add_argument("--generator", metavar="NAME", help="generator; see `reel generators`")
    how.add_argument("--gpus", metavar="N|LIST", help="how many GPUs, or which (0,1)")
    add_simulation_arguments(how)
    how.add_argument("--overwrite", action="store_true", help="replace an existing film")
    how.add_argument("--if-exists", choices=("error", "overwrite", "skip", "rename"), help="if the film exists")
    how.add_argument("--strict-quality", action="store_true", help="never lower quality to succeed")
    how.add_argument("--allow-degrade", metavar="frames,size", help="what a retry may lower")
    how.add_argument("--verify-model", action="store_true", help="check the hashes of the weights first")


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Defaults, file, environment and arguments as one value.

    Raises:
        ConfigurationError: see `config.settings.load_settings`.
    """
    settings, mistakes = read_settings_from(arguments)
    if mistakes:
        raise all_of(mistakes)
    return settings


def read_settings_from(arguments: argparse.Namespace) -> tuple[Settings, list[VideoGenerationError]]:
    """The settings as far as they can be read, and every mistake in them."""
    from ..config.settings import parse_assignment, read_settings

    values: dict[str, Any] = {}
    mistakes: list[VideoGenerationError] = []
    for text in arguments.assignments:
        try:
            key, value = parse_assignment(text)
            values[key] = value
        except VideoGenerationError as error:
            mistakes.append(error)
    try:
        chosen = _run_values(arguments)
    except VideoGenerationError as error:
        mistakes.append(error)
        chosen = {}
    for key in chosen.keys() & values.keys():
        if chosen[key] != values[key]:
            text = f"--set {key}={values[key]} and an option say different things of {key}"
            mistakes.append(InvalidInputError(text, advice="Keep one of the two."))
    settings, found = read_settings(arguments.config, environ=os.environ, arguments={**values, **chosen})
    return settings, [*mistakes, *found]


def _run_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings that have an option of their own."""
    given = {name: getattr(arguments, name, None) for name in _OPTIONS}
    values = {name: value for name, value in given.items() if value is not None and value is not False}
    if values.pop("overwrite", False):
        if values.get("if_exists", "overwrite") != "overwrite":
            text = f"--overwrite and --if-exists {values['if_exists']} exclude each other"
            raise InvalidInputError(text, advice="Give only one of the two.")
        values["if_exists"] = "overwrite"
    if "allow_degrade" in values:
        values["allow_degrade"] = [part.strip() for part in values["allow_degrade"].split(",")]
    if "parallel" in values:
        values["parallel_segments"] = values.pop("parallel")
    if "gpus" in values:
        values.update(parse_gpus(values.pop("gpus")))
    return values


_OPTIONS = (
    "generator",
    "if_exists",
    "simulate_gpus",
    "simulate_memory",
    "strict_quality",
    "verify_model",
    "overwrite",
    "allow_degrade",
    "gpus",
    "parallel",
)


def parse_gpus(text: str) -> dict[str, Any]:
    """``4`` is a count, ``0,1`` and ``2,`` are a list of indices.

    Raises:
        InvalidInputError: neither; each mistake has its own advice.
    """
    words = [part.strip() for part in text.split(",") if part.strip()]
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise InvalidInputError(
            f"--gpus {text!r} is neither a count nor a list", advice=_gpus_advice(text.strip(), words)
        )
    numbers = [int(word) for word in words]
    if "," not in text and numbers == [0]:
        fix = "Write --gpus 0, (with a comma) for the card with index 0, or --gpus 1 for one card."
        raise InvalidInputError("--gpus 0 asks for no GPU at all: a number alone is a count", advice=fix)
    if len(set(numbers)) < len(numbers):
        once = ",".join(map(str, dict.fromkeys(numbers))) + ("," if len(set(numbers)) == 1 else "")
        raise InvalidInputError(f"--gpus {text!r} names a GPU twice", advice=f"Write --gpus {once}")
    return {"gpus": numbers} if "," in text else {"gpu_count": numbers[0]}


def _gpus_advice(text: str, words: list[str]) -> str:
    """What was probably meant."""
    if match := re.fullmatch(r"(\d{1,3})\s*-\s*(\d{1,3})", text):
        first, last = sorted((int(match[1]), int(match[2])))
        return f"Write each index: --gpus {','.join(map(str, range(first, last + 1)))}"
    if re.fullmatch(r"\d+(\s+\d+)+", text):
        return f"Write commas: --gpus {','.join(text.split())}"
    if re.fullmatch(r"-\d+", text) or text.lower() in ("none", "no", "cpu"):
        return "Use --generator draft to make a film without a GPU; --gpus is a count from 1, or a list such as 0,1."
    if text.lower() in ("all", "auto"):
        return "Leave out --gpus: the fastest set of GPUs that fits is then chosen."
    if any(word.upper().startswith(("GPU-", "MIG-")) for word in words):
        return "Write the indices that `reel doctor` shows, such as 0,1; UUIDs go into CUDA_VISIBLE_DEVICES."
    return "Write 2 for two cards, or 0,1 for the cards with these indices; 0, (with a comma) is the first card alone."


def order_from(arguments: argparse.Namespace) -> Order:
    """The whole order; without ``-o`` the film is named after the picture (and ``.draft.mp4`` for a draft).

    Raises:
        VideoGenerationError: a request or a setting that cannot be used; ``also`` holds every other mistake, those of
            the output, the pictures and the plan too.
    """
    order, wrong, misread = _read_order(arguments)
    if order is None or wrong or misread:
        raise all_of([*wrong, *misread, *_of_the_plan(arguments, order, misread)])
    return order


def check_order(arguments: argparse.Namespace) -> None:
    """Say everything that is wrong with an order of which some words were not understood.

    Raises:
        VideoGenerationError: as `order_from`; what needs the picture and the prompt only where both are there.
    """
    order, wrong, misread = _read_order(arguments)
    if found := [*wrong, *misread, *_of_the_plan(arguments, order, misread)]:
        raise all_of(found)


def _of_the_plan(
    arguments: argparse.Namespace, order: Order | None, misread: Sequence[VideoGenerationError]
) -> list[VideoGenerationError]:
    from ..runs.prepare import Preparer
    from ..sites.local.site import LocalSite

    if order is None or arguments.prompt is None or (order.request.image is None and arguments.image != "-"):
        return []  # the plan would be one of another request
    # What is not set, or set wrongly, shows in the plan as missing: that is no mistake of its own.
    caused = (Failure.CONFIG, Failure.ENV, Failure.MODEL) if misread else ()
    return [error for error in Preparer(LocalSite()).mistakes(order) if error.failure not in caused]


def _read_order(
    arguments: argparse.Namespace,
) -> tuple[Order | None, Sequence[VideoGenerationError], Sequence[VideoGenerationError]]:
    """An order as far as it can be read, the mistakes of its request, and those of its settings."""
    from ..core.request import read_request
    from ..runs.order import Order

    request, wrong = read_request(
        prompt="(no prompt)" if arguments.prompt is None else arguments.prompt,
        image=None if arguments.image == "-" else arguments.image,
        last_image=arguments.last_image if arguments.image is not None else None,
        depth_image=arguments.depth,
        generator=arguments.generator or "auto",
        size=arguments.size or None,
        num_frames=arguments.frames,
        seconds=arguments.seconds,
        fps=arguments.fps,
        steps=arguments.steps,
        guidance_scale=arguments.guidance,
        flow_shift=arguments.shift,
        seed=arguments.seed,
        negative_prompt=arguments.negative_prompt,
        camera=arguments.camera,
        fit=arguments.fit,
        anchor=arguments.anchor,
        strict_input=arguments.strict_input or None,
        codec=arguments.codec,
        label=False if arguments.no_label else None,
    )
    settings, misread = read_settings_from(arguments)
    try:
        return Order(request, settings, arguments.output or default_output(request, settings)), wrong, misread
    except VideoGenerationError as error:
        return None, wrong, [*misread, error]


def default_output(request: VideoRequest, settings: Settings) -> Path:
    """``cat.jpg`` becomes ``cat.mp4``, or ``cat.draft.mp4`` when the draft generator makes it."""
    from .. import backends

    generator = request.generator if request.generator != "auto" else settings.generator
    backend = backends.candidates(generator, settings)[0]
    stem = request.image.stem if request.image else "film"
    name = f"{stem}.mp4" if backend.generative else f"{stem}.draft.mp4"
    return (settings.output_dir or Path()) / name


def note(text: str) -> None:
    """One line on stderr."""
    with deaf_terminal_allowed():
        print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def deaf_terminal_allowed() -> Iterator[None]:
    """A terminal that was closed meanwhile is no reason to end a run or to change its exit status."""
    try:
        yield
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # also for Python's own last flush
