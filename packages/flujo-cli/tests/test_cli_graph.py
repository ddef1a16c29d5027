"""`flujo graph` of combinators: every body is drawn, whatever it nests in, and no label breaks the picture."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.core import Branch, Fallback, Loop, Map, Node, Parallel, Pipeline, Step, compile_plan, run_input
from flujo_cli.mermaid import mermaid

ALL = """
from enum import Enum
from flujo.core import Branch, Fallback, Loop, Map, Parallel, Pipeline, Step, run_input

class Kind(Enum):
    REFUND = 1

def kind(text: str) -> Kind: ...
def good(text: str) -> bool: ...
async def fetch(text: str) -> str: ...
async def better(text: str) -> str: ...
async def check(text: str) -> str: ...
async def risky(text: str) -> str: ...
async def plain(text: str) -> str: ...
async def split(text: str) -> list[str]: ...
async def join(parts: list[str]) -> str: ...
async def both(x: str, y: str) -> str: ...

sub = Pipeline(Step(plain) >> Step(both, inputs={"y": run_input()}), name="sub")
refine = Loop(Step(better) >> Step(check, when=good), until=good, max_iterations=3, on_limit="return", name="refine")
each = Map(Fallback(Step(risky), sub), limit=4, name="each")
sides = Parallel(Step(plain), Step(both, inputs={"x": run_input(), "y": run_input()}, pauses=True), limit=2)
route = Branch(kind, {Kind.REFUND: Step(split) >> each >> Step(join), 3: refine}, otherwise=Step(plain))
pipeline = Step(fetch) >> route >> sides
"""
LOOP = "loop refine (until good, at most 3 times, then gives the last output)"
BOX = re.compile(r'(?P<id>\w+)(?:\["(?P<a>[^"]*)"\]|\(\["(?P<b>[^"]*)"\]\)|\{"(?P<c>[^"]*)"\}|\("(?P<d>[^"]*)"\))')
FRAME = re.compile(r'subgraph (?P<id>\w+)\["(?P<a>[^"]*)"\]')
ARROW = re.compile(r'(?P<start>\w+) (?:-->|-\.->)(?:\|"(?P<label>[^"]*)"\|)? (?P<end>\w+)')


def read(text: str) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, str]]]:
    """Read what `flujo graph` writes, by the part of Mermaid's grammar that it uses.

    Returns:
        The frames around each box and frame, from the outside in, and all arrows.
    """
    [first, *lines] = text.splitlines()
    assert first == "flowchart TD"
    frames: list[str] = []
    around: dict[str, tuple[str, ...]] = {}
    arrows = []
    for line in map(str.strip, lines):
        if line == "end":
            frames.pop()
        elif found := FRAME.fullmatch(line) or BOX.fullmatch(line):
            assert found["id"] not in around, f"{line}: there is one of this id already"
            around[found["id"]] = tuple(frames)
            frames += [found["id"]] * line.startswith("subgraph")
        else:
            arrow = ARROW.fullmatch(line)
            assert arrow, line
            assert not frames, f"{line}: an arrow in a frame would take its box in"
            arrows.append((arrow["start"], arrow["end"]))
    assert not frames
    boxes = boxes_of(around)
    for start, end in arrows:
        assert {start, end} <= boxes, f"{start} --> {end}: Mermaid fails at many arrows that touch a frame"
    return around, arrows


def boxes_of(around: dict[str, tuple[str, ...]]) -> set[str]:
    """All that is no frame; every frame has something in it."""
    return around.keys() - {frames[-1] for frames in around.values() if frames}


def ids_of(text: str) -> dict[str, str]:
    """The id of each box and frame, by what is written on it."""
    found = [FRAME.fullmatch(line) or BOX.fullmatch(line) for line in map(str.strip, text.splitlines())]
    return {next(filter(None, one.groups()[1:]), ""): one["id"] for one in found if one}


def test_every_combinator_is_a_frame_around_what_it_runs(cli) -> None:
    cli.write("all.py", ALL)
    said = cli("graph", "all.py")
    assert said.code == 0
    around, arrows = read(said.out)
    ids = ids_of(said.out)
    for words in (
        "branch (on kind)",
        "case REFUND",
        "case 3",
        "otherwise",
        "map each (at most 4 at once)",
        "each item: str",
        "fallback",
        "first risky",
        "else sub",
        LOOP,
        "check (when good)",
        "parallel (at most 2 at once)",
        "both (may ask a human)",
    ):
        assert words in ids, words
    nest = ("branch (on kind)", "case REFUND", "map each (at most 4 at once)", "fallback")
    assert around[ids["else sub"]] == tuple(ids[one] for one in nest)
    first, other = (ids[one].replace("body", "in") for one in ("first risky", "else sub"))
    assert (first, other) in arrows, "from what fails to what is tried then"
    assert len([end for start, end in arrows if start == ids["on kind"]]) == 3, "an arrow to each case"
    [again] = [end for start, end in arrows if start.replace("out", "in") == end]
    assert around[again][-1] == ids[LOOP], "a loop goes on with what it gave"


def test_a_body_of_the_same_pipeline_takes_the_run_input_and_a_sub_pipeline_its_own() -> None:
    async def two(a: str, b: str) -> str: ...

    async def one(a: str) -> str: ...

    taker = Step(two, inputs={"b": run_input()})
    around, arrows = read(mermaid(compile_plan(Pipeline(Step(one) >> Loop(Step(one) >> taker, lambda _: True)))))
    assert ("input", "s3") in arrows
    around, arrows = read(
        mermaid(compile_plan(Pipeline(Step(one) >> Loop(Pipeline(Step(one) >> taker), lambda _: True))))
    )
    assert "input" not in {start for start, end in arrows if around[end]}


async def same(value: object) -> object: ...


CHARACTERS = st.characters(exclude_characters="/", categories=("L", "N", "P", "S")) | st.just(" ")
NAMES = st.text(CHARACTERS, min_size=1).filter(str.strip)
LABELS = st.text(max_size=8) | st.integers() | st.booleans() | st.none()


@st.composite
def nodes(draw: st.DrawFn, depth: int) -> Node:
    """A node with bodies in bodies, to a depth; bodies of one node have names of their own."""
    name = draw(NAMES)
    if not depth:
        return Step(same, name=name)
    inner = nodes(draw(st.integers(0, depth - 1)))
    kind = draw(st.sampled_from(("branch", "loop", "map", "parallel", "fallback", "pipeline")))
    if kind == "loop":
        return Loop(draw(inner), lambda _: True, 1, name=name)
    if kind == "map":
        return Map(draw(inner), limit=draw(st.none() | st.integers(1, 9)))
    if kind == "branch":
        labels = draw(st.lists(LABELS, min_size=1, max_size=3, unique_by=str))
        otherwise = draw(st.none() | inner) if "otherwise" not in labels else None
        return Branch(lambda _: None, {label: draw(inner) for label in labels}, otherwise, name=name)
    some = draw(st.lists(inner, min_size=2, max_size=3, unique_by=lambda node: node.name))
    return {"parallel": Parallel, "fallback": Fallback, "pipeline": Pipeline}[kind](*some, name=name)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4).flatmap(nodes))
def test_any_pipeline_is_drawn_whole_whatever_its_names_are(node: Node) -> None:
    plan = compile_plan(node)
    text = mermaid(plan)
    around, arrows = read(text)
    assert {f"s{index}" for index in range(len(plan.nodes))} <= around.keys()
    for scope in plan.scopes[1:]:
        assert f"in{scope.index}" in around
        assert f"out{scope.index}" in around
    ends = {end for _, end in arrows}
    assert ends == boxes_of(around) - {"input"}, "an arrow to every box"
    assert "%%" not in text
    assert all(line.isprintable() for line in text.splitlines())


def test_the_terminal_shows_each_body_under_its_path(cli) -> None:
    cli.write("all.py", ALL)
    lines = cli("graph", "all.py", "--format", "terminal").out.splitlines()
    bodies = [
        "branch[REFUND]",
        "branch[REFUND]/each[*]",
        "branch[REFUND]/each[*]/fallback/risky",
        "branch[REFUND]/each[*]/fallback/sub",
        "branch[3]",
        "branch[3]/refine#*",
        "branch[otherwise]",
        "parallel/plain",
        "parallel/both",
    ]
    assert [line for line in lines if line in bodies] == bodies
    text = "\n".join(lines)
    for words in (
        "at most 4 at once",
        "first risky, else sub",
        "case REFUND, case 3, otherwise",
        "then gives the last",
    ):
        assert words in text
    sub = text.partition("each[*]/fallback/sub")[2].partition("output <- both")[0]
    assert "y <- input " in sub, "a sub-pipeline's run_input() is its own input"
    assert "x <- run input" in text.partition("parallel/both")[2]


def deep() -> Iterator[str]:
    yield "from flujo.core import *\nasync def a(text: str) -> str: ...\nnode = Step(a)\n"
    yield "for number in range(1000):\n    match number % 4:\n"
    yield "        case 0: node = Pipeline(node, name='p')\n"
    yield "        case 1: node = Loop(node, until=lambda text: True)\n"
    yield "        case 2: node = Fallback(node, Step(a, name='other'))\n"
    yield "        case 3: node = Branch(lambda text: 1, {1: node})\n"
    yield "pipeline = Pipeline(node)\n"


@pytest.mark.parametrize("form", ["mermaid", "terminal"])
def test_a_thousand_levels_are_drawn(cli, form: str) -> None:
    cli.write("deep.py", "".join(deep()))
    said = cli("graph", "deep.py", "--format", form)
    assert said.code == 0, said.err
    if form == "mermaid":
        around, _ = read(said.out)
        assert max(map(len, around.values())) > 1000
    else:
        assert said.out.count("gives str") == 1001
