"""What a described pipeline must give: a recursive interpreter without tasks, events or time.

Where concurrent parts fail, what their siblings had done by then is open: such visits are not `sure`, and any of the
errors may be the one that is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from fuzz_specs import (
    Choice,
    Each,
    Either,
    Fan,
    Graph,
    Node,
    Repeat,
    Row,
    Source,
    Spec,
    Wired,
    Work,
    branch_name,
    plan_order,
)
from fuzz_values import Delta, change, holds_error, mix, plain, remembered, skips, worth

Paths = frozenset[str]


@dataclass(frozen=True)
class Visit:
    """One visit of a step.

    Attributes:
        status: As its record must say.
        attempts: As its record must say; where that is so without a cache.
        after: Which visits must have ended before it may start.
        sure: Whether it must happen.
        hit: "yes" where its output comes from the cache, "perhaps" where that cannot be known.
    """

    status: str
    attempts: int
    after: Paths
    sure: bool = True
    hit: str = ""


@dataclass(frozen=True)
class Good:
    """A node ended well: its output, what `>>` hands on, its changes, and the steps that were last in it."""

    value: object
    flow: object
    deltas: tuple[Delta, ...]
    ends: Paths


@dataclass(frozen=True)
class Bad:
    """A node failed, with one of these errors: type and step path."""

    errors: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Open:
    """A node waits for decisions: the paths of its open pauses."""

    paths: Paths


Ended = Good | Bad | Open


@dataclass(frozen=True)
class Around:
    """What a node finds: its input, `run_input()`, the changes of the context before it, what must have ended."""

    value: object
    run_input: object
    deltas: tuple[Delta, ...]
    after: Paths


@dataclass
class Reference:
    """Interprets one description.

    Args:
        decided: Paths of the pauses that are decided; None is all of them.
        healed: Whether flaky steps give their value.
        parked: Paths of the steps of which nobody knows whether they happened.
        known: What is in the cache of the Flujo before; None where that cannot be known.

    Attributes:
        visits: Every visit of a step, by its path.
        closed: Where a failure ends several steps: the errors, any of which does so, and the paths of all these steps.
        limits: How many bodies of each Parallel and Map may be open at once, by the start of their paths.
        kept: What it puts into the cache, or finds there, and where.
    """

    decided: Collection[str] | None = None
    healed: bool = True
    parked: Collection[str] = ()
    known: Collection[str] | None = frozenset()
    visits: dict[str, Visit] = field(default_factory=dict)
    closed: list[tuple[Bad, Paths]] = field(default_factory=list)
    limits: dict[str, int | None] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def run(self, spec: Spec) -> Ended:
        """How the whole pipeline ends."""
        ended = self.node(spec.root, "", Around(spec.start, spec.start, (), frozenset()), whole=True)
        self.close(ended, 0)
        return ended

    def node(self, node: Node, prefix: str, around: Around, *, whole: bool = False) -> Ended:
        """How a node ends; `prefix` stands before its name in a path, and before its nodes' if it is the `whole`."""
        match node:
            case Row():
                return self.row(node, prefix, around)
            case Work():
                return self.work(node, prefix + node.name, {"value": around.value}, around)
            case Graph():
                inside = replace(around, run_input=around.value)
                return self.graph(node, prefix if whole else f"{prefix}{node.name}/", inside)
            case Choice():
                return self.choice(node, prefix + node.name, around)
            case Repeat():
                return self.repeat(node, prefix + node.name, around)
            case Each():
                return self.each(node, prefix + node.name, around)
            case Fan():
                return self.fan(node, f"{prefix}{node.name}/", around)
            case Either():
                return self.either(node, f"{prefix}{node.name}/", around)

    def body(self, node: Node, prefix: str, around: Around) -> Ended:
        """How a body of a Branch, Loop or Map ends: the name of a Pipeline that is one stands in no path."""
        return self.node(node, prefix, around, whole=True)

    def branch(self, node: Node, prefix: str, around: Around) -> Ended:
        """How a body of a Parallel or Fallback ends: one of several steps has its name in their paths."""
        return self.node(node, f"{prefix}{branch_name(node)}/" if isinstance(node, Row) else prefix, around)

    # --- rows and graphs ----------------------------------------------------------------------------------------------

    def row(self, row: Row, prefix: str, around: Around) -> Ended:
        deltas: tuple[Delta, ...] = ()
        ended: Ended = Good(None, around.value, (), around.after)
        for node in row.nodes:
            ended = self.node(node, prefix, around)
            if not isinstance(ended, Good):
                return ended
            deltas += ended.deltas
            around = replace(around, value=ended.flow, deltas=around.deltas + ended.deltas, after=ended.ends)
        return replace(ended, value=around.value, deltas=deltas)

    def graph(self, graph: Graph, prefix: str, around: Around) -> Ended:
        ends: dict[int, Ended] = {}
        marks: dict[int, list[str]] = {}
        above: dict[int, set[int]] = {}
        order = plan_order(graph)
        for at in order:
            wired = graph.nodes[at]
            before = {source.at for source in wired.sources if source.kind != "run"}
            above[at] = before.union(*(above[one] for one in before))
            if not all(isinstance(ends.get(one), Good) for one in before):
                continue
            count = len(self.visits)
            ends[at] = self.wired(wired, prefix, around, ends, [one for one in order if one in above[at]])
            marks[at] = list(self.visits)[count:]
        bad = [at for at, ended in ends.items() if isinstance(ended, Bad)]
        if bad:
            sure = set(ends).intersection(*(above[at] | ({at} if len(bad) == 1 else set()) for at in bad))
            self.doubt(path for at in marks.keys() - sure for path in marks[at])
        if stopped := united(ends.values()):
            return stopped
        return self.outcome(graph, around, ends, order)

    def wired(self, wired: Wired, prefix: str, around: Around, ends: dict[int, Ended], above: list[int]) -> Ended:
        sources = wired.sources or (Source(),)
        values = [around.value if one.kind == "run" else taken(ends[one.at], one) for one in sources]
        direct = [ends[one.at].ends for one in sources if one.kind != "run"]
        deltas = around.deltas + tuple(delta for one in above for delta in ends[one].deltas)
        inside = Around(values[0], around.run_input, deltas, frozenset().union(*direct) if direct else around.after)
        if isinstance(wired.node, Work):
            inputs = dict(zip(("value", "second", "third"), values, strict=False))
            return self.work(wired.node, prefix + wired.node.name, inputs, inside)
        return self.node(wired.node, prefix, inside)

    def outcome(self, graph: Graph, around: Around, ends: dict[int, Ended], order: list[int]) -> Good:
        """What a graph gives whose nodes all ended well."""
        used = {source.at for wired in graph.nodes for source in wired.sources if source.kind != "run"}
        sinks = [at for at in order if at not in used]
        last = frozenset().union(*(ends[at].ends for at in sinks)) or around.after
        deltas = tuple(delta for at in order for delta in ends[at].deltas)
        if graph.output is not None:
            value = ends[graph.output].value
        elif len(sinks) == 1:
            value = ends[sinks[0]].flow
        else:
            value = {graph.nodes[at].node.name: ends[at].flow for at in sinks}
        return Good(value, value, deltas, last)

    # --- combinators --------------------------------------------------------------------------------------------------

    def choice(self, choice: Choice, path: str, around: Around) -> Ended:
        asked = (around.value, *remembered(around.deltas)) if choice.sees else (around.value,)
        label = mix("on", *asked) % choice.modulo
        for case, body in choice.cases:
            if case in (label, f"c{label}"):
                return given(self.body(body, f"{path}[{case}]/", around))
        if choice.otherwise is None:
            return Bad(frozenset({("NoCase", path)}))
        return given(self.body(choice.otherwise, f"{path}[otherwise]/", around))

    def repeat(self, loop: Repeat, path: str, around: Around) -> Ended:
        deltas: tuple[Delta, ...] = ()
        for number in range(1, loop.most + 1):
            ended = self.body(loop.body, f"{path}#{number}/", around)
            if not isinstance(ended, Good):
                return ended
            deltas += ended.deltas
            around = replace(around, value=ended.flow, deltas=around.deltas + ended.deltas, after=ended.ends)
            asked = (ended.flow, *remembered(around.deltas)) if loop.sees else (ended.flow,)
            if loop.until and mix("until", *asked) % loop.until == 0:
                return replace(ended, value=ended.flow, deltas=deltas)
        if loop.returns:
            return replace(ended, value=ended.flow, deltas=deltas)
        return Bad(frozenset({("LoopLimit", path)}))

    def fan(self, fan: Fan, prefix: str, around: Around) -> Ended:
        self.limits[prefix] = fan.limit
        bodies = [(branch, prefix, around) for branch in fan.branches]
        ended = self.gathered([(self.branch, *one) for one in bodies], fan.limit, fan.collect)
        if not isinstance(ended, list):
            return ended
        value = {branch_name(branch): one.flow for branch, one in zip(fan.branches, ended, strict=True)}
        return joined(value, ended, around)

    def each(self, each: Each, path: str, around: Around) -> Ended:
        self.limits[f"{path}["] = each.limit
        bodies = [
            (self.body, each.body, f"{path}[{at}]/", replace(around, value=item))
            for at, item in enumerate(around.value)  # type: ignore[arg-type]
        ]
        ended = self.gathered(bodies, each.limit, each.collect)
        return joined([one.flow for one in ended], ended, around) if isinstance(ended, list) else ended

    def gathered(self, bodies: list, limit: int | None, collect: bool) -> list[Good] | Ended:
        """The ends of bodies that run at the same time; a paused one holds its place under the limit."""
        ends: list[Ended] = []
        marks: list[list[str]] = []
        for run, node, prefix, around in bodies:
            if sum(isinstance(one, Open) for one in ends) == limit:
                break
            count = len(self.visits)
            ended = run(node, prefix, around)
            self.close(ended if collect else None, count)
            if isinstance(ended, Bad) and collect:
                ended = Good("error", "error", (), around.after)
            ends.append(ended)
            marks.append(list(self.visits)[count:])
        bad = [one for one in ends if isinstance(one, Bad)]
        if bad:
            self.doubt(p for one, mark in zip(ends, marks, strict=True) if one is not bad[0] or bad[1:] for p in mark)
        return united(ends) or ends  # type: ignore[return-value]

    def either(self, either: Either, prefix: str, around: Around) -> Ended:
        for option in either.options:
            count = len(self.visits)
            ended = self.branch(option, prefix, around)
            self.close(ended, count)
            if not isinstance(ended, Bad):
                break
        return given(ended)

    # --- steps --------------------------------------------------------------------------------------------------------

    def work(self, work: Work, path: str, inputs: dict[str, object], around: Around) -> Ended:
        if skips(around.value, work.skips_on, *(remembered(around.deltas) if work.sees else ())):
            self.visits[path] = Visit("skipped", 0, around.after)
            return Good(None, around.value, (), around.after)
        if path in self.parked:
            self.visits[path] = Visit("paused", 1, around.after, sure=False)
            return Open(frozenset({path}))
        arrived = (*inputs.values(), *((around.run_input,) if work.raw else ()))
        held = remembered(around.deltas) if work.reads else ()
        value = worth(work.name, work.ends, work.size, arrived, held)
        failing = max(work.fails, work.rejects, work.hangs)
        if work.pause and self.decided is not None and path not in self.decided:
            self.visits[path] = Visit("paused", work.fails + 1, around.after)
            return Open(frozenset({path}))
        hopeless = (work.fails_on and mix("fails", value) % work.fails_on == 0) or (work.flaky and not self.healed)
        if hopeless or failing >= work.attempts > 0 < failing:
            self.visits[path] = Visit("failed", work.attempts, around.after)
            kind = "ValidationFailed" if work.rejects else "StepTimeout" if work.hangs else "Boom"
            return Bad(frozenset({("Boom" if hopeless else kind, path)}))
        self.visits[path] = Visit("completed", failing + 1, around.after)
        if work.cached:
            self.look_up(path, repr((work.name, plain(arrived), held)), certain=not holds_error(arrived))
        deltas = ((work.writes, change(work.writes, value)),) if work.writes else ()
        return Good(value, value, deltas, frozenset({path}))

    def look_up(self, path: str, key: str, *, certain: bool) -> None:
        """Whether a visit finds its output in the cache."""
        first = self.kept.setdefault(key, path)
        if self.known is None or not certain:
            hit = "perhaps"
        elif key in self.known or (first != path and first in self.before(path)):
            hit = "yes"
        elif first != path:  # both at the same time: whichever is first
            hit = "perhaps"
            self.visits[first] = replace(self.visits[first], hit=hit)
        else:
            hit = ""
        self.visits[path] = replace(self.visits[path], hit=hit)

    def before(self, path: str) -> set[str]:
        """All visits that must have ended before one starts."""
        found, left = set[str](), [path]
        while left:
            new = self.visits[left.pop()].after - found
            found |= new
            left += new
        return found

    def close(self, ended: Ended | None, count: int) -> None:
        """A failure closes all that was visited since there were `count` visits."""
        if isinstance(ended, Bad):
            self.closed.append((ended, frozenset(list(self.visits)[count:])))

    def doubt(self, paths: Iterable[str]) -> None:
        """What happened to these visits is open."""
        for path in paths:
            self.visits[path] = replace(self.visits[path], sure=False)


def given(ended: Ended) -> Ended:
    """What a combinator makes of the end of its body: a step skipped in it has handed on what it was given."""
    return replace(ended, value=ended.flow) if isinstance(ended, Good) else ended


def united(ends: Iterable[Ended]) -> Bad | Open | None:
    """What becomes of concurrent nodes where not all ended well: a failure outweighs open pauses."""
    ends = list(ends)
    if errors := [one.errors for one in ends if isinstance(one, Bad)]:
        return Bad(frozenset().union(*errors))
    paths = [one.paths for one in ends if isinstance(one, Open)]
    return Open(frozenset().union(*paths)) if paths else None


def joined(value: object, ends: list[Good], around: Around) -> Good:
    """The join of concurrent bodies: changes in declared order."""
    deltas = tuple(delta for one in ends for delta in one.deltas)
    return Good(value, value, deltas, frozenset().union(*(one.ends for one in ends)) or around.after)


def taken(ended: Good, source: Source) -> object:
    """What an edge gives: `>>` hands on what a skipped step was given."""
    value = ended.flow if source.kind == "after" else ended.value
    return value[source.part] if source.part else value  # type: ignore[index]
