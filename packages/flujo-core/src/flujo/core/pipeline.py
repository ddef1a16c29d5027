"""A pipeline: a description of nodes and the data between them. It cannot run; a `Plan` made of it can."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import PipelineError
from .protocols import Agent
from .steps import Chain, Node, Origin, as_member, is_name
from .usage import UsageLimits


class Pipeline(Node):
    """Steps, combinators and chains; what a node's `inputs` name is an edge, and nodes with no path between them run
    together. A pipeline may stand in another as one of its nodes.

    Args:
        *members: Nodes, and chains made with `>>`.
        output: What the run gives; left out, it is the one node nothing depends on, or a dict of several by name.
        name: Name for people, spans and the audit log.
        limits: Limits of every run of this pipeline, under those around it.
        inputs: Where its input comes from, where it stands in another pipeline and that is not the node before it.
    """

    def __init__(
        self,
        *members: Node | Chain | Agent,
        output: Origin | None = None,
        name: str = "pipeline",
        limits: UsageLimits | None = None,
        inputs: Mapping[str, Origin] | Origin | None = None,
    ) -> None:
        if not isinstance(limits, (UsageLimits, type(None))):
            raise PipelineError(f"pipeline {name!r} cannot be built", ["limits= is a UsageLimits(...)"])
        if not is_name(name):
            raise PipelineError(f"pipeline {name!r} cannot be built", ["a name is printable text and has no '/'"])
        cannot = f"cannot be in pipeline {name!r}"
        self.members: tuple[Node | Chain, ...] = tuple(as_member(member, cannot) for member in members)
        self.given: Origin | None = output
        self.name = name
        self.auto_named = name == "pipeline"
        self.limits: UsageLimits | None = limits
        self.inputs = inputs
        self.is_body: bool = False

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, members={len(self.members)})"


PipelineLike = Node | Chain | Agent
"""Wherever a pipeline is expected, a step, a combinator, an agent or a chain will do."""


def as_pipeline(source: PipelineLike) -> Pipeline:
    """Make a pipeline of a node, an agent or a chain; a pipeline is returned as it is.

    One made here is the body of what is around it: `run_input()` in it is the input of the pipeline around it.
    """
    if isinstance(source, Pipeline):
        return source
    member = as_member(source, "is no pipeline")
    made = Pipeline(member, name=member.name) if isinstance(member, Node) else Pipeline(member)
    made.is_body = True
    return made
