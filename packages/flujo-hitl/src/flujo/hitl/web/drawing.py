"""A plan as a picture: boxes with places, which a template writes as SVG. No script, and no style of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flujo.core import FlowNode, Plan, Scope, StepNode

__all__ = ["Box", "Drawing", "Line", "draw", "draw_path", "standing"]

WIDTH, HEIGHT = 168, 44
GAP_X, GAP_Y = 20, 30
PAD, HEAD = 12, 26
_LONGEST = 22
_ROUND = 122
"""How far a curve is drawn aside: its middle then goes three quarters as far, just past half of a box."""


@dataclass(frozen=True, slots=True)
class Box:
    """A step, or the frame of what runs inside another."""

    x: int
    y: int
    width: int
    height: int
    text: str
    note: str
    state: str
    is_frame: bool

    @property
    def said(self) -> str:
        """How it stands, in words, since colours do not say it to everybody."""
        return _STATES.get(self.state, self.note)


@dataclass(frozen=True, slots=True)
class Line:
    """From one box down to another."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def path(self) -> str:
        """As SVG has it. One that goes past a box in between goes round it."""
        aside = _ROUND if self.y2 - self.y1 > GAP_Y else 0
        first, second = f"{self.x1 + aside} {self.y1 + 16}", f"{self.x2 + aside} {self.y2 - 16}"
        return f"M{self.x1} {self.y1} C{first} {second} {self.x2} {self.y2 - 1}"


@dataclass(frozen=True, slots=True)
class Drawing:
    """All boxes, frames before what is in them, and all lines."""

    width: int
    height: int
    boxes: Sequence[Box]
    lines: Sequence[Line]


def standing(done: Iterable[tuple[str, str]], asking: Iterable[str]) -> Mapping[str, str]:
    """How each step stands that was visited, by its path in the plan: what came last counts, a question before all."""
    found = {general(path): kind for path, kind in done if kind in _STATES}
    return {**found, **{general(path): "paused" for path in asking}}


_STATES = {
    "success": "✓ done",
    "failure": "✗ failed",
    "paused": "… waits",
    "skipped": "skipped",
    "aborted": "✗ aborted",
}


def general(path: str) -> str:
    """A path with a star where the number of an item or an iteration stands: `map[7]/a` is `map[*]/a`."""
    return re.sub(r"\[\d+\]", "[*]", re.sub(r"#\d+", "#*", path))


def draw(plan: Plan, states: Mapping[str, str]) -> Drawing:
    """Draw a plan: what depends on another stands below it, what runs at the same time side by side."""
    boxes: list[Box] = []
    lines: list[Line] = []
    size = _scope(plan.root, states, (PAD, PAD), boxes, lines)
    return Drawing(size[0] + 2 * PAD, size[1] + 2 * PAD, boxes, lines)


def draw_path(steps: Sequence[tuple[str, str]]) -> Drawing:
    """Draw what a run did, step by step, where its plan is not known here."""
    boxes: list[Box] = []
    lines: list[Line] = []
    y = PAD
    for path, state in steps:
        if boxes:
            middle = PAD + WIDTH // 2
            lines.append(Line(middle, y - GAP_Y, middle, y))
        boxes.append(Box(PAD, y, WIDTH, HEIGHT, _short(path), "", state, is_frame=False))
        y += HEIGHT + GAP_Y
    return Drawing(WIDTH + 2 * PAD, max(y - GAP_Y, PAD) + PAD, boxes, lines)


def _levels(scope: Scope) -> list[list[StepNode | FlowNode]]:
    depth: list[int] = []
    for node in scope.nodes:  # each stands after all it depends on
        depth.append(1 + max((depth[place] for place in node.predecessors), default=-1))
    levels: list[list[StepNode | FlowNode]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for node, level in zip(scope.nodes, depth, strict=True):
        levels[level].append(node)
    return levels


def _size(node: StepNode | FlowNode) -> tuple[int, int]:
    if isinstance(node, StepNode):
        return WIDTH, HEIGHT
    inner = [_scope_size(body) for body in node.bodies]
    width = sum(size[0] for size in inner) + GAP_X * (len(inner) - 1)
    return max(width, WIDTH) + 2 * PAD, max(size[1] for size in inner) + HEAD + PAD


def _scope_size(scope: Scope) -> tuple[int, int]:
    rows = [[_size(node) for node in level] for level in _levels(scope)]
    width = max(sum(size[0] for size in row) + GAP_X * (len(row) - 1) for row in rows)
    return width, sum(max(size[1] for size in row) for row in rows) + GAP_Y * (len(rows) - 1)


def _scope(
    scope: Scope, states: Mapping[str, str], at: tuple[int, int], boxes: list[Box], lines: list[Line]
) -> tuple[int, int]:
    """Place the nodes of a scope, and say how much room they take."""
    width, height = _scope_size(scope)
    left, y = at
    ends: dict[int, tuple[int, int]] = {}
    for level in _levels(scope):
        sizes = [_size(node) for node in level]
        x = left + (width - sum(size[0] for size in sizes) - GAP_X * (len(sizes) - 1)) // 2
        for node, size in zip(level, sizes, strict=True):
            middle = x + size[0] // 2
            lines.extend(Line(ends[place][0], ends[place][1], middle, y) for place in node.predecessors)
            _node(node, states, (x, y), size, boxes, lines)
            ends[node.place] = (middle, y + size[1])
            x += size[0] + GAP_X
        y += max(size[1] for size in sizes) + GAP_Y
    return width, height


def _node(
    node: StepNode | FlowNode,
    states: Mapping[str, str],
    at: tuple[int, int],
    size: tuple[int, int],
    boxes: list[Box],
    lines: list[Line],
) -> None:
    if isinstance(node, StepNode):
        note = "asks a human" if node.step.options.pauses else ""
        boxes.append(Box(*at, *size, _short(node.name), note, states.get(general(node.path), ""), is_frame=False))
        return
    boxes.append(Box(*at, *size, _short(f"{node.kind} {node.name}"), "", "", is_frame=True))
    inner = [_scope_size(body) for body in node.bodies]
    x = at[0] + (size[0] - sum(one[0] for one in inner) - GAP_X * (len(inner) - 1)) // 2
    for body, (width, _) in zip(node.bodies, inner, strict=True):
        _scope(body, states, (x, at[1] + HEAD), boxes, lines)
        x += width + GAP_X


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
