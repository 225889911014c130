"""``reel plan``: what would run, what it would give and what stands in the way; nothing is run or written."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING, Any

from .arguments import add_request_arguments, cell, check_order, console, order_from

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..core.plan import Plan
    from ..doctor.card_comparison import Row
    from ..runs.order import Order


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("plan", help="show what would run, without running it")
    add_request_arguments(parser)
    parser.set_defaults(run=run, check=check_order)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit status is that of the first error finding, 0 without one."""
    from ..core.errors import VideoGenerationError, all_of
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
        print(json.dumps(plan.to_json()))
    else:
        _show(plan)
    return plan.errors[0].failure.exit_status if plan.errors else 0


def _nothing_is_set_up(order: Order) -> bool:
    """Whether cards are simulated and nobody has said what is to run on them."""
    from .. import backends
    from ..runs.prepare import generator_of

    settings = order.settings
    return (
        bool(settings.simulate_gpus)
        and generator_of(order) == "auto"
        and [backend.name for backend in backends.candidates("auto", settings)] == ["draft"]
    )


def _compare(settings: Settings, *, as_json: bool) -> int:
    """What these cards could run, since nothing is set up."""
    from ..doctor.card_comparison import compare

    rows = compare(settings.simulate_gpus or "", settings)
    if as_json:
        compared = {"schema": 1, "simulate_gpus": settings.simulate_gpus, "comparison": [row.to_json() for row in rows]}
        print(json.dumps(compared))
        return 0
    out = console()
    out.print(cell(f"No generator is set up. What {settings.simulate_gpus} could run:"), soft_wrap=True)
    for row in rows:
        for line in _compared(row):
            out.print(cell(line, "" if row.fits else "dim"), soft_wrap=True)
    out.print(cell("The draft generator needs no GPU: --generator draft."), soft_wrap=True)
    return 0


def _compared(row: Row) -> list[str]:
    from ..core.plan import in_words

    name = f"{row.generator}: {row.model}"
    if not row.fits:
        return [f"no    {name}: {row.problem}"]
    need = f"{row.gpu_bytes / 2**30:.1f} GiB each" if row.gpu_bytes else "unknown memory"
    clip = f"{row.size}, {row.frames} frames" if row.frames else f"{row.size}"
    cards = "1 GPU" if row.gpus == 1 else f"{row.gpus} GPUs"
    host = f", {row.host_bytes / 2**30:.0f} GiB of host memory" if row.host_bytes else ""
    time = f"about {in_words(row.seconds)} a clip, {row.source}" if row.seconds else row.source
    lines = [f"fits  {name}: {clip} on {cards}, {need}{host}", f"        time: {time}"]
    return [*lines, *([f"        note: {row.note}"] if row.note else []), f"        set up: {row.setup}"]


def _output_findings(order: Any, output: Any) -> tuple[Any, ...]:
    """What publishing would refuse, as findings."""
    from ..core.errors import VideoGenerationError
    from ..core.plan import Finding
    from ..runs import workspace
    from ..runs.output_paths import refuse_inputs_of

    try:
        workspace.check_folder(output)
        settled = workspace.settle_output(output, order.settings.if_exists)
        if settled is not None:
            refuse_inputs_of(order.request, settled)
    except VideoGenerationError as error:
        return (Finding("output", "error", error.message, error.advice, error.failure),)
    return ()


def _show(plan: Plan) -> None:
    from rich.text import Text

    out = console()
    for name, value in _rows(plan):  # no table, which would break the command into pieces that cannot be copied
        out.print(Text.assemble((f"{name:<13}", "bold"), cell(value)), soft_wrap=True)
    colours = {"error": "red", "warning": "yellow", "info": "cyan"}
    for finding in plan.findings:
        out.print(cell(f"{finding.severity}: {finding.message}", colours[finding.severity]), soft_wrap=True)
        if finding.fix:
            out.print(cell(f"  fix: {finding.fix}"), soft_wrap=True)


def _flat(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _rows(plan: Plan) -> list[tuple[str, str]]:
    from ..core.plan import in_words

    rows = [("generator", f"{plan.generator} ({plan.task})" + ("" if plan.generative else ", not generative"))]
    if plan.expected:
        video = plan.expected
        rows.append(
            (
                "film",
                f"{video.width}x{video.height}, {video.num_frames} frames at {video.fps:g} fps, {video.seconds:.2f} s",
            )
        )
    rows.append(
        ("parameters", ", ".join(f"{name}={_flat(value)}" for name, value in plan.to_json()["parameters"].items()))
    )
    if plan.gpus:
        rows.append(("GPUs", ", ".join(map(str, plan.gpus))))
    for name, size in (("GPU memory", plan.gpu_bytes), ("host memory", plan.host_bytes), ("disk", plan.disk_bytes)):
        if size:
            rows.append((name, f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"))
    if plan.seconds:
        source = "from this machine's history" if plan.program else "estimated"
        rows.append(("time", f"about {in_words(plan.seconds)} ({source})"))
    elif plan.published:
        rows.append(("time", f"about {in_words(plan.published.seconds)} ({plan.published.source})"))
    if (program := plan.program) is not None:
        environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(program.shown_env.items()))
        rows += [("folder", str(program.cwd)), ("environment", environment), ("command", shlex.join(program.argv))]
    return rows
