"""Combinators that cannot work: nothing is let through that fails later, and what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    Map,
    Parallel,
    Pipeline,
    PipelineError,
    Step,
    compile_plan,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def negate(value: int) -> int:
    return -value


@step
async def upper(word: str) -> str:
    return word.upper()


def large(value: int) -> bool:
    return value > 9


async def pair(value: int, first: Any) -> tuple[int, Any]:
    return value, first


async def table(value: int) -> dict[str, int]:
    return {"n": value}


def problems_of(make: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(make())
    return list(caught.value.problems)


async def test_the_free_parameter_of_a_single_step_gets_the_input_of_the_body() -> None:
    result = await Flujo(Map(Step(pair, inputs={"first": run_input()}))).run_async([1, 2])
    assert result.output == [(1, [1, 2]), (2, [1, 2])]


def test_a_part_of_a_step_that_may_be_skipped_may_be_none_too() -> None:
    async def read(n: int) -> str:
        return repr(n)

    maybe = Step(table, when=large)
    [problem] = problems_of(lambda: Pipeline(maybe, Step(read, inputs={"n": maybe.output["n"]})))
    assert "None" in problem


async def test_a_part_of_what_was_left_out_is_none_too() -> None:
    maybe = Step(table, when=large)

    async def read(n: int | None) -> str:
        return repr(n)

    flujo = Flujo(Pipeline(maybe, Step(read, inputs={"n": maybe.output["n"]})))
    assert [(await flujo.run_async(value)).output for value in (10, 1)] == ["10", "None"]


def test_a_name_is_printable_and_has_no_slash() -> None:
    for name in ("a/b", "", " ", "a\n", 3):
        with pytest.raises(PipelineError, match="name"):
            Flujo(double >> Pipeline(negate, name=name))  # type: ignore[arg-type]


def test_a_validator_that_is_nothing_is_refused() -> None:
    with pytest.raises(PipelineError, match="validator"):
        Flujo(Step(double, validators=(None,)))


def test_bodies_that_take_different_inputs_are_named() -> None:
    for build in (Parallel, Fallback, lambda a, b: Branch(on=bool, cases={True: a, False: b})):
        [problem] = problems_of(lambda build=build: build(negate, upper))  # type: ignore[misc]
        names = ("'True'", "'False'") if not isinstance(build, type) else ("'negate'", "'upper'")
        for word in (*names, "int", "str"):
            assert word in problem


def test_a_case_that_is_no_pipeline_is_named_by_its_label() -> None:
    for make in (
        lambda: Branch(on=bool, cases={True: double, False: 3}),  # type: ignore[dict-item]
        lambda: Parallel(double, 3),  # type: ignore[arg-type]
    ):
        with pytest.raises(PipelineError) as caught:
            make()
        assert "branch" in str(caught.value) or "parallel" in str(caught.value)


def test_types_are_called_as_users_call_them() -> None:
    [problem] = problems_of(lambda: Parallel(double, negate) >> double)
    assert "dict" in problem
    [problem] = problems_of(lambda: Pipeline(double, negate, name="two") >> upper)
    assert "dict" in problem


def test_the_fingerprint_of_nested_parallels_is_linear_and_never_recurses() -> None:
    node: Any = double
    for number in range(200):
        node = Parallel(node, name=f"n{number}")
    assert len(compile_plan(node).fingerprint) == 64
