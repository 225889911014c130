"""Implements ``reel completion``: prints a script that completes commands, options, their values and file names.

eval "$(reel completion bash)"                 # also in ~/.bashrc
eval "$(reel completion zsh)"                  # also in ~/.zshrc
reel completion fish | source                  # or into ~/.config/fish/completions/reel.fish
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from .output import print_json

SHELLS = ("bash", "zsh", "fish")
_BASH = """_reel() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command="" next
    for next in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
        case "$command/$next" in
{commands}
        esac
    done
    case "$command $before" in
{values}
    esac
    local known=""
    case "$command" in
{options}
    esac
    COMPREPLY=( $(compgen -W "$known" -- "$word") )
}}
complete -o bashdefault -o default -F _reel reel
"""
# zsh reads the script for bash; `compinit` runs only if the shell has not run it yet.
_ZSH = """autoload -Uz compinit bashcompinit
(( $+functions[compdef] )) || compinit
bashcompinit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help='bash and zsh: eval "$(reel completion bash)"')


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from . import build_parser

    parser = build_parser()
    script = _fish(parser) if arguments.shell == "fish" else _bash(parser)
    if arguments.shell == "zsh":
        script = _ZSH + script
    if arguments.json:
        print_json({"shell": arguments.shell, "script": script})
    else:
        print(script, end="")
    return 0


def _parsers(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser and the parsers of its subcommands, each with the words of its command."""
    from .parser import subcommands

    yield path, parser
    for name, below in subcommands(parser).items():
        yield from _parsers(below, f"{path} {name}".strip())


def _choices(action: argparse.Action) -> Sequence[str]:
    """The words that an option or an argument takes, without those that depend on the machine."""
    from ..backends import GENERATORS
    from . import COMMANDS

    known = {
        "--generator": ("auto", *GENERATORS),
        "generator": GENERATORS,
        "framework": ("wan2.1",),
        "storyboard": ("status", "gc") if action.metavar == "STORYBOARD" else (),
        "topic": tuple(name.replace("_", "-") for name in COMMANDS),
    }
    place = "--generator" if "--generator" in action.option_strings else action.dest
    return known.get(place) or [str(choice) for choice in action.choices or ()]


def _bash(parser: argparse.ArgumentParser) -> str:
    commands, values, options = [], [], []
    for path, below in _parsers(parser):
        if path:
            before, _, name = path.rpartition(" ")
            commands.append(f'            "{before}/{name}") command="{path}" ;;')
        words: list[str] = []
        for action in below._actions:
            words += action.option_strings or list(_choices(action))
            chosen = _choices(action)
            for option in action.option_strings:
                if chosen:
                    reply = f'COMPREPLY=( $(compgen -W "{" ".join(chosen)}" -- "$word") )'
                    values.append(f'        "{path} {option}") {reply}; return ;;')
        options.append(f'        "{path}") known="{" ".join(words)}" ;;')
    return _BASH.format(commands="\n".join(commands), values="\n".join(values), options="\n".join(options))


def _fish(parser: argparse.ArgumentParser) -> str:
    from .parser import subcommands

    lines = []
    for path, below in _parsers(parser):
        seen = [f"__fish_seen_subcommand_from {word}" for word in path.split()]
        inside = list(subcommands(below))
        here = "; and ".join([*seen, *([f"not __fish_seen_subcommand_from {' '.join(inside)}"] if inside else [])])
        start = f"complete -c reel -n {_quoted(here or 'true')}"
        for name, deeper in subcommands(below).items():
            lines.append(f"{start} -f -a {name} -d {_quoted(deeper.description or _help_of(below, name))}")
        for action in below._actions:
            if not action.option_strings and _choices(action) and not inside:
                files = "" if action.dest == "storyboard" else " -f"
                lines.append(f"{start}{files} -a {_quoted(' '.join(_choices(action)))}")
            for option in action.option_strings:
                flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
                takes = f" -x -a {_quoted(' '.join(_choices(action)))}" if _choices(action) else ""
                takes = takes or (" -r" if action.nargs != 0 else "")
                lines.append(f"{start} {flag}{takes} -d {_quoted(action.help or '')}")
    return "\n".join(lines) + "\n"


def _help_of(parser: argparse.ArgumentParser, name: str) -> str:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return next((str(item.help) for item in action._choices_actions if item.dest == name), "")
    return ""


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("%%", "%") + "'"
