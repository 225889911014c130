"""Rows N05 to N09 of the fault matrix: files that are damaged, hostile, or no pictures at all."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reelwright.core.errors import BackendUnavailableError, Failure, InvalidInputError
from reelwright.core.request import Picture, Size
from reelwright.media.image import Intake, describe_picture, inspect_picture, take_picture
from reelwright.media.image_decoder import decode
from reelwright.media.picture_file import hold
from tests.conftest import eventually
from tests.media import pictures
from tests.media.clips import file_size_limit, open_files
from tests.media.pictures import CORNERS, as_bytes, corners_of, four_corners, hidden_red, one_colour, refusal


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes or a picture to a file and give its path."""
    return functools.partial(pictures.save_in, tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "private.png"


# ------------------------------------------------------------------------------------------ N05 cut-off files

WHOLE = {
    "baseline.jpg": as_bytes(pictures.noise(), "JPEG"),
    "progressive.jpg": as_bytes(pictures.noise(), "JPEG", progressive=True),
    "a.png": as_bytes(pictures.noise(), "PNG"),
    "text behind the pixels.png": pictures.png_with(
        four_corners(), pictures.chunk(b"tEXt", b"Comment\0" + b"x" * 5000), at_the_end=True
    ),
    "lossy.webp": as_bytes(pictures.noise(), "WEBP"),
    "lossless.webp": as_bytes(pictures.noise(), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", WHOLE)
def test_n05_a_file_cut_at_every_twentieth_is_refused(tmp_path: Path, name: str) -> None:
    whole = WHOLE[name]
    cuts = [len(whole) * share // 100 for share in range(5, 100, 5)]
    cuts += [len(whole) - 1] if name.endswith("webp") else []  # that is the end mark of the others: see below
    paths = [tmp_path / f"{length} {name}" for length in cuts]
    for path, length in zip(paths, cuts, strict=True):
        path.write_bytes(whole[:length])
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(describe_picture, paths))
    assert [path.name for path, answer in zip(paths, answers, strict=True) if answer["valid"]] == []


@pytest.mark.parametrize("name", WHOLE)
def test_n05_the_same_file_whole_is_accepted(source: Any, name: str) -> None:
    assert inspect_picture(source(WHOLE[name], name), Intake(strict=True)).notes == ()


def test_n05_a_flipped_bit_in_a_png_is_found(source: Any) -> None:
    data = bytearray(WHOLE["a.png"])
    data[len(data) // 2] ^= 4
    assert refusal(source(bytes(data))).message.endswith("it is damaged or cut off")


# -------------------------------------------------------------------------------------------------- N06 bombs

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a 50000x50000 header": (
        lambda: pictures.png((50000, 50000), depth=8, colour=2, pixels=b""),
        "50000x50000",
    ),
    "12000x12000 PNG": (lambda: as_bytes(Image.new("1", (12000, 12000)), "PNG"), "144 megapixels"),
    "12000x12000 JPEG": (lambda: pictures.jpeg_header(12000, 12000), "144 megapixels"),
    "12000x12000 WebP": (lambda: pictures.webp_header(12000, 12000), "144 megapixels"),
    "16383x16383 WebP": (lambda: pictures.webp_header(16383, 16383), ""),
    "65500x65500 JPEG": (lambda: pictures.jpeg_header(65500, 65500), "65500x65500"),
    "1x100000": (lambda: as_bytes(Image.new("L", (1, 100000)), "PNG"), "1x100000"),
    "a text of 4 GB": (
        lambda: pictures.png_with(
            four_corners(), pictures.chunk(b"zTXt", b"Comment\0\0" + pictures.zipped_zeros(4 << 30))
        ),
        "more than 8 MiB",
    ),
    "a text of 4 GB behind the pixels": (
        lambda: pictures.png_with(
            four_corners(),
            pictures.chunk(b"zTXt", b"Comment\0\0" + pictures.zipped_zeros(4 << 30)),
            at_the_end=True,
        ),
        "more than 8 MiB",
    ),
    "a colour profile of 1 GB": (
        lambda: pictures.png_with(four_corners(), pictures.chunk(b"iCCP", b"a\0\0" + pictures.zipped_zeros(1 << 30))),
        "more than 8 MiB",
    ),
}
_MEASURED = """
import json, resource, sys
from pathlib import Path
from reelwright.media.image import describe_picture
answer = describe_picture(Path(sys.argv[1]))
children, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
cpu_s = sum((children.ru_utime, children.ru_stime, own.ru_utime, own.ru_stime))
# ru_maxrss of this process would begin with that of the test suite, which it was forked from
peak_kib = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
print(json.dumps({**answer, "cpu_s": cpu_s, "megabytes": max(children.ru_maxrss, peak_kib) / 1024}))
"""


def _measured(path: Path) -> dict[str, Any]:
    argv = [sys.executable, "-c", _MEASURED, str(path)]
    answer: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=100).stdout)
    return answer


@pytest.fixture(scope="module")
def small_picture_cpu_s(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The processor time that a small picture takes on this machine, when all modules are compiled."""
    path = pictures.save_in(tmp_path_factory.mktemp("small"), four_corners())
    return min(float(_measured(path)["cpu_s"]) for _ in range(2))


@pytest.mark.parametrize("bomb", BOMBS)
def test_n06_a_bomb_costs_little_more_time_than_a_small_picture_and_no_300_megabytes(
    source: Any, small_picture_cpu_s: float, bomb: str
) -> None:
    make, message = BOMBS[bomb]
    answer = _measured(source(make()))
    assert not answer["valid"]
    assert message in answer["errors"][0]
    assert answer["cpu_s"] < 5 * small_picture_cpu_s  # to inflate 1 GB would take more than 10 times as long
    assert answer["megabytes"] < 300


def test_n06_a_child_that_swells_is_stopped_by_its_own_limit(source: Any) -> None:
    job = {"max_pixels": 1000, "frame_pixels": 0, "num_bytes": 1000}
    swell = (
        "import json, sys; job = json.loads(sys.argv[1]); sys.path += job['path']\n"
        "from reelwright.media import image_child; image_child._limit(job, 1000); bytearray(1 << 30)"
    )
    with pytest.raises(InvalidInputError, match="gave up") as caught:
        _decode(source(four_corners()), job, argv=(sys.executable, "-I", "-S", "-c", swell))
    assert caught.value.evidence == ("MemoryError",)


# ------------------------------------------------------------------------------------- N07 content, not names

NOT_PICTURES = {
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    "Photoshop": (b"8BPS\0\1", "a Photoshop document"),
    "OpenEXR": (b"v/1\x01\2\0\0\0", "an OpenEXR picture"),
    "big TIFF": (b"II+\0\x08\0\0\0", "a TIFF picture of the 64-bit kind"),
    "Canon raw": (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file"),
    "newer Canon raw": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a camera's raw file"),
    "text that begins as a BMP": (b"BMW drives down the coast at dusk\n", "plain text"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "an EPS"),
    "MP4": (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "an MP4"),
    "HTML": (b"\n<!DOCTYPE html><html><title>404</title></html>", "a web page"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "git lfs pull",
    ),
    "text": (b"hello\n", "plain text"),
    "zeros": (bytes(1000), "only zero bytes"),
    "noise": (b"\x93\x00\xfe\x17" * 9, "no known format"),
}


@pytest.mark.parametrize("kind", NOT_PICTURES)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a"])
def test_n07_what_is_no_picture_is_refused_by_its_content(source: Any, kind: str, name: str) -> None:
    content, told = NOT_PICTURES[kind]
    error = refusal(source(content, name))
    assert told in error.message
    assert any(
        word in error.advice for word in ("Give", "export", "Make a picture", "Download", "Take a frame", "Run:")
    )


@pytest.mark.parametrize("signature", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x10\0\0\0WEBPVP8 "])
def test_n07_only_a_signature_is_not_a_picture(source: Any, signature: bytes) -> None:
    assert "damaged" in refusal(source(signature)).message


@pytest.mark.parametrize(("kind", "name"), [("PNG", "a.jpg"), ("JPEG", "a.PNG"), ("WEBP", "a.heic")])
def test_n07_a_wrong_extension_is_reported_and_strict_input_refuses_it(
    source: Any, target: Path, kind: str, name: str
) -> None:
    path = source(as_bytes(four_corners(), kind), name)
    note = f"it is a {kind.replace('WEBP', 'WebP')} picture, although its name ends in {Path(name).suffix}"
    assert take_picture(path, target, Intake()).notes == (note,)
    assert note in refusal(path, Intake(strict=True)).evidence


@pytest.mark.parametrize("name", ["a.JPG", "a.jpeg", "a.jfif", "a", "a.final", "a.2024"])
def test_n07_an_extension_that_promises_nothing_else_is_not_mentioned(source: Any, name: str) -> None:
    assert inspect_picture(source(as_bytes(four_corners(), "JPEG"), name), Intake()).notes == ()


# ------------------------------------------------------------------------------------ N08 files that are none


def test_n08_a_link_to_a_picture_is_followed(source: Any, target: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(source(four_corners()))
    assert take_picture(link, target, Intake(strict=True)).source == link
    assert corners_of(target) == CORNERS


def test_n08_a_dangling_link_a_loop_and_a_missing_file_are_distinguished(tmp_path: Path) -> None:
    for name, goal in (("dangling", "nowhere"), ("loop", "loop")):
        (tmp_path / name).symlink_to(tmp_path / goal)
    assert "symbolic link to a file that does not exist" in refusal(tmp_path / "dangling").message
    assert "form a loop" in refusal(tmp_path / "loop").message
    assert "it does not exist" in refusal(tmp_path / "missing").message
    assert "it does not exist" in refusal(tmp_path / "nowhere" / "missing").message


def test_n08_a_link_to_a_secret_file_is_refused_without_telling_its_content(tmp_path: Path) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("admin:$y$j9T$hash:19000::::::\n")
    (tmp_path / "a.png").symlink_to(secret)
    (tmp_path / "b.png").symlink_to("/etc/shadow")
    error = refusal(tmp_path / "a.png")
    assert not {"admin", "hash", "19000"} & set(re.split(r"[^a-z0-9]+", json.dumps(error.to_json()).lower()))
    refusal(tmp_path / "b.png")


def test_n08_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "it is a named pipe, not a file" in refusal(tmp_path / "a.png").message


def test_n08_devices_folders_and_sockets_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert "is a socket" in refusal(tmp_path / "socket").message
    assert "is a device" in refusal(Path("/dev/zero")).message
    assert "is a folder" in refusal(tmp_path).message


def test_n08_an_empty_and_a_huge_sparse_file_are_refused_unread(source: Any, tmp_path: Path) -> None:
    assert "is empty (0 bytes)" in refusal(source(b"")).message
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(10 << 30)
    assert "10,240 MiB large; the limit for a picture is 256 MiB" in refusal(tmp_path / "sparse.png").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_n08_a_file_that_may_not_be_read_says_so(source: Any) -> None:
    path = source(four_corners())
    path.chmod(0)
    assert "permission was denied" in refusal(path).message


def test_n08_a_path_with_nul_or_control_characters_is_reported_harmlessly(tmp_path: Path) -> None:
    assert "NUL" in refusal(tmp_path / "a\0b.png").message
    assert "\x1b" not in refusal(tmp_path / "\x1b[2Ja.png").message
    assert "its name is too long" in refusal(tmp_path / ("x" * 300)).message


def test_n08_a_hostile_folder_name_is_no_obstacle(hostile_path: Path) -> None:
    (hostile_path / "a.png").write_bytes(as_bytes(four_corners(), "PNG"))
    take_picture(hostile_path / "a.png", hostile_path / "out.png", Intake())
    assert corners_of(hostile_path / "out.png") == CORNERS


# --------------------------------------------------------------------------------------- N09 the swapped file


def test_n09_the_bytes_hashed_are_the_bytes_decoded_even_if_the_file_is_swapped(
    source: Any, target: Path, tmp_path: Path
) -> None:
    colours = {}
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        content = as_bytes(Image.new("RGB", (40, 40), colour), "PNG")
        (tmp_path / name).write_bytes(content)
        colours[hashlib.sha256(content).hexdigest()] = colour
    path = tmp_path / "a.png"
    swap = (
        "import os\n"
        "while True:\n"
        "    for name in ('red', 'blue'):\n"
        "        os.link(name, 'next')\n"
        "        os.replace('next', 'a.png')\n"
    )
    swapper = subprocess.Popen([sys.executable, "-I", "-S", "-c", swap], cwd=tmp_path)
    try:
        eventually(path.exists, what="the first exchange")
        for _ in range(12):
            picture = take_picture(path, target, Intake())
            assert one_colour(target) == colours[picture.sha256]
    finally:
        swapper.kill()
        swapper.wait()


def test_n09_the_copy_that_is_decoded_cannot_be_written_to(source: Any) -> None:
    path = source(four_corners())
    with hold(path, 1 << 20) as held:
        assert held.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(PermissionError):
            os.pwrite(held.fd, b"x", 0)


def test_n09_the_users_file_is_left_as_it_was(source: Any, target: Path) -> None:
    path = source(four_corners())
    before = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
    take_picture(path, target, Intake(size=Size(64, 64)))
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) == before


# ------------------------------------------------------------------------------------------- the private copy


def test_the_copy_is_private_and_the_same_each_time(source: Any, target: Path, tmp_path: Path) -> None:
    path = source(as_bytes(pictures.noise((300, 200)), "JPEG", exif=pictures.exif_with(6)), "a.jpg")
    intake = Intake(size=Size(160, 90))
    take_picture(path, target, intake)
    take_picture(path, tmp_path / "again.png", intake)
    assert target.read_bytes() == (tmp_path / "again.png").read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_place_of_the_copy_is_replaced_and_not_followed(
    source: Any, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("mine")
    target.symlink_to(tmp_path / "victim")
    take_picture(source(four_corners()), target, Intake())
    assert (tmp_path / "victim").read_text() == "mine"
    assert corners_of(target) == CORNERS


def test_a_refused_picture_leaves_no_copy(source: Any, target: Path) -> None:
    for content, intake in (
        (b"text", Intake()),
        (hidden_red(), Intake(strict=True)),
        (WHOLE["a.png"][:-20], Intake()),
    ):
        with pytest.raises(InvalidInputError):
            take_picture(source(content), target, intake)
        assert not target.exists()


def test_a_copy_that_cannot_be_written_is_a_fault_of_the_disk_and_not_of_the_picture(
    source: Any, target: Path, tmp_path: Path
) -> None:
    path = source(as_bytes(pictures.noise(), "JPEG", quality=5), "a.jpg")
    with pytest.raises(BackendUnavailableError) as caught:
        take_picture(path, tmp_path / "no folder" / "a.png", Intake())
    assert caught.value.failure is Failure.DISK
    with file_size_limit(path.stat().st_size + 100), pytest.raises(BackendUnavailableError) as caught:
        take_picture(path, target, Intake())
    assert caught.value.failure is Failure.DISK
    assert not target.exists()


def test_inspecting_finds_the_same_and_writes_nothing(source: Any, target: Path, tmp_path: Path) -> None:
    path = source(hidden_red(), "a.jpg")
    intake = Intake(size=Size(160, 90))
    taken = take_picture(path, target, intake)
    before = sorted(tmp_path.iterdir())
    seen = inspect_picture(path, intake)
    assert sorted(tmp_path.iterdir()) == before
    assert seen == Picture(path, path, taken.size, taken.source_size, taken.sha256, taken.notes)
    assert len(seen.notes) == 4


# ---------------------------------------------------------------------------------------- the decoder's child


def _decode(path: Path, job: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    with hold(path, 1 << 20) as held, decode(held, job or {}, write=True, **options) as (report, _):
        return report


@pytest.mark.parametrize(
    ("code", "timeout_s", "message"),
    [
        ("import os; os.kill(os.getpid(), 11)", 100, "gave up (SIGSEGV)"),
        ("import os; os.kill(os.getpid(), 24)", 100, "used up its processor time"),
        ("raise RuntimeError('odd')", 100, "gave up (status 1)"),
        ("print('{nonsense')", 100, "gave up (status 0)"),
        ("import signal; signal.pause()", 0.5, "in reasonable time"),
    ],
)
def test_a_child_that_crashes_or_hangs_is_a_refusal(source: Any, code: str, timeout_s: float, message: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        _decode(source(four_corners()), argv=(sys.executable, "-I", "-S", "-c", code), timeout_s=timeout_s)


def test_a_missing_decoder_is_not_the_pictures_fault(source: Any, tmp_path: Path) -> None:
    path = source(four_corners())
    with pytest.raises(BackendUnavailableError, match="cannot be started") as caught:
        _decode(path, argv=(str(tmp_path / "no python"),))
    assert caught.value.code == "ENV"
    with pytest.raises(BackendUnavailableError, match="cannot be loaded"):
        _decode(path, argv=(sys.executable, "-c", "import sys; print('no PIL', file=sys.stderr); sys.exit(3)"))


def test_the_child_gets_no_secrets_no_terminal_signals_and_no_other_descriptors(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    look = """
import json, os
facts = {"env": sorted(os.environ), "fds": os.listdir("/proc/self/fd"), "leads": os.getsid(0) == os.getpid()}
print(json.dumps(facts))
"""
    report = _decode(source(four_corners()), argv=(sys.executable, "-I", "-S", "-c", look))
    assert "HF_TOKEN" not in report["env"]
    assert report["leads"]  # its own session: Ctrl-C does not reach it and cannot look like a crash
    assert len(report["fds"]) == 5  # the picture, the report, the errors, the PNG, and the listing itself


def test_many_pictures_leave_no_descriptor_open(source: Any, target: Path) -> None:
    path = source(four_corners())
    before = open_files()
    take_picture(path, target, Intake())
    for content in (b"text", b"", WHOLE["a.png"][:500]):
        refusal(source(content))
    refusal(Path("/dev/zero"))
    assert open_files() - before == set()  # what an earlier test left may close meanwhile
