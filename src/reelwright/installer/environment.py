"""The framework's own virtual environment: made once, filled by pip from the checkout's requirements.

What was installed is noted beside it, after pip has ended well, so that a killed setup goes on and a second one does
nothing. Each framework has its own environment, because their requirements exclude each other. Not for importing
anything of it: see `sites.local.probes.interpreters`.

    >>> requirements("torch>=2.4\\nflash_attn\\n", ("flash-attn",))
    ['torch>=2.4']
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.errors import BackendUnavailableError, Failure
from ..core.files import read_bytes, read_json
from ..sites.local.bounded_run import run_bounded
from . import Order, Part
from .programs import Programs

_MAX_BYTES = 1024 * 1024
NAME = "environment"
_TOLD = ("Collecting ", "Downloading ", "Building ", "Installing ", "Successfully ")
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def requirements(text: str, left_out: Iterable[str]) -> list[str]:
    """The lines of a requirements file that are to be installed."""
    skipped = {_normal(name) for name in left_out}
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#") and _normal(_name(line)) not in skipped]


def _name(line: str) -> str:
    return re.split(r"[^\w.-]", line, maxsplit=1)[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def look_at(order: Order) -> Part:
    """What is there, as far as our own note tells."""
    extras, notes = _extras(order), _notes(order)
    try:
        lines = _wanted(order)
    except OSError:
        lines = None  # no checkout yet
    done = (
        lines is not None
        and order.interpreter.exists()
        and notes.get("requirements") == _digest(lines)
        and set(extras) <= set(notes.get("extras", ()))
    )
    note = ("with " + ", ".join(extras)) if extras else ""
    if done:
        return Part(NAME, order.environment, "pip", True, note=note)
    size = 0 if "requirements" in notes else order.recipe.environment_bytes
    return Part(NAME, order.environment, "pip", False, size, origin="estimate", note=note)


def make(order: Order, programs: Programs) -> tuple[str, ...]:
    """Make the environment and install; returns what did not work and can be done without.

    Raises:
        BackendUnavailableError: there is no fitting Python, or venv or pip fails.
    """
    log, lines = order.state / "pip.log", _wanted(order)
    notes = _notes(order)
    if not notes.get("made") or not order.interpreter.exists():
        _refuse_foreign(order, notes)
        python = choose_python(order, programs.environ)
        _note(order, {"begun": True})
        shutil.rmtree(order.environment, ignore_errors=True)
        programs.run([python, "-I", "-m", "venv", str(order.environment)], what="making the environment", log=log)
        _note(order, {"begun": True, "made": True})
    listed = order.state / "requirements.txt"
    listed.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    pip = [str(order.interpreter), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    more = order.recipe.multi_gpu if order.multi_gpu else ()
    argv = [*pip, *order.sources.pip_options, "--requirement", str(listed), *more]
    programs.run(argv, what="pip install", log=log, tell=_TOLD)
    warnings: list[str] = []
    extras = set(more)
    if order.flash_attention:
        try:
            flash = [*pip, *order.sources.pip_options, "--no-build-isolation", *order.recipe.flash_attention]
            programs.run(flash, what="installing flash-attn", log=log, tell=_TOLD)
            extras |= set(order.recipe.flash_attention)
        except BackendUnavailableError as error:
            warnings.append(f"{error.message}; PyTorch's own attention is used instead ({log} tells why)")
    installed = {"requirements": _digest(lines), "extras": sorted(extras | set(notes.get("extras", ())))}
    _note(order, {"begun": True, "made": True, **installed})
    return tuple(warnings)


def _extras(order: Order) -> tuple[str, ...]:
    flash = order.recipe.flash_attention if order.flash_attention else ()
    return (*(order.recipe.multi_gpu if order.multi_gpu else ()), *flash)


def _wanted(order: Order) -> list[str]:
    text = read_bytes(order.checkout / "requirements.txt", _MAX_BYTES).decode("utf-8", "replace")
    return requirements(text, order.recipe.left_out)


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _notes(order: Order) -> Mapping[str, Any]:
    try:
        found = read_json(order.state / "environment.json", _MAX_BYTES)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(order: Order, notes: Mapping[str, Any]) -> None:
    path = order.state / "environment.json"
    private = path.with_suffix(".new")
    private.write_text(json.dumps(notes), "utf-8")
    private.replace(path)


def _refuse_foreign(order: Order, notes: Mapping[str, Any]) -> None:
    """An environment that we did not begin is not ours to replace."""
    if not notes.get("begun") and order.environment.exists():
        raise BackendUnavailableError(
            f"{order.environment} is there and was not made by `reel setup`",
            failure=Failure.ENV,
            advice="Give another --dir, or move that folder away.",
        )


def choose_python(order: Order, environ: Mapping[str, str]) -> str:
    """The interpreter to make the environment with: the one asked for, else the first that fits.

    Raises:
        BackendUnavailableError: none fits, or the one asked for does not answer.
    """
    if order.python is not None:
        if _version(str(order.python), environ) is None:
            raise BackendUnavailableError(
                f"--python {order.python} does not answer as a Python interpreter",
                failure=Failure.ENV,
                advice="Give the path of one, such as /usr/bin/python3.11.",
            )
        return str(order.python)
    wanted = order.recipe.pythons
    here = getattr(sys, "_base_executable", None) or sys.executable
    names = [*(f"python{version}" for version in wanted), here]
    for name in names:
        path = shutil.which(name, path=environ.get("PATH"))
        if path and _version(path, environ) in wanted:
            return path
    raise BackendUnavailableError(
        f"there is no Python {', '.join(sorted(wanted))} on the PATH, and {order.recipe.folder}'s requirements need one",
        failure=Failure.ENV,
        advice="Install one, or give its path with --python.",
    )


def _version(python: str, environ: Mapping[str, str]) -> str | None:
    """Asked, because a name on the PATH may be the shim of a version that is not installed."""
    try:
        answer = run_bounded([python, "-I", "-c", _VERSION], deadline_s=30, env=environ)
    except OSError:
        return None
    return answer.output.decode("utf-8", "replace").strip() if answer.status == 0 else None
