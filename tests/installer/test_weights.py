"""Weights from a hub on loopback: complete, resumed, damaged, refused."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reelwright.core.errors import BackendUnavailableError, BusyError, Failure, ModelNotFoundError
from reelwright.installer import SetupEvent, Sources
from reelwright.installer.planning import weights_problems
from reelwright.installer.recipes import WAN21, find_models
from reelwright.installer.transfer import Fetch, fetch, missing, partial_path
from reelwright.installer.weight_sources import HubSource, RemoteFile
from reelwright.sites.local.probes.checksums import HUB_RECORDS
from tests.conftest import eventually
from tests.installer.conftest import SHARD, Site, snapshot
from tests.installer.hub import Hub, sha256

MIDDLE = 400_000


def _published(hub: Hub, folder: Path) -> dict[str, str]:
    root = hub.root / "Wan-AI" / folder.name
    return {
        str(path.relative_to(root)): sha256(path)
        for path in root.rglob("*")
        if path.is_file() and "assets" not in path.parts
    }


def _held(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def test_the_weights_arrive_whole_and_without_what_nothing_reads(site: Site, hub: Hub) -> None:
    outcome = site.run()
    assert outcome.changed == ("weights t2v-1.3b", "configuration")
    assert outcome.installation.done
    assert _held(site.weights) == _published(hub, site.weights)
    assert not list(site.weights.rglob("*.incomplete"))


def test_nothing_is_stored_or_sent_twice(site: Site, hub: Hub) -> None:
    site.run()
    sizes = {path.name: path.stat().st_size for path in (hub.root / "Wan-AI" / site.weights.name).glob("*")}
    assert hub.sent[SHARD] == sizes[SHARD]
    records = sum(path.stat().st_size for path in (site.weights / ".cache").rglob("*") if path.is_file())
    assert records < 5000


def test_the_hubs_own_records_stand_beside_the_weights(site: Site) -> None:
    """So that `--verify-model` has something to compare with, and the hub's tools know the files."""
    site.run()
    commit, etag, _ = (site.weights / HUB_RECORDS / f"{SHARD}.metadata").read_text().split()
    assert (len(commit), etag) == (40, sha256(site.weights / SHARD))
    hub_module = pytest.importorskip("huggingface_hub")
    from huggingface_hub._local_folder import read_download_metadata

    assert hub_module.__version__
    found = read_download_metadata(site.weights, SHARD)
    assert found is not None
    assert found.etag == etag


def test_a_second_run_does_nothing_and_says_so(site: Site, hub: Hub) -> None:
    site.run()
    before, sent = snapshot(site.order.directory), hub.total_sent
    outcome = site.run()
    assert outcome.changed == ()
    after = snapshot(site.order.directory)
    lock = ".reelwright-setup/lock"
    assert {**after, lock: before[lock]} == before
    assert hub.total_sent == sent


def test_a_dropped_connection_goes_on_where_it_broke(site: Site, hub: Hub) -> None:
    hub.cut[SHARD] = MIDDLE
    site.run()
    assert hub.sent[SHARD] == (site.weights / SHARD).stat().st_size
    (asked,) = hub.ranges[SHARD]
    assert int(asked.removeprefix("bytes=").rstrip("-")) >= MIDDLE
    assert _held(site.weights) == _published(hub, site.weights)


def test_a_server_that_ignores_ranges_is_read_from_the_start(site: Site, hub: Hub) -> None:
    hub.cut[SHARD], hub.ignore_ranges = MIDDLE, True
    site.run()
    assert hub.sent[SHARD] > (site.weights / SHARD).stat().st_size
    assert _held(site.weights) == _published(hub, site.weights)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_in_the_middle_it_resumes_where_it_was(site: Site, hub: Hub, number: signal.Signals) -> None:
    hub.hold[SHARD] = MIDDLE
    process = subprocess.Popen(site.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)
    assert hub.held.wait(100)
    (partial,) = eventually(lambda: list(site.weights.rglob(f"{SHARD}.*.incomplete")))
    eventually(lambda: partial.stat().st_size >= MIDDLE)
    process.send_signal(number)
    _, said = process.communicate(timeout=100)
    assert (b"the fetched files are kept" in said) == (number == signal.SIGINT)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    kept = partial.stat().st_size
    hub.release.set()

    assert not (site.weights / SHARD).exists()
    assert any("unfinished download" in text for text in weights_problems(site.order, site.order.models[0]))
    planned = site.look().parts[2]
    assert planned.there_bytes >= kept
    assert "started" in planned.note

    hub.forget()
    site.run()
    assert hub.ranges[SHARD] == [f"bytes={kept}-"]
    assert hub.sent[SHARD] == (site.weights / SHARD).stat().st_size - kept
    assert _held(site.weights) == _published(hub, site.weights)


def test_a_damaged_old_part_costs_one_more_fetch_and_no_more(site: Site, hub: Hub) -> None:
    """A power cut can leave a part with holes; only its checksum shows it."""
    listing = HubSource(hub.url, WAN21.unwanted).listing("Wan-AI/Wan2.1-T2V-1.3B")
    file = next(file for file in listing.files if file.name == SHARD)
    partial = partial_path(site.weights, file)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"\xff" * MIDDLE)
    site.run()
    size = (site.weights / SHARD).stat().st_size
    assert hub.sent[SHARD] == size - MIDDLE + size
    assert _held(site.weights) == _published(hub, site.weights)


def test_a_download_that_is_damaged_never_gets_its_name(site: Site, hub: Hub) -> None:
    hub.damage.add(SHARD)
    with pytest.raises(ModelNotFoundError, match="damaged: its checksum") as caught:
        site.run()
    assert caught.value.failure is Failure.MODEL
    assert not (site.weights / SHARD).exists()
    assert not [path for path in site.weights.rglob("*.incomplete") if path.name.startswith(SHARD)]


def test_damage_that_came_later_is_found_and_mended_on_request(site: Site, hub: Hub) -> None:
    site.run()
    data = bytearray((site.weights / SHARD).read_bytes())
    data[-1] ^= 1
    (site.weights / SHARD).write_bytes(data)
    assert site.run().changed == ()
    hub.forget()
    assert site.with_(verify=True).run().changed == ("weights t2v-1.3b",)
    assert list(hub.sent) == [SHARD]
    assert any("is damaged and will be fetched again" in event.text for event in site.events)
    assert _held(site.weights) == _published(hub, site.weights)


def test_another_version_upstream_is_fetched_although_the_size_is_the_same(site: Site, hub: Hub) -> None:
    site.run()
    record = site.weights / HUB_RECORDS / f"{SHARD}.metadata"
    record.write_text(record.read_text().replace(sha256(site.weights / SHARD), "0" * 64))
    hub.forget()
    site.run()
    assert list(hub.sent) == [SHARD]


def test_a_file_of_the_wrong_length_is_fetched_again(site: Site, hub: Hub) -> None:
    site.run()
    os.truncate(site.weights / SHARD, MIDDLE)
    site.run()
    assert _held(site.weights) == _published(hub, site.weights)


def test_left_overs_of_other_tools_are_swept_once_all_is_there(site: Site) -> None:
    """huggingface_hub 2 leaves parts with random names when it is killed; the doctor would refuse them for ever."""
    site.run()
    orphan = site.weights / HUB_RECORDS / "abc.0123.incomplete"
    orphan.write_bytes(b"x")
    assert not site.look().done
    site.run()
    assert not orphan.exists()
    assert site.look().done


def test_a_source_that_gives_nothing_more_ends_it_with_what_is_kept(site: Site, hub: Hub) -> None:
    source = HubSource(hub.url, WAN21.unwanted)
    listing = source.listing("Wan-AI/Wan2.1-T2V-1.3B")
    hub.refuse = 503
    files = missing(site.weights, listing)
    with pytest.raises(BackendUnavailableError, match="answered 503") as caught:
        fetch(Fetch(source, listing, site.weights, files, pause_s=0.001), lambda _count: None)
    assert "run the same command again" in caught.value.advice


@pytest.mark.parametrize(("status", "failure"), [(401, Failure.ENV), (403, Failure.ENV), (404, Failure.MODEL)])
def test_a_refusal_of_the_hub_is_explained(site: Site, hub: Hub, status: int, failure: Failure) -> None:
    hub.refuse = status
    with pytest.raises(BackendUnavailableError) as caught:
        site.look()
    assert caught.value.failure is failure
    assert "Wan-AI/Wan2.1-T2V-1.3B" in caught.value.message
    assert ("HF_TOKEN" in caught.value.advice) == (failure is Failure.ENV)


def test_the_token_reaches_the_hub_and_nothing_else(
    site: Site, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = subprocess.run(
        site.argv("--json"), env={**os.environ, "HF_TOKEN": "hf_canary"}, capture_output=True, text=True, check=True
    )
    assert hub.tokens["api"] == "Bearer hf_canary"
    assert hub.tokens["Wan-AI"] == "Bearer hf_canary"
    assert "hf_canary" not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"hf_canary" not in path.read_bytes(), path


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", ".cache/x", "a\nb", "a\\b", "", "a//b"])
def test_a_file_name_that_leads_elsewhere_is_refused(site: Site, hub: Hub, name: str) -> None:
    source = HubSource(hub.url)

    class Item:
        rfilename, size, lfs, blob_id = name, 1, None, None

    with pytest.raises(ModelNotFoundError, match="impossible name"):
        source._file(Item())


def test_two_setups_of_one_folder_exclude_each_other(site: Site, hub: Hub) -> None:
    hub.hold[SHARD] = MIDDLE
    process = subprocess.Popen(site.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert hub.held.wait(100)
        with pytest.raises(BusyError, match="another setup") as caught:
            site.run()
        assert str(process.pid) in caught.value.evidence[0]
    finally:
        process.kill()
        process.wait()


def test_a_folder_stands_in_for_the_hub_and_needs_no_hub_package(site: Site, hub: Hub, models: Path) -> None:
    local = site.with_(sources=Sources(weights=str(models)))
    assert local.run().changed == ("weights t2v-1.3b", "configuration")
    assert _held(site.weights) == _published(hub, site.weights)
    assert hub.total_sent == 0
    assert local.run().changed == ()


@pytest.mark.parametrize("below", ["Wan-AI", "Wan-AI/Wan2.1-T2V-1.3B"])
def test_the_folder_may_be_the_owners_or_the_models_own(site: Site, models: Path, below: str) -> None:
    assert site.with_(sources=Sources(weights=str(models / below))).run().installation.done


def test_a_folder_copy_goes_on_where_it_was_cut(site: Site, models: Path) -> None:
    file = RemoteFile(SHARD, (models / "Wan-AI" / "Wan2.1-T2V-1.3B" / SHARD).stat().st_size)
    partial = partial_path(site.weights, file)
    partial.parent.mkdir(parents=True)
    partial.write_bytes((models / "Wan-AI" / "Wan2.1-T2V-1.3B" / SHARD).read_bytes()[:MIDDLE])
    local = site.with_(sources=Sources(weights=str(models)))
    assert local.look().parts[2].there_bytes == MIDDLE
    local.run()
    assert sha256(site.weights / SHARD) == sha256(models / "Wan-AI" / "Wan2.1-T2V-1.3B" / SHARD)


def test_weights_of_another_layout_are_fetched_and_then_refused(site: Site, hub: Hub, tmp_path: Path) -> None:
    wrong = tmp_path / "models" / "Wan2.1-T2V-1.3B"
    wrong.mkdir(parents=True)
    (wrong / "model_index.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match=r"not what wan2\.1 needs") as caught:
        site.with_(sources=Sources(weights=str(tmp_path / "models"))).run()
    assert any("is a -Diffusers download" in line for line in caught.value.evidence)


def test_an_unreachable_hub_is_told_and_known_sizes_stand_in(site: Site) -> None:
    away = site.with_(sources=Sources(weights="http://127.0.0.1:9"), models=find_models(WAN21, "i2v-720p,flf2v"))
    parts = away.look().parts
    assert [part.origin for part in parts[2:4]] == ["table", "table"]
    assert 80e9 < parts[2].todo_bytes < 84e9
    with pytest.raises(BackendUnavailableError, match="cannot be reached"):
        away.run()


def test_whole_weights_need_no_hub(site: Site) -> None:
    site.run()
    assert site.with_(sources=Sources(weights="http://127.0.0.1:9")).run().changed == ()


def test_progress_is_told_from_the_bytes_that_were_there_to_the_end(site: Site) -> None:
    events: list[SetupEvent] = []
    site.run(events.append)
    meter = [event for event in events if event.total]
    assert meter[-1].done == meter[-1].total == site.look().parts[2].there_bytes
    assert [event.done for event in meter] == sorted(event.done for event in meter)


def test_a_listing_with_git_checksums_is_verified_too(site: Site, hub: Hub) -> None:
    """Small files have no SHA-256 on the hub, but Git's own checksum."""
    hub.damage.add("config.json")
    with pytest.raises(ModelNotFoundError, match=r"config\.json .* damaged"):
        site.run()


def test_every_model_has_its_repository_and_key(models: Path) -> None:
    ours = [(model.name, model.repository, model.key) for model in WAN21.models]
    assert ours == [
        ("i2v-720p", "Wan-AI/Wan2.1-I2V-14B-720P", "i2v_model_dir"),
        ("i2v-480p", "Wan-AI/Wan2.1-I2V-14B-480P", "i2v_model_dir"),
        ("flf2v-720p", "Wan-AI/Wan2.1-FLF2V-14B-720P", "flf2v_model_dir"),
        ("t2v-14b", "Wan-AI/Wan2.1-T2V-14B", "t2v_model_dir"),
        ("t2v-1.3b", "Wan-AI/Wan2.1-T2V-1.3B", "t2v_1_3b_model_dir"),
    ]


@pytest.mark.parametrize("names", ["i2v-720p", "flf2v", "t2v-14b", "t2v-1.3b", "i2v-720p,flf2v,t2v-14b,t2v-1.3b"])
def test_every_models_weights_pass_the_backends_own_check(site: Site, names: str) -> None:
    chosen = replace(site.order, models=find_models(WAN21, names))
    outcome = Site(chosen, site.environ, []).run()
    assert outcome.installation.done
    assert all(weights_problems(chosen, model) == () for model in chosen.models)
