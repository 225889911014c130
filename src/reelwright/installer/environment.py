"""Creates the framework's virtual environment, and installs the checkout's requirements in it with pip.

A note beside the environment records the installed requirements. It is written after pip has succeeded, so a killed
setup continues and a second one does nothing. Each framework has a separate environment, because their requirements
exclude each other. `sites.local.probes.interpreters` checks that the environment can import its modules.

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
from ..core.files import read_bytes, read_object, replacing
from ..sites.local.bounded_run import run_bounded
from . import SetupOrder, SetupPart
from .programs import Programs

_MAX_BYTES = 1024 * 1024
NAME = "environment"
_SHOWN_LINES = ("Collecting ", "Downloading ", "Building ", "Installing ", "Successfully ")
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def requirements(text: str, left_out: Iterable[str]) -> list[str]:
    """The lines of a requirements file, without the packages in ``left_out``."""
    skipped = {_normal(name) for name in left_out}
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#") and _normal(_name(line)) not in skipped]


def _name(line: str) -> str:
    return re.split(r"[^\w.-]", line, maxsplit=1)[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def look_at(order: SetupOrder) -> SetupPart:
    """The state of the environment, according to the setup's note."""
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
        return SetupPart(NAME, order.environment, "pip", True, note=note)
    installed = "requirements" in notes and order.interpreter.exists()
    size = 0 if installed else order.recipe.environment_bytes
    return SetupPart(NAME, order.environment, "pip", False, size, origin="estimate", note=note)


def make(order: SetupOrder, programs: Programs) -> tuple[str, ...]:
    """Create the environment, install the requirements, and return a warning for each failed optional package.

    Raises:
        BackendUnavailableError: no suitable Python was found, or venv or pip fails.
    """
    log, lines = order.state / "pip.log", _wanted(order)
    notes = _notes(order)
    if not notes.get("made") or not order.interpreter.exists():
        _refuse_foreign(order, notes)
        python = choose_python(order, programs.environ)
        _note(order, {"begun": True})
        shutil.rmtree(order.environment, ignore_errors=True)
        programs.run([python, "-I", "-m", "venv", str(order.environment)], title="making the environment", log=log)
        _note(order, {"begun": True, "made": True})
        notes = {}  # a new environment has nothing of what an earlier one had
    listed = order.state / "requirements.txt"
    listed.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    pip = [str(order.interpreter), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    more = order.recipe.multi_gpu if order.multi_gpu else ()
    argv = [*pip, *order.sources.pip_options, "--requirement", str(listed), *more]
    programs.run(argv, title="pip install", log=log, show=_SHOWN_LINES)
    warnings: list[str] = []
    extras = set(more)
    if order.flash_attention:
        try:
            flash = [*pip, *order.sources.pip_options, "--no-build-isolation", *order.recipe.flash_attention]
            programs.run(flash, title="installing flash-attn", log=log, show=_SHOWN_LINES)
            extras |= set(order.recipe.flash_attention)
        except BackendUnavailableError as error:
            warnings.append(f"{error.message}; PyTorch's own attention is used instead ({log} has the reason)")
    installed = {"requirements": _digest(lines), "extras": sorted(extras | set(notes.get("extras", ())))}
    _note(order, {"begun": True, "made": True, **installed})
    return tuple(warnings)


def _extras(order: SetupOrder) -> tuple[str, ...]:
    flash = order.recipe.flash_attention if order.flash_attention else ()
    return (*(order.recipe.multi_gpu if order.multi_gpu else ()), *flash)


def _wanted(order: SetupOrder) -> list[str]:
    text = read_bytes(order.checkout / "requirements.txt", _MAX_BYTES).decode("utf-8", "replace")
    return requirements(text, order.recipe.left_out)


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _notes(order: SetupOrder) -> Mapping[str, Any]:
    return read_object(order.state / "environment.json", _MAX_BYTES)


def _note(order: SetupOrder, notes: Mapping[str, Any]) -> None:
    path = order.state / "environment.json"
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(notes), "utf-8")


def _refuse_foreign(order: SetupOrder, notes: Mapping[str, Any]) -> None:
    """Refuse to replace an environment that `reel setup` did not begin."""
    if not notes.get("begun") and order.environment.exists():
        raise BackendUnavailableError(
            f"{order.environment} exists and was not made by `reel setup`",
            failure=Failure.ENV,
            advice="Give another --dir, or move that folder away.",
        )


def choose_python(order: SetupOrder, environ: Mapping[str, str]) -> str:
    """The interpreter that creates the environment: the one of ``--python``, or the first suitable one.

    Raises:
        BackendUnavailableError: none is suitable, or the one of ``--python`` does not answer.
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
    """The version that the interpreter prints; ``None`` if it fails, like a shim for a Python that is not installed."""
    try:
        answer = run_bounded([python, "-I", "-c", _VERSION], deadline_s=30, env=environ)
    except OSError:
        return None
    return answer.output.decode("utf-8", "replace").strip() if answer.status == 0 else None
