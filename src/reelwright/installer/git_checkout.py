"""Clones the framework's source into a private folder, and renames the folder once it is complete.

An existing checkout is never changed, because it may be the user's own work. The backend checks in every plan whether
the checkout fits.

    >>> look_at(order)  # doctest: +SKIP
    SetupPart(name='checkout', target=PosixPath('/opt/wan/Wan2.1'), done=False, ...)
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..core.errors import BackendUnavailableError, ConfigurationError, Failure
from ..core.files import expanded, read_bytes
from ..core.host import CheckoutQuery
from ..sites.local.probes.checkouts import look_at_checkout
from . import SetupOrder, SetupPart
from .programs import Programs

NAME = "checkout"
LATEST = "latest"
# git gives up on a server that sends less than 1000 bytes a second for a minute.
_OPTIONS = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60", "-c", "advice.detachedHead=false")


def source_of(order: SetupOrder) -> str:
    """The address or path of the repository.

    Raises:
        ConfigurationError: it is empty, or git would read it as an option.
    """
    source = order.sources.git or order.recipe.git_source
    if source.startswith("-") or not source.strip():
        raise ConfigurationError(f"--git-source {source!r} is neither an address nor a path")
    return str(expanded(source).absolute()) if _exists(expanded(source)) else source


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def commit_of(order: SetupOrder) -> str:
    """The commit, tag or branch to check out; ``HEAD`` for the newest commit.

    Raises:
        ConfigurationError: it is not a valid name.
    """
    commit = order.commit or order.recipe.commit
    if commit == LATEST:
        return "HEAD"
    if not re.fullmatch(r"[0-9A-Za-z][\w./-]*", commit):
        raise ConfigurationError(
            f"--commit {commit!r} is not the name of a commit", advice="Give its hash, or `latest`."
        )
    return commit


def look_at(order: SetupOrder) -> SetupPart:
    """The state of the checkout.

    Raises:
        ConfigurationError: its folder holds something else.
    """
    target, recipe = order.checkout, order.recipe
    source, wanted = source_of(order), commit_of(order)
    found = look_at_checkout(CheckoutQuery(target, (recipe.script,)), environ={})
    if recipe.script in found.files:
        return SetupPart(NAME, target, source, True, note=_note(order, wanted))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"{target} exists and has no {recipe.script}: it is not a checkout of {recipe.folder}",
            advice="Give another --dir, or move that folder away.",
        )
    return SetupPart(NAME, target, source, False, recipe.checkout_bytes, origin="estimate", note=f"commit {wanted}")


def _note(order: SetupOrder, wanted: str) -> str:
    """A note with the commit of the checkout. A checkout of another commit stays unchanged, and the note says so."""
    head = order.checkout / ".git" / "HEAD"
    try:
        commit = read_bytes(head, 4096).decode("ascii", "replace").strip()
    except OSError:
        return "not under git; left as it is"
    if commit == wanted or not re.fullmatch(r"[0-9a-f]{40}", commit):
        return f"commit {commit}" if commit == wanted else "on a branch; left as it is"
    other = order.commit is not None and order.commit != LATEST and not commit.startswith(wanted)
    return f"commit {commit}, not {wanted}; left as it is" if other else f"commit {commit}"


def make(order: SetupOrder, programs: Programs) -> None:
    """Clone into a private folder, check out the commit, and move the folder to its final path.

    Raises:
        BackendUnavailableError: git fails, or the repository is not the framework.
    """
    source, wanted = source_of(order), commit_of(order)
    private, log = order.state / "checkout", order.state / "git.log"
    shutil.rmtree(private, ignore_errors=True)

    def git(*words: str) -> None:
        where = () if words[0] == "init" else ("-C", str(private))
        programs.run(["git", *_OPTIONS, *where, *words], title=f"git {words[0]}", log=log)

    git("init", "--quiet", str(private))
    git("remote", "add", "origin", source)
    try:
        git("fetch", "--quiet", "--depth=1", "origin", wanted)
        git("checkout", "--quiet", "--detach", "FETCH_HEAD")
    except BackendUnavailableError:  # servers may refuse single commits, and do not resolve short hashes
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
