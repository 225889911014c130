"""Plans of the family without a machine: a checkout, weights and GPUs as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelwright.backends import load_backend
from reelwright.backends.hunyuan.members import DOCUMENTED, HV, HV15, HVI, MAIN
from reelwright.backends.hunyuan.record import Member
from reelwright.backends.settings import settings_from_mapping
from reelwright.backends.shared.job import Job
from reelwright.core.host import Checkout, Checkpoint, Host, Interpreter, OptionsFile, simulated_gpus
from reelwright.core.plan import Command, Plan
from reelwright.core.request import Picture, Size, VideoRequest

BACKEND = load_backend("hunyuan")
MEMBERS: Mapping[str, Member] = {"t2v": HV, "i2v": HVI, "1.5": HV15, "documented": DOCUMENTED}
CHECKOUT, WEIGHTS, OUTPUT = Path("/opt/hunyuan"), Path("/models/hunyuan"), Path("/out/attempt-1/film.mp4")
PYTHON, OPTIONS = Path("/opt/venv/bin/python"), Path("/etc/options.yaml")


@dataclass(frozen=True)
class World:
    """What the probes would have found."""

    member: str
    gpus: str = "8x80GiB"
    options: Mapping[str, Any] | None = None
    absent: Iterable[str] = ()
    heads: int = 16
    fp8: bool = False
    picture_file: Path = Path("/in/first.png")
    output: Path = OUTPUT
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, picture: Size | None = None, overrides: Mapping[str, Any] | None = None, **ask: Any) -> Plan:
        """The plan for a request; ``picture`` is the size of the first picture."""
        return BACKEND.plan(self.job(picture, overrides, **ask))

    def job(self, picture: Size | None = None, overrides: Mapping[str, Any] | None = None, **ask: Any) -> Job[Any]:
        """What the plan is made from."""
        source = Path("cat.png") if picture else None
        request = VideoRequest(**{"prompt": "a cat", "seed": 7, "image": source, **ask})
        first = Picture(self.picture_file, Path("cat.png"), picture, picture, "0" * 64) if picture else None
        values = {"hunyuan_dir": str(CHECKOUT), "ckpt_path": str(WEIGHTS), "python": str(PYTHON), **self.settings}
        if self.options is not None or self.member == "documented":
            values["config_file"] = str(OPTIONS)
        settings = settings_from_mapping(values, generator="hunyuan")
        host = self._host(BACKEND.query(request, settings))
        return Job(request, settings, host, self.output, first, overrides=overrides or {})

    def _host(self, query: Any) -> Host:
        member = MEMBERS[self.member]
        found = {item.directory: self._weights(item.directory) for item in query.checkpoints}
        modules = dict.fromkeys(query.interpreters[0].modules, "1.0")
        matches = {member.flags_in: member.flags}
        options = OptionsFile(OPTIONS, None, self.options or {}, dict.fromkeys(self.options or {}, 3))
        return Host(
            gpus=simulated_gpus(self.gpus),
            simulated=True,
            interpreters={PYTHON: Interpreter(PYTHON, modules=modules)},
            checkouts={CHECKOUT: Checkout(CHECKOUT, files=frozenset(member.marks), matches=matches, commit="c" * 40)},
            checkpoints=found,
            options_files={OPTIONS: options},
        )

    def _weights(self, folder: Path) -> Checkpoint:
        if any(str(folder).endswith(name) for name in self.absent):
            return Checkpoint(folder, (f"{folder} is missing",))
        names = [f"{MAIN}.pt", *([f"{MAIN}_fp8.pt", f"{MAIN}_fp8_map.pt"] if self.fp8 else [])]
        return Checkpoint(folder, files=dict.fromkeys(names, 1), config={"heads_num": self.heads})


def command_of(plan: Plan) -> Command:
    """The command of a plan that has one."""
    assert isinstance(plan.run, Command), [finding.message for finding in plan.errors]
    return plan.run


def errors_of(plan: Plan) -> list[str]:
    """What forbids the run, with the fix."""
    return [f"{finding.message} -> {finding.fix}" for finding in plan.errors]
