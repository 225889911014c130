"""The stand-in does what the real framework does, and each scripted fault does what it says."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import av
import pytest

from tests.conftest import a_photo, eventually
from tests.stand_ins.checkout import launches, make_wan_checkout, reached, spawned
from tests.stand_ins.checkpoints import make_wan_checkpoint
from tests.stand_ins_check.conftest import I2V, SPLIT, TWO, Bench

LOGS = Path(__file__).parents[1] / "logs"
FLF2V = ("--task", "flf2v-14B", "--size", "832*480", "--sample_steps", "2", "--base_seed", "1")


def _film(path: Path) -> tuple[int, int, int, int]:
    """(width, height, decoded frames, mean brightness)."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].average_rate == 16
    gray = frames[0].to_ndarray(format="gray")
    return frames[0].width, frames[0].height, len(frames), int(gray.mean())


def _shape(log: str) -> list[str]:
    """Lines without what differs from run to run: times, folders, the argument and configuration dumps."""
    lines = re.sub(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\]", "[time]", log).splitlines()
    cut = [re.sub(r"(Namespace\(|model config: ).*", r"\1", re.sub(r"/\S*/", "/", line)) for line in lines]
    return [
        re.sub(r"(Input (?:prompt|image): ).*|(Saving \w+ \w+ to ).*", r"\1\2", re.sub(r" /i2v$", " /", line))
        for line in cut
    ]


def _real(case: str) -> tuple[str, str]:
    """(stdout, stderr) of the real framework."""
    text = (LOGS / f"wan21_real_{case}.txt").read_bytes().decode("utf-8")
    out, _, err = text.partition("---- stdout ----\n")[2].partition("---- stderr ----\n")
    return out, err


def _bars(log: str) -> set[str]:
    """Every different bar, with its times and rates taken away."""
    return {re.sub(r"\[.*?\]", "[]", piece) for piece in re.split(r"[\r\n]", log) if re.match(r"\s*\d+%\|", piece)}


def test_a_run_leaves_the_lines_of_the_real_run(bench: Bench) -> None:
    assert bench.run() == 0
    assert _shape(bench.stdout) == _shape(_real("single")[0])


def test_the_bars_are_drawn_as_in_the_real_run(bench: Bench) -> None:
    bench.plan({"step_s": 0.01})
    assert bench.run() == 0
    assert _bars(bench.stderr) == _bars(_real("single")[1])
    assert "\rLoading checkpoint shards: 100%|██████████| 7/7 [" in bench.stderr


def test_two_ranks_leave_the_lines_of_the_real_run_and_a_bar_each(bench: Bench) -> None:
    assert bench.run(*SPLIT, launcher=TWO) == 0
    assert _shape(bench.stdout) == _shape(_real("two_ranks")[0])
    assert len(re.findall(r"\| 0/3 \[", bench.stderr)) == 2
    assert len(re.findall(r"Loading checkpoint shards:   0%", bench.stderr)) == 1


@pytest.mark.parametrize(
    ("size", "asked", "made"),
    [
        ((1024, 768), "1280*720", (1104, 816)),
        ((832, 480), "832*480", (832, 464)),
        ((480, 832), "832*480", (480, 832)),
    ],
)
def test_the_pictures_aspect_decides_the_size(
    bench: Bench, size: tuple[int, int], asked: str, made: tuple[int, int]
) -> None:
    photo = a_photo(bench.folder / "photo.png", size)
    assert bench.run("--size", asked, "--image", str(photo)) == 0
    width, height, frames, brightness = _film(bench.out)
    assert (width, height, frames) == (*made, 5)
    assert 90 < brightness < 240


def test_the_same_seed_gives_the_same_file_and_another_seed_another(bench: Bench) -> None:
    films = []
    for seed in ("42", "42", "43"):
        assert bench.run("--base_seed", seed) == 0
        films.append(bench.out.read_bytes())
    assert films[0] == films[1] != films[2]


def test_each_process_is_recorded_with_arguments_environment_and_session(bench: Bench) -> None:
    odd = "line\nbreak ünïcode 🎬"
    assert bench.run(f"--prompt={odd}", *SPLIT, launcher=TWO) == 0
    first, second = sorted(launches(bench.checkout), key=lambda entry: int(entry["rank"]))
    assert f"--prompt={odd}" in first["argv"]
    assert (first["launch"], second["launch"]) == (1, 1)
    assert (first["sid"], second["sid"]) == (first["pid"], second["pid"])
    assert first["environ"]["WORLD_SIZE"] == "2"
    assert first["cwd"] == str(bench.checkout)
    assert second["environ"]["TORCHELASTIC_ERROR_FILE"].endswith("/1/error.json")


def test_the_script_goes_on_with_each_launch_and_repeats_its_last_entry(bench: Bench) -> None:
    bench.plan({"exit": 7}, {"exit": 8})
    assert [bench.run() for _ in range(3)] == [7, 8, 8]


@pytest.mark.parametrize(
    ("arguments", "launcher", "words"),
    [
        (
            ("--task", "t2v-1.3B", "--size", "1280*720"),
            (),
            "Unsupport size 1280*720 for task t2v-1.3B, supported sizes are: 480*832, 832*480",
        ),
        (("--dit_fsdp",), (), "t5_fsdp and dit_fsdp are not supported in non-distributed environments."),
        (("--ulysses_size", "2"), (), "context parallel are not supported in non-distributed environments."),
        (
            ("--ulysses_size", "3"),
            TWO,
            ("]: AssertionError: The number of ulysses_size and ring_size should be equal to the world size."),
        ),
        (("--image", "nope.jpg"), (), "FileNotFoundError: [Errno 2] No such file or directory: "),
        (
            ("--frame_num", "6"),
            (),
            "RuntimeError: shape '[1, 2, 4, 90, 68]' is invalid for input of size 55080",
        ),
    ],
)
def test_what_the_real_one_refuses_is_refused_with_its_words(
    bench: Bench, arguments: tuple[str, ...], launcher: tuple[str, ...], words: str
) -> None:
    assert bench.run(*arguments, launcher=launcher) == 1
    assert words in bench.stderr
    assert not bench.out.exists()


def test_heads_that_do_not_divide_are_told(bench: Bench) -> None:
    three = (*TWO[:3], "--nproc_per_node=3")
    assert bench.run("--ulysses_size", "3", launcher=three) == 1
    assert "AssertionError: `cfg.num_heads=40` cannot be divided evenly by `args.ulysses_size=3`." in bench.stderr


@pytest.mark.parametrize("arguments", [("--no_such_flag",), ("--size", "1280x720"), ("--sample_steps", "37.5")])
def test_bad_arguments_end_with_status_2_and_the_usage(bench: Bench, arguments: tuple[str, ...]) -> None:
    assert bench.run(*arguments) == 2
    real = _real("unknown_flag")[1]
    assert bench.stderr.partition("generate.py: error: ")[0] == real.partition("generate.py: error: ")[0]


def test_a_missing_picture_is_no_error_but_the_example(bench: Bench) -> None:
    assert bench.run() == 0
    assert "INFO: Input image: examples/i2v_input.JPG" in bench.stdout


def test_one_missing_frame_replaces_both(bench: Bench) -> None:
    photo = a_photo(bench.folder / "photo.png")
    weights = make_wan_checkpoint(bench.folder / "flf2v", "flf2v-14B")
    assert bench.run("--first_frame", str(photo), "--ckpt_dir", str(weights), task=FLF2V) == 0
    assert "INFO: Input first frame: examples/flf2v_input_first_frame.png" in bench.stdout
    assert _film(bench.out)[2] == 81


def test_first_last_frame_takes_81_frames_only(bench: Bench) -> None:
    weights = make_wan_checkpoint(bench.folder / "flf2v", "flf2v-14B")
    assert bench.run("--frame_num", "49", "--ckpt_dir", str(weights), task=FLF2V) == 1
    assert "INFO: Generating video ..." in bench.stdout
    assert bench.stderr.rstrip().splitlines()[-1] == _real("flf2v_49_frames")[1].rstrip().splitlines()[-1]


def test_an_old_checkout_takes_81_frames_only_for_pictures_too(bench: Bench) -> None:
    bench.checkout = make_wan_checkout(bench.folder / "old", old=True)
    assert bench.run() == 1
    assert "Expected size 21 but got size 2 for tensor number 1 in the list." in bench.stderr


def test_text_to_video_rounds_the_frames_down_and_keeps_the_asked_size(bench: Bench) -> None:
    weights = make_wan_checkpoint(bench.folder / "t2v", "t2v-1.3B")
    task = ("--task", "t2v-1.3B", "--size", "480*832", "--frame_num", "8", "--sample_steps", "2")
    assert bench.run("--ckpt_dir", str(weights), task=task) == 0
    assert _film(bench.out)[:3] == (480, 832, 5)
    assert "Loading checkpoint shards" not in bench.stderr


def test_without_a_name_the_film_lies_in_the_working_directory(bench: Bench) -> None:
    argv = bench.argv()
    at = argv.index("--save_file")
    bench.argv = lambda *_, **__: argv[:at] + argv[at + 2 :]  # type: ignore[method-assign]
    assert bench.run() == 0
    assert re.fullmatch(r"i2v-14B_832\*480_1_1_hi_\d{8}_\d{6}\.mp4", next(bench.checkout.glob("*.mp4")).name)


def test_a_missing_folder_is_swallowed_with_status_0(bench: Bench) -> None:
    assert bench.run("--save_file", str(bench.folder / "no" / "such" / "x.mp4")) == 0
    assert bench.stdout.splitlines()[-2] == (
        "cache_video failed, error: result type Float can't be cast to the desired output type Byte"
    )
    assert bench.stdout.endswith("INFO: Finished.\n")


@pytest.mark.parametrize(("phase", "bar"), [("load", None), ("dit", "| 0/3 ["), ("vae", "| 3/3 [")])
def test_out_of_memory_comes_in_its_phase_with_torchs_words(bench: Bench, phase: str, bar: str | None) -> None:
    bench.plan({"oom_phase": phase})
    assert bench.run() == 1
    last = bench.stderr.rstrip().splitlines()[-1]
    assert last.startswith(_real(f"oom_{phase}")[1].rstrip().splitlines()[-1].partition(" GPU 0")[0])
    assert re.findall(r"\| \d/3 \[", bench.stderr)[-1:] == ([bar] if bar else [])


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE])
def test_it_dies_of_the_signal_it_is_told(bench: Bench, number: signal.Signals) -> None:
    bench.plan({"sig": int(number)})
    assert bench.run() == -number


@pytest.mark.parametrize(
    ("entry", "status", "words"),
    [
        ({"nccl": True}, 1, "torch.distributed.DistBackendError: NCCL error in:"),
        ({"nccl": "watchdog"}, -6, "Watchdog caught collective operation timeout: WorkNCCL("),
        ({"xid": True}, 1, "torch.AcceleratorError: CUDA error: unspecified launch failure"),
        ({"host_oom": True}, -9, "100%|"),
        ({"traceback": "Traceback: anything\nOSError: at all", "at": "vae"}, 1, "OSError: at all"),
        ({"unknown_flag": True}, 2, "generate.py: error: unrecognized arguments: --base_seed"),
        ({"flash_attn": "absent"}, 1, "    assert FLASH_ATTN_2_AVAILABLE\n"),
        ({"exit": 3, "write": "ok"}, 3, "100%|"),
    ],
)
def test_a_fault_ends_with_its_status_and_its_words(
    bench: Bench, entry: dict[str, object], status: int, words: str
) -> None:
    bench.plan(entry)
    assert bench.run() == status
    assert words in bench.stderr
    assert bench.out.exists() == ("write" in entry)


@pytest.mark.parametrize("point", ["load", "step 2", "vae", "save"])
def test_a_hang_is_reached_and_ends_with_sigterm(bench: Bench, point: str) -> None:
    bench.plan({"hang_at": point})
    process = bench.start()
    eventually(lambda: reached(bench.checkout, "hang"), what="the hang")
    assert reached(bench.checkout, point)
    process.terminate()
    assert process.wait(timeout=60) == -signal.SIGTERM


def test_a_fifo_at_a_point_holds_the_run_until_it_is_read(bench: Bench) -> None:
    state = bench.checkout / "fake_state"
    state.mkdir()
    os.mkfifo(state / "at-step-2")
    process = bench.start()
    with (state / "at-step-2").open() as fifo:
        launch, rank, pid, _ = fifo.readline().split()
    assert (launch, rank, int(pid)) == ("1", "0", process.pid)
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("way", "frames"), [("ok", 5), ("wrong_frames", 1), ("wrong_size", 5), ("black", 5), ("tiny", 5)]
)
def test_a_decodable_film_is_wrong_only_as_told(bench: Bench, way: str, frames: int) -> None:
    bench.plan({"write": way})
    assert bench.run("--image", str(a_photo(bench.folder / "photo.png", (480, 832)))) == 0
    width, height, count, brightness = _film(bench.out)
    sizes = {"wrong_size": (464, 848), "tiny": (2, 2)}
    assert (width, height, count) == (*sizes.get(way, (480, 832)), frames)
    assert (brightness < 20) == (way == "black")


@pytest.mark.parametrize("way", ["trunc", "empty", "text"])
def test_an_undecodable_film_cannot_be_opened(bench: Bench, way: str) -> None:
    bench.plan({"write": way})
    assert bench.run() == 0
    assert bench.out.exists()
    with pytest.raises(av.FFmpegError):
        _film(bench.out)


def test_a_cut_faststart_film_promises_more_frames_than_it_has(bench: Bench) -> None:
    bench.plan({"write": "faststart_trunc"})
    assert bench.run("--frame_num", "81") == 0
    with av.open(str(bench.out)) as container:
        assert container.streams.video[0].frames == 81
        decoded = 0
        try:
            for _ in container.decode(video=0):
                decoded += 1
        except av.FFmpegError:
            pass
    assert decoded < 81


@pytest.mark.parametrize("entry", [{"write": "none"}, {"swallow_save_error": True}])
def test_status_0_without_a_file(bench: Bench, entry: dict[str, object]) -> None:
    bench.plan(entry)
    assert bench.run() == 0
    assert not bench.out.exists()
    assert ("cache_video failed, error: " in bench.stdout) == ("swallow_save_error" in entry)


def test_floods_and_raw_bytes_arrive(bench: Bench) -> None:
    bench.plan({"log_mb": 2, "log_line_mb": 3, "bytes": "\xff\x00\x1b[31mred\r"})
    assert bench.run() == 0
    assert (bench.folder / "stdout").stat().st_size > 1_990_000
    assert max(map(len, (bench.folder / "stderr").read_bytes().splitlines())) >= 3_000_000
    assert b"\xff\x00\x1b[31mred\r" in (bench.folder / "stdout").read_bytes()


def test_grandchildren_stay_behind_in_their_own_session_and_ignore_sigterm(bench: Bench) -> None:
    bench.plan({"spawn": {"n": 2, "setsid": True, "ignore_term": True}})
    assert bench.run() == 0
    pids = spawned(bench.checkout)
    try:
        assert [os.getsid(pid) for pid in pids] == pids
        assert all(map(_ignores_term, pids))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    assert len(pids) == 2


def _ignores_term(pid: int) -> bool:
    mask = re.search(r"SigIgn:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return mask is not None and bool(int(mask[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_the_input_can_be_touched(bench: Bench) -> None:
    photo = a_photo(bench.folder / "photo.png")
    before = photo.read_bytes()
    bench.plan({"touch_input": True})
    assert bench.run("--image", str(photo)) == 0
    assert photo.read_bytes() == before + b"touched"


def test_a_question_for_help_is_no_launch(bench: Bench) -> None:
    assert bench.run("--help") == 0
    assert launches(bench.checkout) == []


def test_it_runs_under_the_test_suites_own_python_too(bench: Bench) -> None:
    bench.python = Path(sys.executable)
    assert bench.run(task=I2V) == 0
    assert _film(bench.out)[2] == 5
