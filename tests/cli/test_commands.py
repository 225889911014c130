"""The other commands on real files: plan, generators, doctor, config, probe, show, replay, contact-sheet."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reelwright import Settings, load_settings
from reelwright.backends import load_backend
from reelwright.cli import main
from reelwright.cli.replay import compare
from reelwright.core.host import Host
from reelwright.doctor import availability, check_all, machine_rows
from reelwright.sites.local.site import LocalSite
from tests.conftest import a_home, a_photo

Reel = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--size", "320x180", "--frames", "9", "--seed", "7")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture and a clip that was made of it."""
    folder = tmp_path_factory.mktemp("made")
    with a_home(tmp_path_factory.mktemp("home")):
        words = [a_photo(folder / "photo.png"), "slow push in", "-o", folder / "clip.mp4", *SMALL]
        assert main(["generate", *map(str, words)]) == 0
    return folder


@pytest.fixture
def clip(made: Path, tmp_path: Path) -> Path:
    for path in made.iterdir():
        shutil.copy2(path, tmp_path)
    return tmp_path / "clip.mp4"


def the_object(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


# ---------------------------------------------------------------------------------------------------------- plan


def test_a_plan_of_a_draft_has_no_command_and_promises_the_film(reel: Reel, photo: Path, tmp_path: Path) -> None:
    plan = the_object(reel("plan", photo, "push in", "-o", "a.mp4", *SMALL, "--json"))
    assert (plan["generator"], plan["command"]) == ("draft", None)
    assert {name: plan["expected"][name] for name in ("width", "height", "frames", "fps")} == {
        "width": 320, "height": 180, "frames": 9, "fps": 16.0,
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png"}


def test_the_film_keeps_what_the_plan_promised(reel: Reel, photo: Path) -> None:
    arguments = (photo, "pan left", "-o", "a.mp4", "--seconds", "0.5", "--size", "426x240", "--json")
    expected = the_object(reel("plan", *arguments))["expected"]
    result = json.loads(reel("generate", *arguments).stdout.splitlines()[-1])
    assert {name: result[name] for name in expected} == expected


def test_a_plan_shows_every_finding_and_exits_with_the_first_errors_status(reel: Reel, photo: Path) -> None:
    done = reel("plan", photo, "x", "-o", "a.mp4", "--generator", "wan2.1", "--simulate-gpus", "1x80GiB", "--json")
    findings = the_object(done)["findings"]
    assert all(set(item) >= {"code", "severity", "message", "fix"} for item in findings)
    errors = [item["code"] for item in findings if item["severity"] == "error"]
    assert {"wan2_dir.unset", "model.unset"} <= set(errors)
    assert done.returncode in (11, 12, 13)


def test_a_plan_on_a_terminal_names_film_and_fixes(reel: Reel, photo: Path) -> None:
    done = reel("plan", photo, "x", "-o", "a.mp4", "--generator", "wan2.1")
    assert "wan2_dir is not set" in done.stdout
    assert "fix:" in done.stdout


def test_a_plan_says_that_the_output_exists(reel: Reel, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert reel("plan", photo, "x", "-o", "a.mp4").returncode == 32


# ------------------------------------------------------------------------------------------------- machine, config


def test_generators_are_listed_with_reasons(reel: Reel) -> None:
    entries = {entry["name"]: entry for entry in the_object(reel("generators", "--json"))}
    assert entries["draft"]["available"]
    assert not entries["draft"]["generative"]
    assert not entries["wan2.1"]["available"]
    assert "wan2_dir" in entries["wan2.1"]["reason"]


def test_one_generator_shows_its_documented_capabilities(reel: Reel) -> None:
    entry = the_object(reel("generators", "draft", "--json"))
    assert entry["capabilities"]["requires_gpu"] is False
    assert entry["capabilities"]["cost_per_second"] == 0.0
    assert "supports_image_to_video" in entry["capabilities"]


def test_an_unknown_generator_is_refused_with_the_known_ones(reel: Reel) -> None:
    done = reel("generators", "sora")
    assert done.returncode == 11
    assert "wan2.1" in done.stderr


def test_the_doctor_is_content_with_a_machine_for_drafts(reel: Reel) -> None:
    done = reel("doctor", "--json")
    rows = the_object(done)
    assert done.returncode == 0
    assert any(row["part"] == "draft" and row["code"] == "ready" for row in rows)
    assert reel("doctor").stdout.count("draft") >= 1


def test_config_shows_every_value_with_its_origin(reel: Reel, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sample_steps: 30\nenv: {HF_TOKEN: secret-canary}\n")
    done = reel("config", "--config", "c.yaml", "--set", "size=832x480", "--json")
    rows = {row["key"]: row for row in the_object(done)}
    assert (rows["sample_steps"]["value"], rows["sample_steps"]["origin"].endswith("c.yaml:1")) == (30, True)
    assert (rows["size"]["value"], rows["size"]["origin"]) == ("832x480", "--set")
    assert rows["codec"]["origin"] == "default"
    assert "secret-canary" not in done.stdout + reel("config", "--config", "c.yaml").stdout


def test_config_shows_lora_files_as_they_are_written(reel: Reel) -> None:
    done = reel("config", "--set", "lora=[/l/a.safetensors]", "--json")
    (row,) = (row for row in json.loads(done.stdout) if row["key"] == "lora")
    assert row["value"] == [{"path": "/l/a.safetensors", "scale": 1.0, "into": "transformer"}]


def test_in_a_pipe_a_setting_is_one_line_that_nothing_is_cut_from(reel: Reel) -> None:
    folder = "/x" * 90
    shown = reel("config", "--set", f"output_dir={folder}").stdout
    assert [folder in line for line in shown.splitlines() if "output_dir" in line] == [True]
    assert all(f" {key} " in shown for key in Settings.model_fields)


def test_in_a_pipe_what_a_plan_says_is_not_broken(reel: Reel, photo: Path) -> None:
    lines = reel("plan", photo, "push in", "-o", "a.mp4").stdout.splitlines()
    parameters = next(line for line in lines if line.startswith("parameters"))
    assert parameters.endswith("speed=1.0")
    assert len(parameters) > 100


# ------------------------------------------------------------------------------------------------- films and records


@pytest.mark.parametrize("words", [("show",), ("probe",), ("replay",), ("contact-sheet",), ("show", "--json")])
@pytest.mark.parametrize("name", ["nowhere.mp4", "nowhere.reel.json"])
def test_a_missing_file_is_named(reel: Reel, words: tuple[str, ...], name: str) -> None:
    done = reel(*words, name)
    assert done.returncode == 10
    assert f"{name} cannot be read: it does not exist" in done.stdout + done.stderr


def test_a_picture_is_no_manifest(reel: Reel, photo: Path) -> None:
    done = reel("show", photo)
    assert done.returncode == 10
    assert "is not a manifest" in done.stderr
    assert "codec can't decode" not in done.stderr


def test_replay_needs_the_manifest_beside_the_film(reel: Reel, clip: Path) -> None:
    clip.with_name("clip.reel.json").unlink()
    done = reel("replay", clip)
    assert done.returncode == 10
    assert "clip.reel.json cannot be read: it does not exist" in done.stderr


def test_probe_accepts_a_whole_film(reel: Reel, clip: Path) -> None:
    done = reel("probe", clip, "--json")
    facts = the_object(done)
    assert done.returncode == 0
    assert (facts["width"], facts["height"], facts["frames"], facts["fps"], facts["problems"]) == (
        320,
        180,
        9,
        16.0,
        [],
    )


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": _cut,
    "bit-flipped": _flipped,
    "empty": lambda _: b"",
    "text": lambda _: b"this is no video",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_probe_refuses_a_film_that_is_not_whole(reel: Reel, clip: Path, damage: str) -> None:
    clip.write_bytes(DAMAGES[damage](clip.read_bytes()))
    done = reel("probe", clip)
    assert done.returncode == 25
    assert "not a complete video" in done.stdout or "is not a video: it " in done.stdout


@pytest.mark.parametrize("which", ["clip.mp4", "clip.reel.json"])
def test_show_takes_the_film_or_its_manifest(reel: Reel, clip: Path, which: str) -> None:
    done = reel("show", clip.with_name(which))
    assert done.returncode == 0
    for word in ("slow push in", "push_in", "not generative", "completed", "rendering"):
        assert word in done.stdout
    assert the_object(reel("show", which, "--json"))["generative"] is False


def test_show_reads_the_films_own_tags_when_the_manifest_is_gone(reel: Reel, clip: Path) -> None:
    clip.with_name("clip.reel.json").unlink()
    tags = the_object(reel("show", clip, "--json"))
    assert (tags["generator"], tags["generative"], tags["title"]) == ("draft", "false", "slow push in")


def test_replay_makes_the_same_bytes(reel: Reel, clip: Path) -> None:
    done = reel("replay", clip.with_name("clip.reel.json"))
    assert done.returncode == 0
    assert "equal, byte for byte" in done.stderr
    assert clip.with_name("clip.replay.mp4").read_bytes() == clip.read_bytes()


def test_replay_shows_programs_whether_the_films_are_equal(reel: Reel, clip: Path) -> None:
    done = reel("replay", clip, "--json", "-o", clip.with_name("again.mp4"))
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["replay"] == {"same_bytes": True, "same_frames": True}
    assert last["output"] == str(clip.with_name("again.mp4"))


@pytest.mark.parametrize(
    ("same_bytes", "same_frames", "words"),
    [(True, True, "byte for byte"), (False, True, "every decoded frame is equal"), (False, False, "frames differ")],
)
def test_the_verdict_of_a_replay_in_words(same_bytes: bool, same_frames: bool, words: str) -> None:
    assert words in compare(same_bytes=same_bytes, same_frames=same_frames)


def test_replay_sees_that_another_container_holds_the_same_frames(reel: Reel, clip: Path) -> None:
    manifest = clip.with_name("clip.reel.json")
    data = json.loads(manifest.read_text())
    data["output"]["sha256"] = "0" * 64  # as if a library had written the boxes in another order
    manifest.write_text(json.dumps(data))
    assert "every decoded frame is equal" in reel("replay", manifest).stderr


def test_replay_refuses_a_picture_that_has_changed(reel: Reel, photo: Path) -> None:
    assert reel("generate", photo, "slow push in", "-o", "clip.mp4", *SMALL).returncode == 0
    Image.new("RGB", (320, 180), "red").save(photo)
    done = reel("replay", "clip.mp4")
    assert done.returncode == 10
    assert "changed" in done.stderr


def test_a_contact_sheet_has_its_frames_and_is_not_overwritten(reel: Reel, clip: Path) -> None:
    assert reel("contact-sheet", clip).returncode == 0
    with Image.open(clip.with_name("clip.sheet.png")) as sheet:
        assert sheet.width >= 3 * 100
    assert reel("contact-sheet", clip).returncode == 32
    assert reel("contact-sheet", clip, "--overwrite", "--count", "2", "--columns", "1").returncode == 0


def test_two_pictures_make_a_passage_from_the_first_to_the_last(reel: Reel, photo: Path, tmp_path: Path) -> None:
    Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "last.png")
    done = reel("generate", photo, "turn", "-o", "a.mp4", "--last-image", "last.png", *SMALL, "--json")
    assert done.returncode == 0
    assert json.loads((tmp_path / "a.reel.json").read_text())["task"] == "flf2v"


def test_a_picture_that_needs_changing_is_reported_or_refused(reel: Reel, tmp_path: Path) -> None:
    picture = Image.open(a_photo(tmp_path / "p.png"))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    arguments = ("generate", "turned.jpg", "hold", "-o", "a.mp4", *SMALL)
    assert reel(*arguments, "--strict-input").returncode == 10
    done = reel(*arguments)
    assert done.returncode == 0
    assert "upright" in done.stderr


@pytest.mark.parametrize(
    "more",
    [
        ("--camera", "pan_left slow"),
        ("--fit", "contain"),
        ("--fit", "stretch", "--anchor", "top"),
        ("--anchor", "0.2,0.8"),
        ("--no-label",),
        ("--codec", "av1"),
        ("--depth", "depth.png"),
    ],
    ids=" ".join,
)
def test_every_option_of_the_draft_gives_a_film(reel: Reel, photo: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    Image.linear_gradient("L").resize((320, 180)).save(tmp_path / "depth.png")
    done = reel("generate", photo, "orbit left", "-o", "a.mp4", *SMALL, *more)
    assert done.returncode == 0, done.stderr


def test_a_camera_that_does_not_exist_is_refused_with_the_known_ones(reel: Reel, photo: Path) -> None:
    done = reel("generate", photo, "x", "-o", "a.mp4", "--camera", "teleport", *SMALL)
    assert done.returncode == 10
    assert "push_in" in done.stderr


def test_c06_a_prompt_cannot_drive_the_terminal_or_forge_a_line(reel: Reel, photo: Path) -> None:
    prompt = "x\nERROR: all is lost\x1b[2J"
    reel("generate", photo, prompt, "-o", "a.mp4", *SMALL)
    shown = reel("show", "a.mp4")
    assert "\x1b" not in shown.stdout
    assert not any(line.startswith("ERROR: all is lost") for line in shown.stdout.splitlines())


def test_help_names_every_command_and_every_command_has_help(reel: Reel) -> None:
    text = reel("--help").stdout
    names = ["generate", "plan", "generators", "doctor", "config", "probe", "show", "replay", "contact-sheet"]
    assert all(name in text for name in names)
    for name in names:
        assert reel(name, "--help").returncode == 0


def test_help_waits_for_nothing_heavy() -> None:
    code = "import sys; from reelwright.cli import build_parser; build_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"av", "cv2", "numpy", "pydantic", "PIL", "rich", "pynvml", "yaml", "subprocess"}
    assert not heavy & set(done.stdout.split())


def test_a_reader_that_goes_away_is_no_error(photo: Path) -> None:
    argv = f"{sys.executable} -m reelwright config | head -n 1"
    done = subprocess.run(["bash", "-c", argv], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_config_shows_sections_without_their_secrets(reel: Reel, tmp_path: Path, form: tuple[str, ...]) -> None:
    section = "{env: {HF_TOKEN: secret-canary}, sample_steps: 9}"
    (tmp_path / "c.yaml").write_text(f"generators: {{wan2.1: {section}, hunyuan: {section}}}\n")
    done = reel("config", "--config", "c.yaml", *form)
    assert done.returncode == 0
    assert "secret-canary" not in done.stdout + done.stderr
    for words in ("HF_TOKEN", "***", "sample_steps"):
        assert words in done.stdout


@pytest.mark.parametrize("command", [("plan", "photo.png", "x"), ("doctor",), ("config",), ("generators",)])
@pytest.mark.parametrize(
    "text",
    ["env: [{A: secret-canary}]\n", "env: {1A: secret-canary}\n", "generators: {wan2.1: {env: secret-canary}}\n"],
)
def test_no_command_repeats_a_secret_in_a_mistake(
    reel: Reel, photo: Path, tmp_path: Path, command: tuple[str, ...], text: str
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    done = reel(*command, "--config", "c.yaml", "--json")
    assert done.returncode == 11
    assert "secret-canary" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["wan2.1", "hunyuan", "diffusers"])
def test_a_generator_that_nobody_has_set_up_is_unavailable_for_that_one_reason(name: str) -> None:
    (found,) = availability(load_backend(name), load_settings(environ={}), LocalSite())
    assert found.message == f"not configured: {load_backend(name).configuration_hint}"


def test_what_is_simulated_and_an_interpreter_that_is_not_there_are_said_once_by_the_doctor() -> None:
    values = {
        "wan2_dir": "/no",
        "weights": "/no",
        "python": "/no/python",
        "simulate_gpus": "1x24GiB",
        "simulate_memory": "8GiB",
    }
    rows = check_all(load_settings(environ={}, arguments=values), LocalSite({}))
    simulated = [(row.part, row.finding.code) for row in rows if row.finding.code.endswith(".simulated")]
    assert simulated == [("machine", "gpu.simulated"), ("machine", "memory.simulated")]
    said = {row.finding.message for row in rows if row.finding.code == "interpreter"}
    assert said == {"the interpreter /no/python does not exist"}
    assert "attention.sdpa" not in {row.finding.code for row in rows}


def test_the_doctor_advises_what_helps_against_a_hidden_gpu() -> None:
    hidden = Host(gpus=None, gpu_problem="CUDA_VISIBLE_DEVICES='' hides every GPU", gpu_advice="Unset it.")
    (row,) = [row for row in machine_rows(hidden, {}) if row.finding.code == "gpu"]
    assert row.finding.fix == "Unset it. The draft generator needs no GPU."


def test_a_missing_driver_is_one_line_of_the_doctor(reel: Reel) -> None:
    rows = the_object(reel("doctor", "--json", "--set", "wan2_dir=nowhere", "--simulate-gpus", "0x1"))
    assert len([row for row in rows if row["severity"] != "info" and row["code"].startswith("gpu")]) == 1
    (checkout,) = [row["message"] for row in rows if row["code"] == "wan2_dir.wrong"]
    assert checkout.startswith("wan2_dir: ")
