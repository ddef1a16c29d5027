"""The ledgers of steps and pipelines that have limits of their own, under that of their run."""

from __future__ import annotations

from typing import Protocol

from .frames import Frame
from .ledger import Ledger
from .plan import StepNode
from .usage import Usage


class Owner(Protocol):
    """Who has the ledger of a run."""

    @property
    def ledger(self) -> Ledger:
        """What all of it reserves from; made when it is first asked for."""


def ledger_of(run: Owner, frame: Frame, node: StepNode) -> Ledger:
    """The ledger a step reserves from: that of the pipeline around, or its own under it where it has limits."""
    limits, ledger = node.step.options.limits, _around(run, frame)
    if limits is None:
        return ledger
    frame.ledgers = frame.ledgers or {}
    if node.place not in frame.ledgers:
        mine = frame.ledgers[node.place] = Ledger(limits, ledger)
        if frame.spent_by and node.place in frame.spent_by:
            mine.spent.add(frame.spent_by[node.place])
    return frame.ledgers[node.place]


def _around(run: Owner, frame: Frame) -> Ledger:
    """The ledger of the nearest frame with limits; a frame's own is made when it is first asked for."""
    bare: list[Frame] = []
    at: Frame | None = frame
    while at is not None and at.parent is not None and at.ledger is None:
        bare.append(at)
        at = at.parent
    ledger = run.ledger if at is None or at.ledger is None else at.ledger
    for one in reversed(bare):
        if one.scope.limits is not None:
            ledger = one.ledger = Ledger(one.scope.limits, ledger)
            if one.spent is not None:
                ledger.spent.add(one.spent)
    return ledger


def book(frame: Frame, node: StepNode, used: Usage) -> None:
    """Count what a step used before its run was resumed, under its own limits and those of the pipelines around it."""
    if node.step.options.limits is not None:
        frame.spent_by = frame.spent_by or {}
        frame.spent_by.setdefault(node.place, Usage()).add(used)
    at: Frame | None = frame
    while at is not None and at.parent is not None:
        if at.scope.limits is not None:
            at.spent = at.spent or Usage()
            at.spent.add(used)
        at = at.parent
