"""Converts a picture to sRGB from declared colours, an ICC profile, a gamma or plain CMYK, for `image_child` only.

Colours that a picture declares only by numbers (cICP, nclx, cHRM) become an ICC profile first: version 2, with three
columns and one curve. Code points and formulas are those of ITU-T H.273. HDR pictures (PQ, HLG) hold light above the
white of a normal screen; it is rolled off above three quarters of that white. A profile that is broken, or that changes
almost nothing, does not refuse a picture. Other modules handle size, transparency and rotation.

    >>> change = colour_change(image, image.info, notes)
    >>> change(image).mode
    'RGB'
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

from PIL import Image

# Errors that parsers raise on damaged data.
BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)
_BAD_PROFILE = "its colour profile cannot be used, so its colours were read as sRGB"


# --- from a picture's colours to sRGB


#: A conversion to sRGB.
Change = Callable[[Image.Image], Image.Image]


def _transformed(transform: Any, image: Image.Image) -> Image.Image:
    """The picture after an ICC transform."""
    result: Image.Image = transform.apply(image.convert(transform.input_mode))
    return result


def declare_colours(info: dict[str, Any], notes: list[str]) -> str | None:
    """Turn colours declared by numbers into an ICC profile in ``info``, and return their name.

    Without declared code points, or with unknown ones, it returns ``None``. A PNG's cICP chunk overrides its ICC
    profile, which overrides sRGB, which overrides gamma and chromaticities (PNG, third edition, 4.3).
    """
    declared = Declared(*info.pop("declared", None) or (2, 2))
    if declared != (2, 2, True):
        if declared.known:
            for name in ("icc_profile", "srgb", "gamma", "chromaticity"):
                info.pop(name, None)
            info["icc_profile"] = declared_profile(declared)
            if declared.is_hdr:
                notes.append(
                    f"it is an HDR picture ({declared.name}), and was converted to the range of a normal screen"
                )
            return declared.name
        codes = f"primaries {declared.primaries}, transfer {declared.transfer}"
        notes.append(f"its colours are declared in a way that Reelwright does not know ({codes})")
    if "icc_profile" in info and not info["icc_profile"]:  # its profile cannot be read
        del info["icc_profile"]
        if not gamma_power(info) and "chromaticity" not in info:
            notes.append(_BAD_PROFILE)
    if not info.get("icc_profile") and "srgb" not in info and "chromaticity" in info:
        _use_chromaticities(info, notes)
    return None


def _use_chromaticities(info: dict[str, Any], notes: list[str]) -> None:
    gamma = info.get("gamma")
    curve = power(1 / gamma) if gamma and gamma_power(info) else _srgb
    try:
        info["icc_profile"] = profile("PNG chromaticities", tuple(info["chromaticity"]), curve)
    except BROKEN:
        notes.append("its chromaticities cannot be used, so its colours were read as sRGB")


def use_adobe_rgb(info: dict[str, Any]) -> None:
    """Use Adobe RGB, which a camera declares by the mark R03 in its EXIF data."""
    info["icc_profile"] = profile("Adobe RGB, by its EXIF data", ADOBE_RGB, power(563 / 256))


def colour_change(image: Image.Image, info: dict[str, Any], notes: list[str]) -> Change:
    """The conversion to sRGB that a picture needs; ``notes`` gets a sentence about it."""
    profile = info.get("icc_profile")
    if profile:
        change = _icc_change(image, profile, notes)
        if change:
            return change
    power = gamma_power(info)
    if power:
        notes.append(f"its gamma ({info['gamma']:.3g}) was converted to that of sRGB")
        levels = [round(255 * (value / 255) ** power) for value in range(256)]
        return lambda image: image.convert("RGB").point(levels * 3)
    if image.mode == "CMYK" and not (profile and notes[-1:] == [_BAD_PROFILE]):
        notes.append("its CMYK colours were converted to RGB without a colour profile, so they may look off")
    return lambda image: image.convert("RGB")


def _icc_change(image: Image.Image, profile: bytes, notes: list[str]) -> Change | None:
    """The conversion by a profile; ``None`` if it is broken or changes almost nothing (most photographs use sRGB)."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = "RGB" if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB" else image.mode
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        name = ImageCms.getProfileDescription(source).strip()[:60]
        changes = _changes(transform, mode)
    except (ImageCms.PyCMSError, *BROKEN):
        notes.append(_BAD_PROFILE)
        return None
    if not changes:
        return None
    kind = "CMYK colours" if mode == "CMYK" else "colours"
    notes.append(f"its {kind} were converted to sRGB by its colour profile ({name or 'unnamed'})")
    return functools.partial(_transformed, transform)


def _changes(transform: Any, mode: str) -> bool:
    """Whether a transform moves any of a few hundred colours by more than 2 of 255 levels."""
    if mode == "CMYK":
        return True
    steps = range(0, 256, 15)
    if mode == "L":
        colours = bytes(steps)
    else:
        colours = bytes(part for r in steps for g in steps for b in steps for part in (r, g, b))
    probe = Image.frombytes(mode, (len(colours) // len(mode), 1), colours)
    seen = transform.apply(probe).tobytes()
    return any(abs(a - b) > 2 for a, b in zip(probe.convert("RGB").tobytes(), seen, strict=True))


def gamma_power(info: dict[str, Any]) -> float | None:
    """The exponent of a PNG's gAMA chunk; ``None`` if the chunk does not count or matches a normal screen."""
    gamma = info.get("gamma")
    if not isinstance(gamma, (int, float)) or gamma <= 0 or "srgb" in info or "icc_profile" in info:
        return None
    power = 1 / (gamma * 2.2)
    return power if abs(power - 1) > 0.05 else None


def color_space(image: Image.Image) -> str:
    """The name of the file's colours, for `image.describe_picture`."""
    kind = {"CMYK": "CMYK", "1": "greyscale", "L": "greyscale", "LA": "greyscale", "I;16": "greyscale"}
    plain = kind.get(image.mode, "sRGB")
    profile = image.info.get("icc_profile")
    if not profile:
        return plain
    from PIL import ImageCms

    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(profile))).strip()[:60] or plain
    except (ImageCms.PyCMSError, *BROKEN):
        return plain


# --- profiles for declared colours

Curve = Callable[[float], float]
Chromaticities = tuple[float, float, float, float, float, float, float, float]  # white, red, green, blue: x, y

_D65 = (0.3127, 0.3290)
_SRGB: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
PRIMARIES: dict[int, tuple[str, Chromaticities]] = {
    1: ("sRGB", _SRGB),
    4: ("BT.470 M", (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.470 BG", (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: ("SMPTE 170M", (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    7: ("SMPTE 240M", (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    8: ("film", (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: ("Rec. 2020", (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ("DCI-P3", (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    12: ("Display P3", (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    22: ("EBU 3213", (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077)),
}
ADOBE_RGB: Chromaticities = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
HDR = {16: "PQ", 18: "HLG"}
_UNSPECIFIED = 2
_WHITE_NITS = 203.0  # ITU-R BT.2408: the reference white of an HDR picture
_KNEE = 0.75
_STEPS = 255 * 16 + 1
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_D50 = (0.9642, 1.0, 0.8249)
Matrix = tuple[tuple[float, ...], ...]


class Declared(NamedTuple):
    """Primaries and transfer by their code points, and whether the full range of levels is used."""

    primaries: int
    transfer: int
    full_range: bool = True

    @property
    def is_hdr(self) -> bool:
        """Whether it is made for a screen brighter than a normal one."""
        return self.transfer in HDR

    @property
    def known(self) -> bool:
        """Whether this module has a curve and primaries for both code points."""
        return self.primaries in (*PRIMARIES, _UNSPECIFIED) and self.transfer in (*_CURVES, _UNSPECIFIED)

    @property
    def name(self) -> str:
        """The common name of these colours."""
        name = PRIMARIES.get(self.primaries, ("sRGB", _SRGB))[0]
        return f"{name} {HDR[self.transfer]}" if self.is_hdr else name


def declared_profile(declared: Declared) -> bytes:
    """The ICC profile of colours that are `Declared.known`."""
    curve = _CURVES.get(declared.transfer, _srgb)
    narrow = curve if declared.full_range else lambda v: curve(min(1.0, max(0.0, (255 * v - 16) / 219)))
    return profile(declared.name, PRIMARIES.get(declared.primaries, ("", _SRGB))[1], narrow)


def profile(name: str, chromaticities: Chromaticities, curve: Curve) -> bytes:
    """An ICC profile of three primaries and one curve.

    Raises:
        ValueError, ArithmeticError: the chromaticities span no colours.
    """
    columns = _adapted(chromaticities)
    levels = [min(65535, max(0, round(65535 * curve(step / (_STEPS - 1))))) for step in range(_STEPS)]
    shared = b"curv" + struct.pack(f">II{_STEPS}H", 0, _STEPS, *levels)
    text = name.encode("ascii", "replace") + b"\0"
    tags = [
        (b"desc", b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(78)),
        (b"wtpt", _xyz(_D50)),
        *((tag, _xyz(tuple(row[n] for row in columns))) for n, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))),
        *((tag, shared) for tag in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    table, body, places = b"", b"", dict[int, int]()
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags:
        if id(data) not in places:
            places[id(data)] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", places[id(data)], len(data))
    size = start + len(body)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    header = header + bytes(28) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def power(exponent: float) -> Curve:
    """A plain gamma curve."""
    return lambda value: value**exponent


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _adapted(c: Chromaticities) -> Matrix:
    """The matrix from RGB to XYZ, adapted to D50 (Bradford)."""
    white = _from_xy(c[0], c[1])
    primaries = _columns(*(_from_xy(c[n], c[n + 1]) for n in (2, 4, 6)))
    strengths = _times(_inverse(primaries), white)
    to_xyz = tuple(tuple(row[n] * strengths[n] for n in range(3)) for row in primaries)
    here, there = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    scaled = tuple(tuple(value * there[n] / here[n] for value in row) for n, row in enumerate(_BRADFORD))
    return _product(_product(_inverse(_BRADFORD), scaled), to_xyz)


def _from_xy(x: float, y: float) -> tuple[float, ...]:
    return (x / y, 1.0, (1 - x - y) / y)


def _columns(*columns: tuple[float, ...]) -> Matrix:
    return tuple(zip(*columns, strict=True))


def _times(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _product(one: Matrix, other: Matrix) -> Matrix:
    return tuple(tuple(sum(row[k] * other[k][n] for k in range(3)) for n in range(3)) for row in one)


def _inverse(m: Matrix) -> Matrix:
    def minor(row: int, column: int) -> float:
        a, b = ((column + 1) % 3, (column + 2) % 3)
        c, d = ((row + 1) % 3, (row + 2) % 3)
        return m[c][a] * m[d][b] - m[c][b] * m[d][a]

    determinant = sum(m[0][n] * minor(0, n) for n in range(3))
    return tuple(tuple(minor(column, row) / determinant for column in range(3)) for row in range(3))


# ------------------------------------------------------------------------------------------------------ curves


def _srgb(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _pq(value: float) -> float:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = value ** (1 / m2)
    nits = 10_000 * (max(0.0, root - c1) / (c2 - c3 * root)) ** (1 / m1)
    return _rolled_off(nits / _WHITE_NITS)


def _hlg(value: float) -> float:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = value * value / 3 if value <= 0.5 else (math.exp((value - c) / a) + b) / 12
    return _rolled_off(1000 * light**1.2 / _WHITE_NITS)


def _rolled_off(light: float) -> float:
    """Light with a soft limit: unchanged up to the knee, then it approaches white."""
    if light <= _KNEE:
        return light
    room = 1 - _KNEE
    return _KNEE + room * (1 - math.exp(-(light - _KNEE) / room))


# Curves by code point. Every picture viewer shows the curve of video (1, 6, 14, 15) like that of sRGB.
_CURVES: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 13, 14, 15), _srgb),
    4: power(2.2),
    5: power(2.8),
    8: power(1.0),
    16: _pq,
    17: power(2.6),
    18: _hlg,
}
