"""Parses a command line, finds every mistake in it, and says what was probably meant.

`Parser.read` returns the understood part with the mistakes, so that mistakes of the request can be reported together
with them. A refused word is left out, and a misspelt option is read as the one that was probably meant.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from ..core.errors import InvalidInputError, guess, nearest

USAGE_STATUS = 2
_CHOICE = re.compile(r"invalid choice: '?(?P<word>.*?)'? \(choose from (?P<choices>.*)\)", re.DOTALL)
_KINDS = {"int": "a whole number", "float": "a number"}
#: Options of ``reel``, and their names in the frameworks' scripts and other tools.
_ELSEWHERE = {
    "--frames": "num-frames frame-num video-length",
    "--seconds": "length duration",
    "--steps": "sample-steps infer-steps num-inference-steps",
    "--guidance": "guidance-scale sample-guide-scale cfg cfg-scale",
    "--shift": "sample-shift flow-shift",
    "--seed": "base-seed",
    "--size": "width height video-size resolution",
    "--generator": "model backend",
    "--output": "save-file save-path out",
    "--overwrite": "force",
}
_OURS = {word: option for option, words in _ELSEWHERE.items() for word in words.split()}


class UsageError(InvalidInputError):
    """A word of the command line is unknown or missing."""

    @property
    def code(self) -> str:
        """The code ``USAGE``."""
        return "USAGE"

    @property
    def exit_status(self) -> int:
        """The exit status 2, the usual one for usage errors."""
        return USAGE_STATUS


class _Stop(Exception):
    """Raised when argparse cannot go on, with argparse's message."""


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that collects mistakes; subcommands get the same class."""

    #: Mistakes found so far by this parser and those of its subcommands.
    found: ClassVar[list[UsageError]] = []
    words: ClassVar[Sequence[str]] = ()

    def read(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[UsageError]]:
        """The words as a namespace, and every mistake in them. With mistakes the namespace may lack any name."""
        return _Reading(self, list(words)).read()

    _apart = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse files and options in any order: ``reel film gc --yes FOLDER`` as well as ``gc FOLDER --yes``."""
        if self._apart or subcommands(self) or "--" in (args or ()):
            return super().parse_known_args(args, namespace)
        self._apart = True  # the call below parses options and files separately, each with this method
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._apart = False

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse goes on where words are missing
        """Note missing words; stop at any other mistake."""
        if not message.startswith("the following arguments are required: "):
            raise _Stop(message)
        names = message.partition(": ")[2].split(", ")
        those = [action for action in self._actions if _name(action) in names]
        needed = [action for action in self._actions if not action.option_strings and action.nargs not in ("?", "*")]
        words = " ".join([self.prog, *map(_name, needed)])
        helps = [f"{_name(action)}: {action.help}." for action in those if action.help]
        fix = " ".join([f"Write `{words}`.", *helps, f"`{self.prog} --help` explains it."])
        options = (
            action.option_strings[-1] for action in self._actions if action.option_strings and action.nargs == "+"
        )
        greedy = [option for option in options if option in Parser.words]
        fix += "".join(f" Write it before {option}, which takes every word after it." for option in greedy)
        Parser.found.append(
            UsageError(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing", advice=fix)
        )

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError:
            option = _name(action)
            value = "|".join(map(str, action.choices)) if action.choices else str(action.metavar or "VALUE")
            fix = f"Write {option} {value}; {option}=VALUE for a value that begins with a dash."
            Parser.found.append(UsageError(f"{option} needs a value", advice=fix))
            return 0

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if isinstance(action, argparse._SubParsersAction):
            return super()._get_values(action, arg_strings)
        if action.option_strings and not arg_strings and action.nargs in (None, "+"):
            return argparse.SUPPRESS  # its value is missing, which is noted already
        try:
            return super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            Parser.found.append(_refused(_name(action), error.message))
            return argparse.SUPPRESS

    def at(self, words: Iterable[str]) -> argparse.ArgumentParser:
        """The parser of the subcommand that the words name, or this one."""
        parser: argparse.ArgumentParser = self
        for word in words:
            below = subcommands(parser)
            if word in below:
                parser = below[word]
        return parser


class _Reading:
    """Reads one command line again and again without the refused words, until argparse understands the rest."""

    def __init__(self, parser: Parser, words: list[str]) -> None:
        self._parser, self._words = parser, words
        self._mistakes: list[UsageError] = []
        self._values: list[int] = []  # positions that may hold values of removed options

    def read(self) -> tuple[argparse.Namespace, list[UsageError]]:
        while True:
            Parser.found, Parser.words = [], self._words
            try:
                namespace, extra = self._parser.parse_known_args(self._words)
            except _Stop as stop:
                if not self._went_on(str(stop)):
                    return argparse.Namespace(command=None), [*self._mistakes, *Parser.found]
                continue
            strange = next((word for word in extra if _is_option(word)), None)
            if strange is not None:
                self._take_out(self._words.index(strange), _unknown)
            elif extra and self._values:
                del self._words[self._values.pop()]
            else:
                if extra:
                    self._refuse(extra)
                return namespace, [*self._mistakes, *Parser.found]

    def _went_on(self, message: str) -> bool:
        """Note the mistake that stopped argparse, and remove it; false if the rest cannot be read without it."""
        if ambiguous := re.match(r"ambiguous option: (\S+) could match (.*)", message):
            places = [
                i for i, word in enumerate(self._words) if word.partition("=")[0] == ambiguous[1].partition("=")[0]
            ]
            if places:
                text, fix = f"{ambiguous[1]} is short for several options", f"Write one of them: {ambiguous[2]}."
                self._take_out(places[0], lambda *_: (text, fix, ""))
                return True
        if ignored := re.match(r"argument (\S+): ignored explicit argument (.*)", message):
            names = ignored[1].split("/")
            for i, word in enumerate(self._words):
                if word.partition("=")[0] in names and "=" in word:
                    error = UsageError(
                        f"{names[-1]} takes no value, not {ignored[2]}", advice=f"Write {names[-1]} alone."
                    )
                    self._mistakes.append(error)
                    self._words[i] = names[-1]
                    return True
        Parser.found.append(_refused("", message.removeprefix("argument COMMAND: ").removeprefix("argument ACTION: ")))
        return False

    def _take_out(self, place: int, words_for: Any) -> None:
        """Note an unknown option; replace it by the one that was probably meant, or remove it."""
        word, equals, value = self._words[place].partition("=")
        text, fix, meant = words_for(word, self._parser.at(self._words))
        self._mistakes.append(UsageError(text, advice=fix))
        plain = place + 1 < len(self._words) and not _is_option(self._words[place + 1])
        valued = any(meant in item.option_strings and item.nargs != 0 for item in self._parser.at(self._words)._actions)
        if valued and not plain and not equals:
            meant = ""  # a guess without a value is not a second mistake
        self._words[place : place + 1] = [meant + (equals + value if valued else "")] if meant else []
        after = place + 1 if meant else place
        self._values = [at - (not meant) if at > place else at for at in self._values]
        if plain and not equals:
            self._values = sorted({*self._values, after})

    def _refuse(self, extra: list[str]) -> None:
        parser = self._parser.at(self._words)
        prompt = any(action.dest == "prompt" for action in parser._actions)
        fix = "Put the prompt into quotes, such as 'slow push in'." if prompt else _see(parser)
        which = "this word is" if len(extra) == 1 else "these words are"
        Parser.found.append(UsageError(f"{which} not expected: {' '.join(extra)}", advice=fix))


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's subcommands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _is_option(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and " " not in word and not re.fullmatch(r"-\d+|-\d*\.\d+", word)


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)


def _refused(name: str, message: str) -> UsageError:
    """The error for a value that argparse refuses."""
    if choice := _CHOICE.search(message):
        return no_such(choice["word"], [word.strip(" '") for word in choice["choices"].split(",")], name)
    if kind := re.fullmatch(r"invalid (\w+) value: (.*)", message, re.DOTALL):
        return UsageError(f"{name} must be {_KINDS.get(kind[1], kind[1])}, not {kind[2]}")
    return UsageError(f"{name}: {message}".removeprefix(": "))


def no_such(word: str, known: Sequence[str], name: str = "") -> UsageError:
    """The error for an unknown word, with the known ones."""
    return UsageError(f"{name}: there is no {word!r}".removeprefix(": "), advice=guess(word, known, "There are"))


def _unknown(word: str, parser: argparse.ArgumentParser) -> tuple[str, str, str]:
    """Message and advice for an unknown option, and the option that was probably meant."""
    known = [option for action in parser._actions for option in action.option_strings]
    text = f"{parser.prog} has no option {word}"
    meant = _OURS.get(word.lstrip("-").replace("_", "-").lower())
    meant = meant if meant in known else _near(word, known)
    if meant:
        return text, f"Did you mean {meant}?", meant
    if re.match(r"-[^-].", word):
        return text, f"Write OPTION={word} for a value that begins with a dash, and -- before such a prompt.", ""
    return text, _see(parser), ""


def _see(parser: argparse.ArgumentParser) -> str:
    return f"`{parser.prog} --help` lists every option."


def _near(word: str, known: Sequence[str]) -> str:
    """The option that was probably meant, compared without the leading dashes; empty if none is near."""
    bare = {item.lstrip("-"): item for item in known}
    return bare.get(nearest(word.lstrip("-").replace("_", "-"), bare) or "", "")
