"""Rows N02 to N04 and N10 of the fault matrix: the pictures that people have are corrected, and each correction is reported."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageCms

from reelwright.core.errors import InvalidInputError
from reelwright.core.request import Size
from reelwright.media.framing import cover_crop_share, parse_anchor, place
from reelwright.media.image import (
    MAX_ASPECT,
    MIN_SIDE,
    Intake,
    describe_picture,
    inspect_picture,
    take_picture,
)
from tests.media import pictures
from tests.media.pictures import CORNERS, animated, as_bytes, corners_of, four_corners, hidden_red, one_colour, refusal

T = Image.Transpose
# How a camera stored an upright picture that it marks with this orientation.
STORED = {
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes or a picture to a file and give its path."""
    return functools.partial(pictures.save_in, tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "private.png"


# -------------------------------------------------------------------------------------------- N02 orientation


@pytest.mark.parametrize(
    ("kind", "orientation"), [("JPEG", number) for number in STORED] + [("PNG", 6), ("PNG", 5), ("WEBP", 8)]
)
def test_n02_every_exif_orientation_is_turned_upright(source: Any, target: Path, kind: str, orientation: int) -> None:
    stored = four_corners((120, 80)).transpose(STORED[orientation])
    path = source(as_bytes(stored, kind, exif=pictures.exif_with(orientation)), f"a.{kind.lower()}")
    picture = take_picture(path, target, Intake())
    assert (picture.source_size, picture.size) == ((120, 80), (120, 80))
    assert corners_of(target) == CORNERS
    assert picture.notes == (f"it was turned upright (EXIF orientation {orientation})",)


def test_n02_the_crop_is_computed_after_turning(source: Any, target: Path) -> None:
    stored = four_corners((320, 180)).transpose(STORED[6])
    path = source(as_bytes(stored, "PNG", exif=pictures.exif_with(6)))
    picture = take_picture(path, target, Intake(size=Size(160, 90)))
    assert picture.notes == ("it was turned upright (EXIF orientation 6)",)  # same aspect: nothing cropped
    assert corners_of(target) == CORNERS


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_n02_an_upright_or_senseless_orientation_changes_nothing(source: Any, target: Path, orientation: int) -> None:
    path = source(as_bytes(four_corners(), "PNG", exif=pictures.exif_with(orientation)))
    assert take_picture(path, target, Intake()).notes == ()
    assert corners_of(target) == CORNERS


def test_n02_unreadable_exif_data_is_reported_and_not_fatal(source: Any, target: Path) -> None:
    path = source(pictures.png_with(four_corners(), pictures.chunk(b"eXIf", b"nonsense")))
    picture = take_picture(path, target, Intake())
    assert picture.notes == ("its EXIF data cannot be read, so Reelwright took it as upright",)
    assert corners_of(target) == CORNERS


# ----------------------------------------------------------------------------------------- N03 modes, colours


def _palette_with_hole() -> bytes:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    return as_bytes(image, "PNG", transparency=1)


def _grey_16(value: int, extra: bytes = b"") -> bytes:
    return pictures.png((40, 40), depth=16, colour=0, pixels=value.to_bytes(2) * 1600, extra=extra)


def _colour_16(extra: bytes = b"") -> bytes:
    pixel = (40000).to_bytes(2) + (20000).to_bytes(2) + (0).to_bytes(2)
    return pictures.png((40, 40), depth=16, colour=2, pixels=pixel * 1600, extra=extra)


def _cmyk_red(profile: bytes | None = None) -> bytes:
    image = Image.new("CMYK", (40, 40), (0, 255, 255, 0))
    return as_bytes(image, "JPEG", quality=100, **({"icc_profile": profile} if profile else {}))


def _cmyk_red_not_inverted() -> bytes:
    inks = Image.new("CMYK", (40, 40), (0, 255, 255, 0))
    return pictures.without_adobe_marker(as_bytes(ImageChops.invert(inks), "JPEG", quality=100))


def _flat(colour: Any, mode: str = "RGB", **options: Any) -> bytes:
    return as_bytes(Image.new(mode, (40, 40), colour), "PNG", **options)


def _grey(value: int) -> tuple[int, int, int]:
    return (value, value, value)


WHITE = _grey(255)
_GAMA_1 = pictures.chunk(b"gAMA", (100000).to_bytes(4))
NORMALISED = {
    "greyscale": (_flat(128, "L"), _grey(128), "greyscale"),
    "greyscale with clear pixels": (_flat((90, 0), "LA"), WHITE, "transparent parts were laid over white"),
    "greyscale with a clear value": (_flat(90, "L", transparency=90), WHITE, "transparent"),
    "1 bit": (_flat(1, "1"), WHITE, "black-and-white"),
    "palette": (
        as_bytes(Image.new("RGB", (40, 40), (9, 80, 200)).quantize(4), "PNG"),
        (9, 80, 200),
        "palette",
    ),
    "palette with transparency": (_palette_with_hole(), WHITE, "transparent"),
    "16-bit greyscale": (_grey_16(40000), _grey(156), "16 bits per channel were reduced to 8"),
    "dark 16-bit greyscale": (_grey_16(300), _grey(1), "16 bits"),
    "16-bit greyscale with a clear value": (
        _grey_16(500, pictures.chunk(b"tRNS", (500).to_bytes(2))),
        WHITE,
        "transparent",
    ),
    "linear 16-bit greyscale": (_grey_16(1000, _GAMA_1), _grey(38), "16 bits"),
    "16-bit colour": (_colour_16(), (156, 78, 0), "16 bits"),
    "16-bit colour with a clear colour": (
        _colour_16(pictures.chunk(b"tRNS", b"".join(part.to_bytes(2) for part in (40000, 20000, 0)))),
        WHITE,
        "transparent",
    ),
    "colour with a clear colour": (_flat((9, 8, 7), transparency=(9, 8, 7)), WHITE, "transparent"),
    "RGBA with hidden colour": (hidden_red(), WHITE, "transparent"),
    "half clear RGBA": (_flat((255, 0, 0, 128), "RGBA"), (255, 127, 127), "transparent"),
    "CMYK as Adobe writes it": (_cmyk_red(), (255, 0, 0), "CMYK"),
    "CMYK as others write it": (_cmyk_red_not_inverted(), (255, 0, 0), "CMYK"),
    "CMYK with a useless profile": (_cmyk_red(b"nonsense" * 20), (255, 0, 0), "profile cannot be used"),
    "colour profile": (
        _flat((200, 0, 0), icc_profile=pictures.icc_profile(b"bgr")),
        (0, 0, 200),
        "(odd bgr)",
    ),
    "grey profile": (_flat(128, "L", icc_profile=pictures.icc_profile(b"k", 1.0)), _grey(188), "(odd k)"),
    "colour profile on greyscale": (
        _flat(55, "L", icc_profile=pictures.icc_profile(gamma=1.0)),
        _grey(128),
        "(odd rgb)",
    ),
    "broken profile": (
        _flat((7, 77, 177), icc_profile=b"nonsense" * 20),
        (7, 77, 177),
        "profile cannot be used",
    ),
    "grey profile on colour": (
        _flat((7, 77, 177), icc_profile=pictures.icc_profile(b"k")),
        (7, 77, 177),
        "cannot be used",
    ),
    "linear gamma": (
        pictures.png_with(Image.new("RGB", (40, 40), (128, 0, 255)), _GAMA_1),
        (186, 0, 255),
        "gamma (1)",
    ),
    "HDR": (
        pictures.png_with(Image.new("RGB", (40, 40), (5, 6, 7)), pictures.chunk(b"cICP", b"\x09\x10\0\x01")),
        (0, 0, 0),
        "it is an HDR picture (Rec. 2020 PQ)",
    ),
}


@pytest.mark.parametrize("case", NORMALISED)
def test_n03_what_a_model_would_get_wrong_is_corrected_and_reported(source: Any, target: Path, case: str) -> None:
    content, colour, note = NORMALISED[case]
    picture = take_picture(source(content, "a.jpg" if content[:2] == b"\xff\xd8" else "a.png"), target, Intake())
    assert all(abs(a - b) <= 2 for a, b in zip(one_colour(target), colour, strict=True)), one_colour(target)
    assert note in " | ".join(picture.notes)


@pytest.mark.parametrize("case", NORMALISED)
def test_n03_strict_input_refuses_with_the_list_of_what_would_change(source: Any, case: str) -> None:
    content, _, note = NORMALISED[case]
    error = refusal(source(content, "a.jpg" if content[:2] == b"\xff\xd8" else "a.png"), Intake(strict=True))
    assert note in " | ".join(error.evidence)
    assert "--strict-input" in error.advice


UNTOUCHED = {
    "RGB": _flat((10, 100, 200)),
    "RGBA without a clear pixel": _flat((10, 100, 200, 255), "RGBA"),
    "sRGB profile": _flat(
        (10, 100, 200), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "gamma of every screen": pictures.png_with(
        Image.new("RGB", (40, 40), (10, 100, 200)), pictures.chunk(b"gAMA", (45455).to_bytes(4))
    ),
    "sRGB chunk beside a gamma": pictures.png_with(
        Image.new("RGB", (40, 40), (10, 100, 200)), pictures.chunk(b"sRGB", b"\0") + _GAMA_1
    ),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_n03_a_plain_picture_passes_strict_input_unchanged(source: Any, target: Path, case: str) -> None:
    picture = take_picture(source(UNTOUCHED[case]), target, Intake(strict=True))
    assert (one_colour(target), picture.notes) == ((10, 100, 200), ())


def test_n03_a_clear_edge_does_not_bleed_its_hidden_colour_when_scaled(source: Any, target: Path) -> None:
    image = Image.new("RGBA", (400, 400), (0, 0, 255, 255))
    image.paste((255, 0, 0, 0), (0, 0, 200, 400))
    take_picture(source(image), target, Intake(size=Size(100, 100)))
    with Image.open(target) as small:
        edge: list[Any] = [small.getpixel((x, 50)) for x in range(40, 60)]
    assert all(red <= green + 3 for red, green, _ in edge)  # white to blue: never redder than it is green


# ---------------------------------------------------------------------------------------------- N04 animation


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_n04_an_animated_picture_is_refused(source: Any, kind: str) -> None:
    path = source(animated(kind), f"a.{kind.lower()}")
    assert "animated (2 frames)" in refusal(path).message


def test_n04_a_phones_photo_with_a_second_picture_behind_it_is_no_animation(source: Any, target: Path) -> None:
    photo = as_bytes(four_corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 40))])
    assert take_picture(source(photo, "phone.jpg"), target, Intake(strict=True)).notes == ()
    assert corners_of(target) == CORNERS


# ----------------------------------------------------------------------------------------- N10 shape and size


def test_n10_a_tiny_picture_is_refused_with_numbers(source: Any) -> None:
    error = refusal(source(four_corners((16, 16))))
    assert f"only 16x16 pixels; the shorter side must have at least {MIN_SIDE}" in error.message
    inspect_picture(source(four_corners((MIN_SIDE, MIN_SIDE))), Intake())


@pytest.mark.parametrize("size", [(1000, 100), (100, 1000)])
def test_n10_a_ribbon_is_refused_unless_a_crop_was_requested(source: Any, target: Path, size: tuple[int, int]) -> None:
    path = source(four_corners(size))
    for intake in (Intake(), Intake(fit="cover"), Intake(size=Size(160, 90))):
        error = refusal(path, intake)
        assert f"are 10 to 1; the limit is {MAX_ASPECT:g} to 1" in error.message
        assert "--fit cover" in error.advice
    picture = take_picture(path, target, Intake(size=Size(160, 90), fit="cover"))
    assert picture.size == (160, 90)
    inspect_picture(path, Intake(fit="contain", fitted_later=True))
    refusal(path, Intake(fitted_later=True))


def test_n10_without_a_size_the_picture_keeps_its_own(source: Any, target: Path) -> None:
    picture = take_picture(source(four_corners((122, 82))), target, Intake(fit="stretch"))
    assert (picture.size, picture.source_size, picture.notes) == ((122, 82), (122, 82), ())


def test_n10_a_large_crop_is_reported_with_its_share_and_strict_input_refuses_it(source: Any, target: Path) -> None:
    path = source(four_corners((160, 160)))
    note = "44% of the picture is cropped away to fill 160x90"
    assert take_picture(path, target, Intake(size=Size(160, 90))).notes[0].startswith(note)
    assert note in refusal(path, Intake(size=Size(160, 90), strict=True)).message
    asked = take_picture(path, target, Intake(size=Size(160, 90), strict=True, fit="cover"))
    assert asked.notes[0].startswith(note)


def test_n10_a_crop_of_a_quarter_is_not_mentioned(source: Any) -> None:
    assert cover_crop_share((160, 120), (160, 90)) == pytest.approx(0.25)
    assert inspect_picture(source(four_corners((160, 120))), Intake(size=Size(160, 90), strict=True)).notes == ()


@pytest.mark.parametrize(
    ("anchor", "left", "right"),
    [("center", 0, 1), ("left", 0, 0), ("right", 1, 1), ("0,0.5", 0, 0), ("1,0.5", 1, 1), ("top", 0, 1)],
)
def test_n10_the_anchor_says_which_part_survives(source: Any, target: Path, anchor: str, left: int, right: int) -> None:
    take_picture(source(four_corners((200, 100))), target, Intake(size=Size(100, 100), fit="cover", anchor=anchor))
    assert corners_of(target)[:2] == (CORNERS[left], CORNERS[right])


def test_n10_the_anchor_works_upright_too(source: Any, target: Path) -> None:
    take_picture(source(four_corners((100, 200))), target, Intake(size=Size(100, 100), fit="cover", anchor="bottom"))
    assert corners_of(target) == (CORNERS[2], CORNERS[3], CORNERS[2], CORNERS[3])


def test_n10_contain_keeps_everything_between_black_bars(source: Any, target: Path) -> None:
    picture = take_picture(source(four_corners((100, 100))), target, Intake(size=Size(200, 100), fit="contain"))
    assert picture.notes == ("black bars fill 50% of the frame",)
    with Image.open(target) as image:
        assert image.size == (200, 100)
        assert image.crop((50, 0, 150, 100)).tobytes() == four_corners((100, 100)).tobytes()
        assert [image.getpixel((x, 50)) for x in (0, 49, 150, 199)] == [(0, 0, 0)] * 4


def test_n10_contain_follows_the_anchor(source: Any, target: Path) -> None:
    intake = Intake(size=Size(100, 200), fit="contain", anchor="top")
    take_picture(source(four_corners((100, 100))), target, intake)
    with Image.open(target) as image:
        assert image.crop((0, 0, 100, 100)).tobytes() == four_corners((100, 100)).tobytes()


def test_n10_stretching_is_done_only_on_request_and_reported(source: Any, target: Path) -> None:
    picture = take_picture(source(four_corners((100, 100))), target, Intake(size=Size(200, 100), fit="stretch"))
    assert picture.notes == ("it was stretched 2.00 times in one direction, from 100x100",)
    assert corners_of(target) == CORNERS


def test_n10_an_enlargement_is_reported(source: Any) -> None:
    assert inspect_picture(source(four_corners((100, 100))), Intake(size=Size(500, 500))).notes == (
        "it was enlarged 5.0 times, so the video will look soft",
    )
    assert inspect_picture(source(four_corners((100, 100))), Intake(size=Size(200, 200))).notes == ()


def test_n10_a_last_picture_of_another_size_comes_to_the_size_of_the_first(source: Any, target: Path) -> None:
    first = take_picture(source(four_corners((120, 80))), target, Intake())
    last = take_picture(source(four_corners((240, 170)), "last.png"), target, Intake(size=first.size))
    assert last.size == first.size
    assert corners_of(target) == CORNERS


@pytest.mark.parametrize("text", ["", "middle", "0.5", "1,2", "-0.1,0", "nan,0", "0.5,inf", "0,0,0", "a,b", "TOP"])
def test_n10_a_senseless_anchor_is_refused(source: Any, text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not an anchor"):
        parse_anchor(text)
    assert "is not an anchor" in refusal(source(four_corners()), Intake(anchor=text)).message


def test_n10_a_senseless_size_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    assert (
        "the requested size 999999x999999 is too large"
        in refusal(tmp_path / "missing", Intake(size=Size(999999, 999999))).message
    )


@pytest.mark.parametrize("frame", [(1280, 720), (832, 480), (33, 2000), (1, 1)])
@pytest.mark.parametrize("size", [(4000, 3000), (31, 977), (1280, 721), (65000, 900)])
@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_n10_a_placement_never_leaves_the_picture_or_the_frame(
    size: tuple[int, int], frame: tuple[int, int], fit: str
) -> None:
    for anchor in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        placed = place(size, frame, fit, anchor)
        left, top, right, bottom = placed.box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert placed.canvas == frame
        assert all(o >= 0 and n >= 1 and o + n <= f for o, n, f in zip(placed.offset, placed.inner, frame, strict=True))


# ---------------------------------------------------------------------------------------------- the validator


def test_the_validator_describes_a_good_picture(source: Any) -> None:
    content = as_bytes(four_corners((120, 80)).transpose(T.ROTATE_90), "JPEG", exif=pictures.exif_with(6))
    path = source(content, "a.jpg")
    assert describe_picture(path) == {
        "valid": True,
        "errors": [],
        "info": {
            "format": "JPEG",
            "width": 120,
            "height": 80,
            "mode": "RGB",
            "bytes": len(content),
            "file_size_mb": len(content) / 1024**2,
            "dimensions": (120, 80),
            "aspect_ratio": 1.5,
            "color_space": "sRGB",
            "notes": ["it was turned upright (EXIF orientation 6)"],
        },
    }


@pytest.mark.parametrize(
    ("case", "space"),
    [
        ("greyscale", "greyscale"),
        ("CMYK as Adobe writes it", "CMYK"),
        ("colour profile", "odd bgr"),
        ("broken profile", "sRGB"),
    ],
)
def test_the_validator_names_the_colour_space(source: Any, case: str, space: str) -> None:
    assert describe_picture(source(NORMALISED[case][0]))["info"]["color_space"] == space


def test_the_validator_reports_what_is_wrong_and_what_to_do(source: Any) -> None:
    answer = describe_picture(source(b"%PDF-1.4"))
    assert (answer["valid"], answer["info"]) == (False, {})
    assert "it looks like a PDF document" in answer["errors"][0]
    assert "pdftoppm" in answer["errors"][0]
