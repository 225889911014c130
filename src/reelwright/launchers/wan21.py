"""Starts an unmodified generate.py of Wan2.1, with more sizes in its tables or without flash-attn.

Run by path with the FRAMEWORK's interpreter (Python >= 3.8), in the checkout, alone or as a rank of torchrun::

    python .../launchers/wan21.py --add-size=1024*576 --attention=sdpa -- generate.py --task=i2v-14B ...

Before generate.py runs, as ``__main__`` and with its own argv:

* ``--add-size`` adds a row to each of the checkout's own tables of sizes (t2v-14B, i2v-14B, flf2v-14B). The tables
  only name sizes; the model is not limited to them.
* A flash-attn build that cannot be imported is hidden, as if it were not installed.
* ``--attention=sdpa`` replaces ``flash_attention`` by PyTorch's scaled_dot_product_attention, because
  wan/modules/model.py calls ``flash_attention`` directly although an unused fallback exists (Wan2.1#40). On several
  GPUs, where xfuser computes the attention, it selects xfuser's own PyTorch kernel.

If the checkout is not as expected, the launcher prints one line and ends with status 3, before any weights are loaded.
It does not change the model's computation, and it never writes a file of the checkout.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import runpy
import sys
from dataclasses import dataclass

TYPE_CHECKING = False  # as in typing, whose import would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

REFUSED = 3
TASKS = ("t2v-14B", "i2v-14B", "flf2v-14B")
_USAGE = "wan21.py [--add-size=W*H ...] [--attention=sdpa] -- generate.py ARGS..."


class CheckoutRefused(Exception):
    """Raised if the checkout does not have what the launcher needs; the message names it."""


@dataclass(frozen=True)
class LauncherOptions:
    """The launcher's own options, and the script with its arguments."""

    sizes: tuple[tuple[int, int], ...]
    sdpa: bool
    script: str
    arguments: tuple[str, ...]


def parse(argv: Sequence[str]) -> LauncherOptions:
    """The options in the command line; the launcher's own end at ``--``."""
    words = list(argv)
    if "--" not in words or words[-1] == "--":
        raise CheckoutRefused(f"usage: {_USAGE}")
    end = words.index("--")
    sizes, sdpa = [], False
    for word in words[:end]:
        size = re.fullmatch(r"--add-size=([1-9]\d{1,4})\*([1-9]\d{1,4})", word)
        if size:
            sizes.append((int(size[1]), int(size[2])))
        elif word == "--attention=sdpa":
            sdpa = True
        else:
            raise CheckoutRefused(f"unknown option {word!r}; usage: {_USAGE}")
    return LauncherOptions(tuple(sizes), sdpa, words[end + 1], tuple(words[end + 2 :]))


def main(argv: Sequence[str]) -> None:
    """Make the changes, print them, and run generate.py."""
    try:
        options = parse(argv)
        script = os.path.abspath(options.script)  # noqa: PTH100 -- standard library's own cheap function
        checkout = os.path.dirname(script)  # noqa: PTH120
        _own_path(checkout)
        changes = _prepare(options, checkout)
    except CheckoutRefused as refusal:
        _refuse(str(refusal))
    if os.environ.get("RANK", "0") == "0":
        for line in changes:
            print(f"wan21.py: {line}", flush=True)
    sys.argv = [options.script, *options.arguments]
    runpy.run_path(options.script, run_name="__main__")  # which also sets sys.argv[0]


def _refuse(text: str) -> NoReturn:
    print(f"wan21.py: error: {text}", file=sys.stderr, flush=True)
    sys.exit(REFUSED)


def _own_path(checkout: str) -> None:
    """Set the path as `python generate.py` does: the checkout first, and not this file's folder, which has a shim."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [checkout, *(entry for entry in sys.path if os.path.abspath(entry) != here)]  # noqa: PTH100


def _prepare(options: LauncherOptions, checkout: str) -> list[str]:
    """Make the changes that the options request; returns a line about each."""
    if not os.path.isfile(os.path.join(checkout, "wan", "configs", "__init__.py")):  # noqa: PTH113, PTH118
        raise CheckoutRefused(f"{checkout} is not a checkout of Wan2.1: it has no wan/configs")
    changes = hide_broken_flash_attn()
    configs = importlib.import_module("wan.configs")
    for size in options.sizes:
        add_size(configs, size)
        changes.append(f"{size[0]}*{size[1]} added to the sizes of {', '.join(TASKS)}")
    if options.sdpa:
        use_sdpa(importlib.import_module("torch"))
        changes.append("attention by PyTorch (scaled_dot_product_attention) instead of flash-attn")
        if _sequence_parallel(options.arguments):
            changes.append("attention between GPUs by PyTorch inside xfuser")
            use_torch_in_xfuser(importlib.import_module("wan.distributed.xdit_context_parallel"))
    return changes


# ----------------------------------------------------------------------------------------------------------- sizes


def add_size(configs: Any, size: tuple[int, int]) -> None:
    """Add a row to each of the three tables; refuse a checkout whose tables have another structure."""
    tables: list[Any] = [
        getattr(configs, name, None) for name in ("SIZE_CONFIGS", "MAX_AREA_CONFIGS", "SUPPORTED_SIZES")
    ]
    known, areas, supported = tables
    if not (
        all(isinstance(table, dict) for table in tables)
        and known.get("1280*720") == (1280, 720)
        and areas.get("1280*720") == 1280 * 720
        and all(isinstance(supported.get(task), (tuple, list)) and "1280*720" in supported[task] for task in TASKS)
    ):
        raise CheckoutRefused(
            "the tables of sizes in wan/configs/__init__.py are not those of Wan2.1: "
            "choose one of its own sizes (1280*720, 720*1280, 832*480, 480*832), or update the checkout"
        )
    name = "{}*{}".format(*size)
    known.setdefault(name, size)
    areas.setdefault(name, size[0] * size[1])
    for task in TASKS:
        if name not in supported[task]:
            supported[task] = type(supported[task])([*supported[task], name])


# ------------------------------------------------------------------------------------------------------- attention


def hide_broken_flash_attn() -> list[str]:
    """Make a build that cannot be imported look absent; returns a line about each.

    wan/modules/attention.py expects flash-attn to be absent or intact: the undefined symbol of a build for another
    torch is not a ModuleNotFoundError, and ends the import of all of Wan.
    """
    changes = []
    for name in ("flash_attn_interface", "flash_attn"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except Exception as error:  # noqa: BLE001 -- a binary extension may raise anything
            sys.modules[name] = None  # type: ignore[assignment] # the import system's mark for an absent module
            changes.append(f"{name} cannot be imported and is left out: {error}")
    return changes


def use_sdpa(torch: Any) -> None:
    """Replace ``flash_attention`` in its own module and in every module that has imported it."""
    attention = importlib.import_module("wan.modules.attention")
    original: Any = getattr(attention, "flash_attention", None)
    if not callable(original):
        raise CheckoutRefused("wan/modules/attention.py has no flash_attention: this checkout needs its own attention")
    replacement = flash_attention_of(torch)
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("flash_attention") is original:
            module.flash_attention = replacement  # type: ignore[attr-defined]


def use_torch_in_xfuser(parallel: Any) -> None:
    """Make xfuser use PyTorch instead of flash-attn, an option since 0.4.1 (AttnType.TORCH, for ring attention too)."""
    layer: Any = getattr(parallel, "xFuserLongContextAttention", None)
    try:
        kinds = importlib.import_module("yunchang.kernels").AttnType
        able = "attn_type" in inspect.signature(layer).parameters and hasattr(kinds, "TORCH")
    except (ImportError, AttributeError, TypeError, ValueError):
        able = False
    if not able:
        raise CheckoutRefused(
            "this xfuser cannot compute the attention between GPUs without flash-attn: install flash-attn, "
            "or xfuser>=0.4.1 with its yunchang, or use one GPU"
        )
    parallel.xFuserLongContextAttention = functools.partial(layer, attn_type=kinds.TORCH)


def _sequence_parallel(arguments: Sequence[str]) -> bool:
    """Whether generate.py splits the sequence, so that xfuser computes the attention."""
    text = " ".join(word for word in arguments if not word.startswith("--prompt="))
    degrees = re.findall(r"--(?:ulysses|ring)\w*[= ](\d+)", text)
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and any(int(degree) > 1 for degree in degrees)


def flash_attention_of(torch: Any) -> Callable[..., Any]:
    """A function with the signature and meaning of Wan's ``flash_attention``, on PyTorch's operator.

    Tensors are [batch, length, heads, channels]. Tensors that are not half precision are computed in ``dtype``; the
    result has the type of ``q``. It is zero for a query that sees no key, and beyond ``q_lens``.
    """
    halves = (torch.float16, torch.bfloat16)

    def flash_attention(  # noqa: PLR0913 -- the framework's own signature
        q: Any,
        k: Any,
        v: Any,
        q_lens: Any = None,
        k_lens: Any = None,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        q_scale: Any = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        deterministic: bool = False,
        dtype: Any = torch.bfloat16,
        version: int | None = None,
    ) -> Any:
        del deterministic, version  # for the backward pass, and for flash-attn
        assert dtype in halves, f"dtype {dtype} is not half precision"
        wanted = q.dtype
        q, k, v = (x if x.dtype in halves else x.to(dtype) for x in (q, k, v))
        q, k = q.to(v.dtype), k.to(v.dtype)
        if q_scale is not None:
            q = q * q_scale
        window = (window_size[0], 0 if causal else window_size[1])
        attend = functools.partial(_attend, torch, window=window, dropout_p=dropout_p, scale=softmax_scale)
        spans = _spans(q_lens, k_lens, q, k)
        if spans is None:
            return attend(q, k, v).type(wanted)
        out = q.new_zeros((*q.shape[:3], v.shape[-1]))
        for i, (lq, lk) in enumerate(spans):
            out[i, :lq] = attend(q[i : i + 1, :lq], k[i : i + 1, :lk], v[i : i + 1, :lk])[0]
        return out.type(wanted)

    return flash_attention


def _spans(q_lens: Any, k_lens: Any, q: Any, k: Any) -> list[tuple[int, int]] | None:
    """The valid lengths of each sample; ``None`` if all are full, so that one call computes the batch."""
    full = [(q.shape[1], k.shape[1])] * q.shape[0]
    queries = [lq for lq, _ in full] if q_lens is None else [int(length) for length in q_lens]
    keys = [lk for _, lk in full] if k_lens is None else [int(length) for length in k_lens]
    spans = [(min(a, lq), min(b, lk)) for a, b, (lq, lk) in zip(queries, keys, full)]  # noqa: B905 -- Python 3.8 has no strict
    return None if spans == full else spans


def _attend(  # noqa: PLR0913 -- tensors, and what the operator needs
    torch: Any, q: Any, k: Any, v: Any, *, window: tuple[int, int], dropout_p: float, scale: Any
) -> Any:
    """The attention of samples that are valid in their full length."""
    if k.shape[1] == 0:
        return q.new_zeros((*q.shape[:3], v.shape[-1]))
    repeats = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if repeats > 1:  # several query heads share one of keys and values
        k, v = (x.repeat_interleave(repeats, dim=1) for x in (k, v))
    mask = _mask(torch, q, k, window)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale)
    if mask is not None:
        out = out.masked_fill(~mask.any(-1, keepdim=True), 0)  # a row without keys: NaN in some kernels
    return out.transpose(1, 2).contiguous()


def _mask(torch: Any, q: Any, k: Any, window: tuple[int, int]) -> Any:
    """The mask of visible keys: flash-attn aligns the last query with the last key, PyTorch the first ones."""
    left, right = window
    if left < 0 and right < 0:
        return None
    row = torch.arange(q.shape[2], device=q.device)[:, None] + (k.shape[2] - q.shape[2])
    column = torch.arange(k.shape[2], device=q.device)[None]
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
    if left >= 0:
        mask &= column >= row - left
    if right >= 0:
        mask &= column <= row + right
    return mask


if __name__ == "__main__":
    main(sys.argv[1:])
