"""A plan: the frozen, checked form of a pipeline that an engine runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind

from .assignable import type_name
from .bind import Binding
from .check import adapter_of
from .flow import Branch, Flow, Loop, Map, Parallel
from .pipeline import Pipeline
from .steps import Step
from .usage import UsageLimits

RUN_INPUT = -1
"""Index that stands, where a node's index is expected, for the input of the run, or of the sub-pipeline around."""

BODY_INPUT = -2
"""Index that stands for what the combinator around gives its body."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one input of a node comes from: a node's output, an input around it, or a part of either.

    Attributes:
        parameter: What takes it.
        node: Index in `Plan.nodes`, or RUN_INPUT or BODY_INPUT.
        path: Which part; empty is all of it.
        type: What the parameter takes.
        place: Place of the node in its scope; RUN_INPUT or BODY_INPUT as it is.
        chained: Whether it comes by `>>`, so that a skipped node hands its own input on.
    """

    parameter: str
    node: int
    path: tuple[str | int, ...]
    type: object
    place: int = RUN_INPUT
    chained: bool = True


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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PlanNode:
    """One node in a plan, with everything resolved that does not change from run to run.

    Attributes:
        index: Place in `Plan.nodes`.
        place: Place in its scope; a node stands after all it depends on.
        scope: Index of the scope it stands in.
        name: Its name there.
        path: Where it stands, for people; `[*]` and `#*` stand for the item and the iteration.
        binding: How its parameters are filled.
        sources: Where its inputs come from.
        predecessors: Places of the nodes it waits for.
        successors: Places of the nodes that wait for it.
        writers: A set of places: those it depends on that may change the context. Bit i stands for place i, since in a
            long row these sets are long too.
        writes: Context fields it may change.
        checks: For parts of an input whose type could not be known: where they are, and what makes them fit.
        claims: What followers take of its output where the types do not tell that it is there and fits.
        is_bare: Whether a visit is no more than one call of an async function with its inputs.
    """

    index: int
    place: int
    scope: int
    name: str
    path: str
    binding: Binding
    sources: tuple[Source, ...]
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]
    writers: int
    writes: frozenset[str]
    checks: tuple[tuple[str, str, Fit], ...]
    claims: tuple[Claim, ...]
    is_bare: bool

    @property
    def output_type(self) -> object:
        """Annotated type of the output."""
        return self.binding.output

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StepNode(PlanNode):
    """A step in a plan.

    Attributes:
        step: The step.
        classes: Classes for the shallow check of an output; `object` accepts anything.
        passes: Type of what it hands on where it is skipped.
        call: Its function, where that may be given its one input by position, which costs half of a call by names.
        takes: Where that input comes from: a place in its scope, RUN_INPUT or BODY_INPUT.
        gives: The class of its output, where that is one and looked at.
    """

    step: Step
    classes: tuple[type, ...]
    passes: object
    call: Callable[..., Any] | None
    takes: int
    gives: type | None

    def needs(self, resources: Iterable[str]) -> set[str]:
        """Which of the `resources` the step takes, by name."""
        return set(resources if self.binding.all_resources_parameter is not None else self.binding.resources)


Kind = Literal["pipeline", "branch", "loop", "parallel", "map", "fallback"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FlowNode(PlanNode):
    """A combinator or a sub-pipeline in a plan.

    Attributes:
        kind: Which of them.
        flow: What the user wrote.
        bodies: The scopes it opens.
        words: What each body is called: a branch's label, a parallel branch's name.
        gathers: Whether it is given a dict of several inputs by name.
        sure: Of a loop with a simple body, how many iterations are followed by another, where it is not good by then.
        asks: Whether it is a loop with `until=`.
        fit_item: Of a map whose items have no known type: whether one is what the body takes.
    """

    kind: Kind
    flow: Flow | Pipeline
    bodies: tuple[Scope, ...]
    words: tuple[str, ...]
    gathers: bool
    fit_item: Fit | None = None
    sure: int = 0
    asks: bool = False

    def __post_init__(self) -> None:
        for body in self.bodies:
            body.owner = self


@dataclass(slots=True, eq=False, repr=False)
class Scope:
    """The nodes of one pipeline or body; a frame is opened for it each time it is run.

    Attributes:
        index: Place in `Plan.scopes`; 0 is the whole pipeline.
        nodes: Its nodes, each after all it depends on.
        output: Which node's output, or which part of it, it gives; by name where there are several.
        input_type: Type of the input; `Any` where no node takes it or none says.
        output_type: Type of the output.
        segment: What stands for it in a path after its combinator's name, `/` included; empty where that is clear.
        owns_input: Whether `run_input()` in it is its own input; else it is that of the scope around.
        limits: Limits of each run of it.
        first: Nodes that are due when it is opened.
        waiting: For each node, how many it waits for; empty where none waits for more than one.
        has_limits: Whether it or a step in it has limits of its own.
        followers: For each node, the one step that is due when it ends well; None where it is not as simple.
        gives: Place of the node that gives its output; None where it is not as simple.
        owner: The combinator that runs it; None of the whole pipeline.
    """

    index: int
    nodes: tuple[StepNode | FlowNode, ...]
    output: Source | Mapping[str, Source]
    input_type: object
    output_type: object
    segment: str
    owns_input: bool
    limits: UsageLimits | None
    first: tuple[StepNode | FlowNode, ...] = ()
    waiting: tuple[int, ...] = ()
    has_limits: bool = False
    followers: tuple[StepNode | None, ...] = ()
    gives: int | None = None
    owner: FlowNode | None = None

    def __post_init__(self) -> None:
        self.first = tuple(node for node in self.nodes if not node.predecessors)
        counts = tuple(len(node.predecessors) for node in self.nodes)
        self.waiting = counts if max(counts) > 1 else ()
        own = [node.step.options.limits for node in self.nodes if isinstance(node, StepNode)]
        self.has_limits = any(limits is not None for limits in (self.limits, *own))
        self.followers = tuple(map(self._follower, self.nodes))
        whole = isinstance(self.output, Source) and not self.output.path and self.output.place >= 0
        self.gives = self.output.place if isinstance(self.output, Source) and whole else None

    def _follower(self, node: StepNode | FlowNode) -> StepNode | None:
        follower = self.nodes[node.successors[0]] if len(node.successors) == 1 and not self.waiting else None
        return follower if isinstance(follower, StepNode) else None

    def prefix(self, start: str, slot: int) -> str:
        """What stands before the names of its steps: `outer/loop#2/map[3]/`.

        Args:
            start: Path of what runs it.
            slot: Which of the bodies of that it is.
        """
        if self.owner is None:
            return start
        match self.owner.kind:
            case "map":
                return f"{start}[{slot}]/"
            case "loop":
                return f"{start}#{slot}/"
            case "branch":
                return f"{start}[{self.owner.words[slot]}]/"
            case "pipeline":
                return f"{start}/"
        return f"{start}/{self.segment and self.owner.words[slot] + '/'}"

    @property
    def writes(self) -> frozenset[str]:
        """Context fields it may change."""
        return frozenset().union(*(node.writes for node in self.nodes))


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """A pipeline that is known to work.

    Attributes:
        name: Name of the pipeline.
        scopes: The pipeline itself and all bodies in it, each before those in it.
        context_model: The context model, if there is one.
    """

    name: str
    scopes: tuple[Scope, ...]
    context_model: type[BaseModel] | None

    @property
    def root(self) -> Scope:
        """The whole pipeline."""
        return self.scopes[0]

    @cached_property
    def nodes(self) -> tuple[StepNode | FlowNode, ...]:
        """All nodes, scope by scope."""
        return tuple(node for scope in self.scopes for node in scope.nodes)

    @cached_property
    def steps(self) -> tuple[StepNode, ...]:
        """All steps."""
        return tuple(node for node in self.nodes if isinstance(node, StepNode))

    @property
    def output(self) -> Source | Mapping[str, Source]:
        """What the run gives."""
        return self.root.output

    @property
    def input_type(self) -> object:
        """Type of the run input."""
        return self.root.input_type

    @property
    def limits(self) -> UsageLimits | None:
        """Limits of every run of the pipeline."""
        return self.root.limits

    @property
    def asked_limits(self) -> dict[str, UsageLimits]:
        """All limits that stand in the pipeline, by whose they are."""
        mine = {f"pipeline {(scope.segment or self.name)!r}": scope.limits for scope in self.scopes}
        mine |= {f"step {node.path!r}": node.step.options.limits for node in self.steps}
        return {whose: limits for whose, limits in mine.items() if limits is not None}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths, kinds, edges, schemas, effects and versions; never over source text."""
        # Types of combinators follow from those of the steps in them, and may be nested deeper than pydantic can go.
        hints = {id(hint): hint for node in self.steps for hint in (node.output_type, *(s.type for s in node.sources))}
        schemas = {key: _schema(hint) for key, hint in hints.items()}  # each once: a long pipeline has few types
        nodes = [
            [
                node.path,
                *_meaning(node),
                [[s.parameter, s.node, list(s.path)] for s in node.sources],
                [schemas[id(hint)] for hint in (node.output_type, *(s.type for s in node.sources))]
                if isinstance(node, StepNode)
                else None,
            ]
            for node in self.nodes
        ]
        context = None if self.context_model is None else _schema(self.context_model)
        given = [
            {name: [source.node, list(source.path)] for name, source in _named(scope.output).items()}
            for scope in self.scopes
        ]
        text = json.dumps([nodes, context, given], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _named(output: Source | Mapping[str, Source]) -> Mapping[str, Source]:
    return {"": output} if isinstance(output, Source) else output


def _meaning(node: StepNode | FlowNode) -> list[object]:
    """What a node does, beyond its types and edges, as JSON."""
    if isinstance(node, StepNode):
        options = node.step.options
        return ["step", options.effect, options.version, options.when is not None]
    flow = node.flow
    facts: list[object] = [node.kind, list(node.words), [scope.index for scope in node.bodies]]
    if isinstance(flow, Loop):
        facts += [flow.max_iterations, flow.on_limit]
    if isinstance(flow, (Parallel, Map)):
        facts += [flow.limit, flow.on_failure]
    if isinstance(flow, Branch):
        facts += [flow.has_otherwise]
    return facts


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
