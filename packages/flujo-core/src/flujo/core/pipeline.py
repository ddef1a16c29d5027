"""A pipeline: a description of steps and the data between them. It cannot run; a `Plan` made of it can."""

from __future__ import annotations

from .errors import PipelineError
from .steps import Chain, Ref, Step
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
        *members: Step | Chain,
        output: Step | Ref | str | None = None,
        name: str = "pipeline",
        limits: UsageLimits | None = None,
    ) -> None:
        for member in members:
            if not isinstance(member, (Step, Chain)):
                why = f"{member!r} is neither a step nor a chain of steps"
                raise PipelineError(f"pipeline {name!r} cannot be built", [f"{why}; wrap a function: Step(function)"])
        self.members = members
        self.output = output
        self.name = name
        self.limits = limits

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, members={len(self.members)})"


PipelineLike = Pipeline | Step | Chain
"""Wherever a pipeline is expected, a step or a chain will do."""


def as_pipeline(source: PipelineLike) -> Pipeline:
    """Make a pipeline of a step or a chain; a pipeline is returned as it is."""
    if isinstance(source, Pipeline):
        return source
    if isinstance(source, Step):
        return Pipeline(source, name=source.name)
    if isinstance(source, Chain):
        return Pipeline(source)
    what = f"{getattr(source, '__name__', None) or type(source).__name__!r} is no pipeline"
    raise PipelineError(what, ["give a Pipeline, a Step, or steps joined by >>; wrap a function: Step(function)"])
