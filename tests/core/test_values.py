"""Protocol, host, plan and result: what goes to disk or over a pipe comes back, and stays readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright.core import events
from reelwright.core.errors import ConfigurationError, StateError
from reelwright.core.events import Log, decode, encode
from reelwright.core.host import GIB, simulated_gpus
from reelwright.core.manifest import Attempt, Manifest, Result, manifest_of, manifest_path
from reelwright.core.plan import Command, ExpectedVideo, Finding, Plan
from reelwright.core.request import Size

#: One of every message, in the order of the lines of messages.jsonl. A new line there is read in review; a changed one
#: needs a new `events.VERSION`, or a default for what an older side does not say.
MESSAGES: list[events.Message] = [
    events.Phase("denoising"),
    events.Progress("denoising", 3, 50),
    events.Log("two\nlines é", "warning"),
    events.Output("/tmp/a.mp4"),
    events.AttemptStarted(2, 4, "why"),
    events.Memory(1 << 30, 3 << 30),
    events.LatentsSaved("/state/latents.safetensors"),
    events.Load({"folder": "/weights", "placement": {"gpus": [0, 1]}}),
    events.Generate({"prompt": "a cat", "seed": 7, "sigmas": [1.0, 0.5]}, "/state/clip"),
    events.Cancel(),
    events.Unload(),
    events.Hello(1, "diffusers", {"torch": "2.13.0"}),
    events.Loaded({"seconds": 61.5}),
    events.Saved("/state/clip/frames.rgb", 81, 832, 480, {"kernels": ["sdpa"]}),
    events.Failed("OOM_GPU", "no memory", "denoising", "fewer frames", ("CUDA out of memory.",)),
]
GOLDEN = Path(__file__).with_name("messages.jsonl").read_text("utf-8").splitlines()
_NAMES = [type(message).__name__ for message in MESSAGES]
#: Lines that sides of an earlier release write: every field that has a default is left out.
OLD_LINES = {
    '{"event":"Log","text":"a"}': events.Log("a", "info"),
    '{"event":"AttemptStarted","number":1,"limit":3}': events.AttemptStarted(1, 3, ""),
    '{"event":"Hello","protocol":1,"engine":"diffusers"}': events.Hello(1, "diffusers", {}),
    '{"event":"Loaded"}': events.Loaded({}),
    '{"event":"Saved","path":"/a","frames":5,"width":96,"height":64}': events.Saved("/a", 5, 96, 64, {}),
    '{"event":"Failed","failure":"STATE","message":"no"}': events.Failed("STATE", "no", "", "", ()),
}


@pytest.mark.parametrize(("message", "line"), list(zip(MESSAGES, GOLDEN, strict=True)), ids=_NAMES)
def test_each_message_has_its_fixed_line(message: events.Message, line: str) -> None:
    assert encode(message) == line
    assert encode(decode(line)) == line


@pytest.mark.parametrize("line", GOLDEN, ids=_NAMES)
def test_a_field_of_a_later_release_is_left_out_and_refused_in_a_request(line: str) -> None:
    longer = json.dumps({**json.loads(line), "a field of a later release": {"a": [1]}})
    if type(decode(line)) in get_args(events.Request):
        with pytest.raises(ValueError, match="not an event"):
            decode(longer)
    else:
        assert encode(decode(longer)) == line


def test_every_message_has_a_line() -> None:
    kinds = [kind for union in (events.Event, events.Request, events.Answer) for kind in get_args(union)]
    assert [kind.__name__ for kind in kinds] == _NAMES


@pytest.mark.parametrize(("line", "message"), OLD_LINES.items())
def test_a_line_of_an_earlier_release_loads(line: str, message: events.Message) -> None:
    assert decode(line) == message


@given(st.text())
def test_c06_no_text_can_forge_a_second_message(text: str) -> None:
    line = encode(Log(text.encode("utf-8", "replace").decode()))
    assert line.isprintable()
    assert line.isascii()


@pytest.mark.parametrize(
    "line",
    [
        *("", "{}", "[]", '{"event":"Nothing"}', '{"event":"Phase"}', '{"event":"Phase","x":1}', "3"),
        '{"event":"Progress","phase":"denoising","step":"3","total":50}',
    ],
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


@pytest.mark.parametrize("requested", [{"prompt": "a cat", "image": 5}, {"prompt": "a cat", "size": 5}, {}])
def test_a_request_that_cannot_be_understood_is_refused(requested: dict[str, object]) -> None:
    with pytest.raises(StateError, match="damaged: requested"):
        _ = a_manifest().evolve(requested=requested).request


@pytest.mark.parametrize(
    "text", ['{"output": {"path": "clip.MP4"}}', '{"output": 3}', "{", '{"output": {"path": "o"}}']
)
def test_a_manifest_of_an_older_version_counts_only_if_it_names_the_video(tmp_path: Path, text: str) -> None:
    video, older = tmp_path / "clip.MP4", tmp_path / "clip.reel.json"
    older.write_text(text)
    assert manifest_of(video) == (older if "clip.MP4" in text else tmp_path / "clip.MP4.reel.json")


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
