"""``reel plan``: what would run, what it would give and what stands in the way; nothing is run or written."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING, Any

from .arguments import add_request_arguments, cell, console, order_from

if TYPE_CHECKING:
    from ..plan import Plan


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("plan", help="show what would run, without running it")
    add_request_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit status is that of the first error finding, 0 without one."""
    from .. import workspace
    from ..errors import VideoGenerationError, all_of
    from ..preparation import mistakes, prepare  # the runner itself would cost another 40 ms

    order = order_from(arguments)
    try:
        output = workspace.absolute_output(order.output)
        plan = prepare(order, workspace.plan_folder(output, "PLAN")).plan
    except VideoGenerationError as error:
        raise all_of([error, *mistakes(order)]) from None
    plan = plan.evolve(findings=(*_output_findings(order, output), *plan.findings))
    if arguments.json:
        print(json.dumps(plan.to_json(), ensure_ascii=False))
    else:
        _show(plan)
    return plan.errors[0].failure.exit_status if plan.errors else 0


def _output_findings(order: Any, output: Any) -> tuple[Any, ...]:
    """What publishing would refuse, as findings."""
    from .. import workspace
    from ..errors import VideoGenerationError
    from ..outputs import refuse_inputs_of
    from ..plan import Finding

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


def _rows(plan: Plan) -> list[tuple[str, str]]:
    from ..plan import in_words

    rows = [("generator", f"{plan.generator} ({plan.task})" + ("" if plan.generative else ", not generative"))]
    if plan.expected:
        video = plan.expected
        rows.append(
            (
                "film",
                f"{video.width}x{video.height}, {video.num_frames} frames at {video.fps:g} fps, {video.seconds:.2f} s",
            )
        )
    rows.append(("parameters", ", ".join(f"{name}={value}" for name, value in plan.to_json()["parameters"].items())))
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
