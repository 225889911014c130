"""The two names that hyvideo/modules/attenion.py imports."""

from __future__ import annotations

import itertools

import torch


def _flash_attn_forward(*tensors, **options):
    raise NotImplementedError("of several GPUs")


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
    """Attention of samples of different lengths, one behind the other; beyond the last it is zero."""
    out = torch.zeros_like(q)
    starts = zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)
    for (a, c), (b, d) in itertools.pairwise(starts):
        if b > a and d > c:
            sample = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d]))
            out[a:b] = torch.nn.functional.scaled_dot_product_attention(*sample)[0].transpose(0, 1)
    return out
