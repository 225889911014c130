"""Computes Wan's transformer at the precision of the official script, with weights in half the memory.

The official script keeps float32 weights and multiplies in bfloat16 (autocast). The values between blocks, the time
embedding, the norms and the head stay float32; diffusers in bfloat16 rounds those too, at every block. Measured on
random weights of three blocks and three steps, the frames of a t2v clip are then 37.5 dB from the official ones. With
the official roundings only, as here, they are 49 dB away; the official script with another attention kernel is 48 dB
from itself. The weights of a linear layer can be stored rounded: the products are the same, in half the memory.

Models in float32 do not need this. It is not a speed choice: the preset `exact` means this precision.

    >>> is_kept("blocks.0.attn1.norm_q.weight"), is_kept("blocks.0.attn1.to_q.weight")
    (True, False)
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

#: Parts of the names of weights that stay float32: norms, time embedding, tables, positions and head.
KEPT = (
    *("rope", "time_embedder", "time_proj", "scale_shift_table", "proj_out", "pos_embed"),
    *("norm1", "norm2", "norm3", "norm_q", "norm_k", "norm_added_k"),
)
#: The tokens of the text come last in the context of a block; those before them are CLIP's (as in the official code).
TEXT_TOKENS = 512


def is_kept(name: str) -> bool:
    """Whether the weight of that name (diffusers') stays float32."""
    return not set(KEPT).isdisjoint(name.split("."))


@functools.cache
def transformer_class() -> Any:
    """diffusers' transformer with float32 inputs and outputs, and more weights that stay float32.

    Its ``from_pretrained(..., torch_dtype=torch.bfloat16)`` keeps these weights of a folder in diffusers' layout too.
    """
    import torch
    from diffusers import WanTransformer3DModel

    class OfficialWanTransformer(WanTransformer3DModel):  # type: ignore[misc]
        _keep_in_fp32_modules: ClassVar[list[str]] = list(KEPT)

        @property
        def dtype(self) -> Any:
            return torch.float32  # pipelines round the transformer's inputs to this type

    return OfficialWanTransformer


def compute_officially(transformer: Any) -> Any:
    """Make a `transformer_class` model with bfloat16 weights compute as the official script does; returns it."""
    import torch

    half = torch.bfloat16

    def rounds(module: Any) -> None:
        module.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(half), *inputs[1:]))

    embedder = transformer.condition_embedder
    rounds(transformer.patch_embedding)
    rounds(embedder.text_embedder)
    if embedder.image_embedder is not None:
        rounds(embedder.image_embedder.ff)
    for block in transformer.blocks:
        rounds(block.ffn)
        _attend(block.attn1)
        _attend(block.attn2)
    # The values between blocks are float32 from here on; officially only from the first block's attention on.
    transformer.patch_embedding.register_forward_hook(lambda _module, _inputs, output: output.float())
    transformer.blocks[0].norm1.register_forward_hook(lambda _module, _inputs, output: output.to(half).float())
    embedder.timesteps_proj = _waves(transformer.config.freq_dim)
    return transformer


@functools.cache
def attention_class() -> Any:
    """The attention of a block: rounded before each product, float32 in norms and rotation."""
    import torch
    from diffusers.models.attention_dispatch import dispatch_attention_fn
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    half = torch.bfloat16

    class OfficialAttention(WanAttnProcessor):  # type: ignore[misc]
        def __call__(
            self,
            attn: Any,
            hidden_states: Any,
            encoder_hidden_states: Any = None,
            attention_mask: Any = None,  # noqa: ARG002 - the place is diffusers'; Wan has no mask
            rotary_emb: Any = None,
        ) -> Any:
            hidden_states = hidden_states.to(half)
            crossing = encoder_hidden_states is not None
            pictures, text = None, encoder_hidden_states.to(half) if crossing else hidden_states
            if attn.add_k_proj is not None:
                pictures, text = text[:, :-TEXT_TOKENS], text[:, -TEXT_TOKENS:]
            query = _heads(attn, attn.norm_q(attn.to_q(hidden_states)))
            key = _heads(attn, attn.norm_k(attn.to_k(text)))
            if rotary_emb is not None:
                query, key = _rotated(query, *rotary_emb), _rotated(key, *rotary_emb)
            mixed = self._mix(query, key, _heads(attn, attn.to_v(text)), None if crossing else self._parallel_config)
            if pictures is not None:
                key = _heads(attn, attn.norm_added_k(attn.add_k_proj(pictures)))
                seen = self._mix(query, key, _heads(attn, attn.add_v_proj(pictures)), None)
                mixed = (mixed.float() + seen.float()).to(half)
            return attn.to_out[0](mixed)

        def _mix(self, query: Any, key: Any, value: Any, ranks: Any) -> Any:
            return dispatch_attention_fn(
                *(tensor.to(half) for tensor in (query, key, value)),
                backend=self._attention_backend,
                parallel_config=ranks,
            ).flatten(2, 3)

    return OfficialAttention


@functools.cache
def _norm_class() -> Any:
    """The class of an RMS norm that rounds before it applies its float32 weight, not after."""
    import torch

    class OfficialNorm(torch.nn.RMSNorm):  # type: ignore[misc]
        def forward(self, values: Any) -> Any:
            exact = values.float()
            exact = exact * torch.rsqrt(exact.pow(2).mean(dim=-1, keepdim=True) + self.eps)
            return exact.to(values.dtype) * self.weight

    return OfficialNorm


def _attend(attn: Any) -> None:
    """Let an attention of a block compute officially. The norm is a module, because offloading moves only modules."""
    attn.set_processor(attention_class()())
    for name in ("norm_q", "norm_k", "norm_added_k"):
        plain = getattr(attn, name, None)
        if plain is not None:
            norm = _norm_class()(plain.normalized_shape, eps=plain.eps, device="meta")
            norm.weight = plain.weight
            setattr(attn, name, norm)


def _rotated(values: Any, cosines: Any, sines: Any) -> Any:
    """The rotation by position, on pairs of neighbours, in float32."""
    import torch

    even, odd = values[..., 0::2], values[..., 1::2]
    cosines, sines = cosines[..., 0::2], sines[..., 1::2]
    return torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), dim=-1).flatten(-2)


def _heads(attn: Any, values: Any) -> Any:
    return values.unflatten(2, (attn.heads, -1))


def _waves(size: int) -> Any:
    """The time as waves, computed in float64 as in the official code: float32 is off by 1e-4 at the first steps."""
    import torch

    class Waves(torch.nn.Module):  # type: ignore[misc]
        def forward(self, timestep: Any) -> Any:
            numbers = torch.arange(size // 2, dtype=torch.float64, device=timestep.device)
            angles = torch.outer(timestep.double(), torch.exp(-math.log(10000) * numbers / (size // 2)))
            return torch.cat((angles.cos(), angles.sin()), dim=1).float()

    return Waves()
