"""The draft as data: camera words, lengths, sizes and findings before anything is rendered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st
from PIL import Image

from reelwright import Settings
from reelwright.backends import load_backend
from reelwright.backends.draft.camera import FAST, MOVES, NORMAL, SLOW, Camera, parse_camera, read_prompt
from reelwright.backends.shared.job import Job
from reelwright.core.errors import InvalidInputError
from reelwright.core.host import Host
from reelwright.core.plan import EngineCall, Finding, Plan
from reelwright.core.request import Picture, Size, VideoRequest
from reelwright.media.image import Intake, inspect_picture

BACKEND = load_backend("draft")


def a_picture(size: tuple[int, int] = (1920, 1080), name: str = "first") -> Picture:
    return Picture(Path(f"/private/{name}.png"), Path(f"/home/{name}.jpg"), Size(*size), Size(*size), "00")


def a_job(prompt: str = "a quiet harbour", **changes: Any) -> Job:
    given = dict(changes)
    job = {name: given.pop(name) for name in ("settings", "first", "last", "depth", "overrides") if name in given}
    job.setdefault("first", a_picture())
    if job["first"]:
        given["image"] = Path("/home/first.jpg")
    if "last" in job:
        given["last_image"] = Path("/home/last.jpg")
    request = VideoRequest(prompt=prompt, **given)
    settings = Settings(**job.pop("settings", {}))
    return Job(request, settings, Host(cpu_count=2), Path("/private/film.mp4"), **job)


def plan(prompt: str = "a quiet harbour", **changes: Any) -> Plan:
    return BACKEND.plan(a_job(prompt, **changes))


def found(planned: Plan, code: str) -> Finding:
    return next(finding for finding in planned.findings if finding.code == code)


def codes(planned: Plan, severity: str) -> set[str]:
    return {finding.code for finding in planned.findings if finding.severity == severity}


# ---------------------------------------------------------------------------------------------- camera words


@pytest.mark.parametrize(
    ("prompt", "moves", "speed"),
    [
        ("a cat on a sill", ("push_in",), SLOW),
        ("slow push in on the rocket", ("push_in",), SLOW),
        ("The camera pushes in quickly", ("push_in",), FAST),
        ("the camera moves closer to the cup", ("push_in",), NORMAL),
        ("camera slowly zooms out", ("pull_out",), SLOW),
        ("zoom-out", ("pull_out",), NORMAL),
        ("the camera pulls back and tilts up", ("pull_out", "tilt_up"), NORMAL),
        ("pan left", ("pan_left",), NORMAL),
        ("pans gently over to the right, handheld", ("pan_right", "handheld"), SLOW),
        ("handheld, then panning right", ("handheld", "pan_right"), NORMAL),
        ("a fast car. slow pan left", ("pan_left",), SLOW),
        ("tilting down to the street", ("tilt_down",), NORMAL),
        ("orbit around the statue", ("orbit_left",), NORMAL),
        ("the camera circles around to the right", ("orbit_right",), NORMAL),
        ("camera rolls left", ("roll_left",), NORMAL),
        ("pan right, then pan left", ("pan_right",), NORMAL),
        ("static shot, then zoom in", ("static",), NORMAL),
        ("push in; the camera is locked off", ("static",), NORMAL),
        ("Static.", ("static",), NORMAL),
        ("no zoom, pan left", ("pan_left",), NORMAL),
        ("she tilts her head up and a door slides left", ("push_in",), SLOW),
        ("a man pushes a cart into the barn", ("push_in",), SLOW),
        ("a frying pan left on the stove", ("push_in",), SLOW),
        ("static electricity", ("push_in",), SLOW),
        ("hold", ("static",), NORMAL),
        ("Hold on her face", ("static",), NORMAL),
        ("a rocket at dusk, hold for two seconds", ("static",), NORMAL),
        ("still", ("static",), NORMAL),
        ("a still shot of the harbour", ("static",), NORMAL),
        ("the camera stays perfectly still", ("static",), NORMAL),
        ("static", ("static",), NORMAL),
        ("locked-off", ("static",), NORMAL),
        ("a harbour, no camera movement", ("static",), NORMAL),
        ("a harbour, no movement", ("static",), NORMAL),
        ("the camera does not move", ("static",), NORMAL),
        ("keep the camera still", ("static",), NORMAL),
        ("no zoom, no pan", ("static",), NORMAL),
        ("the camera is not moving", ("static",), NORMAL),
        ("the shot holds", ("static",), NORMAL),
        ("the frame is perfectly still", ("static",), NORMAL),
        ("a lighthouse, tripod", ("static",), NORMAL),
        ("keep still", ("static",), NORMAL),
        ("freeze frame", ("static",), NORMAL),
        ("do not zoom in", ("static",), NORMAL),
        ("push in and tilt up", ("push_in", "tilt_up"), NORMAL),
        ("we slowly push in on the cup", ("push_in",), SLOW),
        ("a harbour with a slow zoom out", ("pull_out",), SLOW),
        ("a sleeping cat, then pull back slowly", ("pull_out",), SLOW),
        ("dolly in on the cup", ("push_in",), NORMAL),
        ("a slow dolly in", ("push_in",), SLOW),
        ("the camera pans from left to right", ("pan_right",), NORMAL),
        ("pan from right to left across the bay", ("pan_left",), NORMAL),
        ("pan left to right, slowly", ("pan_right",), NORMAL),
        ("whip pan to the left", ("pan_left",), NORMAL),
        ("the camera orbits around the statue to the right", ("orbit_right",), NORMAL),
        ("the camera slowly circles the couple", ("orbit_left",), SLOW),
        ("the camera descends to the floor", ("tilt_down",), NORMAL),
        ("an earthquake, camera shake", ("handheld",), NORMAL),
        ("camera roll right", ("roll_right",), NORMAL),
        ("trucking left across the square", ("pan_left",), NORMAL),
        ("handheld footage of a market", ("handheld",), NORMAL),
    ],
)
def test_the_prompt_acts_through_its_camera_words(prompt: str, moves: tuple[str, ...], speed: float) -> None:
    assert read_prompt(prompt) == Camera(moves, speed)


@pytest.mark.parametrize(
    "prompt",
    [
        "the train pulls out of the station",
        "the train stops, pulls out of the station and is gone",
        "the camera watches as the train pulls out of the station",
        "he pushes in the door",
        "she pushes into the crowd",
        "a dolly in the nursery",
        "the dolly in her arms",
        "zoom call with grandma",
        "a zoom meeting",
        "a zoom lens on a table",
        "a car zooms past",
        "the car pulls away",
        "she pulls back the curtain",
        "a truck left the depot",
        "trucks left in the yard",
        "a pan left on the stove",
        "a crane up in the sky",
        "a satellite in orbit around the earth",
        "the moon orbits the planet",
        "a boy with a handheld console",
        "a still life with pears",
        "she holds a cup",
        "people hold on to the rope",
        "two children hold hands",
        "a tilted house on a hill",
        "he zooms past on a bike",
        "a pan of soup",
        "a picture from my camera roll",
        "a camera roll lies on the table",
        "die Kamera bewegt sich nicht",
        "la caméra recule",
        "the water is still and dark around the boat",
        "a man stands still",
        "",
    ],
)
def test_what_moves_in_the_picture_is_no_camera_move_and_is_not_called_read(prompt: str) -> None:
    camera = read_prompt(prompt)
    assert camera == Camera(("push_in",), SLOW)
    assert not camera.named
    message = found(plan(prompt or "x"), "camera.moves").message
    assert "the draft's own choice: the prompt names no camera move" in message
    assert "read" not in message


@pytest.mark.parametrize("word", ["hold", "still", "static", "locked-off", "fixed", "none"])
def test_an_explicit_camera_can_stand_still_under_every_usual_name(word: str) -> None:
    assert parse_camera(word) == Camera(("static",), NORMAL)


@pytest.mark.parametrize(
    ("text", "moves", "speed"),
    [
        ("push_in", ("push_in",), NORMAL),
        ("pan_left slow", ("pan_left",), SLOW),
        ("Tilt Up + handheld, fast", ("tilt_up", "handheld"), FAST),
        ("zoom-out", ("pull_out",), NORMAL),
        ("orbit", ("orbit_left",), NORMAL),
        ("pan_left pan_left", ("pan_left",), NORMAL),
        ("locked, handheld", ("static",), NORMAL),
    ],
)
def test_an_explicit_camera_is_read_word_by_word(text: str, moves: tuple[str, ...], speed: float) -> None:
    assert parse_camera(text) == Camera(moves, speed)


@pytest.mark.parametrize("move", MOVES)
def test_every_move_can_be_asked_for_by_its_name(move: str) -> None:
    assert parse_camera(move).moves == (move,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pann_left", "pan_left"),
        ("push_in pull_out", "cannot be made together"),
        ("fast", "no camera move"),
        ("", "no"),
    ],
)
def test_an_explicit_camera_that_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_camera(text)


@checks(max_examples=200)
@given(st.text(alphabet="pan left righzoomcatic.,\n-", max_size=300))
def test_any_prompt_gives_a_legal_camera(prompt: str) -> None:
    camera = read_prompt(prompt)
    assert camera.moves
    assert parse_camera(" ".join(camera.moves)).moves == camera.moves


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["pan ", "camera ", "no camera is ", "zoom\t\t", "orbit slowly ", "a", " ", "pan-"])
def test_a_huge_prompt_is_read_in_no_time(unit: str) -> None:
    assert read_prompt(unit * (100_000 // len(unit))).moves


# ---------------------------------------------------------------------------------------------- the plan


def test_the_plan_promises_the_timing_of_a_wan_clip() -> None:
    planned = plan()
    assert planned.expected is not None
    assert planned.expected.to_json() == {
        "width": 1280,
        "height": 720,
        "frames": 81,
        "fps": 16.0,
        "seconds": 5.062,
    }
    assert (planned.generator, planned.task, planned.generative, planned.gpus) == ("draft", "i2v", False, ())
    assert planned.errors == ()


def test_the_engine_gets_everything_as_plain_json() -> None:
    planned = plan("pan left, handheld", seed=7, depth_image=Path("/home/d.png"), depth=a_picture(name="depth"))
    assert isinstance(planned.run, EngineCall)
    options = dict(planned.run.options)
    assert json.loads(json.dumps(options)) == options
    assert (options["first"], options["depth"]) == ("/private/first.png", "/private/depth.png")
    assert (options["camera"], options["speed"], options["seed"]) == (["pan_left", "handheld"], 1.0, 7)
    assert options["metadata"]["generative"] == "false"


def test_the_same_job_gives_the_same_plan() -> None:
    assert plan("pan left", seed=1) == plan("pan left", seed=1)


def test_the_log_line_says_what_was_understood_of_the_prompt() -> None:
    assert "camera: [push_in, handheld] speed 0.55" in found(plan("slow push in, handheld"), "camera.moves").message


def test_an_explicit_camera_overrides_the_prompt() -> None:
    planned = plan("pan left", camera="tilt_up slow")
    assert (planned.parameters["camera"], planned.parameters["speed"]) == (["tilt_up"], SLOW)


def test_an_unknown_camera_is_an_error_that_names_the_nearest_word() -> None:
    planned = plan(camera="psh_in")
    assert planned.run is None
    assert "push_in" in found(planned, "camera.unknown").message
    assert found(planned, "camera.unknown").severity == "error"


def test_without_a_picture_the_draft_says_that_it_needs_one() -> None:
    planned = plan(first=None)
    assert (planned.task, planned.run, planned.expected) == ("t2v", None, None)
    assert "needs a picture" in found(planned, "image.missing").fix


def test_with_a_last_picture_the_camera_is_ignored_and_says_so() -> None:
    planned = plan(last=a_picture(name="last"), camera="pan_left")
    assert planned.task == "flf2v"
    assert "camera.ignored" in codes(planned, "warning")
    assert isinstance(planned.run, EngineCall)
    assert planned.run.options["last"] == "/private/last.png"
    assert "camera" not in planned.parameters


@pytest.mark.parametrize(
    ("seconds", "fps", "frames", "rounded"),
    [
        (5.0, None, 80, False),
        (5.0625, None, 81, False),
        (2.0, 25, 50, False),
        (3.3, None, 53, True),
        (0.01, None, 1, True),
    ],
)
def test_seconds_become_the_nearest_number_of_frames(
    seconds: float, fps: float | None, frames: int, rounded: bool
) -> None:
    planned = plan(seconds=seconds, fps=fps)
    assert planned.expected is not None
    assert planned.expected.num_frames == frames
    assert ("frames.rounded" in codes(planned, "info")) is rounded


def test_any_number_of_frames_can_be_asked_for() -> None:
    assert plan(num_frames=50).parameters["num_frames"] == 50


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"size": Size(1281, 720)}, "size.odd"),
        ({"size": Size(16, 720)}, "size.range"),
        ({"size": Size(20000, 720)}, "size.range"),
        ({"fps": 500.0}, "fps.range"),
        ({"seconds": 4000.0}, "frames.limit"),
        ({"seconds": 1e300}, "frames.limit"),
        ({"anchor": "2,0"}, "anchor.unknown"),
        ({"anchor": "topp"}, "anchor.unknown"),
        ({"num_frames": 1, "last": a_picture(name="last")}, "frames.limit"),
    ],
)
def test_what_the_draft_cannot_do_is_an_error_with_its_fix(asked: dict[str, Any], code: str) -> None:
    planned = plan(**asked)
    assert planned.run is None
    assert found(planned, code).severity == "error"
    assert found(planned, code).fix


def test_an_odd_size_is_answered_with_the_next_even_one() -> None:
    assert "1282x722" in found(plan(size=Size(1281, 721)), "size.odd").fix


@pytest.mark.parametrize("anchor", ["top", "0.5,0.0", "0.5,0"])
def test_an_anchor_is_a_word_or_a_point(anchor: str) -> None:
    assert plan(anchor=anchor).parameters["anchor"] == [0.5, 0.0]


def test_settings_fill_in_what_the_request_leaves_open() -> None:
    given = {"size": "832x480", "frame_num": 33, "fps": 24.0, "base_seed": 5, "codec": "av1", "label": False,
             "fit": "contain", "anchor": "top"}  # fmt: skip
    planned = plan(settings=given)
    chosen = [
        planned.parameters[name] for name in ("size", "num_frames", "fps", "seed", "codec", "label", "fit", "anchor")
    ]
    assert chosen == [Size(832, 480), 33, 24.0, 5, "av1", False, "contain", [0.5, 0.0]]


def test_the_request_is_stronger_than_the_settings() -> None:
    given = {"size": "832x480", "frame_num": 33, "base_seed": 5, "fit": "contain"}
    planned = plan(settings=given, size=Size(640, 360), num_frames=17, seed=0, fit="cover")
    assert [planned.parameters[name] for name in ("size", "num_frames", "seed", "fit")] == [
        Size(640, 360),
        17,
        0,
        "cover",
    ]


def test_overrides_are_stronger_than_everything() -> None:
    planned = plan(num_frames=81, overrides={"num_frames": 33, "size": Size(640, 360), "identity_start": True})
    assert isinstance(planned.run, EngineCall)
    assert planned.expected is not None
    assert (planned.expected.num_frames, planned.expected.width) == (33, 640)
    assert planned.run.options["identity_start"] is True


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 30), ("guidance_scale", 5.0), ("flow_shift", 3.0), ("negative_prompt", "blur")],
)
def test_parameters_of_a_model_are_ignored_aloud(name: str, value: Any) -> None:
    planned = plan(**{name: value})
    assert planned.errors == ()
    assert name in found(planned, "parameter.ignored").message
    assert "ignored by the draft" in found(planned, "parameter.ignored").message


def test_a_crop_of_more_than_a_quarter_is_warned_about() -> None:
    assert "picture.cropped" in codes(plan(first=a_picture((1080, 1080))), "warning")
    assert "44%" in found(plan(first=a_picture((1080, 1080))), "picture.cropped").message
    assert "picture.cropped" not in codes(plan(first=a_picture((1440, 1080))), "warning")
    assert "picture.cropped" not in codes(plan(first=a_picture((1080, 1080)), fit="contain"), "warning")


def test_a_strong_distortion_and_a_small_picture_are_warned_about() -> None:
    assert "picture.stretched" in codes(plan(first=a_picture((1080, 1080)), fit="stretch"), "warning")
    assert "picture.small" in codes(plan(first=a_picture((400, 225))), "warning")
    assert "picture.small" not in codes(plan(first=a_picture((640, 360))), "warning")


def test_a_pull_out_says_that_it_is_played_towards_the_whole_picture() -> None:
    assert "camera.reversed" in codes(plan("zoom out"), "info")
    assert "camera.reversed" not in codes(plan("zoom out", overrides={"identity_start": True}), "info")


def test_a_depth_between_two_pictures_is_ignored_aloud() -> None:
    planned = plan(last=a_picture(name="last"), depth=a_picture(name="depth"))
    assert "depth.ignored" in codes(planned, "warning")
    assert isinstance(planned.run, EngineCall)
    assert "depth" not in planned.run.options


def test_room_memory_and_time_grow_with_the_work() -> None:
    small, large = plan(size=Size(640, 360)), plan(size=Size(1920, 1080))
    assert small.disk_bytes < large.disk_bytes
    assert small.host_bytes is not None
    assert large.host_bytes is not None
    assert small.host_bytes < large.host_bytes < 2**30
    assert small.seconds is not None
    assert large.seconds is not None
    assert small.seconds < large.seconds


def test_the_capabilities_are_those_of_a_draft() -> None:
    capabilities = BACKEND.capabilities(Settings(), Host(cpu_count=4)).to_json()
    assert {"max_duration", "supported_resolutions", "supported_formats", "input_types", "requires_gpu",
            "cost_per_second", "max_concurrent", "supports_image_to_video", "supports_text_to_video",
            "models"} <= set(capabilities)  # fmt: skip
    assert (capabilities["requires_gpu"], capabilities["generative"], capabilities["cost_per_second"]) == (
        False,
        False,
        0,
    )
    assert capabilities["supported_formats"] == ["mp4"]
    assert capabilities["supports_text_to_video"] is False
    assert capabilities["max_concurrent"] == 2


def test_the_draft_asks_nothing_of_the_machine_and_leaves_the_pictures_whole() -> None:
    request = a_job().request
    assert BACKEND.query(request, Settings()).gpus is False
    assert BACKEND.frame(request, Settings()) is None
    assert BACKEND.configured(Settings()) is False


@pytest.mark.parametrize(
    ("setting", "argument"),
    [("codec", "h264"), ("codec", "av1"), ("anchor", "center"), ("anchor", "top"), ("label", True), ("label", False)],
)
def test_an_argument_wins_over_the_setting_also_where_it_is_the_default(setting: str, argument: Any) -> None:
    others = {"codec": {"h264": "av1", "av1": "h264"}, "anchor": {"center": "left", "top": "left"}}
    other = others[setting][str(argument)] if setting in others else not argument
    shown = {"center": [0.5, 0.5], "top": [0.5, 0.0]}.get(str(argument), argument)
    chosen = plan(settings={setting: other}, **{setting: argument}).parameters
    assert chosen[setting] == shown
    assert plan(settings={setting: other}).parameters[setting] != shown


@pytest.mark.parametrize("fit", ["contain", "cover"])
def test_a_panorama_is_taken_with_a_fit_as_the_advice_says(tmp_path: Path, fit: Literal["contain", "cover"]) -> None:
    Image.new("RGB", (1600, 200)).save(tmp_path / "panorama.png")
    with pytest.raises(InvalidInputError) as caught:
        inspect_picture(tmp_path / "panorama.png", Intake(fitted_later=BACKEND.fits_pictures))
    assert f"--fit {fit}" in caught.value.advice
    picture = inspect_picture(tmp_path / "panorama.png", Intake(fit=fit, fitted_later=BACKEND.fits_pictures))
    assert not plan(first=a_picture((picture.size.width, picture.size.height)), fit=fit).errors
