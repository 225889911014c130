"""Sets up a machine with the resident stand-in and a site with workers, and checks the machine after every run."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reelwright import Settings, backends, load_settings
from reelwright.core.errors import VideoGenerationError
from reelwright.core.events import Event
from reelwright.core.manifest import Result
from reelwright.core.request import VideoRequest
from reelwright.launchers import shim
from reelwright.runs.order import Order
from reelwright.runs.runner import generate
from reelwright.sites.cancellation import Cancellation
from reelwright.sites.local.leases import Leases, lease_directory
from reelwright.sites.local.site import LocalSite
from reelwright.sites.local.workers import Workers
from tests.conftest import eventually
from tests.stand_ins.checkout import whole_lines


def _is_gone(pid: int) -> bool:
    return shim.start_time(pid) is None


@dataclass
class Machine:
    """The folder, the site and the events of one test."""

    folder: Path
    site: LocalSite
    environ: dict[str, str]
    events: list[Event] = field(default_factory=list)

    def settings(self, *, stand_in: Any = None, env: Any = None, **values: Any) -> Settings:
        extra = dict(stand_in or {})
        marks = self.folder / "marks"
        marks.mkdir(exist_ok=True)
        extra["options"] = {"notes": str(self.folder / "notes"), "marks": str(marks), **extra.get("options", {})}
        wanted = {"generator": "resident", "state_dir": str(self.folder / "state"), "stop_grace_s": 2.0, **values}
        return load_settings(environ={}, arguments={**wanted, "env": {"STAND_IN": json.dumps(extra), **(env or {})}})

    def run(self, name: str, cancellation: Cancellation | None = None, *, prompt: str = "sea", **values: Any) -> Result:
        asked = {"seed": 1, **values.pop("ask", {})}
        request = VideoRequest(prompt=prompt, **asked)
        order = Order(request, self.settings(**values), self.folder / name)
        return generate(order, self.events.append, cancellation, self.site)

    def fails(self, name: str, cancellation: Cancellation | None = None, **values: Any) -> VideoGenerationError:
        with pytest.raises(VideoGenerationError) as caught:
            self.run(name, cancellation, **values)
        assert not (self.folder / name).exists()
        return caught.value

    @property
    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in whole_lines(self.folder / "notes")]

    def noted(self, event: str) -> list[dict[str, Any]]:
        return [note for note in self.notes if note["event"] == event]

    @property
    def workers(self) -> Workers:
        return self.site.workers

    @property
    def pids(self) -> list[int]:
        return list(dict.fromkeys(note["pid"] for note in self.notes))

    def leased(self) -> set[str]:
        return set(Leases(lease_directory(self.environ)).holders())

    def check_gone(self) -> None:
        """Check that no process of the workers, no lease and no private folder is left."""
        for pid in self.pids:
            eventually(functools.partial(_is_gone, pid), what=f"the end of {pid}")
        eventually(lambda: not self.leased(), what="the end of every lease")
        assert not [path for path in self.folder.iterdir() if path.name.startswith(".reelwright")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setitem(backends._MODULES, "resident", "tests.stand_ins.resident.backend")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / "here"
    folder.mkdir()
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with LocalSite(environ) as site:
        made = Machine(folder, site, environ)
        yield made
    made.check_gone()
