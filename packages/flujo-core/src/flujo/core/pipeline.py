"""A pipeline: a description of steps and the data between them. It cannot run; a `Plan` made of it can."""

from __future__ import annotations

from .errors import PipelineError
from .protocols import Agent
from .steps import Chain, Ref, Step, as_member
from .usage import UsageLimits


class Pipeline:
    """Steps and chains; what a step's `inputs` name is an edge, and steps with no path between them run together.

    Args:
        *members: Steps, and chains made with `>>`.
        output: What the run gives; left out, it is the one step nothing depends on, or a dict of several by name.
        name: Name for people, spans and the audit log.
        limits: Limits of every run of this pipeline, under those of the Flujo.
    """

    def __init__(
        self,
        *members: Step | Chain | Agent,
        output: Step | Ref | str | None = None,
        name: str = "pipeline",
        limits: UsageLimits | None = None,
    ) -> None:
        if not isinstance(limits, (UsageLimits, type(None))):
            raise PipelineError(f"pipeline {name!r} cannot be built", ["limits= is a UsageLimits(...)"])
        cannot = f"cannot be in pipeline {name!r}"
        self.members: tuple[Step | Chain, ...] = tuple(as_member(member, cannot) for member in members)
        self.output = output
        self.name = name
        self.limits = limits

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, members={len(self.members)})"


PipelineLike = Pipeline | Step | Chain | Agent
"""Wherever a pipeline is expected, a step, an agent or a chain will do."""


def as_pipeline(source: PipelineLike) -> Pipeline:
    """Make a pipeline of a step, an agent or a chain; a pipeline is returned as it is."""
    if isinstance(source, Pipeline):
        return source
    member = as_member(source, "is no pipeline")
    return Pipeline(member, name=member.name) if isinstance(member, Step) else Pipeline(member)
