"""Protocol, host, plan and result: what goes to disk or over a pipe comes back, and stays readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright.core.errors import ConfigurationError, StateError
from reelwright.core.events import AttemptStarted, Event, Log, Output, Phase, Progress, decode, encode
from reelwright.core.host import GIB, simulated_gpus
from reelwright.core.manifest import Attempt, Manifest, Result, manifest_path
from reelwright.core.plan import Command, ExpectedVideo, Finding, Plan
from reelwright.core.request import Size

GOLDEN = [
    (Phase("denoising"), '{"event":"Phase","name":"denoising"}'),
    (Progress("denoising", 3, 50), '{"event":"Progress","phase":"denoising","step":3,"total":50}'),
    (Log("two\nlines é", "warning"), '{"event":"Log","text":"two\\nlines \\u00e9","level":"warning"}'),
    (Output("/tmp/a.mp4"), '{"event":"Output","path":"/tmp/a.mp4"}'),
    (AttemptStarted(2, 4, "why"), '{"event":"AttemptStarted","number":2,"limit":4,"reason":"why"}'),
]


@pytest.mark.parametrize(("event", "line"), GOLDEN)
def test_each_message_has_its_fixed_form(event: Event, line: str) -> None:
    assert encode(event) == line
    assert decode(line) == event


@given(st.text())
def test_c06_no_text_can_forge_a_second_message(text: str) -> None:
    line = encode(Log(text.encode("utf-8", "replace").decode()))
    assert line.isprintable()
    assert line.isascii()


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", '{"event":"Nothing"}', '{"event":"Phase"}', '{"event":"Phase","x":1}', "3"]
)
def test_what_is_no_message_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not an event"):
        decode(line)


def a_plan() -> Plan:
    return Plan(
        generator="wan2.1",
        task="i2v",
        generative=True,
        run=Command(("python", "generate.py"), Path("/x"), {"A": "1"}, ("TOKEN",)),
        expected=ExpectedVideo(832, 464, 81, 16.0),
        parameters={"size": Size(832, 480), "steps": 50},
        findings=(Finding("code", "warning", "text", "fix"),),
    )


def test_the_plans_json_has_what_programs_were_promised() -> None:
    data = json.loads(json.dumps(a_plan().to_json()))
    assert data["command"] == {
        "argv": ["python", "generate.py"],
        "cwd": "/x",
        "env": {"A": "1"},
        "env_names": ["TOKEN"],
    }
    assert {name: data["expected"][name] for name in ("width", "height", "frames", "fps")} == {
        "width": 832, "height": 464, "frames": 81, "fps": 16.0,
    }  # fmt: skip
    assert {"code", "severity", "message", "fix"} <= set(data["findings"][0])
    assert data["parameters"]["size"] == "832x480"


def a_manifest() -> Manifest:
    return Manifest(
        run_id="r", reelwright="0.1", generator="draft", task="i2v", generative=False, state="completed",
        created_at="2026-01-01T00:00:00+00:00", requested={"prompt": "a"}, output={"path": "a.mp4"},
        attempts=(Attempt(1, "failed", "OOM_GPU", evidence=("line",), changed=("steps 50 -> 37",), helps=("time",)),),
        warnings=("w",), inputs=({"role": "first", "path": "a.png"},),
    )  # fmt: skip


def test_a_manifest_comes_back_from_its_text() -> None:
    assert Manifest.from_json(json.loads(a_manifest().to_text())) == a_manifest()


def test_a_manifest_with_fields_of_a_newer_version_still_loads() -> None:
    data = json.loads(a_manifest().to_text())
    data["novelty"] = 1
    data["attempts"][0]["novelty"] = 2
    assert Manifest.from_json(data) == a_manifest()


def test_the_first_manifest_ever_written_still_loads() -> None:
    text = (Path(__file__).parent / "manifest_schema_1.json").read_text("utf-8")
    manifest = Manifest.from_json(json.loads(text))
    assert (manifest.generator, manifest.seed, manifest.attempts[0].outcome) == ("draft", 7, "completed")
    assert manifest.request.prompt == "slow push in"


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": 2},
        {"schema": ["x" * 1000]},
        {"attempts": [{}]},
        {"attempts": [3]},
        {"attempts": "abc"},
        {"inputs": ["photo.jpg"]},
        {"inputs": 3},
        {"warnings": [["nested"]]},
        {"output": ["clip.mp4"]},
        {"output": {"path": "../../Makefile"}},
        {"output": {"path": "/etc/passwd"}},
        {"output": {"path": "a\0.mp4"}},
        {"output": {"path": 7}},
        {"seed": "seven"},
        {"inputs": [{"role": "first"}]},
        {"inputs": [{"path": "a.png"}]},
        {"inputs": [{"role": [], "path": "a.png"}]},
        {"error": {"code": 3, "message": "x"}},
        {"error": {}},
        {"error": "OOM"},
        {"requested": None},
        {"plan": "rm -rf"},
    ],
    ids=lambda damage: str(damage)[:40].replace("\0", ""),
)
def test_a_manifest_that_cannot_be_understood_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(StateError):
        Manifest.from_json({**json.loads(a_manifest().to_text()), **damage})


def test_the_manifest_lies_beside_its_film() -> None:
    assert manifest_path(Path("/x/a.b.mp4")) == Path("/x/a.b.reel.json")


def test_the_result_object_has_what_programs_were_promised() -> None:
    result = Result(Path("/a.mp4"), Path("/a.reel.json"), 64, 64, 5, 16.0, 0.3, 1, False, ("w",), "draft", False, 7)
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    promised = {"output", "manifest", "width", "height", "frames", "fps", "seconds", "attempts", "degraded", "warnings"}
    assert promised <= set(json.loads(json.dumps(result.to_json())))


def test_simulated_gpus_are_numbered_through() -> None:
    gpus = simulated_gpus("2x80GiB,1x24")
    assert [(gpu.index, (gpu.total_bytes or 0) // GIB) for gpu in gpus] == [(0, 80), (1, 80), (2, 24)]


@pytest.mark.parametrize("text", ["", "8", "x80", "8x", "8x80TiB", "-1x80", "8x80,"])
def test_what_describes_no_gpus_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        simulated_gpus(text)
