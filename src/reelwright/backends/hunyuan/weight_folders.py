"""The folders of weights below ckpts: what is missing, where it comes from, and the text encoder that must be made.

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
from .choice import Choice, main_file, parts_of
from .members import HV, HV15, HVI, Member, Part

_LLAVA = "xtuner/llava-llama-3-8b-v1_1-transformers"
_SCRIPT = "hyvideo/utils/preprocess_text_encoder_tokenizer_utils.py"
#: The folder that each member has for itself.
_OWN = ((HV, "hunyuan-video-t2v-720p"), (HVI, "hunyuan-video-i2v-720p"), (HV15, "transformer"))
#: Repositories on the hub, by the folder of ckpts into which they are downloaded; other folders are the model's own.
_ORIGINS: Mapping[str, str] = {
    "text_encoder_i2v": _LLAVA,
    "text_encoder_2": "openai/clip-vit-large-patch14",
    "text_encoder/llm": "Qwen/Qwen2.5-VL-7B-Instruct",
    "text_encoder/byt5-small": "google/byt5-small",
    "text_encoder/Glyph-SDXL-v2": "AI-ModelScope/Glyph-SDXL-v2 (of ModelScope)",
    "vision_encoder/siglip": "black-forest-labs/FLUX.1-Redux-dev",
}


def part_findings(choice: Choice, root: Path) -> Iterator[Finding]:
    """What is wrong with the folders of weights, one finding for each cause."""
    main = main_file(choice.job.settings)
    other = None if main else _other_member(choice, root)
    if other:
        text = f"ckpt_path: {root} holds the weights of {other.title}, and hunyuan_dir is {choice.member.title}"
        fix = f"Set hunyuan_dir to a checkout of {other.title} ({other.source}), or ckpt_path to the other weights."
        yield Finding("model.member", "error", text, fix, Failure.MODEL)
        return
    gone: dict[str, list[str]] = {}
    for part in parts_of(choice):
        directory = root / part.folder
        if main and directory.name == "transformers":
            directory = main.parent
        found = choice.job.host.checkpoints.get(directory)
        problems = found.problems if found else ()
        encoder = _encoder_finding(choice, root, part, found)
        if encoder:
            yield encoder
        elif problems == (f"{directory} is missing",):
            gone.setdefault(_origin(choice, part.folder), []).append(part.folder)
        else:
            yield from checkpoint_findings(found, "ckpt_path")
    for origin, folders in gone.items():
        several = f"{len(folders)} folders are missing: " if len(folders) > 1 else ""
        text = f"ckpt_path: {root}: {several}{', '.join(folders)}{'' if several else ' is missing'}"
        yield Finding("model.incomplete", "error", text, f"Download {origin} to there.", Failure.MODEL)


def _other_member(choice: Choice, root: Path) -> Member | None:
    """The member whose weights are there, where those of the checkout are not."""
    whole = choice.job.host.checkpoints.get(root)
    there = [member for member, folder in _OWN if whole and folder in whole.names]
    return there[0] if there and all(member is not choice.member for member in there) else None


def _origin(choice: Choice, folder: str) -> str:
    for name, repository in _ORIGINS.items():
        if folder == name or folder.startswith(f"{name}/"):
            return repository
    return f"the weights that {choice.member.source} names"


def _encoder_finding(choice: Choice, root: Path, part: Part, found: Checkpoint | None) -> Finding | None:
    """HunyuanVideo reads the language model of LLaVA alone, which a script takes out; HunyuanVideo-I2V reads all of it."""
    if choice.member not in (HV, HVI) or part.folder not in ("text_encoder", "text_encoder_i2v") or found is None:
        return None
    directory, kind = root / part.folder, str(found.config.get("model_type", ""))
    if choice.member is HV and kind.startswith("llava"):
        text = f"ckpt_path: {directory} holds the whole of LLaVA; HunyuanVideo reads its language model alone"
        kept = root / _LLAVA.partition("/")[2]
        fix = f"Rename it and make the text encoder: mv {_word(directory)} {_word(kept)} && {_making(choice, kept, directory)}"
        return Finding("model.encoder", "error", text, fix, Failure.MODEL)
    if choice.member is HVI and kind == "llama":
        text = f"ckpt_path: {directory} holds a language model alone; HunyuanVideo-I2V reads the whole of LLaVA"
        return Finding("model.encoder", "error", text, f"Download {_LLAVA} to there.", Failure.MODEL)
    if choice.member is HV and found.problems == (f"{directory} is missing",):
        whole = choice.job.host.checkpoints.get(root)
        raw = next((name for name in sorted(whole.names if whole else ()) if name.lower().startswith("llava")), None)
        text = f"ckpt_path: {directory} is missing; it is made from LLaVA by a script of the checkout"
        kept = root / (raw or _LLAVA.partition("/")[2])
        first = "" if raw else f"Download {_LLAVA} to {kept}, then run: "
        return Finding("model.encoder", "error", text, f"{first}{_making(choice, kept, directory)}", Failure.MODEL)
    return None


def _making(choice: Choice, source: Path, target: Path) -> str:
    folder, python = choice.checkout.directory, choice.interpreter.path
    words = f"{_word(python)} {_SCRIPT} --input_dir {_word(source)} --output_dir {_word(target)}"
    return f"cd {_word(folder)} && {words}"


def _word(path: Path) -> str:
    return shlex.quote(str(path))
