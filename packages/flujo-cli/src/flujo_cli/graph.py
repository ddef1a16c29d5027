"""`flujo graph`: a picture of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import click
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from flujo.core import RUN_INPUT, Flujo, Plan, PlanNode, Source, compile_plan, type_name

from .mermaid import mermaid
from .options import debug_option
from .prepare import enforce_allow_list
from .settings import read_settings
from .target import load_target

__all__ = ["graph"]

Format = Literal["mermaid", "terminal"]

_EPILOG = """\b
Examples:
  flujo graph pipeline.py
  flujo graph pipeline.py:summary --format mermaid > summary.mmd
"""


@click.command(epilog=_EPILOG)
@click.argument("target", metavar="FILE[:NAME]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "terminal"]),
    help="Left out: `terminal` on a terminal, `mermaid` into a file or pipe.",
)
@debug_option
def graph(target: str, form: Format | None) -> None:
    """Draw a pipeline: its steps, what each takes and gives, and which run at the same time."""
    enforce_allow_list(read_settings())
    found = load_target(target).found
    plan = found.plan if isinstance(found, Flujo) else compile_plan(found)
    console = Console()
    if form == "mermaid" or (form is None and not console.is_terminal):
        click.echo(mermaid(plan), nl=False)
        return
    _draw(plan, console)


def _draw(plan: Plan, console: Console) -> None:
    """One row of boxes per level: what stands in one row runs at the same time."""
    console.print(Text(f"run input: {type_name(plan.input_type)}", style="bold"))
    for level in _levels(plan):
        console.print(Text("  |\n  v"))
        console.print(Columns([_box(plan, node) for node in level], padding=(0, 1)))
    console.print(Text("  |\n  v"))
    sources = {"output": plan.output} if isinstance(plan.output, Source) else plan.output
    for name, source in sources.items():
        console.print(Text(f"{name} <- {_origin(plan, source)}", style="bold"))


def _levels(plan: Plan) -> list[list[PlanNode]]:
    """Nodes by their longest way from the start."""
    depth: dict[int, int] = {}
    for node in plan.nodes:  # each stands after all it depends on
        depth[node.index] = 1 + max((depth[index] for index in node.predecessors), default=-1)
    levels: list[list[PlanNode]] = [[] for _ in range(max(depth.values()) + 1)]
    for node in plan.nodes:
        levels[depth[node.index]].append(node)
    return levels


def _box(plan: Plan, node: PlanNode) -> Panel:
    lines = [f"{source.parameter} <- {_origin(plan, source)}" for source in node.sources]
    lines.append(f"gives {type_name(node.output_type)}")
    lines += _options(node)
    return Panel(Text("\n".join(lines)), title=Text(node.step.name, style="bold"), title_align="left", expand=False)


def _origin(plan: Plan, source: Source) -> str:
    start = "run input" if source.node == RUN_INPUT else plan.nodes[source.node].step.name
    return start + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in source.path)


def _options(node: PlanNode) -> Iterable[str]:
    options = node.step.options
    if options.retry is not None:
        yield f"up to {options.retry.max_attempts} attempts"
    if options.timeout_s is not None:
        yield f"timeout {options.timeout_s:g} s"
    if options.limits is not None:
        yield "has limits of its own"
    if options.effect != "idempotent":
        yield options.effect.replace("_", " ")
