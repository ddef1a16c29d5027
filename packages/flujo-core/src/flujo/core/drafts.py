"""What is known of a node, and of a scope, while a pipeline is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, Union, cast

from typing_extensions import TypedDict

from .assignable import assignable, common, type_name, type_names
from .bind import Binding
from .errors import FlujoError
from .flow import Branch, Fallback, Flow, Loop, Map, Parallel
from .pipeline import Pipeline
from .steps import Chain, Node, Step

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """Where an input comes from: a node (None is an input around) or a part of it.

    Attributes:
        node: The node; None where it is an input.
        path: Which part.
        type: Its type, as far as it is known.
        chained: Whether it comes by `>>`.
        body: Whether it is what the combinator around gives, not `run_input()`.
    """

    node: Node | None
    path: Path
    type: object
    chained: bool = False
    body: bool = False


@dataclass(slots=True)
class Draft:
    """A node: what it follows, where each input comes from, and which of these are of unknown type.

    `writes` and `writers` are as in PlanNode.
    """

    node: Node
    binding: Binding
    before: list[Node] = field(default_factory=list)
    edges: dict[str, Edge] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    writes: frozenset[str] = frozenset()
    writers: int = 0

    @property
    def may_be_skipped(self) -> bool:
        """Whether it has a `when`."""
        return isinstance(self.node, Step) and self.node.options.when is not None

    def gives(self, *, chained: bool) -> object:
        """The type a follower may count on; a node that may be skipped hands its input on, or None."""
        output = self.binding.output
        if not self.may_be_skipped:
            return output
        if not chained:
            return Optional[output]  # noqa: UP045 - built at run time
        taken = list(self.binding.inputs.values())
        return Union[output, taken[0] if len(taken) == 1 else dict[str, Any]]  # noqa: UP007 - as above


@dataclass(slots=True)
class Demand:
    """The input of the sub-pipeline around is taken in a body: by what, which part, as which type."""

    where: str
    path: Path
    type: object


@dataclass(slots=True)
class ScopeDraft:
    """A pipeline or body: its nodes in order, what it takes and gives, and the bodies of its combinators."""

    pipeline: Pipeline
    owns_input: bool
    bodies: dict[Node, list[ScopeDraft]] = field(default_factory=dict)
    drafts: dict[Node, Draft] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)
    order: list[Draft] = field(default_factory=list)
    output: Edge | None = None
    input_type: object = Any
    output_type: object = Any
    demands: list[Demand] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def writes(self) -> frozenset[str]:
        """Context fields its nodes may change."""
        return frozenset().union(*(draft.writes for draft in self.drafts.values()))

    @property
    def sinks(self) -> list[Draft]:
        """Nodes that no other takes from."""
        taken = {edge.node for draft in self.order for edge in draft.edges.values()}
        return [draft for draft in self.order if draft.node not in taken]

    @property
    def segment(self) -> bool:
        """Whether its nodes need its name in their path, beside others of one combinator."""
        members = self.pipeline.members
        return not self.pipeline.is_body or len(members) > 1 or any(isinstance(one, Chain) for one in members)


def kind_of(node: Node) -> Literal["step", "pipeline", "branch", "loop", "parallel", "map", "fallback"]:
    """The word for what a node is."""
    kinds: tuple[tuple[type[Node], Any], ...] = (
        (Step, "step"), (Branch, "branch"), (Loop, "loop"), (Parallel, "parallel"), (Map, "map"), (Fallback, "fallback")
    )  # fmt: skip
    return next((word for cls, word in kinds if isinstance(node, cls)), "pipeline")


def bodies_of(node: Node) -> Mapping[str, Pipeline]:
    """What a node runs, by the word for each."""
    if isinstance(node, Flow):
        return node.bodies
    return {"": node} if isinstance(node, Pipeline) else {}


def flow_binding(node: Node, bodies: list[ScopeDraft], what: str, problems: list[str]) -> Binding:
    """What a combinator or sub-pipeline takes and gives, by what its bodies do; problems are added."""
    taken, given = _taken(node, bodies, what, problems), _given(bodies)
    if isinstance(node, Loop):
        if node.max_iterations > 1 and not assignable(given, taken):
            gives, takes = type_names(given, taken)
            problems.append(f"the body of {what} gives {gives}, but its next iteration takes {takes}; make them one")
    elif isinstance(node, Map):
        taken, given = list[taken] | tuple[taken, ...], list[_collected(node, given)]  # type: ignore[valid-type,misc]
    elif isinstance(node, Parallel):
        names = {word: _collected(node, body.output_type) for word, body in zip(node.bodies, bodies, strict=True)}
        given = dict_type(names)
    if isinstance(node.inputs, Mapping):
        several = {name: Any for name in node.inputs}
        if not assignable(dict[str, Any], taken):
            problems.append(f"{what} is given a dict by inputs=, but its body takes {type_name(taken)}")
        return Binding(several, frozenset(), given, (), False)
    return Binding({"input": taken}, frozenset({"input"}), given, (), False)


def dict_type(fields: Mapping[str, object]) -> object:
    """A dict with these keys, as a type."""
    return cast("Any", TypedDict)("dict", dict(fields))


def _collected(node: Parallel | Map, given: object) -> object:
    """What stands for one body in what is given: its output, or the error where errors are collected."""
    return Union[given, FlujoError] if node.on_failure == "collect" else given  # noqa: UP007 - built at run time


def _taken(node: Node, bodies: list[ScopeDraft], what: str, problems: list[str]) -> object:
    taken: object = Any
    taken_by = ""
    for word, body in zip(bodies_of(node), bodies, strict=True):
        both = body.input_type if taken is Any else taken if body.input_type is Any else common(taken, body.input_type)
        if both is None:
            one, other = type_names(taken, body.input_type)
            why = f"{taken_by!r} takes its input as {one} and {word!r} as {other}; no value is both"
            problems.append(f"bodies of {what} do not fit together: {why}")
            return Any
        if both is not taken:
            taken, taken_by = both, word
    return taken


def _given(bodies: list[ScopeDraft]) -> object:
    return Union[tuple(body.output_type for body in bodies)]  # noqa: UP007 - built at run time
