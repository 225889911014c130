"""Encodings are remembered by what they were made from, and not without end."""

from __future__ import annotations

from typing import Any

import pytest

from reelwright.core.errors import Cancelled
from reelwright.engines.diffusers.encodings import CAPACITY, Encodings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
torch = pytest.importorskip("torch")


class Pipeline:
    """One that counts what it is asked to encode."""

    def __init__(self) -> None:
        self.asked = 0

    def encode_prompt(self, prompt: str, negative_prompt: str | None = None, **_more: Any) -> tuple[Any, Any]:
        self.asked += 1
        return torch.tensor([float(len(prompt))]), torch.tensor([float(len(negative_prompt or ""))])

    def encode_image(self, image: Any, device: Any = None) -> Any:
        self.asked += 1
        return torch.ones(1)


@pytest.fixture
def pipeline() -> Any:
    return Pipeline()


@pytest.fixture
def remembered(pipeline: Any) -> Encodings:
    found = Encodings()
    found.attach(pipeline)
    return found


def test_the_same_words_are_encoded_once(pipeline: Any, remembered: Encodings) -> None:
    first = pipeline.encode_prompt("a cat", negative_prompt="grey", device=torch.device("cpu"))
    assert pipeline.encode_prompt("a cat", negative_prompt="grey", device=torch.device("cpu")) is first
    assert (pipeline.asked, remembered.hits, remembered.misses) == (1, 1, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a", None), ("a", "None")),
        (("a", ""), ("a", None)),
        ((["a", "b"],), (["ab"],)),
        ((["a"], "b"), (["a", "b"],)),
        (("a", 1), ("a", "1")),
        (("a", 1), ("a", 1.0)),
        (("a", True), ("a", 1)),
    ],
    ids=str,
)
def test_other_words_are_other_encodings(pipeline: Any, remembered: Encodings, one: Any, other: Any) -> None:
    pipeline.encode_prompt = remembered._remembering("encode_prompt", lambda *_: object())
    assert pipeline.encode_prompt(*one) is not pipeline.encode_prompt(*other)
    assert remembered.hits == 0


def test_a_picture_is_known_by_its_content(pipeline: Any, remembered: Encodings) -> None:
    from PIL import Image

    pictures = [Image.new(mode, size, colour) for mode, size, colour in (
        ("RGB", (4, 4), (1, 2, 3)), ("RGB", (4, 4), (1, 2, 4)), ("RGB", (2, 8), (1, 2, 3)), ("L", (4, 12), 1),
    )]  # fmt: skip
    for picture in (*pictures, *(picture.copy() for picture in pictures)):
        pipeline.encode_image(picture)
    assert (pipeline.asked, remembered.hits) == (4, 4)


def test_a_tensor_is_known_by_content_kind_and_shape(pipeline: Any, remembered: Encodings) -> None:
    base = torch.zeros(2, 3)
    tensors = [base, base + 1, base.T, base.to(torch.bfloat16), base.reshape(6), base[:0], torch.tensor(0.0)]
    for tensor in (*tensors, *(tensor.clone() for tensor in tensors)):
        pipeline.encode_image(tensor)
    assert (pipeline.asked, remembered.hits) == (7, 7)


def test_words_and_pictures_do_not_share_a_memory(pipeline: Any, remembered: Encodings) -> None:
    pipeline.encode_prompt("a")
    pipeline.encode_image("a")
    assert pipeline.asked == 2


def test_only_so_many_are_kept_and_the_least_used_goes_first(pipeline: Any, remembered: Encodings) -> None:
    for number in range(CAPACITY):
        pipeline.encode_prompt(str(number))
    pipeline.encode_prompt("0")
    pipeline.encode_prompt("one more")
    assert len(remembered._known) == CAPACITY
    before = pipeline.asked
    pipeline.encode_prompt("0")
    assert pipeline.asked == before
    pipeline.encode_prompt("1")
    assert pipeline.asked == before + 1


def test_a_stop_comes_before_the_next_encoding_and_nothing_half_is_kept(pipeline: Any, remembered: Encodings) -> None:
    stopped = True

    def check() -> None:
        if stopped:
            raise Cancelled(signal_number=2)

    remembered.begin(lambda: None)
    pipeline.encode_prompt("a")
    remembered.begin(check)
    pipeline.encode_prompt("a")  # it is there: nothing to stop
    with pytest.raises(Cancelled):
        pipeline.encode_prompt("b")
    assert pipeline.asked == 1
    stopped = False
    pipeline.encode_prompt("b")
    assert pipeline.asked == 2


def test_what_failed_is_not_remembered(pipeline: Any, remembered: Encodings) -> None:
    results: list[Any] = [torch.OutOfMemoryError("out"), "fine"]

    def encode(_words: str) -> Any:
        found = results.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    pipeline.encode_prompt = remembered._remembering("encode_prompt", encode)
    with pytest.raises(torch.OutOfMemoryError):
        pipeline.encode_prompt("a")
    assert pipeline.encode_prompt("a") == "fine"


def test_forgotten_they_are_made_again(pipeline: Any, remembered: Encodings) -> None:
    pipeline.encode_prompt("a")
    remembered.forget()
    pipeline.encode_prompt("a")
    assert pipeline.asked == 2
