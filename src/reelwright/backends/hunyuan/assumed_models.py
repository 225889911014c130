"""The members of the HunyuanVideo family as if they were set up, for advice."""

from __future__ import annotations

from pathlib import Path

from ...core.host import Checkout, Checkpoint
from ...core.request import Task
from ..shared.assumed import CHECKOUT, PYTHON, AssumedModel, assumed_host
from .members import FAMILY, MAIN, SUPER_PARTS
from .record import Member

_ROOT = CHECKOUT / "ckpts"


def assumed_models() -> tuple[AssumedModel, ...]:
    """One entry for each task of each member, except the member whose memory is not known."""
    return tuple(_assumed(member, task) for member in FAMILY if not member.is_opaque for task in member.tasks)


def _assumed(member: Member, task: Task) -> AssumedModel:
    names = [*member.versions, *(f"{large}_sr_distilled" for large, _ in member.enlarges.values()), ""]
    folders = {part.folder.format(version=name) for part in (*member.parts, *SUPER_PARTS) for name in names}
    checkout = Checkout(CHECKOUT, files=frozenset(member.marks), matches={member.flags_in: member.flags})
    weights = [_weights(folder) for folder in (_ROOT, *(_ROOT / name for name in folders))]
    return AssumedModel(
        model=f"{member.title} {task}",
        task=task,
        settings={"hunyuan_dir": CHECKOUT, "python": PYTHON},
        host=assumed_host((*member.modules, "xfuser"), weights, checkout),
        setup=f"clone {member.source}, then docs/hunyuan.md",
    )


def _weights(folder: Path) -> Checkpoint:
    return Checkpoint(folder, files={f"{MAIN}.pt": 1}, config={"heads_num": 16})
