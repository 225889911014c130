"""Implements ``reel plan``: prints the planned command, its result and its obstacles, and runs and writes nothing."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import VideoGenerationError, all_of
from .arguments import add_request_arguments, order_from
from .arguments import check_order as check  # noqa: F401 -- part of the contract of a command
from .output import cell, print_flowing, print_json

if TYPE_CHECKING:
    from rich.text import Text

    from ..config.settings import Settings
    from ..core.plan import Finding, Plan
    from ..doctor.card_comparison import ComparedModel
    from ..runs.order import Order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_request_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit status is that of the first error finding, 0 without one."""
    from ..runs import workspace
    from ..runs.prepare import Preparer  # the runner itself would cost another 40 ms
    from ..sites.local.site import LocalSite

    order, preparer = order_from(arguments), Preparer(LocalSite())
    if _nothing_is_set_up(order):
        return _compare(order.settings, as_json=arguments.json)
    try:
        output = workspace.absolute_output(order.output)
        plan = preparer.prepare(order, workspace.plan_folder(output, "PLAN")).plan
    except VideoGenerationError as error:
        raise all_of([error, *preparer.mistakes(order)]) from None
    plan = plan.evolve(findings=(*_output_findings(order, output), *plan.findings))
    if arguments.json:
        print_json(plan.to_json())
    else:
        print_flowing(_lines(plan))
    return plan.errors[0].failure.exit_status if plan.errors else 0


def _output_findings(order: Order, output: Path) -> Iterator[Finding]:
    """The findings for an output that publishing would refuse."""
    from ..core.plan import Finding
    from ..runs import workspace
    from ..runs.output_paths import refuse_inputs_of

    try:
        workspace.check_folder(output)
        settled = workspace.settle_output(output, order.settings.if_exists)
        if settled is not None:
            refuse_inputs_of(order.request, settled)
    except VideoGenerationError as error:
        yield Finding("output", "error", error.message, error.advice, error.failure)


def _lines(plan: Plan) -> Iterator[Text]:
    """A line for each fact and finding; a table would break the command into pieces that cannot be copied."""
    from rich.text import Text

    for name, value in _facts(plan):
        yield Text.assemble((f"{name:<13}", "bold"), cell(value))
    colours = {"error": "red", "warning": "yellow", "info": "cyan"}
    for finding in plan.findings:
        yield cell(f"{finding.severity}: {finding.message}", colours[finding.severity])
        if finding.fix:
            yield cell(f"  fix: {finding.fix}")


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    from ..core.plan import in_words

    yield "generator", f"{plan.generator} ({plan.task})" + ("" if plan.generative else ", not generative")
    if (video := plan.expected) is not None:
        length = f"{video.num_frames} frames at {video.fps:g} fps, {video.seconds:.2f} s"
        yield "clip", f"{video.width}x{video.height}, {length}"
    parameters = plan.to_json()["parameters"]
    yield "parameters", ", ".join(f"{name}={_flat(value)}" for name, value in parameters.items())
    if plan.gpus:
        yield "GPUs", ", ".join(map(str, plan.gpus))
    for name, size in (("GPU memory", plan.gpu_bytes), ("host memory", plan.host_bytes), ("disk", plan.disk_bytes)):
        if size:
            yield name, f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
    if plan.seconds:
        source = "from this machine's history" if plan.program else "estimated"
        yield "time", f"about {in_words(plan.seconds)} ({source})"
    elif plan.published:
        yield "time", f"about {in_words(plan.published.seconds)} ({plan.published.source})"
    if (program := plan.program) is not None:
        yield "folder", str(program.cwd)
        yield (
            "environment",
            " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(program.shown_env.items())),
        )
        yield "command", shlex.join(program.argv)


def _flat(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value


# --------------------------------------------------------------------------------------------------------- comparison


def _nothing_is_set_up(order: Order) -> bool:
    """Whether cards are simulated and no generator that could run on them is configured or named."""
    from .. import backends
    from ..runs.prepare import generator_of

    settings = order.settings
    return (
        bool(settings.simulate_gpus)
        and generator_of(order) == "auto"
        and [backend.name for backend in backends.candidates("auto", settings)] == ["draft"]
    )


def _compare(settings: Settings, *, as_json: bool) -> int:
    """Print the models that these cards could run, since no generator is set up."""
    from ..doctor.card_comparison import compare

    rows = compare(settings.simulate_gpus or "", settings)
    if as_json:
        compared = [row.to_json() for row in rows]
        print_json({"schema": 1, "simulate_gpus": settings.simulate_gpus, "comparison": compared})
        return 0
    first = cell(f"No generator is set up. What {settings.simulate_gpus} could run:")
    lines = (cell(line, "" if row.fits else "dim") for row in rows for line in _compared(row))
    print_flowing([first, *lines, cell("The draft generator needs no GPU: --generator draft.")])
    return 0


def _compared(row: ComparedModel) -> Iterator[str]:
    from ..core.plan import counted, in_words

    name = f"{row.generator}: {row.model}"
    if not row.fits:
        yield f"no    {name}: {row.problem}"
        return
    clip = f"{row.size}, {row.frames} frames" if row.frames else f"{row.size}"
    need = f"{row.gpu_bytes / 2**30:.1f} GiB each" if row.gpu_bytes else "unknown memory"
    host = f", {row.host_bytes / 2**30:.0f} GiB of host memory" if row.host_bytes else ""
    yield f"fits  {name}: {clip} on {counted(row.gpus, 'GPU')}, {need}{host}"
    yield (
        f"        time: about {in_words(row.seconds)} a clip, {row.source}"
        if row.seconds
        else f"        time: {row.source}"
    )
    if row.note:
        yield f"        note: {row.note}"
    yield f"        set up: {row.setup}"
