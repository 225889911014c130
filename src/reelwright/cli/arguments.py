"""Declares the options that several commands share, and turns them into a request, settings and an order.

The request's options come from `core.request.FIELDS`. Options that override settings are in `_SETTINGS`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import Failure, InvalidInputError, VideoGenerationError, all_of
from ..core.files import unusable

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..core.request import VideoRequest
    from ..runs.order import Order

#: Options that override a setting, by their name in a namespace.
_SETTINGS: dict[str, dict[str, Any]] = {
    "generator": {"metavar": "NAME", "help": "generator; see `reel generators`"},
    "gpus": {"metavar": "N|LIST", "help": "how many GPUs, or which (0,1)"},
    "simulate_gpus": {"metavar": "8x80GiB", "help": "plan for imagined GPUs (2xRTX4090, ...)"},
    "simulate_memory": {"metavar": "64GiB", "help": "plan for imagined host memory"},
    "overwrite": {"action": "store_true", "help": "replace files that exist"},
    "if_exists": {"choices": ("error", "overwrite", "skip", "rename"), "help": "what to do if the video exists"},
    "strict_quality": {"action": "store_true", "help": "never lower quality to succeed"},
    "allow_degrade": {"metavar": "frames,size", "help": "what a retry may lower"},
    "verify_model": {"action": "store_true", "help": "check the hashes of the weights first"},
    "parallel": {"type": int, "metavar": "N", "help": "clips made at the same time (parallel_segments)"},
}


# ------------------------------------------------------------------------------------------------------------ options


def add_setting_options(parser: argparse._ActionsContainer, *names: str) -> None:
    """Add some of the options that override settings."""
    for name in names:
        parser.add_argument(f"--{name.replace('_', '-')}", **_SETTINGS[name])


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--set``."""
    group = parser.add_argument_group("settings")
    group.add_argument("--config", type=Path, metavar="FILE", help="settings file (YAML)")
    group.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE", help="one setting (repeatable)"
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all options that describe one clip and how to make it."""
    from ..core.request import FIELDS

    parser.add_argument(
        "image", metavar="IMAGE", help="first picture (JPEG, PNG, WebP, HEIC, AVIF, ...); - for none (text-to-video)"
    )
    parser.add_argument("prompt", type=_text, metavar="PROMPT", help="what the video should show")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.mp4", help="the video file to write")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, field in FIELDS.items():
        if not field.option:
            continue
        group = groups.get(field.group) or groups.setdefault(field.group, parser.add_argument_group(field.group))
        flag, _, value = field.option.partition(" ")
        how: dict[str, Any] = {"metavar": value, "type": {"number": _number, "text": _text, "path": str}[field.kind]}
        if field.choices:
            how = {"choices": field.choices}
        elif not value:
            how = {"action": "store_const", "const": field.sets}
        group.add_argument(flag, dest=name, help=field.help, **how)
    run = ("generator", "gpus", "simulate_gpus", "simulate_memory", "overwrite", "if_exists", "strict_quality")
    add_setting_options(parser.add_argument_group("the run"), *run, "allow_degrade", "verify_model")
    add_config_arguments(parser)


def _text(word: str) -> str:
    """The text as the user typed it, even in a locale that knows only ASCII."""
    with contextlib.suppress(UnicodeError):
        return os.fsencode(word).decode("utf-8")
    return word


def _number(text: str) -> Any:
    """An integer, a float, or the unchanged text, which the request refuses together with its other mistakes."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def existing(path: Path) -> Path:
    """The path of a file that can be read.

    Raises:
        InvalidInputError: the file does not exist, or is a folder, a pipe or a device.
        BackendUnavailableError: PERM, this user may not read it.
    """
    if (error := unusable(path)) is not None:
        raise error
    return path


# ----------------------------------------------------------------------------------------------------------- settings


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The settings from defaults, file, environment and arguments.

    Raises:
        ConfigurationError: see `config.settings.load_settings`.
    """
    settings, mistakes = read_settings_from(arguments)
    if mistakes:
        raise all_of(mistakes)
    return settings


def read_settings_from(arguments: argparse.Namespace) -> tuple[Settings, list[VideoGenerationError]]:
    """The settings that can be read, and every mistake in them."""
    from ..backends.settings import parse_assignment, read_settings

    values: dict[str, Any] = {}
    mistakes: list[VideoGenerationError] = []
    for text in arguments.assignments:
        try:
            key, value = parse_assignment(text)
            values[key] = value
        except VideoGenerationError as error:
            mistakes.append(error)
    try:
        chosen = _option_values(arguments)
    except VideoGenerationError as error:
        mistakes.append(error)
        chosen = {}
    for key in sorted(chosen.keys() & values.keys()):
        if chosen[key] != values[key]:
            message = f"--set {key}={values[key]} contradicts an option for the same setting"
            mistakes.append(InvalidInputError(message, advice="Keep one of the two."))
    words = {"gpu_count": "gpus", "parallel_segments": "parallel"}
    names = dict.fromkeys(values, "--set") | {key: f"--{words.get(key, key).replace('_', '-')}" for key in chosen}
    given = {**values, **chosen}
    settings, found = read_settings(arguments.config, environ=os.environ, arguments=given, options=names)
    return settings, [*mistakes, *found]


def _option_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options in `_SETTINGS` set."""
    given = {name: getattr(arguments, name, None) for name in _SETTINGS}
    values = {name: value for name, value in given.items() if value is not None and value is not False}
    if values.pop("overwrite", False):
        if values.get("if_exists", "overwrite") != "overwrite":
            message = f"--overwrite and --if-exists {values['if_exists']} exclude each other"
            raise InvalidInputError(message, advice="Give only one of the two.")
        values["if_exists"] = "overwrite"
    if "allow_degrade" in values:
        values["allow_degrade"] = [part.strip() for part in values["allow_degrade"].split(",")]
    if "parallel" in values:
        values["parallel_segments"] = values.pop("parallel")
    if "gpus" in values:
        values.update(parse_gpus(values.pop("gpus")))
    return values


def parse_gpus(text: str) -> dict[str, Any]:
    """The settings for a value of ``--gpus``: ``4`` is a count, ``0,1`` and ``2,`` are lists of indices.

    Raises:
        InvalidInputError: the value is neither; each mistake has its own advice.
    """
    words = [part.strip() for part in text.split(",") if part.strip()]
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise InvalidInputError(
            f"--gpus {text!r} is neither a count nor a list", advice=_gpus_advice(text.strip(), words)
        )
    numbers = [int(word) for word in words]
    if "," not in text and numbers == [0]:
        advice = "Write --gpus 0, (with a comma) for the card with index 0, or --gpus 1 for one card."
        raise InvalidInputError("--gpus 0 asks for no GPU at all: a number alone is a count", advice=advice)
    if len(set(numbers)) < len(numbers):
        once = ",".join(map(str, dict.fromkeys(numbers))) + ("," if len(set(numbers)) == 1 else "")
        raise InvalidInputError(f"--gpus {text!r} names a GPU twice", advice=f"Write --gpus {once}")
    return {"gpus": numbers} if "," in text else {"gpu_count": numbers[0]}


def _gpus_advice(text: str, words: list[str]) -> str:
    """Advice with the value that was probably meant."""
    if match := re.fullmatch(r"(\d{1,3})\s*-\s*(\d{1,3})", text):
        first, last = sorted((int(match[1]), int(match[2])))
        return f"Write each index: --gpus {','.join(map(str, range(first, last + 1)))}"
    if re.fullmatch(r"\d+(\s+\d+)+", text):
        return f"Write commas: --gpus {','.join(text.split())}"
    if re.fullmatch(r"-\d+", text) or text.lower() in ("none", "no", "cpu"):
        return "Use --generator draft to work without a GPU; --gpus is a count from 1, or a list such as 0,1."
    if text.lower() in ("all", "auto"):
        return "Leave out --gpus: the fastest set of GPUs that fits is then chosen."
    if any(word.upper().startswith(("GPU-", "MIG-")) for word in words):
        return "Write the indices that `reel doctor` shows, such as 0,1; UUIDs go into CUDA_VISIBLE_DEVICES."
    return "Write 2 for two cards, or 0,1 for the cards with these indices; 0, (with a comma) is the first card alone."


def order_from(arguments: argparse.Namespace) -> Order:
    """The order for one clip; without ``-o`` the clip is named after the picture, with ``.draft.mp4`` for a draft.

    Raises:
        VideoGenerationError: the request or a setting cannot be used; ``also`` holds every other mistake, including
            those of the output, the pictures and the plan.
    """
    order, wrong, misread = _read_order(arguments)
    if order is None or wrong or misread:
        raise all_of([*wrong, *misread, *_of_the_plan(arguments, order, misread)])
    return order


def check_order(arguments: argparse.Namespace) -> None:
    """Find all mistakes of an order from a command line with some unknown words.

    Raises:
        VideoGenerationError: as `order_from`; the plan is checked only if both picture and prompt were given.
    """
    if found := _of_the_plan(arguments, order_from(arguments), ()):
        raise all_of(found)


def _of_the_plan(
    arguments: argparse.Namespace, order: Order | None, misread: Sequence[VideoGenerationError]
) -> list[VideoGenerationError]:
    from ..runs.prepare import Preparer
    from ..sites.local.site import LocalSite

    if order is None or arguments.prompt is None or (order.request.image is None and arguments.image != "-"):
        return []  # the plan would belong to another request
    # An unreadable setting appears in the plan as missing, which is not a second mistake.
    caused = (Failure.CONFIG, Failure.ENV, Failure.MODEL) if misread else ()
    return [error for error in Preparer(LocalSite()).mistakes(order) if error.failure not in caused]


def _read_order(
    arguments: argparse.Namespace,
) -> tuple[Order | None, Sequence[VideoGenerationError], Sequence[VideoGenerationError]]:
    """The order if it can be read, the mistakes of its request, and those of its settings."""
    from ..core.request import FIELDS, read_request
    from ..runs.order import Order

    values = {name: getattr(arguments, name) for name, field in FIELDS.items() if field.option}
    values["size"] = values["size"] or None
    if arguments.image is None:
        values["last_image"] = None  # a missing word is not a second mistake
    request, wrong = read_request(
        **values,
        prompt="(no prompt)" if arguments.prompt is None else arguments.prompt,
        image=None if arguments.image == "-" else arguments.image,
        generator=arguments.generator or "auto",
    )
    settings, misread = read_settings_from(arguments)
    try:
        return Order(request, settings, arguments.output or default_output(request, settings)), wrong, misread
    except VideoGenerationError as error:
        return None, wrong, [*misread, error]


def default_output(request: VideoRequest, settings: Settings) -> Path:
    """The default path of a clip: ``cat.mp4`` for ``cat.jpg``, or ``cat.draft.mp4`` from the draft generator."""
    from .. import backends

    generator = request.generator if request.generator != "auto" else settings.generator
    backend = backends.candidates(generator, settings)[0]
    stem = request.image.stem if request.image else "film"
    name = f"{stem}.mp4" if backend.generative else f"{stem}.draft.mp4"
    return (settings.output_dir or Path()) / name
