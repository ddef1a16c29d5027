"""`flujo graph`: a picture of a pipeline."""

from __future__ import annotations

from typing import Literal

import click
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from flujo.core import BODY_INPUT, RUN_INPUT, FlowNode, Flujo, Plan, Scope, Source, StepNode, compile_plan, type_name

from .describe import body_path, body_word, input_scopes, rules, step_notes, title
from .mermaid import mermaid
from .options import debug_option
from .prepare import enforce_allow_list, policy_of
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
    settings = read_settings()
    enforce_allow_list(settings, policy_of(settings, None, ()))
    found = load_target(target).found
    plan = found.plan if isinstance(found, Flujo) else compile_plan(found)
    console = Console()
    if form == "mermaid" or (form is None and not console.is_terminal):
        click.echo(mermaid(plan), nl=False)
        return
    _draw(plan, console)


def _draw(plan: Plan, console: Console) -> None:
    """The pipeline, then each body of a combinator by itself, so that none is too deep to be drawn."""
    console.print(Text(f"run input: {type_name(plan.input_type)}", style="bold"))
    owners = input_scopes(plan)
    _rows(plan, plan.root, owners, console)
    left = _bodies(plan.root)
    while left:
        node, place = left.pop()
        body = node.bodies[place]
        console.print(Text(f"\n{body_path(node, place)}", style="bold"), soft_wrap=True)
        console.print(Text(f"input: {type_name(body.input_type)}"), soft_wrap=True)
        _rows(plan, body, owners, console)
        left += _bodies(body)


def _bodies(scope: Scope) -> list[tuple[FlowNode, int]]:
    """The bodies of a scope's combinators, the last first, as a stack wants them."""
    flows = [node for node in scope.nodes if isinstance(node, FlowNode)]
    return [(node, place) for node in reversed(flows) for place in reversed(range(len(node.bodies)))]


def _rows(plan: Plan, scope: Scope, owners: list[Scope], console: Console) -> None:
    """One row of boxes per level: what stands in one row runs at the same time."""
    for level in _levels(scope):
        console.print(Text("  |\n  v"))
        console.print(Columns([_box(plan, node, owners) for node in level], padding=(0, 1)))
    console.print(Text("  |\n  v"))
    sources = {"output": scope.output} if isinstance(scope.output, Source) else scope.output
    for name, source in sources.items():
        console.print(Text(f"{name} <- {_origin(plan, source, owners, scope.index)}", style="bold"))


def _levels(scope: Scope) -> list[list[StepNode | FlowNode]]:
    """Nodes by their longest way from the start."""
    depth: list[int] = []
    for node in scope.nodes:  # each stands after all it depends on
        depth.append(1 + max((depth[place] for place in node.predecessors), default=-1))
    levels: list[list[StepNode | FlowNode]] = [[] for _ in range(max(depth) + 1)]
    for node, level in zip(scope.nodes, depth, strict=True):
        levels[level].append(node)
    return levels


def _box(plan: Plan, node: StepNode | FlowNode, owners: list[Scope]) -> Panel:
    lines = [f"{source.parameter} <- {_origin(plan, source, owners, node.scope)}" for source in node.sources]
    if isinstance(node, FlowNode):
        words = [word for place in range(len(node.bodies)) if (word := body_word(node, place))]
        lines += [*rules(node), *([", ".join(words)] if words else [])]
    lines.append(f"gives {type_name(node.output_type)}")
    if isinstance(node, StepNode):
        lines += step_notes(node)
    name = node.name if isinstance(node, StepNode) else title(node)
    return Panel(Text("\n".join(lines)), title=Text(name, style="bold"), title_align="left", expand=False)


def _origin(plan: Plan, source: Source, owners: list[Scope], scope: int) -> str:
    """Where an input comes from that is taken in a scope."""
    if source.node == RUN_INPUT and owners[scope] is plan.root:
        start = "run input"
    elif source.node == BODY_INPUT or (source.node == RUN_INPUT and owners[scope].index == scope):
        start = "input"
    elif source.node == RUN_INPUT:
        start = "input of the pipeline around"
    else:
        start = plan.nodes[source.node].name
    return start + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in source.path)
