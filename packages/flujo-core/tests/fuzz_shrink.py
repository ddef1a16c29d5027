"""Makes the description of a failing pipeline smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from fuzz_make import swapped
from fuzz_specs import Choice, Either, Fan, Graph, Node, Row, Spec, Work, below, walk

TRIES = 400
"""So many smaller pipelines are tried at most; each takes some hundredths of a second."""


def smallest(spec: Spec, fails: Callable[[Spec], bool]) -> Spec:
    """A pipeline that still fails and of which no part that can be left out is left, or `TRIES` were tried."""
    left, found = TRIES, True
    while found:
        found = False
        for smaller in smaller_specs(spec):
            if left == 0:
                return spec
            left -= 1
            if fails(smaller):
                spec, found = smaller, True
                break
    return spec


def smaller_specs(spec: Spec) -> Iterator[Spec]:
    """The same pipeline with one part less, large parts first."""
    for node in walk(spec.root):
        for other in smaller_nodes(node):
            yield replace(spec, root=swapped(spec.root, node, other))
    for place in fields(spec):
        if place.name != "root" and getattr(spec, place.name) != place.default:
            yield replace(spec, **{place.name: place.default})


def smaller_nodes(node: Node) -> Iterator[Node]:
    """What may stand in the place of a node; what cannot be compiled then does not fail in the same way."""
    yield from below(node)
    match node:
        case Row():
            yield from (replace(node, nodes=rest) for rest in without_one(node.nodes, least=2))
        case Graph():
            yield Graph(node.name, node.nodes[:-1]) if len(node.nodes) > 1 else node.nodes[0].node
        case Choice():
            yield from (replace(node, cases=rest) for rest in without_one(node.cases))
        case Fan():
            yield from (replace(node, branches=rest) for rest in without_one(node.branches))
        case Either():
            yield from (replace(node, options=rest) for rest in without_one(node.options))
    if isinstance(node, Work):
        yield from ailments_less(node)


def ailments_less(work: Work) -> Iterator[Work]:
    """A step with one peculiarity less."""
    for place in fields(work):
        if place.name != "name" and getattr(work, place.name) != place.default:
            yield replace(work, **{place.name: place.default})


def without_one(parts: tuple, least: int = 1) -> Iterator[tuple]:
    """The same parts but for one of them."""
    if len(parts) > least:
        for at in range(len(parts)):
            yield parts[:at] + parts[at + 1 :]
