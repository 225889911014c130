"""Findings about packages that do not fit each other, the cards, the driver or the checkout's requirements. Pure.

A framework would only notice such a mismatch after minutes of loading, or would make a wrong picture. Each finding
names the two things that do not fit, and what to install instead.

    >>> flash_attn_problem(Gpu(0, "GPU-0", "V100", None, None, (7, 0)), "flash_attn")
    'flash_attn needs a card of compute capability 8.0 (Ampere) or newer; GPU 0 (V100) has 7.0'
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.errors import Failure
from ...core.host import Checkout, Gpu, Host, Interpreter
from ...core.plan import Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: Patterns for `core.host.CheckoutQuery`: the lines of the checkout's list of packages, and the Python it requires.
REQUIREMENTS: Mapping[str, tuple[str, str]] = {
    "requirements": ("requirements.txt", r"^[ \t]*([A-Za-z0-9][^#\r\n]*)"),
    "requires_python": ("pyproject.toml", r"^requires-python\s*=\s*[\"']([^\"'\n]+)[\"']"),
}
_AMPERE = (8, 0)
#: The module of a distribution, where their names differ.
_MODULES = {"opencv-python": "cv2", "opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
#: (a Python, the first torch with wheels for it), newest first. From the compatibility matrix in PyTorch's RELEASE.md.
_PYTHON_NEEDS = (((3, 14), (2, 9)), ((3, 13), (2, 5)), ((3, 12), (2, 2)), ((3, 11), (1, 13)))
#: The first driver for a major version of CUDA (CUDA's release notes, table of minor version compatibility).
_DRIVERS = {11: "450", 12: "525", 13: "580"}
_NUMPY_2_SINCE = (2, 3)  # an older torch was built against numpy 1 and cannot pass arrays to numpy 2


@dataclass(frozen=True)
class RunEnvironment:
    """The interpreter of a run, and the run's requirements of it.

    Attributes:
        interpreter: The probe's answer.
        gpus: The cards of the run.
        framework: The framework's name in messages.
        checkout: The framework's source, with the matches of `REQUIREMENTS`.
        checked: Modules that the run imports: only these packages are compared with the requirements.
    """

    interpreter: Interpreter
    gpus: tuple[Gpu, ...] = ()
    framework: str = ""
    checkout: Checkout | None = None
    checked: tuple[str, ...] = ()

    def required(self, name: str) -> tuple[str, ...]:
        """The checkout's lines for a name of `REQUIREMENTS`."""
        return self.checkout.matches.get(name, ()) if self.checkout else ()


def findings(run: RunEnvironment, host: Host) -> Iterator[Finding]:
    """Yield everything that does not fit; nothing if the interpreter did not answer the probe."""
    if run.interpreter.problem or run.interpreter.python_version is None:
        return
    yield from _python_findings(run)
    yield from _numpy_findings(run)
    yield from _driver_findings(run, host)
    yield from _arch_findings(run)
    yield from _bf16_findings(run)
    yield from _requirement_findings(run)


def flash_attn_problem(gpu: Gpu, package: str) -> str | None:
    """The reason why a generation of flash-attn does not run on a card; ``None`` if it does, or the card is not known.

    ``flash_attn`` (the second) needs Ampere (FlashAttention's README; Wan2.1#25). ``flash_attn_interface`` (the third) is
    written for Hopper. Some builds of it also run on Ampere and Ada (flash-attention#1481), none on Blackwell.
    """
    if gpu.capability is None:
        return None
    has = f"GPU {gpu.index} ({gpu.name}) has {_dotted(gpu.capability)}"
    if package == "flash_attn_interface" and gpu.capability[0] != 9:
        return f"flash_attn_interface (FlashAttention 3) is for Hopper, compute capability 9.0; {has}"
    if package == "flash_attn" and gpu.capability < _AMPERE:
        return f"flash_attn needs a card of compute capability 8.0 (Ampere) or newer; {has}"
    return None


def bf16_problem(gpu: Gpu) -> str | None:
    """The reason why a card is slow with bfloat16; ``None`` if it computes in it."""
    if gpu.capability is None or gpu.capability >= _AMPERE:
        return None
    return f"GPU {gpu.index} ({gpu.name}, compute capability {_dotted(gpu.capability)}) does not compute in bfloat16"


def attention_bytes(gpus: Sequence[Gpu], tokens: int, heads: float) -> int:
    """Bytes of PyTorch's attention in bfloat16 on cards without a fused kernel for it: four for every score.

    Wan2.1#25: a 2080 Ti needs 47.98 GiB at 480p with t2v-1.3B, which are 12 heads x 32,760 tokens squared x 4 bytes.
    """
    return round(heads * tokens**2 * 4) if any(bf16_problem(gpu) for gpu in gpus) else 0


# ------------------------------------------------------------------------------------------- Python, numpy, torch


def _python_findings(run: RunEnvironment) -> Iterator[Finding]:
    python = run.interpreter
    version = version_numbers(python.python_version)
    spoken = f"{python.path} is Python {python.python_version}"
    for wanted in run.required("requires_python"):
        if _satisfied(wanted, python.python_version or "") is False:
            text = f"{spoken}, and the checkout of {run.framework} needs {wanted}"
            fix = f"Set `python` to an environment with a Python {wanted}."
            yield Finding("python.version", "error", text, fix, Failure.ENV)
            return
    if version is None:
        return
    least = next((torch for first, torch in _PYTHON_NEEDS if version >= first), None)
    torch = python.modules.get("torch")
    if least and torch and is_older(torch, least):
        text = f"{spoken}, and torch {torch} is too old for it: the first is torch {_dotted(least)}"
        fix = f"Install torch {_dotted(least)} or newer there, or set `python` to an older Python."
        yield Finding("python.version", "warning", text, fix)
    elif least and torch is None and _older_torch(run, least):
        text = f"{spoken}: the torch that {run.framework} needs has no build for that Python"
        yield Finding("python.version", "error", text, "Make its environment with Python 3.10 or 3.11.", Failure.ENV)
    elif version < (3, 9):
        text = f"{spoken}, which is too old for {run.framework or 'the framework'}"
        yield Finding("python.version", "error", text, "Set `python` to an environment with Python 3.10.", Failure.ENV)


def _older_torch(run: RunEnvironment, least: tuple[int, ...]) -> bool:
    """Whether the requirements pin torch below the first release for this Python."""
    pinned = [item for item in _requirements(run) if item.name.lower() == "torch"]
    exact = [spec.version for item in pinned for spec in item.specifier if spec.operator in ("==", "<=", "<")]
    return any(is_older(version, least) for version in exact)


def _numpy_findings(run: RunEnvironment) -> Iterator[Finding]:
    python = run.interpreter
    torch, numpy = python.modules.get("torch"), _version_of(python, "numpy")
    if torch and (version_numbers(numpy) or (0,)) >= (2,) and is_older(torch, _NUMPY_2_SINCE):
        text = f"torch {torch} in {python.path} was built for numpy 1 and cannot work with numpy {numpy}"
        fix = f"Run {python.path} -m pip install 'numpy<2', or install torch 2.3 or newer."
        yield Finding("packages.numpy", "error", text, fix, Failure.ENV)


# ------------------------------------------------------------------------------------------------ card and driver


def _driver_findings(run: RunEnvironment, host: Host) -> Iterator[Finding]:
    """Report a torch for a newer major CUDA than the driver's: it sees no card. Within a major version they fit."""
    python, driver = run.interpreter, host.driver_cuda
    if python.cuda_version is None or driver is None or host.simulated or not run.gpus:
        return
    built = version_numbers(python.cuda_version)
    if built is None or built[0] <= driver[0]:
        return
    first = f" ({_DRIVERS[built[0]]} or newer)" if built[0] in _DRIVERS else ""
    text = (
        f"torch {python.modules.get('torch', '')} of {python.path} is built for CUDA {python.cuda_version}, and the NVIDIA driver "
        f"{host.driver_version or ''} runs CUDA {_dotted(driver)} at most"
    )
    fix = f"Update the NVIDIA driver{first}, or install a build of torch for CUDA {driver[0]} (cu{driver[0]}x)."
    yield Finding("torch.driver", "error", text, fix, Failure.ENV)


def _arch_findings(run: RunEnvironment) -> Iterator[Finding]:
    """Report a card for which torch has no kernels: "no kernel image is available" at the first operation."""
    python = run.interpreter
    if not python.cuda_archs:
        return
    one_of_each = {(gpu.name, gpu.capability): gpu for gpu in reversed(run.gpus)}
    for gpu in one_of_each.values():
        if gpu.capability is None or _runs_on(python.cuda_archs, gpu.capability):
            continue
        torch = f"torch {python.modules.get('torch', '')} of {python.path} (CUDA {python.cuda_version or 'unknown'})"
        known = ", ".join(python.cuda_archs)
        text = (
            f"{torch} has no kernels for GPU {gpu.index} ({gpu.name}, sm_{gpu.capability[0]}{gpu.capability[1]}): it is "
            f"built for {known}"
        )
        yield Finding("torch.arch", "error", text, _arch_fix(python, gpu.capability), Failure.ENV)


def _runs_on(archs: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether one of the architectures covers a card.

    Binary code runs on cards of its own major version, from its minor version on; PTX (``compute_``) on all newer ones.
    """
    for arch in archs:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
        if match is None:
            continue
        built = (int(match[2]), int(match[3]))
        if match[4] == "a":
            fits = built == capability
        elif match[1] == "sm" or match[4] == "f":
            fits = built[0] == capability[0] and built[1] <= capability[1]
        else:
            fits = built <= capability
        if fits:
            return True
    return False


def _arch_fix(python: Interpreter, capability: tuple[int, int]) -> str:
    """Advice on the build to install: CUDA 12.8 has Blackwell since torch 2.7, CUDA 12.6 has the old cards."""
    if capability >= (10, 0):
        return f"Install torch 2.7 or newer, built for CUDA 12.8 or newer (cu128), with {python.path} -m pip."
    if capability < (7, 5):
        return f"Install a build of torch for CUDA 12.6 (cu126), which keeps cards as old as 5.0, with {python.path} -m pip."
    return f"Install the official build of torch for this card with {python.path} -m pip."


def _bf16_findings(run: RunEnvironment) -> Iterator[Finding]:
    problem = next(filter(None, (bf16_problem(gpu) for gpu in run.gpus)), None)
    if problem:
        text = (
            f"{problem}, which {run.framework} uses: it is emulated, many times slower, and attention needs more memory"
        )
        yield Finding("gpu.bf16", "warning", text, "Use a card of compute capability 8.0 or newer (Ampere, 2020).")


# --------------------------------------------------------------------------------------------- the checkout's pins


def _requirement_findings(run: RunEnvironment) -> Iterator[Finding]:
    """Compare the installed packages with the checkout's own requirements.txt, in one finding."""
    wrong = []
    for item in _requirements(run):
        found = _version_of(run.interpreter, item.name)
        if found is not None and _satisfied(str(item.specifier), found) is False:
            wrong.append(f"{item.name} {found} (needs {item.specifier})")
    if wrong:
        text = f"{run.interpreter.path} differs from the requirements.txt of {run.framework}: {', '.join(wrong)}"
        fix = f"Run {run.interpreter.path} -m pip install -r requirements.txt in the checkout, or ignore this if it works."
        yield Finding("packages.requirements", "warning", text, fix)


def _requirements(run: RunEnvironment) -> Iterator[Requirement]:
    """The lines that apply to this interpreter and name a package that the run imports."""
    from packaging.requirements import InvalidRequirement, Requirement

    version = run.interpreter.python_version or ""
    environment = {"python_version": ".".join(version.split(".")[:2]), "python_full_version": version}
    for line in run.required("requirements"):
        try:
            item = Requirement(line.split(" --")[0].strip().rstrip("\\").strip())
        except InvalidRequirement:
            continue
        applies = item.marker is None or item.marker.evaluate(environment)
        if applies and _module(item.name) in (
            *run.checked,
            "numpy",
            "torch",
            "tokenizers",
            "accelerate",
            "huggingface_hub",
        ):
            yield item


def _satisfied(specifier: str, version: str) -> bool | None:
    """Whether a version is in a range; ``None`` if one of the two cannot be parsed."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return None


def _version_of(python: Interpreter, name: str) -> str | None:
    """The version of a distribution, as installed, else from its module; ``None`` if it is unknown or not installed."""
    found = python.packages.get(_normal(name)) or python.modules.get(_module(name))
    return None if found == "unknown" else found


def _module(name: str) -> str:
    """The module of a distribution."""
    return _MODULES.get(_normal(name), _normal(name).replace("-", "_"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def version_numbers(version: str | None) -> tuple[int, ...] | None:
    """``(2, 9)`` for ``2.9.1+cu128``; ``None`` for a version that is not known, as in a build from source."""
    found = re.match(r"v?(\d+)(?:\.(\d+))?", version or "")
    return tuple(int(number) for number in found.groups() if number) if found else None


def is_older(version: str, least: tuple[int, ...]) -> bool:
    """Whether a version is known to be older than ``least``."""
    numbers = version_numbers(version)
    return numbers is not None and numbers < least


def _dotted(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))
