"""A plan: the frozen, checked form of a pipeline that an engine runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, PydanticUserError

from .assignable import type_name
from .check import adapter_of
from .step import Step
from .usage import UsageLimits

__all__ = ["RUN_INPUT", "Plan", "PlanNode", "Source"]

RUN_INPUT = -1
"""Index that stands for the run input where a node's index is expected."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one input of a node comes from: a node's output or the run input, or a part of it."""

    parameter: str
    node: int
    path: tuple[str | int, ...]
    type: object


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One step in a plan, with everything resolved that does not change from run to run.

    Attributes:
        index: Place in `Plan.nodes`; a node stands after all it depends on.
        step: The step.
        sources: Where its inputs come from.
        predecessors: Nodes it waits for.
        successors: Nodes that wait for it.
        writers: Nodes before it that change the context, in the order their changes are applied.
        ctx_parameter: Parameter that receives the RunContext, if there is one.
        context_parameter: Parameter that receives the user's context, if there is one.
        all_resources_parameter: Parameter that receives the Resources object itself, if there is one.
        resources: Parameter and resource name of each injected resource.
        output_type: Annotated type of the output.
        output_classes: Classes for the shallow check of an output; None accepts anything.
    """

    index: int
    step: Step
    sources: tuple[Source, ...]
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]
    writers: tuple[int, ...]
    ctx_parameter: str | None
    context_parameter: str | None
    all_resources_parameter: str | None
    resources: tuple[tuple[str, str], ...]
    output_type: object
    output_classes: tuple[type, ...] | None

    @property
    def path(self) -> str:
        """Where the step stands, for people."""
        return self.step.name


@dataclass(frozen=True)
class Plan:
    """A pipeline that is known to work.

    Attributes:
        name: Name of the pipeline.
        nodes: The steps, each after all it depends on.
        output: Which node's output, or which part of it, the run gives; by name where there are several.
        input_type: Type of the run input; `Any` where no step takes it or none says.
        context_model: The context model, if there is one.
        limits: Limits of every run of the pipeline.
    """

    name: str
    nodes: tuple[PlanNode, ...]
    output: Source | Mapping[str, Source]
    input_type: object
    context_model: type[BaseModel] | None
    limits: UsageLimits | None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths, edges, schemas, effects and versions of the steps; never over source text."""
        nodes = [
            [
                node.path,
                "step",
                [[s.parameter, s.node, list(s.path), _schema(s.type)] for s in node.sources],
                _schema(node.output_type),
                node.step.options.effect,
                node.step.options.version,
            ]
            for node in self.nodes
        ]
        context = None if self.context_model is None else self.context_model.model_json_schema()
        text = json.dumps([nodes, context], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _schema(hint: object) -> object:
    """JSON schema of a type; its name where it has none."""
    adapter = adapter_of(hint)
    try:
        return type_name(hint) if adapter is None else adapter.json_schema()
    except PydanticUserError:  # pydantic can check the type, but JSON cannot hold it
        return type_name(hint)
