from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

from reelwright.core.errors import ConfigurationError
from reelwright.core.host import CheckoutQuery, Disk, Host, HostQuery, InterpreterQuery
from reelwright.sites.local.probes.host import Hashed, take_disk, take_host
from tests.sites.conftest import MakeCheckpoint


def take(query: HostQuery | None = None, *, simulated: str | None = None, state_dir: Path | None = None) -> Host:
    return take_host(query or HostQuery(), environ=os.environ, simulated=simulated, state_dir=state_dir)


def test_a_fact_that_was_not_requested_is_unknown() -> None:
    host = take()
    assert (host.gpus, host.gpu_problem, host.simulated) == (None, None, False)
    assert host.cpu_count >= 1
    assert host.memory_available_bytes is not None
    assert host.memory_available_bytes > 0
    assert (host.disks, host.interpreters, host.checkouts, host.checkpoints) == ((), {}, {}, {})


def test_simulated_gpus_take_the_place_of_the_machines() -> None:
    host = take(HostQuery(gpus=True), simulated="2x80GiB,1x24GiB")
    assert host.simulated
    assert [(gpu.total_bytes or 0) >> 30 for gpu in host.gpus or ()] == [80, 80, 24]
    assert take(HostQuery(gpus=True), simulated="0x0").gpus == ()
    with pytest.raises(ConfigurationError):
        take(simulated="many")


def test_every_requested_fact_is_answered_by_path(a_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    weights = a_checkpoint()
    python = Path(sys.executable)
    query = HostQuery(
        disks=(tmp_path / "not/yet",),
        interpreters=(InterpreterQuery(python, ("json",)),),
        checkouts=(CheckoutQuery(tmp_path, ("weights",)),),
        checkpoints=(weights,),
    )
    host = take(query, state_dir=tmp_path / "state")
    assert host.disks[0].folder == tmp_path
    assert host.interpreters[python].modules.keys() == {"json"}
    assert host.checkouts[tmp_path].files == {"weights"}
    assert host.checkpoints[weights.directory].problems == ()
    assert len(list((tmp_path / "state/interpreters").iterdir())) == 1


def test_a_disk_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    found = take_disk(tmp_path / "a/b/c.mp4")
    assert found.folder == tmp_path
    assert found.free_bytes is not None
    assert found.free_bytes > 0
    assert found.writable


def test_m02_a_long_verification_is_reported_in_the_waiting_thread() -> None:
    hashed, looking = Hashed(), Future[None]()
    messages: list[str] = []
    hashed.of(Path("a"))(1 << 30, 3 << 30)
    hashed.of(Path("b"))(0, 1 << 30)

    def report(message: str) -> None:
        messages.append(message)
        looking.set_result(None)

    hashed.report_until_done([looking], report, every_s=0.0)
    assert messages == ["verifying the weights: 1.0 of 4.0 GiB"]


def test_a_file_in_the_way_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o755)
    found = take_disk(tmp_path / "file/clip.mp4")
    assert (found.folder, found.writable) == (tmp_path / "file", False)


def test_a_disk_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert take_disk(tmp_path / "loop/x") == Disk(tmp_path / "loop", None, None)


def test_d05_a_read_only_mount_is_not_writable_even_for_root(tmp_path: Path, python_environ: dict[str, str]) -> None:
    code = (
        "import sys; from pathlib import Path; from reelwright.sites.local.probes.host import take_disk\n"
        "print(take_disk(Path(sys.argv[1])))"
    )
    mount = f'mount -t tmpfs -o ro none {tmp_path} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, env=python_environ, capture_output=True, text=True, check=False)
    if "unshare" in said.stderr or "mount" in said.stderr:
        pytest.skip(f"cannot mount here: {said.stderr}")
    assert "writable=False" in said.stdout


def test_d05_a_folder_of_another_user_is_not_writable(tmp_path: Path, python_environ: dict[str, str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    for folder in [tmp_path, *tmp_path.parents[:-1]]:
        folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import os, sys; from pathlib import Path; from reelwright.sites.local.probes.host import take_disk\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(take_disk(Path(sys.argv[1])).writable)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, env=python_environ, capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
