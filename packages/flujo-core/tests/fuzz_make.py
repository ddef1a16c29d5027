"""Random descriptions of pipelines, each made of a seed; `fuzz_shrink` makes a failing one smaller.

What a description gives never depends on the order in which its concurrent parts run: all errors look alike to the
steps that are given one, and a context field without a reducer has at most one writer at a time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from fuzz_specs import (
    NEVER,
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
    below,
    branch_name,
    gives_list,
    walk,
)

MODES = ("plain", *["faults"] * 4, *["pauses"] * 4, *["both"] * 3, *["cancel"] * 2, *["heal"] * 2)
KINDS = ("int", "int", "bit", "bit", "pair", "list", "twin", "point", "moment")
DELAYS = (0, 0, 0, 1, 2, 3, 5)
MOST_VISITS = 12
"""No step is placed where loops and maps could visit it more often."""


def seeded(seed: int) -> Spec:
    """The pipeline of a seed: always the same."""
    return Maker(random.Random(seed)).spec()


@dataclass(frozen=True)
class Place:
    """Where a node is to stand.

    Attributes:
        level: How many combinators may still be nested.
        many: How often it can be visited at most.
        alone: Whether it may write the field without a reducer.
        caught: Whether something around it goes on when it fails.
        single: Whether nothing else runs at the same time.
    """

    level: int
    many: int = 1
    alone: bool = True
    caught: bool = False
    single: bool = True

    def inside(self, times: int = 1, *, alone: bool = True, caught: bool | None = None, single: bool = True) -> Place:
        """The place of a body here."""
        free, caught = self.alone and alone, self.caught if caught is None else caught
        return Place(self.level - 1, self.many * times, free, caught, self.single and single)


class Maker:
    """Makes one pipeline."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        mode = MODES[self.pick(len(MODES))]
        self.faults = mode in ("faults", "both")
        self.pauses = 12 if mode in ("pauses", "both") else 0
        self.calm = mode in ("plain", "pauses")
        self.flaky = mode == "heal"
        self.cancels = mode == "cancel"
        self.left = 6 + self.pick(14)
        self.names = 0

    def pick(self, count: int) -> int:
        """A number from 0 up to, not including, `count`."""
        return int(self.chance.random() * count)

    def spec(self) -> Spec:
        """The whole description."""
        root = told_apart(self.root())
        if self.cancels:
            root = self.cancelled(root)
        picks = tuple(self.pick(7) for _ in range(1 + self.pick(4)))
        limits = ("", "", "", "tight", "short", "step")[self.pick(6)]
        return Spec(root, self.pick(5), picks, bool(self.pick(2)), bool(self.pick(2)), limits)

    def root(self) -> Node:
        place = Place(1 + self.pick(5))
        if self.pick(3) == 2:
            return self.graph(place, most=30)
        nodes: list[Node] = []
        while self.left > 0:
            nodes += self.following(place, nodes)
        return nodes[0] if len(nodes) == 1 else Row(tuple(nodes))

    def cancelled(self, root: Node) -> Node:
        """The same, where one of the steps that can wait cancels the run."""
        able = [one for one in walk(root) if isinstance(one, Work) and not (one.inline or one.threaded)]
        if not able:
            return root
        chosen = able[self.pick(len(able))]
        return swapped(root, chosen, replace(chosen, cancels=True, skips_on=0, cached=False))

    # --- nodes --------------------------------------------------------------------------------------------------------

    def following(self, place: Place, before: list[Node]) -> list[Node]:
        """The next node of a row; a Map comes with what makes its list."""
        node = self.node(place)
        fed = isinstance(node, Each) and not (before and gives_list(before[-1]))
        nodes = [self.lister(place), node] if fed else [node]
        if isinstance(nodes[0], Work) and not before:
            nodes[0] = replace(nodes[0], raw=False)
        return nodes

    def node(self, place: Place) -> Node:
        kind = self.pick(12) if place.level > 0 and self.left > 1 else 0
        if kind < 5:
            return self.work(place)
        if kind == 5:
            return self.graph(place, most=5)
        if kind == 6:
            return self.choice(place)
        if kind == 7:
            return self.repeat(place)
        if kind in (8, 9):
            return self.fan(place)
        return self.each(place) if kind == 10 else self.either(place)

    def body(self, place: Place) -> Node:
        """A body of a combinator: mostly a row."""
        if place.level > 0 and self.left > 3 and self.pick(5) == 4:
            return self.graph(place, most=4)
        nodes: list[Node] = []
        for _ in range(1 + self.pick(3)):
            nodes += self.following(place, nodes)
        return nodes[0] if len(nodes) == 1 else Row(tuple(nodes))

    def graph(self, place: Place, most: int) -> Graph:
        name, nodes = self.name("p"), list[Wired]()
        writer = self.pick(4)
        inside = place.inside(single=False)
        for at in range(1 + self.pick(most) if most < 10 else most):
            if nodes and self.left <= 0:
                break
            node = self.node(replace(inside, alone=inside.alone and at == writer))
            lists = [at for at, wired in enumerate(nodes) if gives_list(wired.node)]
            if isinstance(node, Each) and not lists:
                nodes.append(Wired(self.lister(replace(inside, alone=False)), (self.source(nodes),)))
                lists = [len(nodes) - 1]
            nodes.append(self.wired(node, nodes, lists))
        return Graph(name, tuple(nodes), self.pick(len(nodes)) if self.pick(4) == 3 else None)

    def wired(self, node: Node, nodes: list[Wired], lists: list[int]) -> Wired:
        if isinstance(node, Each):
            return Wired(node, (Source(("after", "node")[self.pick(2)], lists[self.pick(len(lists))]),))
        sources = [self.source(nodes)]
        several = isinstance(node, Work) and not node.skips_on and not node.raw
        while several and nodes and len(sources) < 3 and self.pick(2):
            sources.append(self.source(nodes, named=True))
        if len(sources) > 1 and sources[0].kind == "after" and self.pick(2):
            sources[0] = replace(sources[0], kind="node")
        return Wired(node, tuple(sources))

    def source(self, nodes: list[Wired], named: bool = False) -> Source:
        if not nodes or self.pick(5) == 4:
            return Source()
        at = len(nodes) - 1 - min(self.pick(4), len(nodes) - 1)
        node, kind = nodes[at].node, "node" if named or self.pick(2) else "after"
        if kind == "node" and isinstance(node, Fan) and self.pick(2):
            return Source("node", at, branch_name(node.branches[self.pick(len(node.branches))]))
        return Source(kind, at)

    def choice(self, place: Place) -> Choice:
        inside, modulo = place.inside(), 1 + self.pick(3)
        labels = [(at, f"c{at}")[self.pick(2)] for at in range(modulo)]
        holes = self.faults and place.caught and self.pick(2)
        cases = [(label, self.body(inside)) for label in labels if not self.pick(4) < (modulo > 1)]
        cases = cases or [(labels[0], self.body(inside))]
        closed = len(cases) == modulo or holes
        otherwise = None if closed and self.pick(3) else self.body(inside)
        return Choice(self.name("branch"), tuple(cases), otherwise, modulo, not self.pick(3))

    def repeat(self, place: Place) -> Repeat:
        until, most = self.pick(4), 1 + self.pick(3 if place.many <= MOST_VISITS // 3 else 1)
        returns = not until or not self.faults or bool(self.pick(3))
        body = self.body(place.inside(most))
        return Repeat(self.name("loop"), body, until, most, returns, not self.pick(3))

    def fan(self, place: Place) -> Fan:
        collect, count = not self.flaky and bool(self.pick(2)), 2 + self.pick(3)
        caught = True if collect else place.caught
        branches = [self.body(place.inside(alone=at == 0, caught=caught, single=False)) for at in range(count)]
        return Fan(self.name("par"), tuple(branches), (None, None, 1, 2)[self.pick(4)], collect)

    def each(self, place: Place) -> Node:
        if place.many * 3 > MOST_VISITS:
            return self.work(place)
        collect = not self.flaky and bool(self.pick(2))
        body = self.body(place.inside(3, alone=False, caught=True if collect else None, single=False))
        return Each(self.name("map"), body, (None, None, 1, 2)[self.pick(4)], collect)

    def either(self, place: Place) -> Node:
        if self.flaky:
            return self.work(place)
        tries = [self.body(place.inside(caught=True)) for _ in range(1 + self.pick(2))]
        return Either(self.name("fall"), (*tries, self.body(place.inside())))

    # --- steps --------------------------------------------------------------------------------------------------------

    def name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}{self.names}"

    def lister(self, place: Place) -> Work:
        return replace(self.work(place), ends="list", size=(2, 3, 1, 3, 2, 0)[self.pick(6)], skips_on=0)

    def work(self, place: Place) -> Work:
        self.left -= 1
        work = Work(self.name("s"), KINDS[self.pick(len(KINDS))], delay=DELAYS[self.pick(7)])
        if work.ends == "list":
            work = replace(work, size=2)
        shape = self.pick(6)
        if shape == 1:
            work = replace(work, raw=True)
        elif shape == 2 and self.pick(2):
            work = replace(work, skips_on=2, sees=bool(self.pick(2)))
        work = replace(work, reads=self.pick(3) == 2)
        if self.pick(3) == 2:
            work = replace(work, writes=("log", "total", "last" if place.alone else "log")[self.pick(3)])
        return self.once(self.ailing(self.placed(work, place), place))

    def placed(self, work: Work, place: Place) -> Work:
        """The same step, as it is to be run: inline, in a thread, with a tool, a timeout, a cache, a cost."""
        shape = self.pick(10)
        if shape < 2 and not self.pauses:
            work = replace(work, inline=True, delay=0)
        elif shape == 2:
            work = replace(work, tool=True)
        elif shape == 3 and (place.single or self.calm):  # a thread that is abandoned goes on, nobody knows how far
            work = replace(work, threaded=True, delay=0)
        if shape == 4 and not self.flaky:
            work = replace(work, cached=True)
        if not work.inline:
            work = replace(work, cost=(0, 0, 0, 1, 5)[self.pick(5)], timely=not self.pick(6))
        return work

    def once(self, work: Work) -> Work:
        """The same step, where perhaps its work or its tool may happen at most once."""
        kind = self.pick(6)
        if kind == 4 and work.tool:
            return replace(work, once="tool")
        other = work.pause or work.rejects or work.hangs or work.cached or work.threaded
        return replace(work, once="step", writes="") if kind == 5 and work.attempts == 1 and not other else work

    def ailing(self, work: Work, place: Place) -> Work:
        """The same step, perhaps with a fault or a pause."""
        if self.flaky:
            return replace(work, flaky=not self.pick(7))
        if self.pauses >= place.many and self.pick(4) == 3:
            self.pauses -= place.many
            work = replace(work, cached=False)
            asks, trouble = self.pick(2), self.pick(4) if self.faults else 0
            if trouble == 1:
                work = replace(work, fails=1, attempts=3)
            if not asks:
                return replace(work, pause="raise", writes="")
            if trouble == 2:
                work = replace(work, rejects=1, attempts=3)
            return replace(work, pause="ask", inline=False, threaded=False)
        return self.faulty(work, place.caught) if self.faults else work

    def faulty(self, work: Work, caught: bool) -> Work:
        fault = self.pick(15)
        if fault == 1:
            return replace(work, fails=1 + self.pick(2), attempts=3)
        if fault == 2:
            return replace(work, rejects=1 + self.pick(2), attempts=3)
        hangs = replace(work, attempts=3, timely=False, threaded=False, inline=False, delay=0, tool=False, cost=0)
        if fault == 14:
            return replace(hangs, hangs=1 + self.pick(2))
        hard = fault in (3, 4, 5, 6) if caught else fault == 3 and not self.pick(2)
        if not hard:
            return work
        kind = self.pick(7)
        if kind == 6:
            return replace(hangs, hangs=NEVER, attempts=1 + self.pick(2))
        kind %= 3
        if kind == 0:
            return replace(work, fails=NEVER, attempts=1 + self.pick(2))
        return replace(work, fails_on=2) if kind == 1 else replace(work, rejects=NEVER, attempts=1 + self.pick(2))


def told_apart(root: Node) -> Node:
    """The same, without steps that are skipped at the end of a body where errors are collected.

    What such a body gives has no type (anything may be handed on), and a union of that with a dict that holds errors is
    one that snapshots refuse.
    """
    nodes = list(walk(root))
    if not any(map(collects, nodes)):
        return root
    bodies = [body for node in nodes if not isinstance(node, (Row, Graph)) for body in below(node)]
    for last in {work for body in bodies for work in last_works(body) if work.skips_on}:
        root = swapped(root, last, replace(last, skips_on=0))
    return root


def collects(node: Node) -> bool:
    """Whether errors may stand in what it gives."""
    return isinstance(node, (Fan, Each)) and node.collect


def last_works(node: Node) -> list[Work]:
    """The steps whose output a node may give."""
    if isinstance(node, Work):
        return [node]
    inner = below(node)[-1:] if isinstance(node, Row) else below(node)
    return [work for one in inner for work in last_works(one)]


def swapped(node: Node, old: Node, new: Node) -> Node:
    """A node in which one inside it is another."""
    if node == old:
        return new
    match node:
        case Row(nodes):
            return Row(tuple(swapped(one, old, new) for one in nodes))
        case Graph():
            return replace(node, nodes=tuple(replace(w, node=swapped(w.node, old, new)) for w in node.nodes))
        case Choice():
            cases = tuple((label, swapped(body, old, new)) for label, body in node.cases)
            return replace(node, cases=cases, otherwise=node.otherwise and swapped(node.otherwise, old, new))
        case Repeat() | Each():
            return replace(node, body=swapped(node.body, old, new))
        case Fan():
            return replace(node, branches=tuple(swapped(one, old, new) for one in node.branches))
        case Either():
            return replace(node, options=tuple(swapped(one, old, new) for one in node.options))
    return node
