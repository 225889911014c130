"""Sources on loopback: a hub with small models, a repository, wheels; and orders for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reelwright.installer import Installation, Report, SetupEvent, SetupOrder, SetupOutcome, Sources
from reelwright.installer.environment import requirements
from reelwright.installer.planning import look
from reelwright.installer.recipes import WAN21, find_models
from reelwright.installer.steps import carry_out
from reelwright.installer.weight_sources import weights_source
from tests.installer.hub import Hub, a_hub
from tests.stand_ins.checkout import SOURCE
from tests.stand_ins.checkpoints import make_wan_checkpoint, write_safetensors
from tests.stand_ins.interpreter import Knobs, make_interpreter

SHARD = "diffusion_pytorch_model.safetensors"
SHARD_VALUES = 200_000  # float32: 800 kB, enough to be interrupted in the middle
MODELS = {
    "Wan2.1-I2V-14B-720P": "i2v-14B",
    "Wan2.1-FLF2V-14B-720P": "flf2v-14B",
    "Wan2.1-T2V-14B": "t2v-14B",
    "Wan2.1-T2V-1.3B": "t2v-1.3B",
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub holds; nobody changes it."""
    root = tmp_path_factory.mktemp("hub")
    for folder, task in MODELS.items():
        make_wan_checkpoint(root / "Wan-AI" / folder, task)
        (root / "Wan-AI" / folder / "assets").mkdir()
        (root / "Wan-AI" / folder / "assets" / "logo.png").write_bytes(b"never fetched")
    shard = root / "Wan-AI" / "Wan2.1-T2V-1.3B" / SHARD
    write_safetensors(shard, {"blocks.0.ffn.0.weight": SHARD_VALUES})
    return root


@pytest.fixture
def hub(models: Path) -> Iterator[Hub]:
    with a_hub(models) as hub:
        yield hub


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with the stand-in framework; two commits."""
    folder = tmp_path_factory.mktemp("git")
    work, bare = folder / "work", folder / "Wan2.1.git"

    def git(*words: str) -> str:
        name = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
        done = subprocess.run(["git", *name, "-C", str(folder), *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    subprocess.run(["cp", "-r", str(SOURCE), str(work)], check=True)
    (work / "requirements.txt").write_text("stand-in-packages>=1  # everything\nflash_attn\n")
    git("init", "-q", str(work))
    for text in ("first", "second"):
        (work / "CHANGES").write_text(text)
        git("-C", str(work), "add", "-A")
        git("-C", str(work), "commit", "-q", "-m", text)
    git("clone", "-q", "--bare", str(work), str(bare))
    return bare


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One wheel with an imitation of every module that Wan2.1 imports."""
    folder = tmp_path_factory.mktemp("wheels")
    python = make_interpreter(folder / "made", Knobs(flash_attn="absent"))
    site = next((python.parent.parent / "lib").glob("python3.*")) / "site-packages"
    name, info = "stand_in_packages-1.0", "stand_in_packages-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        for path in site.rglob("*.py"):
            wheel.write(path, path.relative_to(site).as_posix())
        wheel.writestr("cv2/__init__.py", "__version__ = '4.11'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: stand-in-packages\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@dataclass
class Site:
    """A folder to set up in, with checkout and environment there already: only the weights are to come."""

    order: SetupOrder
    environ: dict[str, str]
    events: list[SetupEvent]

    def with_(self, **changes: Any) -> Site:
        return Site(replace(self.order, **changes), self.environ, self.events)

    def look(self, **options: Any) -> Installation:
        source = weights_source(self.order.sources.weights, self.order.recipe.unwanted)
        return look(self.order, source, self.environ, **options)

    def run(self, report: Report | None = None) -> SetupOutcome:
        source = weights_source(self.order.sources.weights, self.order.recipe.unwanted)
        plan = look(self.order, source, self.environ)
        return carry_out(plan, source, self.environ, report or self.events.append)

    @property
    def weights(self) -> Path:
        return self.order.weights(self.order.models[0])

    def argv(self, *more: str) -> list[str]:
        """`reel setup` for this order as a process."""
        models = ",".join(model.name for model in self.order.models)
        words = ["setup", "wan2.1", "--models", models, "--dir", str(self.order.directory)]
        sources = ["--weights-source", str(self.order.sources.weights)]
        return [sys.executable, "-m", "reelwright", *words, *sources, *more]


@pytest.fixture
def site(tmp_path: Path, hub: Hub) -> Site:
    """Only the weights of t2v-1.3b are missing (and the configuration)."""
    order = SetupOrder(WAN21, find_models(WAN21, "t2v-1.3b"), tmp_path / "wan", Sources(weights=hub.url))
    prepare(order)
    return Site(order, dict(os.environ), [])


def prepare(order: SetupOrder) -> None:
    """Checkout and environment as an earlier setup leaves them."""
    from reelwright.installer.environment import _digest

    order.state.mkdir(parents=True)
    subprocess.run(["cp", "-r", str(SOURCE), str(order.checkout)], check=True)
    (order.checkout / "requirements.txt").write_text("torch>=2.4.0\nflash_attn\n")
    make_interpreter(order.environment, Knobs())
    digest = _digest(requirements("torch>=2.4.0\nflash_attn\n", WAN21.left_out))
    notes = {"begun": True, "made": True, "requirements": digest, "extras": []}
    (order.state / "environment.json").write_text(json.dumps(notes))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with size and time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


Reel = Callable[..., "subprocess.CompletedProcess[str]"]
