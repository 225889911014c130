"""A parser whose usage errors name what was probably meant, and are JSON where JSON was asked for."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_CHOICE = re.compile(r"invalid choice: '?(?P<word>.*?)'? \(choose from (?P<choices>.*)\)", re.DOTALL)
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<words>.*)", re.DOTALL)
USAGE_STATUS = 2


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` for people who mistype; subcommands get the same class.

    Attributes:
        words: The command line, to know which subcommand's options could have been meant.
    """

    words: Sequence[str] = ()

    _apart = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Take files and options in any order: ``reel film gc --yes FOLDER`` as well as ``gc FOLDER --yes``."""
        if self._apart or subcommands(self) or "--" in (args or ()):
            return super().parse_known_args(args, namespace)
        self._apart = True  # the call below parses options and files apart, each with this method
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._apart = False

    def error(self, message: str) -> NoReturn:
        """Print the error with what was probably meant, as JSON after ``--json``, and exit with status 2."""
        fix = self._fix(message)
        message = _CHOICE.sub(lambda match: f"there is no {match['word']!r}", message)
        words = Parser.words or sys.argv[1:]
        if "--json" in words:
            print(json.dumps({"code": "USAGE", "message": message, "evidence": [], "advice": fix}), flush=True)
        else:
            self.print_usage(sys.stderr)
            sys.stderr.write(f"{self.prog}: error: {message}\n" + (f"  fix: {fix}\n" if fix else ""))
        self.exit(USAGE_STATUS)

    def _fix(self, message: str) -> str:
        choice, unknown = _CHOICE.search(message), _UNKNOWN.search(message)
        if choice:
            known = [word.strip(" '") for word in choice["choices"].split(",")]
            every = f"There are: {', '.join(known)}."
            return " ".join(part for part in (_meant([choice["word"]], known), every) if part)
        if unknown:
            options = [word.partition("=")[0] for word in unknown["words"].split() if word.startswith("-")]
            near = _meant(options, _options(self.at(Parser.words)))
            return near or f"`{self.at(Parser.words).prog} --help` lists every option."
        return f"`{self.prog} --help` shows how it is used."

    def at(self, words: Iterable[str]) -> argparse.ArgumentParser:
        """The parser of the subcommand that the words name, or this one."""
        parser: argparse.ArgumentParser = self
        for word in words:
            below = subcommands(parser)
            if word in below:
                parser = below[word]
        return parser


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's subcommands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def _meant(words: Iterable[str], known: Sequence[str]) -> str:
    near = [match for word in words for match in difflib.get_close_matches(word, known, n=1)]
    return f"Did you mean {' '.join(near)}?" if near else ""
