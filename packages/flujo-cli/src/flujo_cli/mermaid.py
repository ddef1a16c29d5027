"""A plan as a Mermaid flowchart."""

from __future__ import annotations

from flujo.core import RUN_INPUT, Plan, Source, type_name

__all__ = ["mermaid"]


def mermaid(plan: Plan) -> str:
    """Draw a plan as a Mermaid flowchart: steps as boxes, data as arrows labelled with their type."""
    lines = ["flowchart TD", f'    input(["run input: {_quoted(type_name(plan.input_type))}"])']
    lines += [f'    s{node.index}["{_quoted(node.step.name)}"]' for node in plan.nodes]
    for node in plan.nodes:
        for source in node.sources:
            start = "input" if source.node == RUN_INPUT else f"s{source.node}"
            part = "".join(f".{part}" for part in source.path)
            given = type_name(source.type if source.node == RUN_INPUT else plan.nodes[source.node].output_type)
            lines.append(f'    {start} -->|"{_quoted(part or given)}"| s{node.index}')
    lines.append('    output(["output"])')
    sources = [plan.output] if isinstance(plan.output, Source) else list(plan.output.values())
    for source in sources:
        start = "input" if source.node == RUN_INPUT else f"s{source.node}"
        lines.append(f"    {start} --> output")
    return "\n".join(lines) + "\n"


_ENTITIES = {ord(char): f"#{ord(char)};" for char in '#"<>&`|'}
"""What Mermaid would read as markup, as its numeric entities; a step's name may hold any printable text."""


def _quoted(text: str) -> str:
    return text.translate(_ENTITIES)
