"""Every member of the family as if it were set up."""

from __future__ import annotations

from pathlib import Path

from ...core.host import Checkout, Checkpoint, Host, Interpreter
from ...core.request import Task
from .. import AssumedModel
from .members import HV, HV15, HVI, MAIN, SUPER_PARTS, VERSIONS, Member

_CHECKOUT, _PYTHON = Path("/imagined/hunyuan"), Path("/imagined/python")
_ROOT = _CHECKOUT / "ckpts"


def assumed_models() -> tuple[AssumedModel, ...]:
    """Each member with each of its tasks."""
    return tuple(_sketch(member, task) for member in (HVI, HV, HV15) for task in member.tasks)


def _sketch(member: Member, task: Task) -> AssumedModel:
    folders = {part.folder.format(version=name) for part in (*member.parts, *SUPER_PARTS) for name in _versions()}
    found = {folder: _weights(folder) for folder in (_ROOT, *(_ROOT / name for name in folders))}
    python = Interpreter(_PYTHON, modules=dict.fromkeys((*member.modules, "xfuser"), "99.0"), cuda_version="12.8")
    checkout = Checkout(_CHECKOUT, files=frozenset(member.marks), matches={member.flags_in: member.flags})
    host = Host(interpreters={_PYTHON: python}, checkouts={_CHECKOUT: checkout}, checkpoints=found)
    settings = {"hunyuan_dir": _CHECKOUT, "python": _PYTHON}
    return AssumedModel(f"{member.title} {task}", task, settings, host, f"clone {member.source}, then docs/hunyuan.md")


def _versions() -> tuple[str, ...]:
    return (*VERSIONS, "720p_sr_distilled", "1080p_sr_distilled")


def _weights(folder: Path) -> Checkpoint:
    return Checkpoint(folder, files={f"{MAIN}.pt": 1}, config={"heads_num": 16})
