"""What all official framework scripts have in common: how they are started, and what can be known before.

Pure functions for the backends that drive a framework's own program: torchrun, the scrubbed environment, the choice
of GPUs, and findings from what the probes saw. What is special to one framework stays in its backend.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...config.settings import Settings
from ...core.errors import Failure
from ...core.host import Checkout, Checkpoint, Gpu, Host, Interpreter, InterpreterQuery
from ...core.plan import Command, Dialect, Finding
from ..shared.job import Job

#: Variables of the runner that a framework may see, by name or with a trailing ``*``. Everything else is dropped:
#: LD_PRELOAD, PYTHON*, and the rank variables of a cluster shell (RANK=1 makes Wan render and save nothing).
ENV_NAMES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_CACHE_PATH",
    "CUDA_MODULE_LOADING",
    "NVIDIA_*",
    "NCCL_*",
    "GLOO_SOCKET_IFNAME",
    "OMP_NUM_THREADS",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "XDG_CACHE_HOME",
    "SSL_CERT_FILE",
    "IMAGEIO_FFMPEG_EXE",
)

BASE_ENV: Mapping[str, str] = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8",
    "PYTHONNOUSERSITE": "1",
    # A missing tokenizer folder would be looked up on the hub: a network wait instead of an error.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}


#: Settings that every worker process and every framework's script has.
PROCESS_SETTINGS = frozenset(
    {
        *("python", "env", "timeout", "progress_timeout", "lease_timeout_s", "stop_grace_s", "verify_model"),
        *("gpus", "gpu_count", "total_gpus", "nccl_p2p_retry"),
        *("sample_steps", "guide_scale", "sample_shift"),
    }
)

#: All official scripts write through imageio and its ffmpeg; Wan hides every error of it.
WRITER_CHECK = (
    "import subprocess, imageio_ffmpeg; "
    "subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-version'], check=True, stdout=subprocess.DEVNULL)"
)


def option(name: str, value: object) -> str:
    """``--name=value`` as one word: a value that begins with dashes would be taken for an option otherwise."""
    return f"--{name}={value}"


def start(python: Path, script: Sequence[str], ranks: int) -> tuple[str, ...]:
    """The program that starts a script, directly or under torchrun.

    torchrun is called as a module of the framework's interpreter. ``--standalone`` lets the operating system choose
    the rendezvous port: the documented 29500 collides with a second run. ``--local-addr``: else the processes meet
    under the machine's own name, which not every container can look up. ``--max-restarts=0``: retrying is ours.
    """
    if ranks == 1:
        return (str(python), *script)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc_per_node={ranks}")
    return (str(python), *torchrun, "--max-restarts=0", *script)


def environment(settings: Settings, gpus: Iterable[Gpu], *, simulated: bool) -> dict[str, str]:
    """The variables that are set for a framework; the chosen GPUs become all that it can see."""
    env = dict(BASE_ENV)
    chosen = [gpu.uuid for gpu in gpus]
    if chosen and not simulated:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    env.update(settings.env)
    return env


@dataclass(frozen=True)
class Program:
    """A framework's script as a backend wants it run.

    Attributes:
        python: The framework's interpreter.
        script: The script and its options; a launcher of ours may stand before it.
        cwd: The checkout.
        gpus: The cards it may see; one process for each of them, where several share a clip.
        ranks: Number of processes.
        dialect: How its log is read.
        quiet_limits_s: As in `core.plan.Command`.
        env: Further variables.
        collects: As in `core.plan.Command`.
    """

    python: Path
    script: tuple[str, ...]
    cwd: Path
    gpus: tuple[Gpu, ...]
    ranks: int
    dialect: Dialect
    quiet_limits_s: Mapping[str, float]
    env: Mapping[str, str] = field(default_factory=dict)
    collects: Path | None = None


def command(job: Job, program: Program) -> Command:
    """How the script is started, under torchrun for several processes, in a scrubbed environment."""
    limits, progress_timeout = program.quiet_limits_s, job.settings.progress_timeout
    return Command(
        argv=start(program.python, program.script, program.ranks),
        cwd=program.cwd,
        env={**environment(job.settings, program.gpus, simulated=job.host.simulated), **program.env},
        env_names=ENV_NAMES,
        dialect=program.dialect,
        quiet_limits_s={"": progress_timeout} if progress_timeout else limits,
        ranks=program.ranks,
        collects=program.collects,
        writer_check=WRITER_CHECK,
    )


#: Less memory is lost to fragmentation with it (Wan2.1#198).
EXPANDABLE_SEGMENTS: Mapping[str, str] = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


# ------------------------------------------------------------------------------------------------ interpreters


def interpreter_queries(
    settings: Settings, checkout: Path | None, modules: tuple[str, ...]
) -> tuple[InterpreterQuery, ...]:
    """The configured interpreter; else a virtual environment in the checkout, else the running one."""
    inside = [checkout / name / "bin" / "python" for name in (".venv", "venv")] if checkout else []
    paths = (settings.python,) if settings.python else (*inside, Path(sys.executable))
    return tuple(interpreter_query(settings, path, modules, folder=checkout) for path in paths)


def interpreter_query(
    settings: Settings, path: Path, modules: tuple[str, ...], *, folder: Path | None = None
) -> InterpreterQuery:
    """Ask an interpreter in the environment of a run: what it sees there is what counts."""
    env = environment(settings, (), simulated=False)
    return InterpreterQuery(path, modules, env, ENV_NAMES, folder)


def pick_interpreter(queries: Sequence[InterpreterQuery], host: Host) -> Interpreter:
    """The first interpreter that answered, preferring one that has torch; else the first, with its problem."""
    found = [host.interpreters.get(query.path, Interpreter(query.path, "was not asked")) for query in queries]
    able = [item for item in found if not item.problem]
    return next((item for item in able if "torch" in item.modules), (able or found)[0])


def interpreter_findings(
    interpreter: Interpreter, required: Sequence[str], *, framework: str, multi_gpu: Sequence[str] = ()
) -> Iterator[Finding]:
    """Errors for an interpreter that cannot run the framework; ``required`` modules must be importable."""
    if interpreter.problem:
        yield Finding(
            "interpreter",
            "error",
            f"the interpreter {interpreter.path} {interpreter.problem.removeprefix(f'{interpreter.path} ')}",
            f"Set `python` to the interpreter of {framework}'s own virtual environment.",
            Failure.ENV,
        )
        return
    lacking = [module for module in (*required, *multi_gpu) if module not in interpreter.modules]
    reasons = {module: interpreter.broken.get(module, "is not installed") for module in lacking}
    absent = [module for module in lacking if _is_absent(module, reasons[module])]
    groups = [absent] * bool(absent) + [[module] for module in lacking if module not in absent]
    for modules in groups:
        reason = reasons[modules[0]] if len(modules) == 1 else "they are not installed"
        fix = f"Install what {framework} requires into that environment, or set `python` to the right interpreter."
        if "for this user only" in reason:
            fix = f"{fix} To use the user's own packages in runs as well, set `env: {{PYTHONNOUSERSITE: ''}}`."
        yield Finding(
            f"module.{modules[0]}",
            "error",
            f"{interpreter.path} cannot import {', '.join(modules)}: {reason}",
            fix,
            Failure.ENV,
        )


def _is_absent(module: str, reason: str) -> bool:
    """Whether a package is not there at all, and not there but broken."""
    return reason in ("is not installed", f"ModuleNotFoundError: No module named {module!r}")


# -------------------------------------------------------------------------------------------------- checkpoints


def model_name(directory: Path) -> str:
    """The name of a model's folder; in the hub's cache the folder is a commit, and the model's name is above it."""
    if directory.parent.name == "snapshots" and len(directory.parents) > 1:
        return directory.parents[1].name
    return directory.name


def checkout_fault(checkout: Checkout | None, needed: Sequence[str], what: str, source: str) -> tuple[str, str] | None:
    """Why a checkout cannot be run, and the fix; ``None`` if the files that it needs are there.

    Args:
        checkout: What was found.
        needed: The script, then further files without which it cannot be imported.
        what: The setting and its folder.
        source: Where the framework comes from.
    """
    if checkout is None or checkout.problem:
        why = f"{what.partition(' ')[0]}: {checkout.problem}" if checkout else f"{what} was not looked at"
        return why, f"Set it to the folder that holds {needed[0]}."
    lost = [file for file in needed if file not in checkout.files]
    if not lost:
        return None
    if needed[0] in lost:
        there = (
            f"Set it to {checkout.elsewhere}."
            if checkout.elsewhere
            else f"Set it to the folder that holds {needed[0]}."
        )
        return f"{what} has no {needed[0]}", there
    folders = dict.fromkeys(str(Path(file).parent) if Path(file).parent.parts[1:] else file for file in lost)
    fix = f"Clone {source} again: this one was cut short, or is a part of it."
    return f"{what} is incomplete: it has no {', '.join(folders)}", fix


def checkpoint_findings(checkpoint: Checkpoint | None, key: str) -> Iterator[Finding]:
    """Errors for a folder of weights that is not whole, or not what ``key``, the setting that names it, needs."""
    if checkpoint is None:
        yield Finding("model.unset", "error", f"{key} is not set", f"Set {key} to the folder of the weights.")
        return
    if checkpoint.kind is not None:
        text = f"{key}: {checkpoint.directory} {checkpoint.kind.what}"
        yield Finding(f"model.{checkpoint.kind.code}", "error", text, checkpoint.kind.fix, Failure.MODEL)
        return
    for problem in checkpoint.problems:
        gone = problem == f"{checkpoint.directory} is missing"
        fix = (
            f"Correct {key}, or download the weights to there."
            if gone
            else "Download it again; what is there already is kept."
            if re.search(r"missing|unfinished|no file", problem) or problem == f"{checkpoint.directory} is empty"
            else "Delete what is wrong, and download it again; the rest is kept."
        )
        yield Finding("model.incomplete", "error", f"{key}: {problem}", fix, Failure.MODEL)
