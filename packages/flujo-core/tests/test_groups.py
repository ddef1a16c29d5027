"""Groups of exceptions: however they are made they are one fault, and a cancel in one goes on up alone."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from flujo.core import Flujo, Parallel, Step
from flujo.core.foreign import fault_of, text_of

pytestmark = pytest.mark.anyio


def nested(kind: Any, leaf: BaseException, *, deep: int, wide: int = 1) -> BaseException:
    for _ in range(deep):
        leaf = kind("g", [leaf] * wide)
    return leaf


class Hostile(BaseExceptionGroup[BaseException]):
    @property
    def exceptions(self) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (nested(ExceptionGroup, ValueError("low"), deep=2000), "ValueError: low"),
        (nested(BaseExceptionGroup, SystemExit(3), deep=2000), "it called sys.exit(3)"),
        (Hostile("x", [SystemExit(3)]), "it called sys.exit(3)"),
    ],
)
async def test_a_group_is_one_fault_however_deep_it_is_and_whatever_its_class_does(
    raised: BaseException, text: str
) -> None:
    async def fails(value: int) -> int:
        raise raised

    result = await Flujo(Step(fails)).run_async(1)
    assert result.status == "failed"
    assert text in str(result.error)


def test_the_text_of_a_group_does_not_grow_with_what_stands_in_it_several_times() -> None:
    started = time.perf_counter()
    raised = nested(ExceptionGroup, ValueError("low"), deep=14, wide=3)
    assert len(text_of(raised)) < 100
    assert fault_of(nested(BaseExceptionGroup, SystemExit(3), deep=14, wide=3)) is not None
    assert time.perf_counter() - started < 20


async def cleans_up_badly(value: int) -> int:
    try:
        await anyio.sleep(60)
    except BaseException as cut:
        raise BaseExceptionGroup("both", [cut, ValueError("while it was cleaned up")]) from None
    return value


async def fails_soon(value: int) -> int:
    await anyio.sleep(0.02)
    raise ValueError("soon")


async def test_a_deadline_is_the_end_of_a_run_whose_step_puts_the_cancel_into_a_group() -> None:
    result = await Flujo(Step(cleans_up_badly)).run_async(1, deadline_s=0.05)
    assert (result.status, [one.path for one in result.step_history]) == ("aborted", ["cleans_up_badly"])


async def test_so_is_a_cancel_from_here_and_one_from_outside_goes_up() -> None:
    handle = Flujo(Step(cleans_up_badly)).start(1)
    await anyio.sleep(0.02)
    handle.cancel("enough")
    assert (await handle.wait()).status == "aborted"
    with anyio.move_on_after(0.05) as scope:
        await Flujo(Step(cleans_up_badly)).run_async(1)
    assert scope.cancelled_caught


async def test_so_is_the_time_limit_of_a_step_and_the_end_of_its_sibling() -> None:
    late = await Flujo(Step(cleans_up_badly, timeout_s=0.05)).run_async(1)
    assert "StepTimeout" in str(late.error)
    both = await Flujo(Parallel(Step(cleans_up_badly), Step(fails_soon))).run_async(1)
    assert "'parallel/fails_soon' failed: ValueError: soon" in str(both.error)
