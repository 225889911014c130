"""The request: what is wrong for every generator (row N01's part that needs no process), and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright.core.errors import InvalidInputError
from reelwright.core.request import FIELDS, MAX_PROMPT_BYTES, MAX_SEED, Size, VideoRequest, parse_size, read_request


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "a\0b", "\ud800", "x" * (MAX_PROMPT_BYTES + 1), "🎬" * 30_000, None, b"bytes", 3],
    ids=["empty", "blank", "nul", "surrogate", "long", "long emoji", "none", "bytes", "number"],
)
def test_n01_a_prompt_that_cannot_reach_a_process_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidInputError):
        VideoRequest(prompt=prompt)


@pytest.mark.parametrize("prompt", ["--x", "-", "'\"`$(id)", "two\nlines", "🎬", "שלום", "x" * MAX_PROMPT_BYTES])
def test_n01_any_other_prompt_is_kept_as_it_is(prompt: str) -> None:
    assert VideoRequest(prompt=prompt).prompt == prompt


@pytest.mark.parametrize(
    "values",
    [
        {"num_frames": 0},
        {"num_frames": -5},
        {"num_frames": 5.0},
        {"num_frames": True},
        {"steps": 0},
        {"steps": 2.5},
        {"seconds": 0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"fps": -1.0},
        {"guidance_scale": float("nan")},
        {"guidance_scale": True},
        {"flow_shift": float("inf")},
        {"guidance_scale": -1.0},
        {"flow_shift": -0.5},
        {"seed": -1},
        {"seed": 2.5},
        {"seed": True},
        {"seed": MAX_SEED + 1},
        {"num_frames": 81, "seconds": 5.0},
        {"last_image": Path("b.png")},
    ],
    ids=str,
)
def test_a_value_that_no_generator_can_use_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        VideoRequest(prompt="a cat", **values)


@pytest.mark.parametrize(
    ("image", "last_image", "task"), [(None, None, "t2v"), ("a.png", None, "i2v"), ("a.png", "b.png", "flf2v")]
)
def test_the_pictures_decide_the_task(image: str | None, last_image: str | None, task: str) -> None:
    pictures: dict[str, Any] = {
        "image": Path(image) if image else None,
        "last_image": Path(last_image) if last_image else None,
    }
    assert VideoRequest(prompt="a cat", **pictures).task == task


@pytest.mark.parametrize("text", ["1280x720", "1280*720", "1280×720", " 1280 X 720 "])
def test_every_common_way_to_write_a_size_is_read(text: str) -> None:
    assert parse_size(text) == Size(1280, 720)


@pytest.mark.parametrize("text", ["", "1280", "0x720", "1280x", "-1x5", "1280x720x3", "axb", "9999999x1"])
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a size"):
        parse_size(text)


@given(
    st.builds(
        VideoRequest,
        prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
        image=st.none() | st.just(Path("a b/ö.png")),
        size=st.none() | st.builds(Size, st.integers(1, 9999), st.integers(1, 9999)),
        num_frames=st.none() | st.integers(1, 10_000),
        steps=st.none() | st.integers(1, 1000),
        guidance_scale=st.none() | st.floats(0, 100),
        seed=st.none() | st.integers(0, MAX_SEED),
        label=st.booleans(),
    )
)
def test_json_brings_back_the_same_request(request_: VideoRequest) -> None:
    assert VideoRequest.from_json(request_.to_json()) == request_


def test_every_field_has_its_check() -> None:
    assert set(FIELDS) == set(VideoRequest.__dataclass_fields__)


def test_a_field_of_a_newer_version_is_no_mistake() -> None:
    assert VideoRequest.from_json({**VideoRequest(prompt="a").to_json(), "novelty": 1}) == VideoRequest(prompt="a")


def test_a_changed_copy_is_checked_again() -> None:
    with pytest.raises(InvalidInputError):
        VideoRequest(prompt="a").evolve(steps=-1)


def test_every_mistake_of_a_request_is_reported_at_once() -> None:
    wrong: dict[str, Any] = {
        "prompt": "", "negative_prompt": "a\0", "image": 3, "last_image": Path("b.png"), "depth_image": b"x",
        "num_frames": 0, "seconds": float("nan"), "fps": -1, "steps": 1.5, "guidance_scale": "much", "flow_shift": -1,
        "seed": -1, "fit": "zoom", "codec": "h265", "strict_input": 1, "label": "no", "generator": 1, "camera": 2,
        "anchor": (0, 0),
    }  # fmt: skip
    with pytest.raises(InvalidInputError) as caught:
        VideoRequest(**wrong)
    request, mistakes = read_request(**wrong, size="big")
    said = [error.message for error in (caught.value, *caught.value.also)]
    assert [error.message for error in mistakes] == ["'big' is not a size", *said]
    assert len(said) == len(wrong)  # the last picture has none, and the seconds have two
    assert (request.image, request.last_image, request.num_frames, request.size) == (None, None, None, None)


@pytest.mark.parametrize("name", ["num_frames", "steps", "seed", "seconds", "fps", "guidance_scale", "flow_shift"])
@pytest.mark.parametrize("value", ["x", True, float("inf"), [1]])
def test_a_number_is_a_number(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        VideoRequest(prompt="a", **{name: value})


@pytest.mark.parametrize("size", [(0, 10), (10,), "1280x720", 5, (1.5, 2)])
def test_a_size_is_two_whole_numbers(size: object) -> None:
    with pytest.raises(InvalidInputError, match="size"):
        VideoRequest(prompt="a", size=size)  # type: ignore[arg-type]


def test_what_is_not_given_is_none_so_that_every_given_value_counts() -> None:
    request = VideoRequest(prompt="a")
    assert (request.anchor, request.codec, request.label, request.strict_input) == (None, None, None, None)


def test_plain_pairs_and_text_become_sizes_and_paths() -> None:
    request = VideoRequest(prompt="a", image="a.png", size=(640, 360))  # type: ignore[arg-type]
    assert (request.image, request.size and request.size.area) == (Path("a.png"), 640 * 360)
