"""An order is plain data: what a queue stores and another machine receives is the same order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright import Settings
from reelwright.backends.diffusers.settings import Lora
from reelwright.backends.settings import settings_from_mapping
from reelwright.core.errors import ConfigurationError, InvalidInputError
from reelwright.core.request import Size, VideoRequest
from reelwright.runs.order import Order

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
_PATHS = _TEXT.filter(lambda text: text not in (".", "..")).map(lambda text: Path("/somewhere") / text.strip("/ ~"))
_SIZES = st.builds(Size, st.integers(16, 4096), st.integers(16, 4096))

requests = st.builds(
    VideoRequest,
    prompt=_TEXT.filter(str.strip),
    image=st.none() | _PATHS,
    generator=st.sampled_from(["auto", "draft", "wan2.1"]),
    size=st.none() | _SIZES,
    num_frames=st.none() | st.integers(1, 500),
    steps=st.none() | st.integers(1, 100),
    guidance_scale=st.none() | st.floats(0, 20),
    seed=st.none() | st.integers(0, 2**31),
    fit=st.sampled_from([None, "cover", "contain"]),
)
keys = st.fixed_dictionaries(
    {},
    optional={
        "generator": st.sampled_from(["auto", "wan2.1"]),
        "if_exists": st.sampled_from(["error", "overwrite", "rename"]),
        "output_dir": _PATHS.map(str),
        "gpus": st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True),
        "allow_degrade": st.just(["frames"]),
        "sample_steps": st.integers(1, 100),
        "guide_scale": st.floats(0, 20),
        "env": st.dictionaries(st.sampled_from(["HF_TOKEN", "NCCL_DEBUG"]), _TEXT),
        "lora": st.lists(_PATHS.map(lambda path: {"path": str(path), "scale": 0.5}), max_size=2),
        "generators": st.fixed_dictionaries(
            {"wan2.1": st.fixed_dictionaries({"i2v_model_dir": _PATHS.map(str)}, optional={"sample_steps": st.just(7)})}
        ),
    },
)
orders = st.builds(
    Order,
    request=requests,
    settings=keys.map(lambda values: settings_from_mapping(values, generator=None)),
    output=_PATHS,
    overrides=st.dictionaries(st.sampled_from(["last_frame", "identity_start"]), st.booleans()),
    gpus=st.lists(st.integers(0, 7), max_size=4, unique=True).map(tuple),
    last_frame=st.none() | _PATHS,
    match_last_frame_to=st.none() | _PATHS,
    key=st.none() | _TEXT,
)


@given(orders)
def test_an_order_comes_back_from_json_as_it_was(order: Order) -> None:
    back = Order.from_json(json.loads(json.dumps(order.to_json())))
    assert back == order
    for name in ("wan2.1", "draft"):
        ours, theirs = order.settings.for_generator(name), back.settings.for_generator(name)
        assert ours == theirs
        assert [ours.origin(key) for key in Settings.model_fields] == [
            theirs.origin(key) for key in Settings.model_fields
        ]


def test_settings_that_are_narrowed_and_hold_weights_come_back_too() -> None:
    given_values: dict[str, Any] = {
        "lora": [{"path": "/a.safetensors", "scale": 2.0}],
        "generators": {"wan2.1": {"sample_steps": 3}},
    }
    settings = settings_from_mapping(given_values, generator=None).for_generator("wan2.1")
    back = Settings.from_json(json.loads(json.dumps(settings.to_json())))
    assert back == settings
    assert (back.sample_steps, vars(back.flat)["lora"]) == (3, (Lora(Path("/a.safetensors"), 2.0),))


def _data(**changes: Any) -> dict[str, Any]:
    data = Order(VideoRequest(prompt="sea"), Settings(), Path("/sea.mp4")).to_json()
    return {name: value for name, value in {**data, **changes}.items() if value != "left out"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "the order has schema 2, and this version reads schema 1"),
        ({"schema": "left out"}, "the order has schema None"),
        ({"request": "left out"}, "the order is damaged: KeyError: 'request'"),
        ({"gpus": 3}, "the order is damaged: TypeError"),
        ({"settings": None}, "the order is damaged: AttributeError"),
    ],
)
def test_an_order_of_another_version_or_a_damaged_one_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Order.from_json(_data(**changes))
    assert words in caught.value.message


def test_a_value_that_this_version_does_not_know_is_refused_by_its_key() -> None:
    settings = {**Settings().to_json(), "values": {"sample_steps": "many"}}
    with pytest.raises(ConfigurationError, match="the stored settings: sample_steps"):
        Order.from_json(_data(settings=settings))
