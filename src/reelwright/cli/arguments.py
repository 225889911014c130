"""Arguments that several subcommands share, and their way into a request, settings and an order."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..preparation import Order
    from ..request import VideoRequest
    from ..settings import Settings

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    """Text without control characters, so that a prompt or a log line cannot drive the terminal (row C06)."""
    clean = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.replace("\n", "\\n"))
    return clean.encode("utf-8", "backslashreplace").decode()


def cell(value: object, style: str = "") -> Text:
    """A value as a table cell that cannot drive the terminal either."""
    from rich.text import Text

    return Text(printable(str(value)), style)


def existing(path: Path) -> Path:
    """The path of a file that is there.

    Raises:
        InvalidInputError: there is none.
    """
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist", advice="Check the path.")
    return path


def console() -> Console:
    """Standard output for tables: as wide as the terminal; in a pipe a row is one line, for grep and for copying."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 10_000
    return Console(highlight=False, width=wide)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``."""
    group = parser.add_argument_group("settings")
    group.add_argument("--config", type=Path, metavar="FILE", help="settings file (YAML)")
    group.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE", help="one setting (repeatable)"
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that describes one clip and how to make it."""
    parser.add_argument("image", metavar="IMAGE", help="first picture (JPEG, PNG or WebP); - for none (text-to-video)")
    parser.add_argument("prompt", metavar="PROMPT", help="what should be seen")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.mp4", help="where the film goes")
    clip = parser.add_argument_group("the clip")
    clip.add_argument("--last-image", type=Path, metavar="IMG", help="last picture (first-last-frame-to-video)")
    clip.add_argument("--size", metavar="WxH", help="size in pixels, such as 1280x720")
    length = clip.add_mutually_exclusive_group()
    length.add_argument("--frames", type=int, metavar="N", help="number of frames")
    length.add_argument("--seconds", type=float, metavar="S", help="length in seconds")
    clip.add_argument("--fps", type=float, metavar="N", help="frames per second, where the generator has a choice")
    clip.add_argument("--steps", type=int, metavar="N", help="sampling steps")
    clip.add_argument("--guidance", type=float, metavar="X", help="guidance scale")
    clip.add_argument("--shift", type=float, metavar="X", help="flow shift")
    clip.add_argument("--seed", type=int, metavar="N", help="random seed; drawn and recorded if not given")
    clip.add_argument("--negative-prompt", metavar="TEXT", help="what should not be seen, where supported")
    _add_picture_arguments(parser)
    _add_run_arguments(parser)
    add_config_arguments(parser)
    add_json_argument(parser)


def _add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    picture = parser.add_argument_group("pictures and drafts")
    picture.add_argument("--fit", choices=("cover", "contain", "stretch"), help="crop, pad or distort to the size")
    picture.add_argument("--anchor", default="center", metavar="WHERE", help="center, top, ... or x,y (0..1)")
    picture.add_argument("--strict-input", action="store_true", help="refuse pictures that need normalising")
    picture.add_argument("--camera", metavar="MOVE", help="draft: camera move, such as 'pan_left slow'")
    picture.add_argument("--depth", type=Path, metavar="IMG", help="draft: depth picture for parallax (bright is near)")
    picture.add_argument("--no-label", action="store_true", help="draft: no corner label")
    picture.add_argument("--codec", choices=("h264", "av1"), help="draft: video codec")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("the run")
    how.add_argument("--generator", default="auto", metavar="NAME", help="generator; see `reel generators`")
    how.add_argument("--gpus", metavar="N|LIST", help="how many GPUs, or which (0,1)")
    how.add_argument("--simulate-gpus", metavar="8x80GiB", help="plan for GPUs that are not there")
    how.add_argument("--overwrite", action="store_true", help="replace an existing film")
    how.add_argument("--if-exists", choices=("error", "overwrite", "skip", "rename"), help="if the film exists")
    how.add_argument("--strict-quality", action="store_true", help="never lower quality to succeed")
    how.add_argument("--allow-degrade", metavar="frames,size", help="what a retry may lower")
    how.add_argument("--verify-model", action="store_true", help="check the hashes of the weights first")


def request_from(arguments: argparse.Namespace) -> VideoRequest:
    """The request that the arguments describe.

    Raises:
        InvalidInputError: a value that no generator can use.
    """
    from ..request import VideoRequest, parse_size

    return VideoRequest(
        prompt=arguments.prompt,
        image=None if arguments.image == "-" else Path(arguments.image),
        last_image=arguments.last_image,
        depth_image=arguments.depth,
        generator=arguments.generator,
        size=parse_size(arguments.size) if arguments.size else None,
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
        strict_input=arguments.strict_input,
        codec=arguments.codec or "h264",
        label=not arguments.no_label,
    )


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Defaults, file, environment and arguments as one value.

    Raises:
        ConfigurationError: see `settings.load_settings`.
    """
    from ..settings import load_settings, parse_assignment

    values: dict[str, Any] = dict(parse_assignment(text) for text in arguments.assignments)
    values.update(_run_values(arguments))
    return load_settings(arguments.config, environ=os.environ, arguments=values)


def _run_values(arguments: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in ("if_exists", "simulate_gpus"):
        if getattr(arguments, name, None):
            values[name] = getattr(arguments, name)
    for name in ("strict_quality", "verify_model"):
        if getattr(arguments, name, False):
            values[name] = True
    if getattr(arguments, "overwrite", False):
        values["if_exists"] = "overwrite"
    if getattr(arguments, "allow_degrade", None):
        values["allow_degrade"] = [part.strip() for part in arguments.allow_degrade.split(",")]
    if getattr(arguments, "gpus", None):
        values.update(parse_gpus(arguments.gpus))
    return values


def parse_gpus(text: str) -> dict[str, Any]:
    """``4`` is a count, ``0,1`` and ``2,`` are a list of indices.

    Raises:
        InvalidInputError: neither.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise InvalidInputError(
            f"--gpus {text!r} is neither a count nor a list", advice="Write 2, or 0,1 for two cards."
        )
    return {"gpus": numbers} if "," in text else {"gpu_count": numbers[0]}


def order_from(arguments: argparse.Namespace) -> Order:
    """The whole order; without ``-o`` the film is named after the picture (and ``.draft.mp4`` for a draft)."""
    from ..preparation import Order

    request, settings = request_from(arguments), settings_from(arguments)
    output = arguments.output or default_output(request, settings)
    return Order(request, settings, output)


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
