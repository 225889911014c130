"""Pictures of every format that is taken, their declared colours, and damage that leaves them complete."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pillow_jxl
import pytest
from PIL import Image

from reelwright.media import image_decoder
from reelwright.media.image import Intake, describe_picture, inspect_picture, take_picture
from reelwright.media.image_formats import jxl_header, whole_png, without_end_marker
from tests.media import pictures
from tests.media.pictures import CORNERS, as_bytes, chunk, corners_of, four_corners, one_colour, png_with, refusal

pillow_heif.register_heif_opener()
assert pillow_jxl  # registers its format
FORMATS: dict[str, dict[str, Any]] = {
    "HEIF": {"quality": -1, "chroma": 444},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "GIF": {},
    "TIFF": {},
    "BMP": {},
    "JXL": {"lossless": True},
}
TURNED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes or a picture to a file and give its path."""
    return functools.partial(pictures.save_in, tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "private.png"


def _flat(colour: tuple[int, ...], extra: bytes = b"") -> bytes:
    return png_with(Image.new("RGB", (40, 40), colour), extra)


def _near(one: tuple[int, ...], other: tuple[int, ...], levels: int = 3) -> bool:
    return all(abs(a - b) <= levels for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("kind", FORMATS)
def test_n07_a_picture_of_any_common_format_is_taken(source: Any, target: Path, kind: str) -> None:
    path = source(as_bytes(four_corners(), kind, **FORMATS[kind]), f"a.{kind.lower()}")
    picture = take_picture(path, target, Intake())
    assert corners_of(target) == CORNERS
    assert picture.notes == (("its palette was turned into RGB",) if kind == "GIF" else ())


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_n02_pictures_of_other_formats_are_turned_upright(
    source: Any, target: Path, kind: str, orientation: int
) -> None:
    stored = four_corners().transpose(TURNED[orientation])
    exif = pictures.exif_with(orientation)
    take_picture(source(as_bytes(stored, kind, exif=exif, **FORMATS[kind])), target, Intake())
    assert corners_of(target) == CORNERS


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "TIFF"])
def test_n03_the_colour_profile_of_any_format_is_used(source: Any, target: Path, kind: str) -> None:
    image = Image.new("RGB", (40, 40), (200, 0, 0))
    path = source(as_bytes(image, kind, icc_profile=pictures.icc_profile(b"bgr"), **FORMATS[kind]))
    assert "(odd bgr)" in " ".join(take_picture(path, target, Intake()).notes)
    assert _near(one_colour(target), (0, 0, 200))


def test_n03_the_profile_inside_a_bmp_is_used(source: Any, target: Path) -> None:
    profile = pictures.icc_profile(b"bgr")
    plain = as_bytes(Image.new("RGB", (40, 40), (200, 0, 0)), "BMP")
    pixels = plain[54:]
    header = struct.pack("<I", 124) + plain[18:54] + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    start = struct.pack("<2sIII", b"BM", 138 + len(pixels) + len(profile), 0, 138)
    take_picture(source(start + header + pixels + profile, "a.bmp"), target, Intake())
    assert _near(one_colour(target), (0, 0, 200))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "GIF", "TIFF", "JXL"])
def test_n03_transparency_of_any_format_is_laid_over_white(source: Any, target: Path, kind: str) -> None:
    image = Image.new("RGBA", (40, 40), (200, 0, 0, 0))
    notes = take_picture(source(as_bytes(image, kind, **FORMATS[kind])), target, Intake()).notes
    assert one_colour(target) == (255, 255, 255)
    assert "its transparent parts were laid over white" in notes


@pytest.mark.parametrize(
    ("kind", "words"), [("GIF", "is animated (2 frames)"), ("AVIF", "2 frames"), ("TIFF", "2 pages")]
)
def test_n04_animations_and_pages_are_refused(source: Any, kind: str, words: str) -> None:
    options = {} if kind == "TIFF" else {"duration": 100}
    frames = [Image.new("RGB", (40, 40), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    path = source(as_bytes(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert words in refusal(path).message


def test_n04_the_main_picture_of_a_heic_file_is_the_photo(source: Any, target: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    path = source(as_bytes(frames[0], "HEIF", save_all=True, append_images=frames[1:], primary_index=1), "a.heic")
    take_picture(path, target, Intake(strict=True))
    assert _near(one_colour(target), (0, 0, 200))


@pytest.mark.parametrize("kind", FORMATS)
def test_n05_a_picture_of_another_format_that_was_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    whole = as_bytes(pictures.noise((80, 60)), kind, **FORMATS[kind])
    taken = []
    for share in range(10, 100, 15):
        path = tmp_path / f"{share}.{kind.lower()}"
        path.write_bytes(whole[: len(whole) * share // 100])
        answer = describe_picture(path)
        if answer["valid"] or "damaged" not in answer["errors"][0]:
            taken.append(share)
    assert taken == []


def _tiff_header(width: int, height: int) -> bytes:
    """A small TIFF that claims another size; to make a vast one would take 950 MB in every process that collects."""
    data = as_bytes(Image.new("1", (299, 301)), "TIFF", compression="group4")
    for tag, small, large in ((256, 299, width), (257, 301, height)):
        entry = struct.pack("<HHII", tag, 3, 1, small)
        assert data.count(entry) == 1
        data = data.replace(entry, struct.pack("<HHII", tag, 3, 1, large))
    return data


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xff\x0a" + b"\xfa\xff\xff\xff\xff\x07\xf8\xff\xff\xff\x07\0" + bytes(40), id="JPEG XL"),
        pytest.param(_tiff_header(30_000, 30_000), id="TIFF"),
        pytest.param(b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\0\0\0," + bytes(9) + b"\2\0;", id="GIF"),
    ],
)
def test_n06_a_bomb_of_another_format_is_refused_by_its_header(source: Any, content: bytes) -> None:
    assert "the limit is 64 megapixels" in refusal(source(content)).message


def _tiff(**tags: Any) -> bytes:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    directory = ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[int(tag[1:])] = value
    return as_bytes(four_corners(), "TIFF", tiffinfo=directory)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (_tiff(t50706=b"\1\4\0\0"), "a.dng"),
        (_tiff(t50706=b"\1\4\0\0"), "a.tif"),
        (as_bytes(four_corners(), "TIFF"), "DSC_0001.NEF"),
    ],
)
def test_n07_a_cameras_raw_file_is_not_taken_for_its_preview(source: Any, content: bytes, name: str) -> None:
    error = refusal(source(content, name))
    assert "a camera's raw file" in error.message
    assert "Develop it" in error.advice


@pytest.mark.parametrize(
    ("mode", "words"),
    [("RGB;32F", "such as floating-point"), ("F", "floating-point"), ("I", "32-bit numbers"), ("LAB", "CIELAB")],
)
def test_n03_numbers_that_are_no_levels_of_a_screen_are_named(source: Any, mode: str, words: str) -> None:
    if mode == "RGB;32F":
        content = cv2.imencode(".tiff", np.zeros((40, 40, 3), np.float32))[1].tobytes()
    else:
        content = as_bytes(Image.new(mode, (40, 40)), "TIFF")
    assert words in refusal(source(content)).message


def test_n03_a_cmyk_tiff_is_not_inverted(source: Any, target: Path) -> None:
    take_picture(source(as_bytes(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "TIFF")), target, Intake())
    assert _near(one_colour(target), (255, 0, 0))


def test_n03_a_16_bit_tiff_keeps_its_brightness(source: Any, target: Path) -> None:
    path = source(as_bytes(Image.new("I;16", (40, 40), 40_000), "TIFF"))
    assert "its 16 bits per channel were reduced to 8" in take_picture(path, target, Intake()).notes
    assert one_colour(target) == (156, 156, 156)


def test_n07_without_its_reader_a_format_is_named_with_what_to_install(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(image_decoder._PACKAGES, "JXL", ("no_such_reader", "'reelwright[jxl]'"))
    error = refusal(source(as_bytes(four_corners(), "JXL", lossless=True)))
    assert "is a JPEG XL picture, which this installation cannot read" in error.message
    assert "pip install 'reelwright[jxl]'" in error.advice
    assert "djxl" in error.advice


# ------------------------------------------------------------------------------------------- declared colours

_P3, _REC2020 = b"\x0c\x0d\0\1", b"\x09\x01\0\1"
_BGR = chunk(b"iCCP", b"a\0\0" + zlib.compress(pictures.icc_profile(b"bgr")))
_GAMA_1 = chunk(b"gAMA", (100_000).to_bytes(4))
_CHRM_P3 = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
DECLARED = {
    "Display P3": (chunk(b"cICP", _P3), (234, 51, 35), (225, 56, 45), "Display P3"),
    "Rec. 2020": (chunk(b"cICP", _REC2020), (200, 120, 80), (0, 0, 0), "Rec. 2020"),
    "cICP before a profile": (chunk(b"cICP", _P3) + _BGR, (234, 51, 35), (0, 0, 0), "Display P3"),
    "cICP of sRGB before a profile": (chunk(b"cICP", b"\1\x0d\0\1") + _BGR, (200, 0, 0), (200, 0, 0), ""),
    "a profile before chromaticities": (_BGR + _CHRM_P3, (200, 0, 0), (0, 0, 200), "odd bgr"),
    "sRGB before chromaticities": (chunk(b"sRGB", b"\0") + _CHRM_P3 + _GAMA_1, (200, 60, 50), (200, 60, 50), ""),
    "chromaticities": (_CHRM_P3, (200, 100, 80), (0, 0, 0), "PNG chromaticities"),
    "linear light in cICP": (chunk(b"cICP", b"\1\x08\0\1"), (128, 0, 255), (188, 0, 255), "sRGB"),
    "video levels in cICP": (chunk(b"cICP", b"\1\x0d\0\0"), (235, 16, 126), (255, 0, 128), "sRGB"),
}


_TO_SRGB = {
    "Display P3": ((1.2249402, -0.2249402, 0.0), (-0.0420570, 1.0420570, 0.0), (-0.0196376, -0.0786361, 1.0982735)),
    "Rec. 2020": ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
}


def _in_srgb(colour: tuple[int, ...], primaries: str) -> tuple[int, ...]:
    """By the matrices of CSS Color 4 (Display P3) and ITU-R BT.2087 (Rec. 2020), with the curve of sRGB."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    rows = _TO_SRGB[primaries]
    mixed = [min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in rows]
    return tuple(round(255 * (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055)) for c in mixed)


@pytest.mark.parametrize("case", DECLARED)
def test_n03_colours_that_a_png_declares_are_converted_in_their_order(source: Any, target: Path, case: str) -> None:
    extra, stored, shown, name = DECLARED[case]
    primaries = "Display P3" if name == "PNG chromaticities" else name
    expected = _in_srgb(stored, primaries) if primaries in _TO_SRGB else shown
    picture = take_picture(source(_flat(stored, extra)), target, Intake())
    assert _near(one_colour(target), expected), one_colour(target)
    assert name in " ".join(picture.notes)
    assert bool(picture.notes) == bool(name)


@pytest.mark.parametrize(("code", "name"), [(16, "Rec. 2020 PQ"), (18, "Rec. 2020 HLG")])
def test_n03_an_hdr_picture_is_brought_to_a_normal_screen_and_reported(
    source: Any, target: Path, code: int, name: str
) -> None:
    white = {16: 148, 18: 191}[code]  # ITU-R BT.2408: 58 % of PQ and 75 % of HLG are the white of a page
    levels = []
    for level in (white // 2, white, 255):
        path = source(_flat((level,) * 3, chunk(b"cICP", bytes((9, code, 0, 1)))))
        picture = take_picture(path, target, Intake())
        levels.append(one_colour(target)[0])
        assert f"it is an HDR picture ({name}), and was converted to the range of a normal screen" in picture.notes
    assert levels[0] < levels[1] < levels[2]
    assert 225 <= levels[1] < 255
    assert levels[2] == 255


@pytest.mark.parametrize(("depth", "level", "pixels"), [(2, 1, b"\x55"), (4, 3, b"\x33"), (8, 9, b"\x09")])
def test_n03_the_transparent_level_of_a_grey_png_has_the_depth_of_its_pixels(
    source: Any, target: Path, depth: int, level: int, pixels: bytes
) -> None:
    clear = chunk(b"tRNS", level.to_bytes(2))
    take_picture(
        source(pictures.png((40, 40), depth=depth, colour=0, pixels=pixels * (200 * depth), extra=clear)),
        target,
        Intake(),
    )
    assert one_colour(target) == (255, 255, 255)


@pytest.mark.parametrize(
    ("extra", "note"),
    [
        (chunk(b"iCCP", b"a\0\0not deflated"), "its colour profile cannot be used, so its colours were read as sRGB"),
        (chunk(b"cHRM", bytes(5)), "its damaged 'cHRM' chunk was left out"),
        (chunk(b"gAMA", b"\1"), "its damaged 'gAMA' chunk was left out"),
    ],
)
def test_n05_colours_that_cannot_be_read_are_reported_and_left_out(
    source: Any, target: Path, extra: bytes, note: str
) -> None:
    assert take_picture(source(_flat((200, 100, 80), extra)), target, Intake()).notes == (note,)
    assert one_colour(target) == (200, 100, 80)


def _bits(*fields: tuple[int, int]) -> bytes:
    """Numbers of some bits each, lowest bit first."""
    value = place = 0
    for number, count in fields:
        value |= number << place
        place += count
    return value.to_bytes(place // 8 + 1, "little")


@pytest.mark.parametrize("animated", [0, 1])
@pytest.mark.parametrize(
    "preview",
    [
        ((0, 1),),
        ((1, 1), (1, 1), (2, 2), (7, 5), (1, 3)),
        ((1, 1), (1, 1), (3, 2), (99, 9), (0, 3), (0, 2)),
        ((1, 1), (0, 1), (1, 2), (60, 8), (0, 3), (3, 2), (777, 12)),
    ],
    ids=["none", "square in eighths", "any size in eighths", "any size"],
)
def test_n04_an_animated_jpeg_xl_is_known_behind_its_preview(
    preview: tuple[tuple[int, int], ...], animated: int
) -> None:
    small = ((1, 1), (9, 5), (1, 3))  # 80x80
    extra = ((0, 1), (1, 1), (0, 3), (0, 1), *preview, (animated, 1))
    assert jxl_header(b"\xff\x0a" + _bits(*small, *extra)) == (80, 80, bool(animated))


def test_n03_colours_that_nobody_knows_are_reported(source: Any) -> None:
    notes = inspect_picture(source(_flat((9, 9, 9), chunk(b"cICP", b"\x63\x0d\0\1"))), Intake()).notes
    assert notes == ("its colours are declared in a way that Reelwright does not know (primaries 99, transfer 13)",)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_n03_colours_declared_in_a_heic_or_avif_file_are_converted(source: Any, target: Path, kind: str) -> None:
    data = as_bytes(Image.new("RGB", (40, 40), (200, 100, 80)), kind, **FORMATS[kind])
    place = data.index(b"colrnclx") + 8
    data = data[:place] + struct.pack(">HH", 12, 13) + data[place + 4 :]
    assert "Display P3" in " ".join(take_picture(source(data), target, Intake()).notes)
    assert _near(one_colour(target), _in_srgb((200, 100, 80), "Display P3"), 4)


def test_n03_adobe_rgb_that_only_the_exif_data_name_is_converted(source: Any, target: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    path = source(
        as_bytes(Image.new("RGB", (40, 40), (60, 180, 60)), "JPEG", quality=100, exif=exif.tobytes()), "a.jpg"
    )
    assert "Adobe RGB" in " ".join(take_picture(path, target, Intake()).notes)
    assert one_colour(target)[1] - one_colour(target)[0] > 130


# -------------------------------------------------------------------------------------------- harmless damage

_NOISE = pictures.noise()
JPEGS = {
    "baseline": as_bytes(_NOISE, "JPEG"),
    "progressive": as_bytes(_NOISE, "JPEG", progressive=True),
    "grey": as_bytes(_NOISE.convert("L"), "JPEG"),
    "smooth": as_bytes(four_corners(), "JPEG", quality=30),
    "restarts": as_bytes(_NOISE, "JPEG", restart_marker_rows=1),
}


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("rest", [b"", b"\xff", bytes(500)], ids=["nothing", "half a marker", "zeros"])
def test_n05_a_jpeg_that_lacks_only_its_end_marker_has_all_pixels(name: str, rest: bytes) -> None:
    image = without_end_marker(JPEGS[name][:-2] + rest)
    assert image is not None
    assert image.tobytes() == Image.open(BytesIO(JPEGS[name])).tobytes()


def test_n05_a_jpeg_without_its_end_marker_is_taken_with_a_warning(source: Any, target: Path) -> None:
    path = source(as_bytes(four_corners(), "JPEG")[:-2], "a.jpg")
    assert take_picture(path, target, Intake()).notes == (
        "its end marker is missing, but all of its pixels are present",
    )
    assert corners_of(target) == CORNERS


@pytest.mark.parametrize("name", JPEGS)
def test_n05_a_jpeg_that_lacks_pixels_is_not_complete(name: str) -> None:
    whole = JPEGS[name]
    scans = [place for place in range(len(whole)) if whole[place : place + 2] in (b"\xff\xda", b"\xff\xc4")][1:]
    cuts = [
        *range(len(whole) - 12, len(whole) - 4),
        *(len(whole) * share // 100 for share in range(40, 100, 5)),
        *scans,
    ]
    start = whole.index(b"\xff\xda") + 20
    assert [cut for cut in cuts if cut > start and without_end_marker(whole[:cut])] == []


def _damaged(name: bytes, data: bytes) -> bytes:
    return chunk(name, data)[:-4] + b"\0\0\0\0"


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"pHYs", b"gAMA", b"prVt"])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_n05_a_png_chunk_with_a_wrong_checksum_beside_the_pixels_is_left_out(name: bytes, at_the_end: bool) -> None:
    notes: list[str] = []
    damaged = png_with(four_corners(), _damaged(name, b"Comment\0hello"), at_the_end=at_the_end)
    copy, _ = whole_png(BytesIO(damaged), notes)
    assert copy.read() == as_bytes(four_corners(), "PNG")
    assert notes == [f"its damaged {name.decode()!r} chunk was left out"]


@pytest.mark.parametrize("at_the_end", [False, True])
def test_n05_a_png_with_a_damaged_text_is_taken_with_a_warning(source: Any, target: Path, at_the_end: bool) -> None:
    path = source(png_with(four_corners(), _damaged(b"tEXt", b"Comment\0hello"), at_the_end=at_the_end))
    assert take_picture(path, target, Intake()).notes == ("its damaged 'tEXt' chunk was left out",)
    assert corners_of(target) == CORNERS


@pytest.mark.parametrize("name", [b"tRNS", b"PLTE", b"ABCD"])
def test_n05_a_png_with_a_wrong_checksum_in_what_its_pixels_need_is_refused(source: Any, name: bytes) -> None:
    assert "damaged" in refusal(source(png_with(four_corners(), _damaged(name, bytes(6))))).message


@pytest.mark.parametrize("missing", [1, 11])
def test_n05_a_png_that_ends_within_its_end_mark_is_complete(source: Any, target: Path, missing: int) -> None:
    path = source(as_bytes(_NOISE, "PNG")[:-missing])
    note = "its end marker is missing or damaged, but all of its pixels are present"
    assert take_picture(path, target, Intake()).notes == (note,)


@pytest.mark.parametrize("missing", range(1, 12))
def test_n05_the_end_mark_of_a_png_is_made_whole(missing: int) -> None:
    whole = as_bytes(_NOISE, "PNG")
    assert whole_png(BytesIO(whole[:-missing]), [])[0].read() == whole


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_n05_bytes_behind_a_complete_picture_do_not_matter(source: Any, target: Path, kind: str) -> None:
    take_picture(source(as_bytes(four_corners(), kind) + b"trailing junk" * 9), target, Intake())
    assert corners_of(target) == CORNERS
