"""A plan as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterator

from flujo.core import BODY_INPUT, RUN_INPUT, FlowNode, Plan, Scope, Source, StepNode, type_name

from .describe import body_word, input_scopes, printable, rules, step_notes, title

__all__ = ["mermaid"]

_DEEPEST = 20
"""Levels that are indented; Mermaid needs none, and a pipeline may nest a thousand deep."""

Part = StepNode | FlowNode | str


def mermaid(plan: Plan) -> str:
    """Draw a plan as a Mermaid flowchart: steps as boxes, combinators as frames around what they run, data as arrows
    labelled with their type."""
    return "\n".join(_Drawing(plan).lines()) + "\n"


class _Drawing:
    """Boxes and frames come first, then all arrows: a box belongs to the frame in which it is named first.

    Each body has ends of its own for what goes in and out: Mermaid draws no arrow between a frame and a box in it.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._owners = input_scopes(plan)

    def lines(self) -> Iterator[str]:
        """The whole text, line by line."""
        root = self._plan.root
        yield "flowchart TD"
        yield f'    input(["run input: {_quoted(type_name(root.input_type))}"])'
        yield from self._boxes()
        for node in self._plan.nodes:
            for source in node.sources:
                given = source.type if source.node < 0 else self._plan.nodes[source.node].output_type
                label = "".join(f".{part}" for part in source.path) or type_name(given)
                yield f'    {self._start(source, node.scope)} -->|"{_quoted(label)}"| s{node.index}'
            if isinstance(node, FlowNode):
                yield from _inner_edges(node)
        for scope in self._plan.scopes[1:]:
            yield from self._edges_out(scope)
        yield '    output(["output"])'
        yield from self._edges_out(root)

    def _boxes(self) -> Iterator[str]:
        """All boxes and frames; without recursion: what is still to be drawn waits on a stack."""
        left: list[tuple[int, Part]] = [(1, node) for node in reversed(self._plan.root.nodes)]
        while left:
            depth, part = left.pop()
            indent = "    " * min(depth, _DEEPEST)
            if isinstance(part, str):
                yield indent + part
            elif isinstance(part, StepNode):
                yield f'{indent}s{part.index}["{_titled(part.name, step_notes(part))}"]'
            else:
                yield f'{indent}subgraph s{part.index}["{_titled(title(part), rules(part))}"]'
                left.append((depth, "end"))
                left += reversed(_inside(part, depth + 1))

    def _edges_out(self, scope: Scope) -> Iterator[str]:
        for source in [scope.output] if isinstance(scope.output, Source) else scope.output.values():
            yield f"    {self._start(source, scope.index)} --> {_out(scope)}"

    def _start(self, source: Source, scope: int) -> str:
        if source.node == BODY_INPUT:
            return f"in{scope}"
        if source.node == RUN_INPUT:
            owner = self._owners[scope].index
            return f"in{owner}" if owner else "input"
        return f"s{source.node}"


def _out(scope: Scope) -> str:
    return f"out{scope.index}" if scope.index else "output"


def _inside(node: FlowNode, depth: int) -> list[tuple[int, Part]]:
    """What stands in the frame of a combinator, each with its depth."""
    parts: list[tuple[int, Part]] = []
    if node.kind == "branch":
        parts.append((depth, f'on{node.index}{{"{_quoted(next(iter(rules(node))))}"}}'))
    for place, body in enumerate(node.bodies):
        word, inner = body_word(node, place), depth
        if word:
            parts.append((depth, f'subgraph body{body.index}["{_quoted(word)}"]'))
            inner += 1
        what = "each item" if node.kind == "map" else "input"
        parts.append((inner, f'in{body.index}(["{what}: {_quoted(type_name(body.input_type))}"])'))
        parts += [(inner, one) for one in body.nodes]
        parts.append((inner, f'out{body.index}(["output"])'))
        if word:
            parts.append((depth, "end"))
    return parts


def _inner_edges(node: FlowNode) -> Iterator[str]:
    """How a combinator goes from one of its bodies to another."""
    if node.kind == "loop":
        [body] = node.bodies
        yield f'    out{body.index} -.->|"again"| in{body.index}'
    elif node.kind == "branch":
        for place, body in enumerate(node.bodies):
            yield f'    on{node.index} -->|"{_quoted(body_word(node, place))}"| in{body.index}'
    elif node.kind == "fallback":
        for before, after in zip(node.bodies, node.bodies[1:], strict=False):
            yield f'    body{before.index} -.->|"where it fails"| body{after.index}'


# --- text -----------------------------------------------------------------------------------------------------------

_ENTITIES = {ord(char): f"#{ord(char)};" for char in '#"<>&`|%*~$\\'}
"""What Mermaid would read as markup, as its numeric entities; a step's name may hold any printable text."""


def _titled(name: str, notes: Iterator[str]) -> str:
    listed = ", ".join(notes)
    return _quoted(f"{name} ({listed})" if listed else name)


def _quoted(text: str) -> str:
    """A text that can stand between double quotes."""
    safe = printable(text).translate(_ENTITIES)
    # Mermaid takes a line with one of these words and an entity behind it for a style, and eats its last character.
    return safe.replace("style", "#115;tyle").replace("classDef", "#99;lassDef") if "#" in safe else safe
