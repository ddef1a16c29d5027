"""Descriptions of pipelines as plain data; `fuzz_make` makes random ones.

The `repr` of a description is the code that makes it, so a failing one can be pasted into a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

NEVER = 99
"""`fails` of a step that no retry helps."""


@dataclass(frozen=True, repr=False)
class Part:
    """Anything that is described; its repr leaves out what is left at its default."""

    def __repr__(self) -> str:
        told = []
        for place in fields(self):
            value = getattr(self, place.name)
            if place.name == "name" or value != place.default:
                told.append(f"{place.name}={value!r}")
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class Work(Part):
    """A step.

    Attributes:
        name: Name, its own in the whole pipeline.
        ends: What it gives: "int", "bit" (0 or 1), "list" (of `size` numbers), "pair" (two numbers by name), "twin" (a
            tuple of two), "point" (a pydantic model) or "moment" (a datetime).
        raw: It takes `run_input()` as a second input.
        reads: It takes the context, and its output depends on it.
        writes: The field of the context that it changes.
        fails: So many first attempts raise.
        fails_on: Every attempt raises where this divides a number made of its inputs.
        flaky: Every attempt raises as long as the world is not healed.
        rejects: The outputs of so many first attempts are refused by a validator.
        hangs: So many first attempts never end by themselves; a timeout ends them.
        timely: It has a timeout that it never needs.
        attempts: Of its RetryPolicy; 1 is none.
        skips_on: It is skipped where this divides a number made of its input.
        sees: And of the context.
        pause: "raise" (the decision is its output) or "ask" (its body goes on with the answer).
        delay: So many checkpoints before it does anything.
        inline: A plain function that runs on the event loop.
        threaded: A plain function that runs in a worker thread.
        cached: It says `cache=True`.
        cost: So many tokens each call of it uses; it reserves one more.
        tool: It calls a tool before it does anything else.
        once: What may happen at most once: "step" or "tool".
        cancels: It cancels its run, then waits.
    """

    name: str
    ends: str = "int"
    size: int = 0
    raw: bool = False
    reads: bool = False
    writes: str = ""
    fails: int = 0
    fails_on: int = 0
    flaky: bool = False
    rejects: int = 0
    hangs: int = 0
    timely: bool = False
    attempts: int = 1
    skips_on: int = 0
    sees: bool = False
    pause: str = ""
    delay: int = 0
    inline: bool = False
    threaded: bool = False
    cached: bool = False
    cost: int = 0
    tool: bool = False
    once: str = ""
    cancels: bool = False


@dataclass(frozen=True, repr=False)
class Row(Part):
    """Nodes joined by `>>`."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, repr=False)
class Source(Part):
    """Where an input of a node in a Graph comes from.

    Attributes:
        kind: "after" (`>>`), "node" (named in `inputs=`) or "run" (`run_input()`).
        at: Which node of the graph.
        part: Which part of its output; "" is all of it.
    """

    kind: str = "run"
    at: int = 0
    part: str = ""


@dataclass(frozen=True, repr=False)
class Wired(Part):
    """A node of a Graph and its sources; none is the run input by default."""

    node: Node
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, repr=False)
class Graph(Part):
    """A Pipeline with edges.

    Attributes:
        output: Which node gives the output; None is every node that nothing depends on.
    """

    name: str
    nodes: tuple[Wired, ...]
    output: int | None = None


@dataclass(frozen=True, repr=False)
class Choice(Part):
    """A Branch on a number made of its input, modulo `modulo`; with `sees` it depends on the context too."""

    name: str
    cases: tuple[tuple[int | str, Node], ...]
    otherwise: Node | None = None
    modulo: int = 2
    sees: bool = False


@dataclass(frozen=True, repr=False)
class Repeat(Part):
    """A Loop until a number made of its output divides by `until`; 0 is a fixed count."""

    name: str
    body: Node
    until: int = 0
    most: int = 2
    returns: bool = True
    sees: bool = False


@dataclass(frozen=True, repr=False)
class Fan(Part):
    """A Parallel."""

    name: str
    branches: tuple[Node, ...]
    limit: int | None = None
    collect: bool = False


@dataclass(frozen=True, repr=False)
class Each(Part):
    """A Map."""

    name: str
    body: Node
    limit: int | None = None
    collect: bool = False


@dataclass(frozen=True, repr=False)
class Either(Part):
    """A Fallback."""

    name: str
    options: tuple[Node, ...]


Node = Work | Row | Graph | Choice | Repeat | Fan | Each | Either

COMBINATORS = (Graph, Choice, Repeat, Fan, Each, Either)


@dataclass(frozen=True, repr=False)
class Spec(Part):
    """A pipeline and how it is run.

    Attributes:
        root: The pipeline.
        start: The run input.
        picks: Which open pause is decided next, as indexes modulo their number.
        carried: Every resume goes through the JSON of a snapshot; else it takes the result.
        outer: A cancel comes from a scope around the run; else from the run's handle.
        limits: It is run once more under limits on tokens: "tight" ones, just as many as it needs, for the run and
            for each step; "short", one less for the run; "step", less for one of its steps.
    """

    root: Node
    start: int = 1
    picks: tuple[int, ...] = (0,)
    carried: bool = False
    outer: bool = False
    limits: str = ""


def below(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside a node."""
    match node:
        case Row(nodes):
            return nodes
        case Graph():
            return tuple(wired.node for wired in node.nodes)
        case Choice():
            return (*(body for _, body in node.cases), *(() if node.otherwise is None else (node.otherwise,)))
        case Repeat() | Each():
            return (node.body,)
        case Fan(branches=inner) | Either(options=inner):
            return inner
    return ()


def walk(node: Node) -> Iterator[Node]:
    """A node and everything inside it."""
    yield node
    for inner in below(node):
        yield from walk(inner)


def works(node: Node) -> list[Work]:
    """All steps of a node."""
    return [one for one in walk(node) if isinstance(one, Work)]


def depth(node: Node) -> int:
    """How many combinators and sub-pipelines stand around the deepest step."""
    own = isinstance(node, COMBINATORS)
    return own + max(map(depth, below(node)), default=0)


def branch_name(node: Node) -> str:
    """What a body of a Parallel or a Fallback is called: a row by its last node."""
    return branch_name(node.nodes[-1]) if isinstance(node, Row) else node.name


def gives_list(node: Node) -> bool:
    """Whether a node's output is always a list."""
    match node:
        case Work():
            return node.ends == "list" and not node.skips_on
        case Each():
            return True
        case Row():
            return gives_list(node.nodes[-1])
        case Repeat():
            return gives_list(node.body)
        case Choice() | Either():
            return all(map(gives_list, below(node)))
    return False


def members(graph: Graph) -> list[tuple[int, ...]]:
    """What stands in the Pipeline of a graph: a node, or two joined by `>>`."""
    follows = {at: [s.at for s in wired.sources if s.kind == "after"] for at, wired in enumerate(graph.nodes)}
    return [(*follows[at], at) for at in follows]


def plan_order(graph: Graph) -> list[int]:
    """Nodes in the order in which their changes are merged: as declared, each after what it depends on."""
    declared = dict.fromkeys(at for member in members(graph) for at in member)
    order: list[int] = []
    while len(order) < len(declared):
        order.append(
            next(
                at
                for at in declared
                if at not in order and all(s.kind == "run" or s.at in order for s in graph.nodes[at].sources)
            )
        )
    return order
