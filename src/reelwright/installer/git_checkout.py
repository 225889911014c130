"""The framework's source: cloned beside its final place, and given its name when it is complete.

A checkout that is there is never changed: it may be the user's own work. Not for judging whether it fits; the backend
does that in every plan.

    >>> look_at(order)  # doctest: +SKIP
    Part(name='checkout', target=PosixPath('/opt/wan/Wan2.1'), done=False, ...)
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..core.errors import BackendUnavailableError, ConfigurationError, Failure
from ..core.files import expanded, read_bytes
from ..core.host import CheckoutQuery
from ..sites.local.probes.checkouts import look_at_checkout
from . import Order, Part
from .programs import Programs

NAME = "checkout"
LATEST = "latest"
# A server that sends less than that for a minute is as good as gone.
_PATIENCE = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60", "-c", "advice.detachedHead=false")


def source_of(order: Order) -> str:
    """The address or path that git is given.

    Raises:
        ConfigurationError: it would be taken for an option.
    """
    source = order.sources.git or order.recipe.git_source
    if source.startswith("-") or not source.strip():
        raise ConfigurationError(f"--git-source {source!r} is neither an address nor a path")
    return str(expanded(source).absolute()) if _is_there(expanded(source)) else source


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def commit_of(order: Order) -> str:
    """The commit, tag or branch to check out; ``HEAD`` for the newest.

    Raises:
        ConfigurationError: it is no name of one.
    """
    commit = order.commit or order.recipe.commit
    if commit == LATEST:
        return "HEAD"
    if not re.fullmatch(r"[0-9A-Za-z][\w./-]*", commit):
        raise ConfigurationError(f"--commit {commit!r} is no name of a commit", advice="Give its hash, or `latest`.")
    return commit


def look_at(order: Order) -> Part:
    """What is there.

    Raises:
        ConfigurationError: the place is taken by something else.
    """
    target, recipe = order.checkout, order.recipe
    source, wanted = source_of(order), commit_of(order)
    found = look_at_checkout(CheckoutQuery(target, (recipe.script,)), environ={})
    if recipe.script in found.files:
        return Part(NAME, target, source, True, note=_note(order, wanted))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"{target} is there and has no {recipe.script}: it is no checkout of {recipe.folder}",
            advice="Give another --dir, or move that folder away.",
        )
    return Part(NAME, target, source, False, recipe.checkout_bytes, origin="estimate", note=f"commit {wanted}")


def _note(order: Order, wanted: str) -> str:
    """Which commit is there, if git knows; a checkout of another one is left as it is, and that is said."""
    head = order.checkout / ".git" / "HEAD"
    try:
        commit = read_bytes(head, 4096).decode("ascii", "replace").strip()
    except OSError:
        return "not under git; left as it is"
    if commit == wanted or not re.fullmatch(r"[0-9a-f]{40}", commit):
        return f"commit {commit}" if commit == wanted else "on a branch; left as it is"
    asked = order.commit is not None and order.commit != LATEST and not commit.startswith(wanted)
    return f"commit {commit}, not {wanted}; left as it is" if asked else f"commit {commit}"


def make(order: Order, programs: Programs) -> None:
    """Clone into a private folder, check out, and move it to its place.

    Raises:
        BackendUnavailableError: git fails, or what it fetched is not the framework.
    """
    source, wanted = source_of(order), commit_of(order)
    private, log = order.state / "checkout", order.state / "git.log"
    shutil.rmtree(private, ignore_errors=True)

    def git(*words: str) -> None:
        where = () if words[0] == "init" else ("-C", str(private))
        programs.run(["git", *_PATIENCE, *where, *words], what=f"git {words[0]}", log=log)

    git("init", "--quiet", str(private))
    git("remote", "add", "origin", source)
    try:
        git("fetch", "--quiet", "--depth=1", "origin", wanted)
        git("checkout", "--quiet", "--detach", "FETCH_HEAD")
    except BackendUnavailableError:  # servers may refuse single commits, and short hashes are no names for them
        if wanted == "HEAD":
            raise
        git("fetch", "--quiet", "--tags", "origin")
        git("checkout", "--quiet", "--detach", wanted)
    if not (private / order.recipe.script).is_file():
        raise BackendUnavailableError(
            f"{source} at {wanted} has no {order.recipe.script}: it is not {order.recipe.folder}",
            failure=Failure.ENV,
            advice="Check --git-source and --commit.",
        )
    private.rename(order.checkout)
