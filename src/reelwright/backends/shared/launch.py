"""The launch of an official framework script: torchrun, environment, interpreter, checkout and weights. Pure.

The findings of this module apply to every script. The needs of a single framework stay in its backend.

    >>> option("prompt", "--a cat")
    '--prompt=--a cat'
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config.settings import Settings
from ...core.errors import Failure
from ...core.host import Checkout, Checkpoint, Gpu, Host, Interpreter, InterpreterQuery
from ...core.plan import Command, Dialect, Finding
from .decision import Decision

#: Environment variables that a framework may see, by name or with a trailing ``*``. All others are dropped:
#: LD_PRELOAD, PYTHON*, and the rank variables of a cluster shell (RANK=1 makes Wan render and save nothing).
ENV_NAMES = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_HOME",
    "CUDA_PATH", "CUDA_CACHE_PATH", "CUDA_MODULE_LOADING", "NVIDIA_*", "NCCL_*", "GLOO_SOCKET_IFNAME",
    "OMP_NUM_THREADS", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE",
    "XDG_CACHE_HOME", "SSL_CERT_FILE", "IMAGEIO_FFMPEG_EXE",
)  # fmt: skip

BASE_ENV: Mapping[str, str] = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8",
    "PYTHONNOUSERSITE": "1",
    # Without these a framework asks the hub for a missing tokenizer folder: a network wait instead of an error.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}


#: Settings that every worker process and every framework's script uses.
PROCESS_SETTINGS = frozenset(
    {
        *("python", "env", "timeout", "progress_timeout", "lease_timeout_s", "stop_grace_s", "verify_model"),
        *("gpus", "gpu_count", "total_gpus", "nccl_p2p_retry"),
        *("sample_steps", "guide_scale", "sample_shift"),
    }
)

#: All official scripts write through imageio and its ffmpeg; Wan hides every error of these.
WRITER_CHECK = (
    "import subprocess, imageio_ffmpeg; "
    "subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-version'], check=True, stdout=subprocess.DEVNULL)"
)


def option(name: str, value: object) -> str:
    """``--name=value`` as one word: otherwise a value that begins with dashes would count as an option."""
    return f"--{name}={value}"


def start(python: Path, script: Sequence[str], ranks: int) -> tuple[str, ...]:
    """The words of a command that starts a script, directly or under torchrun.

    torchrun runs as a module of the framework's interpreter. With ``--standalone`` the operating system chooses the
    rendezvous port: the documented 29500 collides with a second run. Without ``--local-addr`` the processes meet under
    the machine's own name, which not every container can look up. ``--max-restarts=0``: Reelwright itself retries.
    """
    if ranks == 1:
        return (str(python), *script)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc_per_node={ranks}")
    return (str(python), *torchrun, "--max-restarts=0", *script)


def environment(settings: Settings, gpus: Iterable[Gpu], *, simulated: bool) -> dict[str, str]:
    """The variables to set for a framework; it can see only the chosen GPUs."""
    env = dict(BASE_ENV)
    chosen = [gpu.uuid for gpu in gpus]
    if chosen and not simulated:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    env.update(settings.env)
    return env


def script_command(
    decision: Decision,
    script: Sequence[str],
    cwd: Path,
    dialect: Dialect,
    quiet_limits_s: Mapping[str, float],
    **more: Any,
) -> Command:
    """The command of a framework's script, under torchrun for several processes; ``more`` are fields of `Command`."""
    settings, ranks = decision.job.settings, decision.ranks
    env = environment(settings, decision.gpus.gpus, simulated=decision.job.host.simulated)
    if decision.parameters.get("expandable_segments"):
        env["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    return Command(
        argv=start(decision.interpreter.path, script, ranks),
        cwd=cwd,
        env={**env, **more.pop("env", {})},
        env_names=ENV_NAMES,
        dialect=dialect,
        quiet_limits_s={"": settings.progress_timeout} if settings.progress_timeout else quiet_limits_s,
        ranks=ranks,
        writer_check=WRITER_CHECK,
        hidden=frozenset(settings.env),
        **more,
    )


# ------------------------------------------------------------------------------------------------ interpreters


def interpreter_queries(
    settings: Settings, checkout: Path | None, modules: tuple[str, ...]
) -> tuple[InterpreterQuery, ...]:
    """Ask the configured interpreter; without one, the virtual environments in the checkout and the running one."""
    inside = [checkout / name / "bin" / "python" for name in (".venv", "venv")] if checkout else []
    paths = (settings.python,) if settings.python else (*inside, Path(sys.executable))
    return tuple(interpreter_query(settings, path, modules, folder=checkout) for path in paths)


def interpreter_query(
    settings: Settings, path: Path, modules: tuple[str, ...], *, folder: Path | None = None
) -> InterpreterQuery:
    """Ask an interpreter in the environment of a run, so that it sees what the run will see."""
    env = environment(settings, (), simulated=False)
    return InterpreterQuery(path, modules, env, ENV_NAMES, folder)


def pick_interpreter(queries: Sequence[InterpreterQuery], host: Host) -> Interpreter:
    """The first interpreter that answered, preferring one that has torch; else the first, with its problem."""
    found = [host.interpreters.get(query.path, Interpreter(query.path, "was not asked")) for query in queries]
    able = [item for item in found if not item.problem]
    return next((item for item in able if "torch" in item.modules), (able or found)[0])


def interpreter_findings(interpreter: Interpreter, required: Sequence[str], *, framework: str) -> Iterator[Finding]:
    """Report an interpreter that cannot run the framework; ``required`` modules must be importable."""
    if interpreter.problem:
        yield Finding(
            "interpreter",
            "error",
            f"the interpreter {interpreter.path} {interpreter.problem.removeprefix(f'{interpreter.path} ')}",
            f"Set `python` to the interpreter of {framework}'s own virtual environment.",
            Failure.ENV,
        )
        return
    lacking = [module for module in required if module not in interpreter.modules]
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


def lacks_xfuser(interpreter: Interpreter, ranks: int) -> str:
    """The reason why several GPUs cannot share a clip; empty if the package for it is installed."""
    if ranks == 1 or interpreter.problem or "xfuser" in interpreter.modules:
        return ""
    return "xfuser is not installed, which several GPUs need to share a clip"


def _is_absent(module: str, reason: str) -> bool:
    """Whether a package is not installed; a broken package fails with another error."""
    return reason in ("is not installed", f"ModuleNotFoundError: No module named {module!r}")


# -------------------------------------------------------------------------------------------------- checkpoints


def model_name(directory: Path) -> str:
    """The model's name from its folder; in the hub's cache the folder is a commit, two levels below the name."""
    if directory.parent.name == "snapshots" and len(directory.parents) > 1:
        return directory.parents[1].name
    return directory.name


def checkout_fault(checkout: Checkout | None, needed: Sequence[str], what: str, source: str) -> tuple[str, str] | None:
    """The reason why a checkout cannot run, and the fix; ``None`` if the files that it needs exist.

    Args:
        checkout: The probe's answer.
        needed: The script, then further files without which it cannot be imported.
        what: The setting and its folder.
        source: The origin of the framework.
    """
    if checkout is None or checkout.problem:
        why = f"{what.partition(' ')[0]}: {checkout.problem}" if checkout else f"{what} was not checked"
        return why, f"Set it to the folder that holds {needed[0]}."
    lost = [file for file in needed if file not in checkout.files]
    if not lost:
        return None
    if needed[0] in lost:
        there = checkout.elsewhere or f"the folder that holds {needed[0]}"
        return f"{what} has no {needed[0]}", f"Set it to {there}."
    folders = dict.fromkeys(str(Path(file).parent) if Path(file).parent.parts[1:] else file for file in lost)
    fix = f"Clone {source} again: this one is incomplete."
    return f"{what} is incomplete: it has no {', '.join(folders)}", fix


def checkpoint_findings(checkpoint: Checkpoint | None, key: str) -> Iterator[Finding]:
    """Report a folder of weights that is incomplete or of another kind; ``key`` is the setting that names it."""
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
            f"Correct {key}, or download the weights there."
            if gone
            else "Download it again; existing files are kept."
            if re.search(r"missing|unfinished|no file", problem) or problem == f"{checkpoint.directory} is empty"
            else "Delete the damaged files and download again; the other files are kept."
        )
        yield Finding("model.incomplete", "error", f"{key}: {problem}", fix, Failure.MODEL)
