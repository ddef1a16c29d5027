"""Where a run stands: one frame for each scope that is open, one part for each combinator that has begun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

from pydantic import BaseModel, JsonValue

from .ledger import Ledger
from .once import once
from .outcome import Failure, Paused
from .plan import FlowNode, Plan, Scope, StepNode
from .usage import Usage


class _Unset:
    """The type of UNSET."""

    __slots__ = ()


UNSET: Final = _Unset()
"""Stands for the output of a node that has not ended."""


class Passed:
    """Stands for the output of a skipped step: `>>` takes the value, a declared edge None."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value: object = value


_NO_JOINS: list[int] = []

Changes = tuple[Mapping[str, object], ...]
"""Context changes, in the order they are applied."""


class Frame:
    """An open scope.

    Attributes:
        id: Its number in the run; it hangs only on the order of the entries.
        scope: What is run.
        parent: The frame around; None of the whole pipeline.
        part: The combinator there that opened it.
        slot: Which of its bodies it is: a place, an item, an iteration from 1.
        start: What the paths of its steps start with: that of the combinator around.
        input: What the combinator gave it.
        run_input: What `run_input()` means in it.
        context: The context it began with.
        outputs: Output of each node.
        waiting: For each node, how many it still waits for; empty where none waits for more than one.
        left: How many nodes have not ended.
        changes: Context changes of the nodes that made some, by place.
        parts: Combinators that have begun and not ended, by place.
        seen: Contexts that were asked for, by the writers they hold: to be found again, not part of what a run is.
        ledger: What its steps reserve from, where it has limits of its own.
        ledgers: What single steps reserve from that have limits of their own, by place.
        spent: What was spent in it before its run was resumed, where it has limits of its own.
        spent_by: The same of single steps that had not ended, by place.
        is_open: Whether it still counts.
    """

    # What most frames never have stands in the class: it costs no time when one is made, and no memory in each.
    is_open: bool = True
    changes: dict[int, Changes] = cast("dict[int, Changes]", MappingProxyType({}))  # one is made for the first
    parts: once[dict[int, Part]] = once(lambda _: {})
    seen: once[dict[int, BaseModel]] = once(lambda _: {})
    ledger: Ledger | None = None
    ledgers: dict[int, Ledger] | None = None
    spent: Usage | None = None
    spent_by: dict[int, Usage] | None = None

    def __init__(
        self, id: int, scope: Scope, part: Part | None, slot: int, value: object, context: BaseModel | None
    ) -> None:
        parent = None if part is None else part.frame
        self.id: int = id
        self.scope: Scope = scope
        self.parent: Frame | None = parent
        self.part: Part | None = part
        self.slot: int = slot
        self.start: str = "" if part is None else part.path
        self.input: object = value
        self.run_input: object = value if scope.owns_input or parent is None else parent.run_input
        self.context: BaseModel | None = context
        self.left: int = len(scope.nodes)
        self.outputs: list[object] = [UNSET] * self.left
        self.waiting: list[int] = list(scope.waiting) if scope.waiting else _NO_JOINS

    @property
    def prefix(self) -> str:
        """What stands before the names of its steps in a path."""
        return self.start and self.scope.prefix(self.start, self.slot)

    def waits(self, node: StepNode | FlowNode) -> bool:
        """Whether a node has to wait for another."""
        return any(self.outputs[place] is UNSET for place in node.predecessors)


class Part:
    """A combinator that has begun.

    Attributes:
        node: The combinator.
        frame: Where it stands.
        path: The same, for people.
        value: What it was given.
        context: The context its next body begins with.
        total: How many bodies there are to run; a loop does not know.
        next: The slot of the next body.
        ended: How many bodies ended.
        results: Of a fan-out, what each body gave.
        changes: Context changes of its bodies, by slot.
        output: Of a loop, what the last iteration gave.
        asks: Whether it waits for a choice.
        spare: Of a loop that does, the frame of a simple body that ended, for the next iteration.
        bodies: The open ones, by slot.
    """

    spare: Frame | None = None  # in the class, as those of a frame

    def __init__(self, node: FlowNode, frame: Frame, value: object, context: BaseModel | None) -> None:
        self.node: FlowNode = node
        self.frame: Frame = frame
        self.path: str = frame.prefix + node.name
        self.value: object = value
        self.context: BaseModel | None = context
        self.total: int = 1
        self.next: int = 0
        self.ended: int = 0
        self.results: list[object] = []
        self.changes: dict[int, Changes] = {}
        self.output: object = None
        self.asks: bool = False
        self.bodies: dict[int, Frame] = {}

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.frame.parts.get(self.node.place) is not self


def around(frame: Frame) -> Part | None:
    """The nearest combinator around a frame that goes on, whatever was closed or ended below it."""
    at: Frame | None = frame
    while at is not None and at.parent is not None and at.part is not None:
        part = at.parent.parts.get(at.part.node.place)
        if part is not None and at.parent.is_open:
            return part
        at = at.parent
    return None


Told = tuple[str, JsonValue]
"""A digest of what was asked, and what was told."""

Due = tuple[Frame, StepNode | FlowNode]
"""A step to be run, or a combinator to be asked what to do, in its frame."""


class RunState:
    """Where a run stands.

    Attributes:
        plan: What is run.
        root: The frame of the whole pipeline.
        frames: The open frames, by their number.
        next_id: Number of the next frame.
        due: What can be done now.
        pauses: What waits for a human, by frame and node.
        known: What humans and tools told a step that has not ended, for when it runs again; by frame and node.
        decided: What humans decided for steps that raised a question and have not ended; by frame and node.
        begun: What may happen at most once, has begun and not ended: names of tools by a digest of the call, empty for
            the work of the step itself; by frame and node.
        has_words: Whether there may be any of these four: something was asked, told or begun.
        failure: The failure that nothing caught.
        has_closed: Whether frames were closed whose steps may still run; whoever runs them looks and resets it.
        todo: Work of `advance` itself; empty between its calls.
    """

    pauses: once[dict[tuple[int, int], Paused]] = once(lambda _: {})
    known: once[dict[tuple[int, int], list[Told]]] = once(lambda _: {})
    decided: once[dict[tuple[int, int], object]] = once(lambda _: {})
    begun: once[dict[tuple[int, int], dict[str, str]]] = once(lambda _: {})
    frames: once[dict[int, Frame]] = once(lambda state: {state.root.id: state.root})  # a chain never needs it

    def __init__(self, plan: Plan, root: Frame, next_id: int = 1) -> None:
        self.plan: Plan = plan
        self.root: Frame = root
        self.next_id: int = next_id
        self.has_words: bool = False
        self.has_closed: bool = False
        self.failure: Failure | None = None
        self.todo: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        self.due: list[Due] = []  # not a deque, which holds 760 bytes: mostly one thing is due

    def taken_back(self, due_before: int) -> list[Due]:
        """What became due since, taken back: it is not to be done yet."""
        return [self.due.pop() for _ in range(len(self.due) - due_before)]

    @property
    def finished(self) -> bool:
        """Whether every step ended well."""
        return self.root.left == 0
