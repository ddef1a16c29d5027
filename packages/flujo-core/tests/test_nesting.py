"""Combinators inside combinators: every one in every other, mixed, and a thousand deep."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    Loop,
    Map,
    Parallel,
    Pipeline,
    PipelineResult,
    Step,
    StepFailed,
    compile_plan,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio

Build = Callable[[Any, str], Any]
"""Makes a node of a body and a name."""


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def fail(value: int) -> int:
    raise ValueError(f"no good: {value}")


async def first(values: list[int]) -> int:
    return values[0]


async def pair(value: int) -> list[int]:
    return [value, value]


async def only(both: dict[str, Any]) -> int:
    value = next(iter(both.values()))
    assert isinstance(value, int)
    return value


def mapped(body: Any, name: str) -> Pipeline:
    """The body for two equal items, of which the first result is taken."""
    return Pipeline(Step(pair) >> Map(body, name="map") >> Step(first), name=name)


def spread(body: Any, name: str) -> Pipeline:
    """The body beside another branch; its own result is taken."""
    return Pipeline(Parallel(Pipeline(body, name="it"), double, name="par") >> Step(only), name=name)


def graph(body: Any, name: str) -> Pipeline:
    """The body beside a step that does not matter."""

    async def choose(a: int, b: int) -> int:
        return a

    inner = Pipeline(body, name="inner")
    side = Step(double, name="side")
    return Pipeline(inner, side, Step(choose, inputs={"a": inner, "b": side}), name=name)


def other(body: Any) -> Any:
    return Step(double, name="other")


COMBINATORS: dict[str, Build] = {
    "branch": lambda body, name: Branch(on=lambda value: "a", cases={"a": body}, otherwise=other(body), name=name),
    "loop": lambda body, name: Loop(body, max_iterations=1, on_limit="return", name=name),
    "parallel": spread,
    "map": mapped,
    "fallback": lambda body, name: Fallback(body, other(body), name=name),
    "pipeline": lambda body, name: Pipeline(body, name=name),
    "graph": graph,
}


def chains_of(result: PipelineResult, name: str) -> list[str]:
    return [r.path for r in result.step_history if r.name == name]


# --- every one in every other -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", COMBINATORS)
@pytest.mark.parametrize("outer", COMBINATORS)
async def test_each_combinator_works_inside_each(outer: str, inner: str) -> None:
    @step
    async def plus(value: int) -> int:
        return value + 1

    flow = COMBINATORS[outer](COMBINATORS[inner](plus >> double, "inside"), "outside")
    result = await Flujo(flow).run_async(4)
    assert (result.status, result.output) == ("completed", 10)
    paths = chains_of(result, "plus")
    assert len(paths) == (2 if outer == "map" else 1) * (2 if inner == "map" else 1)
    assert len(set(paths)) == len(paths)
    if outer != "pipeline":  # the outermost pipeline is the run itself
        assert all(path.startswith("outside") for path in paths if outer not in ("map", "parallel", "graph"))


@pytest.mark.parametrize("inner", COMBINATORS)
@pytest.mark.parametrize("outer", [name for name in COMBINATORS if name != "fallback"])
async def test_a_failure_inside_comes_out_of_each(outer: str, inner: str) -> None:
    if inner == "fallback":
        flow = COMBINATORS[outer](Fallback(double >> fail, Step(fail, name="fail-too"), name="inside"), "outside")
    else:
        flow = COMBINATORS[outer](COMBINATORS[inner](double >> fail, "inside"), "outside")
    result = await Flujo(Pipeline(flow) if isinstance(flow, Pipeline) else flow).run_async(4)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "ValueError"
    assert result.error.step_path.rpartition("/")[2].startswith("fail")


@pytest.mark.parametrize("inner", COMBINATORS)
async def test_a_fallback_catches_a_failure_inside_each(inner: str) -> None:
    body = fail if inner != "fallback" else Fallback(fail, Step(fail, name="again"), name="x")
    result = await Flujo(Fallback(COMBINATORS[inner](body, "inside"), double)).run_async(4)
    assert result.status == "completed"
    assert result.output == 8


# --- mixed ------------------------------------------------------------------------------------------------------------


async def test_a_graph_in_a_loop_in_a_map_in_a_branch_behaves() -> None:
    async def add(a: int, b: int, start: int) -> int:
        return a + b + start

    @step
    async def plus(value: int) -> int:
        return value + 1

    # from x: 2x and x + 1 at the same time, then their sum and x: 4x + 1
    diamond = Pipeline(double, plus, Step(add, inputs={"a": double, "b": plus, "start": run_input()}), name="diamond")
    loop = Loop(diamond, until=lambda value: value >= 20, name="grow")
    each = Map(loop, limit=2, name="each")
    flow = Branch(on=lambda values: len(values) > 1, cases={True: each}, otherwise=Step(lambda v: v, name="as-is"))
    result = await Flujo(flow).run_async([0, 1, 5, 30])
    assert result.output == [21, 21, 21, 121]
    paths = [r.path for r in result.step_history]
    assert len(paths) == 3 * (3 + 2 + 1 + 1)
    assert len(set(paths)) == len(paths)
    assert paths.count("branch[True]/each[0]/grow#3/add") == 1
    for item, rounds in enumerate((3, 2, 1, 1)):
        for number in range(1, rounds + 1):
            place = f"branch[True]/each[{item}]/grow#{number}"
            where = [paths.index(f"{place}/{name}") for name in ("double", "plus", "add")]
            assert where[2] == max(where), "a step comes after those it depends on"
    assert (await Flujo(flow).run_async([7])).output == [7]


async def test_the_limit_of_an_outer_map_counts_items_whatever_is_inside_them() -> None:
    now: set[int] = set()
    peak = 0

    async def enter(value: int) -> int:
        nonlocal peak
        now.add(value)
        peak = max(peak, len(now))
        return value

    async def wait(value: int) -> int:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        return value

    async def leave(both: dict[str, Any]) -> int:
        now.remove(both["a"])
        return int(both["a"])

    body = Step(enter) >> Parallel(Step(wait, name="a"), Step(wait, name="b")) >> Step(leave)
    result = await Flujo(Map(body, limit=3)).run_async(list(range(10)))
    assert result.output == list(range(10))
    assert peak == 3


async def test_a_failure_cancels_exactly_what_its_own_scope_holds() -> None:
    """Inside `collect` a failing map cancels its own items; the branch beside it lives."""
    begun, failed = [anyio.Event(), anyio.Event(), anyio.Event()], anyio.Event()

    async def item(value: int) -> int:
        begun[value].set()
        if value == 1:
            await begun[0].wait()
            await begun[2].wait()
            raise ValueError("no good")
        try:
            await anyio.sleep_forever()
        finally:
            failed.set()
        return value

    async def beside(values: list[int]) -> str:
        await failed.wait()
        await anyio.lowlevel.checkpoint()
        return "alive"

    flow = Parallel(Map(Step(item), name="inner"), Step(beside), on_failure="collect")
    with anyio.fail_after(5):
        result = await Flujo(flow).run_async([0, 1, 2])
    assert result.status == "completed"
    output: Any = result.output
    assert output["beside"] == "alive"
    assert isinstance(output["inner"], StepFailed)
    assert sorted((r.path, r.status) for r in result.step_history) == [
        ("parallel/beside", "completed"),
        ("parallel/inner[0]/item", "cancelled"),
        ("parallel/inner[1]/item", "failed"),
        ("parallel/inner[2]/item", "cancelled"),
    ]  # fmt: skip


async def test_a_row_of_all_combinators_runs_in_order() -> None:
    flow: Any = double
    for name, build in COMBINATORS.items():
        flow = flow >> build(Step(double, name="twice"), name)
    result = await Flujo(flow).run_async(1)
    assert result.output == 2 ** (1 + len(COMBINATORS))


# --- deep -------------------------------------------------------------------------------------------------------------

DEEP = 1_000


def deep(kind: str) -> Any:
    node: Any = double
    for number in range(DEEP):
        name = f"n{number}"
        if kind == "parallel":
            node = Parallel(node, name=name)
        elif kind == "mixed":
            names = [each for each in COMBINATORS if each in ("branch", "loop", "fallback", "pipeline")]
            node = COMBINATORS[names[number % len(names)]](node, name)
        else:
            node = COMBINATORS[kind](node, name)
    return node


@pytest.mark.parametrize("kind", ["pipeline", "branch", "loop", "fallback", "graph", "mixed"])
async def test_a_thousand_levels_are_built_compiled_told_apart_and_run_without_recursion(kind: str) -> None:
    node = deep(kind)
    flow = node if kind != "graph" else Pipeline(node)
    assert isinstance(repr(flow), str)
    plan = compile_plan(flow)
    assert len(plan.fingerprint) == 64
    assert plan.fingerprint == compile_plan(deep(kind) if kind != "graph" else Pipeline(deep(kind))).fingerprint
    result = await Flujo(flow).run_async(4)
    assert result.status == "completed"
    output: Any = result.output
    if kind == "parallel":
        for number in reversed(range(1, DEEP)):
            [(name, output)] = output.items()
            assert name == f"n{number - 1}"
        output = output["double"]
    assert output == 8
    [record] = [r for r in result.step_history if r.name == "double"]
    assert record.path.count("/") >= DEEP // 2
    assert isinstance(repr(result), str)
    del node, flow, plan, result
    gc.collect()


async def test_a_failure_a_thousand_levels_deep_comes_out_as_a_result() -> None:
    node: Any = fail
    for number in range(DEEP):
        node = Pipeline(node, name=f"n{number}")
    result = await Flujo(node).run_async(4)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path.endswith("/n0/fail")
    assert isinstance(pickle.loads(pickle.dumps(result.error)), StepFailed)


async def test_a_problem_a_thousand_levels_deep_is_a_pipeline_error() -> None:
    from flujo.core import PipelineError

    node: Any = Pipeline(Step(double, inputs={"value": "nowhere"}), name="last")
    for number in range(DEEP):
        node = Pipeline(node, name=f"n{number}")
    with pytest.raises(PipelineError, match="nowhere"):
        compile_plan(node)
