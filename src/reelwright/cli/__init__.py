"""Implements the command ``reel``: turns arguments into a call, and the outcome into text and an exit status.

Each command is a module of this package with ``add_arguments(parser)``, ``run(arguments) -> int`` and, if it checks
more than its settings, ``check(arguments)``. Heavy imports are inside ``run``, so that ``reel --help`` answers at once.
Only this module turns errors into one message with advice (or one JSON object with ``--json``) and the exit status of
their class.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from .._version import __version__
from ..core.errors import Cancelled, Failure, StateError, VideoGenerationError, all_of
from ..core.files import system_error
from .arguments import add_json_argument, settings_from
from .output import note, print_error, print_json
from .parser import Parser
from .streams import forgiving, prepare

#: The help text of every command, by its module.
COMMANDS = {
    "generate": "make one clip from a picture and a prompt",
    "plan": "show what would run, without running it",
    "film": "make a film from a storyboard; continues where it stopped",
    "storyboard": "write, check or describe a storyboard",
    "generators": "list the generators and what they can do here",
    "doctor": "check this machine and configuration, and say what to fix",
    "config": "show every effective setting and where it comes from",
    "probe": "verify any video and describe it",
    "show": "show how a clip or film was made",
    "replay": "make a clip or film again from its manifest",
    "contact_sheet": "make one picture of evenly spaced frames",
    "setup": "fetch a framework, its interpreter and weights; can be resumed",
    "completion": "print a script that completes reel's words in your shell",
    "help": "list the commands, or explain one",
}
#: Commands that do more than print: a failing output stream does not stop their work.
WORKING = frozenset({"generate", "film", "replay", "setup"})
_BY_SIGNAL = 128  # a higher exit status means the end by a signal


def build_parser() -> Parser:
    """The parser of the complete command line; it imports no heavy module."""
    parser = Parser(
        prog="reel",
        description="Make video on your own GPUs: planned, checked, watched, verified, reproducible.",
        epilog="Start with: reel generate photo.jpg 'slow push in' -o clip.mp4",
    )
    parser.add_argument("-v", "-V", "--version", action="version", version=f"reel {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, meaning in COMMANDS.items():
        module = importlib.import_module(f".{name}", __name__)
        command = subparsers.add_parser(name.replace("_", "-"), help=meaning)
        if name != "storyboard":  # its actions have their own
            add_json_argument(command)
        module.add_arguments(command)
        command.set_defaults(run=module.run, check=getattr(module, "check", settings_from))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``reel`` and return its exit status."""
    prepare()
    warnings.showwarning = _show_warning
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    arguments, mistakes = parser.read(words)
    if arguments.command is None and not mistakes:
        parser.print_help()
        return 0
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see `__main__`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    as_json = bool(getattr(arguments, "json", False)) or "--json" in words
    if arguments.command not in WORKING:
        return _run(arguments, mistakes, as_json=as_json)
    with forgiving() as patience:
        status = _run(arguments, mistakes, as_json=as_json)
        patience.seconds = 1.0 if status > _BY_SIGNAL else None
    return status


def _run(arguments: argparse.Namespace, mistakes: Sequence[VideoGenerationError], *, as_json: bool) -> int:
    try:
        if mistakes:
            raise all_of([*mistakes, *_further(arguments)])
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except VideoGenerationError as error:
        return _report(error, as_json=as_json)
    except BrokenPipeError:
        _silence_stdout()  # the reader is gone
        return 141
    except KeyboardInterrupt:
        return _report(Cancelled(), as_json=as_json)
    except Exception as error:
        if os.environ.get("REELWRIGHT_TRACEBACK"):
            raise
        return _report(system_error(error) or _bug(error), as_json=as_json)
    return status


def _further(arguments: argparse.Namespace) -> list[VideoGenerationError]:
    """Other mistakes in the words that were understood: the command's ``check`` reads them and runs nothing."""
    try:
        if hasattr(arguments, "assignments"):
            arguments.check(arguments)
    except VideoGenerationError as error:
        return [error]
    return []


def _show_warning(message: Warning | str, category: type[Warning], *_where: Any, **_more: Any) -> None:
    """Print a warning of Python or of a library as one line; its text may come from a file."""
    note(f"warning: {message} ({category.__name__})")


def _bug(error: Exception) -> StateError:
    return StateError(
        f"this is a bug in Reelwright: {type(error).__name__}: {error}",
        failure=Failure.INTERNAL,
        advice="Run it again with REELWRIGHT_TRACEBACK=1 and report what it prints.",
    )


def _report(error: VideoGenerationError, *, as_json: bool) -> int:
    if as_json:
        try:
            print_json(error.to_json())
            return error.exit_status
        except OSError:  # standard output itself cannot be written
            _silence_stdout()
    print_error(error, "reel: ")
    return error.exit_status


def _silence_stdout() -> None:
    """Discard the text that Python still holds for standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
