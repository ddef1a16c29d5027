"""Pictures of a plan: every step and every edge, and no name that Mermaid would read as markup."""

from __future__ import annotations

from flujo.core import Pipeline, Step, compile_plan, run_input
from flujo_cli.mermaid import mermaid


async def one(text: str) -> dict[str, int]:
    return {}


async def two(part: int, text: str) -> str:
    return text


def test_a_plan_is_drawn_with_its_data() -> None:
    head = Step(one)
    tail = Step(two, inputs={"part": head.output["k"], "text": run_input()})
    assert mermaid(compile_plan(Pipeline(head, tail))).splitlines() == [
        "flowchart TD",
        '    input(["run input: str"])',
        '    s0["one"]',
        '    s1["two"]',
        '    input -->|"str"| s0',
        '    s0 -->|".k"| s1',
        '    input -->|"str"| s1',
        '    output(["output"])',
        "    s1 --> output",
    ]


def test_each_of_several_outputs_is_drawn() -> None:
    lines = mermaid(compile_plan(Pipeline(Step(one), Step(one, name="again")))).splitlines()
    assert lines[-2:] == ["    s0 --> output", "    s1 --> output"]
    assert mermaid(compile_plan(Pipeline(Step(one), output=run_input()))).endswith("    input --> output\n")


def test_odd_names_cannot_break_the_picture() -> None:
    name = 'a "b" <i> #quot; `md` | end & [x] --> s9'
    text = mermaid(compile_plan(Step(one, name=name)))
    [box] = [line for line in text.splitlines() if line.startswith("    s0[")]
    label = box.removeprefix('    s0["').removesuffix('"]')
    assert not set(label.replace("#34;", "").replace("#35;", "")) & set('"<>`|&')
    for char in '"<>#`|&':
        assert f"#{ord(char)};" in label
