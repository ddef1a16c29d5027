"""A plan: the frozen, checked form of a pipeline that an engine runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind

from .assignable import type_name
from .bind import Binding
from .check import adapter_of
from .steps import Step
from .usage import UsageLimits

RUN_INPUT = -1
"""Index that stands for the run input where a node's index is expected."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one input of a node comes from: a node's output or the run input, or a part of it."""

    parameter: str
    node: int
    path: tuple[str | int, ...]
    type: object


Fit = Callable[[object], tuple[object, str | None]]
"""Makes a value fit a type; see `check.fitted`."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A part of a step's output that another step or the pipeline takes; checked when the output is there.

    Attributes:
        path: Where the part is.
        taker: Who takes it, for people.
        fit: Whether it is what the taker takes.
    """

    path: tuple[str | int, ...]
    taker: str
    fit: Fit


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One step in a plan, with everything resolved that does not change from run to run.

    Attributes:
        index: Place in `Plan.nodes`; a node stands after all it depends on.
        step: The step.
        binding: How its parameters are filled.
        sources: Where its inputs come from.
        predecessors: Nodes it waits for.
        successors: Nodes that wait for it.
        writers: A set of nodes: those it depends on that may change the context. Bit i stands for node i, since
            in a long row these sets are long too.
        output_classes: Classes for the shallow check of an output; None accepts anything.
        checks: For parts of the run input whose type could not be known: where they are, and what makes them fit.
        claims: What followers take of its output where the types do not tell that it is there and fits.
    """

    index: int
    step: Step
    binding: Binding
    sources: tuple[Source, ...]
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]
    writers: int
    output_classes: tuple[type, ...] | None
    checks: tuple[tuple[str, str, Fit], ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def output_type(self) -> object:
        """Annotated type of the output."""
        return self.binding.output

    def needs(self, resources: Iterable[str]) -> set[str]:
        """Which of the `resources` the step takes, by name."""
        return set(resources if self.binding.all_resources_parameter is not None else self.binding.resources)

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
        types = {id(hint): hint for node in self.nodes for hint in (node.output_type, *(s.type for s in node.sources))}
        schemas = {key: _schema(hint) for key, hint in types.items()}  # each once: a long pipeline has few types
        nodes = [
            [
                node.path,
                "step",
                [[s.parameter, s.node, list(s.path), schemas[id(s.type)]] for s in node.sources],
                schemas[id(node.output_type)],
                node.step.options.effect,
                node.step.options.version,
            ]
            for node in self.nodes
        ]
        context = None if self.context_model is None else _schema(self.context_model)
        outputs = {"": self.output} if isinstance(self.output, Source) else self.output
        given = {name: [source.node, list(source.path)] for name, source in outputs.items()}
        text = json.dumps([nodes, context, given], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _schema(hint: object) -> object:
    adapter = adapter_of(hint)
    return type_name(hint) if adapter is None else _bare(adapter.json_schema(schema_generator=_Quiet))


class _Quiet(GenerateJsonSchema):
    """Makes schemas of all types; what JSON cannot hold is known by its class, and such a default is left out."""

    ignored_warning_kinds: ClassVar[set[JsonSchemaWarningKind]] = {"non-serializable-default", "skipped-choice"}  # type: ignore[misc]

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        """Called by pydantic; its own version raises."""
        return {"type": schema["type"], "class": type_name(schema.get("cls"))}


_TEXTS = frozenset({"title", "description", "examples", "default"})
"""Words of a schema that change nothing about which values fit: a docstring may be edited without a new fingerprint."""


def _bare(schema: Any) -> object:
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _bare(part) for name, part in value.items()} if key in ("properties", "$defs") else _bare(value)
        for key, value in schema.items()
        if key not in _TEXTS
    }
