"""Findings about the weight folders below ckpts: missing ones, their origin, and how to make the text encoder.

Sources: ckpts/README.md of HunyuanVideo and HunyuanVideo-I2V, checkpoints-download.md of HunyuanVideo-1.5.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...core.errors import Failure
from ...core.host import Checkpoint
from ...core.plan import Finding
from ..shared.launch import checkpoint_findings
from .decision import HunyuanDecision, main_file, parts_of
from .members import FAMILY
from .record import Member, WeightFolder

_LLAVA = "xtuner/llava-llama-3-8b-v1_1-transformers"
_SCRIPT = "hyvideo/utils/preprocess_text_encoder_tokenizer_utils.py"
#: Repositories on the hub by their folder in ckpts; the other folders come with the model's own weights.
_ORIGINS: Mapping[str, str] = {
    "text_encoder_i2v": _LLAVA,
    "text_encoder_2": "openai/clip-vit-large-patch14",
    "text_encoder/llm": "Qwen/Qwen2.5-VL-7B-Instruct",
    "text_encoder/byt5-small": "google/byt5-small",
    "text_encoder/Glyph-SDXL-v2": "AI-ModelScope/Glyph-SDXL-v2 (of ModelScope)",
    "vision_encoder/siglip": "black-forest-labs/FLUX.1-Redux-dev",
}


def part_findings(decision: HunyuanDecision, root: Path) -> Iterator[Finding]:
    """Report missing and wrong folders of weights, with one finding for each cause."""
    main = main_file(decision.job.settings)
    other = None if main else _other_member(decision, root)
    if other:
        text = f"ckpt_path: {root} holds the weights of {other.title}, and hunyuan_dir is {decision.member.title}"
        fix = f"Set hunyuan_dir to a checkout of {other.title} ({other.source}), or ckpt_path to the other weights."
        yield Finding("model.member", "error", text, fix, Failure.MODEL)
        return
    gone: dict[str, list[str]] = {}
    for part in parts_of(decision):
        directory = root / part.folder
        if main and directory.name == "transformers":
            directory = main.parent
        found = decision.job.host.checkpoints.get(directory)
        problems = found.problems if found else ()
        encoder = _encoder_finding(decision, root, part, found)
        if encoder:
            yield encoder
        elif problems == (f"{directory} is missing",):
            gone.setdefault(_origin(decision, part.folder), []).append(part.folder)
        else:
            yield from checkpoint_findings(found, "ckpt_path")
    for origin, folders in gone.items():
        several = f"{len(folders)} folders are missing: " if len(folders) > 1 else ""
        text = f"ckpt_path: {root}: {several}{', '.join(folders)}{'' if several else ' is missing'}"
        yield Finding("model.incomplete", "error", text, f"Download {origin} there.", Failure.MODEL)


def _other_member(decision: HunyuanDecision, root: Path) -> Member | None:
    """The member whose weights the folder holds, if it does not hold those of the checkout's member."""
    whole = decision.job.host.checkpoints.get(root)
    there = [member for member in FAMILY if whole and member.own_folder in whole.names]
    return there[0] if there and all(member is not decision.member for member in there) else None


def _origin(decision: HunyuanDecision, folder: str) -> str:
    for name, repository in _ORIGINS.items():
        if folder == name or folder.startswith(f"{name}/"):
            return repository
    return f"the weights that {decision.member.source} names"


def _encoder_finding(
    decision: HunyuanDecision, root: Path, part: WeightFolder, found: Checkpoint | None
) -> Finding | None:
    """The finding about a text encoder of the wrong kind.

    HunyuanVideo reads only LLaVA's language model, which a script extracts; HunyuanVideo-I2V reads all of LLaVA.
    """
    encoder, title = decision.member.encoder, decision.member.title
    if encoder is None or part.folder != encoder.folder or found is None:
        return None
    directory, kind = root / part.folder, str(found.config.get("model_type", ""))
    if encoder.whole:
        if kind != "llama":
            return None
        text = f"ckpt_path: {directory} holds only a language model; {title} needs all of LLaVA"
        return Finding("model.encoder", "error", text, f"Download {_LLAVA} there.", Failure.MODEL)
    kept = root / _LLAVA.partition("/")[2]
    if kind.startswith("llava"):
        text = f"ckpt_path: {directory} holds all of LLaVA; {title} needs only its language model"
        rename = f"mv {_word(directory)} {_word(kept)} && {_making(decision, kept, directory)}"
        fix = f"Rename it and make the text encoder: {rename}"
        return Finding("model.encoder", "error", text, fix, Failure.MODEL)
    if found.problems == (f"{directory} is missing",):
        whole = decision.job.host.checkpoints.get(root)
        raw = next((name for name in sorted(whole.names if whole else ()) if name.lower().startswith("llava")), None)
        text = f"ckpt_path: {directory} is missing; it is made from LLaVA by a script of the checkout"
        kept = root / raw if raw else kept
        first = "" if raw else f"Download {_LLAVA} to {kept}, then run: "
        return Finding("model.encoder", "error", text, f"{first}{_making(decision, kept, directory)}", Failure.MODEL)
    return None


def _making(decision: HunyuanDecision, source: Path, target: Path) -> str:
    folder, python = decision.checkout.directory, decision.interpreter.path
    words = f"{_word(python)} {_SCRIPT} --input_dir {_word(source)} --output_dir {_word(target)}"
    return f"cd {_word(folder)} && {words}"


def _word(path: Path) -> str:
    return shlex.quote(str(path))
