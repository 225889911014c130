"""Colours of a decoded picture to sRGB: declared ones, its ICC profile, gamma, plain CMYK. For `image_child` only.

Not for: sizes, transparency or rotation. A profile that is broken, or that changes nothing to speak of, is no
reason to refuse a picture.

    >>> change = colour_change(image, image.info, notes)
    >>> change(image).mode
    'RGB'
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from PIL import Image

from .image_profiles import ADOBE_RGB, Declared, declared_profile, power, profile, srgb_curve

# What parsers of damaged data raise.
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


class Change:
    """The way from a picture's colours to sRGB: a transform, a table of levels, or plain conversion."""

    def __init__(self, transform: Any = None, levels: list[int] | None = None) -> None:
        self.transform = transform
        self.levels = levels

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.transform is not None:
            if image.mode != self.transform.input_mode:
                image = image.convert(self.transform.input_mode)
            result: Image.Image = self.transform.apply(image)
            return result
        image = image.convert("RGB")
        return image.point(self.levels * 3) if self.levels else image


def declare_colours(info: dict[str, Any], notes: list[str]) -> str | None:
    """Turn colours that are declared by numbers into an ICC profile in ``info``, and name them; ``None``: there are none.

    A PNG's cICP chunk counts before its ICC profile, that before sRGB, and that before gamma and chromaticities (PNG,
    third edition, 4.3).
    """
    declared = Declared(*info.pop("declared", None) or (2, 2))
    if declared != (2, 2, True):
        if declared.known:
            for name in ("icc_profile", "srgb", "gamma", "chromaticity"):
                info.pop(name, None)
            info["icc_profile"] = declared_profile(declared)
            if declared.is_hdr:
                notes.append(f"it is an HDR picture ({declared.name}), and was brought to the range of a normal screen")
            return declared.name
        codes = f"primaries {declared.primaries}, transfer {declared.transfer}"
        notes.append(f"its colours are declared in a way that is not known here ({codes})")
    if "icc_profile" in info and not info["icc_profile"]:  # there is one that cannot be read
        del info["icc_profile"]
        if not gamma_power(info) and "chromaticity" not in info:
            notes.append(_BAD_PROFILE)
    if not info.get("icc_profile") and "srgb" not in info and "chromaticity" in info:
        _use_chromaticities(info, notes)
    return None


def _use_chromaticities(info: dict[str, Any], notes: list[str]) -> None:
    gamma = info.get("gamma")
    curve = power(1 / gamma) if gamma and gamma_power(info) else srgb_curve()
    try:
        info["icc_profile"] = profile("PNG chromaticities", tuple(info["chromaticity"]), curve)
    except BROKEN:
        notes.append("its chromaticities cannot be used, so its colours were read as sRGB")


def use_adobe_rgb(info: dict[str, Any]) -> None:
    """What a camera means by the mark R03 in its EXIF data."""
    info["icc_profile"] = profile("Adobe RGB, by its EXIF data", ADOBE_RGB, power(563 / 256))


def colour_change(image: Image.Image, info: dict[str, Any], notes: list[str]) -> Change:
    profile = info.get("icc_profile")
    if profile:
        change = _icc_change(image, profile, notes)
        if change:
            return change
    power = gamma_power(info)
    if power:
        notes.append(f"its gamma ({info['gamma']:.3g}) was brought to that of sRGB")
        return Change(levels=[round(255 * (value / 255) ** power) for value in range(256)])
    if image.mode == "CMYK" and not (profile and notes[-1:] == [_BAD_PROFILE]):
        notes.append("its CMYK colours were converted to RGB without a colour profile, so they may look off")
    return Change()


def _icc_change(image: Image.Image, profile: bytes, notes: list[str]) -> Change | None:
    """``None`` where the profile is broken or changes nothing to speak of (most photographs carry sRGB)."""
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
    return Change(transform)


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
    """The exponent that a PNG's gAMA chunk asks for; ``None`` where it says what every screen does anyway."""
    gamma = info.get("gamma")
    if not isinstance(gamma, (int, float)) or gamma <= 0 or "srgb" in info or "icc_profile" in info:
        return None
    power = 1 / (gamma * 2.2)
    return power if abs(power - 1) > 0.05 else None


def color_space(image: Image.Image) -> str:
    """How the file describes its colours, for `image.describe_picture`."""
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
