"""launchers/wan21.py's attention on PyTorch against a naive one in float64, in every way that Wan2.1 calls it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reelwright.launchers.wan21 import flash_attention_of

pytestmark = pytest.mark.engine
torch = pytest.importorskip("torch")


def naive(
    q: Any, k: Any, v: Any, *, causal: bool = False, window: tuple[int, int] = (-1, -1), scale: float | None = None
) -> Any:
    """One sample, [length, heads, channels]: the definition, with flash-attn's alignment of the last query and key."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = torch.einsum("qhc,khc->hqk", q, k) * (scale or 1 / math.sqrt(q.shape[-1]))
    row = torch.arange(q.shape[0])[:, None] + k.shape[0] - q.shape[0]
    column = torch.arange(k.shape[0])[None]
    allowed = torch.ones(q.shape[0], k.shape[0], dtype=torch.bool)
    if window[0] >= 0:
        allowed &= column >= row - window[0]
    if causal or window[1] >= 0:
        allowed &= column <= row + (0 if causal else window[1])
    weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1).nan_to_num(0.0)
    return torch.einsum("hqk,khc->qhc", weights, v)


def tensors(lq: int, lk: int, *, heads: int = 4, shared: int = 1, batch: int = 2) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(lq * 100 + lk)

    def draw(length: int, count: int) -> Any:
        return torch.randn(batch, length, count, 16, generator=generator).to(torch.bfloat16)

    return draw(lq, heads), draw(lk, heads // shared), draw(lk, heads // shared)


def close(found: Any, expected: Any) -> bool:
    return bool(torch.allclose(found.double(), expected, atol=0.03, rtol=0.03))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True},
        {"window": (3, 2)},
        {"window": (0, -1)},
        {"window": (-1, 2)},
        {"causal": True, "window": (2, 5)},
        {"scale": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize(("lq", "lk"), [(7, 7), (5, 9), (9, 5)])
def test_it_is_attention(lq: int, lk: int, options: dict[str, Any]) -> None:
    q, k, v = tensors(lq, lk)
    found = flash_attention_of(torch)(
        q, k, v, causal=options.get("causal", False), window_size=options.get("window", (-1, -1)),
        softmax_scale=options.get("scale"),
    )  # fmt: skip
    for sample in range(2):
        assert close(found[sample], naive(q[sample].double(), k[sample].double(), v[sample].double(), **options))


def test_keys_beyond_their_length_are_not_seen() -> None:
    """Wan2.1 pads text to 512 tokens and gives their number in k_lens."""
    q, k, v = tensors(6, 10)
    found = flash_attention_of(torch)(q, k, v, k_lens=torch.tensor([4, 10]))
    for sample, length in enumerate((4, 10)):
        parts = (q[sample].double(), k[sample, :length].double(), v[sample, :length].double())
        assert close(found[sample], naive(*parts))


def test_window_and_lengths_are_aligned_at_the_last_valid_key() -> None:
    q, k, v = tensors(6, 10)
    found = flash_attention_of(torch)(q, k, v, k_lens=torch.tensor([7, 10]), window_size=(2, 1))
    parts = (q[0].double(), k[0, :7].double(), v[0, :7].double())
    assert close(found[0], naive(*parts, window=(2, 1)))


def draw(*shape: int, dtype: Any) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


#: How the model and the picture's encoder call it (wan/modules/model.py, clip.py): shapes of q and k, their types, more.
CALLS: dict[str, tuple[tuple[int, int], tuple[int, int], Any, dict[str, Any]]] = {
    "self-attention, rotated in float32": ((60, 40), (60, 128), torch.float32, {"k_lens": [52]}),
    "text": ((60, 40), (512, 128), torch.bfloat16, {"k_lens": [17]}),
    "text without lengths": ((60, 40), (512, 128), torch.bfloat16, {"k_lens": None}),
    "picture": ((60, 40), (257, 128), torch.bfloat16, {"k_lens": None}),
    "encoder": ((257, 16), (257, 80), torch.float16, {"version": 2, "dropout_p": 0.0, "causal": False}),
    "encoder's pooling": ((1, 16), (257, 80), torch.float16, {"version": 2}),
}


@pytest.mark.parametrize("case", CALLS)
def test_every_call_of_the_model_is_answered_in_shape_type_and_value(case: str) -> None:
    (lq, heads), (lk, channels), dtype, options = CALLS[case]
    q, k = draw(1, lq, heads, channels, dtype=dtype), draw(1, lk, heads, channels, dtype=dtype)
    v = draw(1, lk, heads, channels, dtype=torch.bfloat16 if dtype is torch.float32 else dtype)
    lengths = options.get("k_lens")
    given = {**options, **({"k_lens": torch.tensor(lengths)} if lengths else {})}
    found = flash_attention_of(torch)(q=q, k=k, v=v, **given)
    assert (found.dtype, found.shape) == (dtype, q.shape)
    assert found.is_contiguous()  # x.flatten(2) comes next
    seen = lengths[0] if lengths else lk
    assert close(found[0], naive(q[0].double(), k[0, :seen].double(), v[0, :seen].double()))


def test_values_may_have_other_channels_and_decide_the_type_of_the_computation() -> None:
    q, k = draw(1, 5, 2, 16, dtype=torch.float32), draw(1, 7, 2, 16, dtype=torch.bfloat16)
    v = draw(1, 7, 2, 24, dtype=torch.float16)
    found = flash_attention_of(torch)(q, k, v, q_lens=torch.tensor([4]))
    assert (found.dtype, found.shape) == (torch.float32, (1, 5, 2, 24))
    assert torch.equal(found, found.half().float())  # computed in v's type
    assert close(found[0, :4], naive(q[0, :4].double(), k[0].double(), v[0].double()))


def test_queries_beyond_their_length_are_zero() -> None:
    q, k, v = tensors(6, 6)
    found = flash_attention_of(torch)(q, k, v, q_lens=torch.tensor([3, 6]))
    assert not found[0, 3:].any()
    assert close(found[0, :3], naive(q[0, :3].double(), k[0].double(), v[0].double()))


def test_several_query_heads_may_share_one_of_keys() -> None:
    q, k, v = tensors(5, 5, heads=8, shared=4)
    found = flash_attention_of(torch)(q, k, v)
    assert close(found[0], naive(q[0].double(), k[0].double(), v[0].double()))


def test_single_precision_goes_in_and_comes_out() -> None:
    q, k, v = (x.float() for x in tensors(5, 5))
    found = flash_attention_of(torch)(q, k, v)
    assert found.dtype == torch.float32
    assert close(found[1], naive(q[1].double(), k[1].double(), v[1].double()))


def test_queries_are_scaled_first_when_asked() -> None:
    q, k, v = tensors(5, 5)
    found = flash_attention_of(torch)(q, k, v, q_scale=2.0)
    assert close(found[0], naive(q[0].double() * 2, k[0].double(), v[0].double()))


def test_a_sample_without_keys_is_zero() -> None:
    q, k, v = tensors(5, 5)
    assert not flash_attention_of(torch)(q, k, v, k_lens=torch.tensor([0, 5]))[0].any()


def test_a_type_that_is_not_half_precision_is_refused() -> None:
    with pytest.raises(AssertionError, match="half precision"):
        flash_attention_of(torch)(*tensors(3, 3), dtype=torch.float32)
