"""Behaviours 24 to 35 that the old `flujo` 0.x was tested for: people, fallbacks, loops, branches.

The numbers are those of the list in our notes; 36 to 45 are in `test_predecessor_behaviours_runs.py`. Where ours is
meant to differ, the docstring says how; docs/how-to/move-from-flujo-0.md has the same differences as a table.
"""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    FlujoError,
    InputError,
    Loop,
    LoopLimit,
    Map,
    MemoryStore,
    PauseForHumanInput,
    ResumeError,
    RetryPolicy,
    RunContext,
    Snapshot,
    Step,
    StepFailed,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def plus(value: int) -> int:
    return value + 1


@step
async def fails(value: int) -> int:
    raise ValueError("no good")


def costs(name: str, usd: str, error: bool = False, wait_s: float = 0) -> Step:
    async def work(value: int, ctx: RunContext) -> int:
        ctx.usage.record(cost_usd=usd)
        await anyio.sleep(wait_s)
        if error:
            raise OSError(f"{name} is down")
        return value

    return Step(work, name=name)


# --- people -----------------------------------------------------------------------------------------------------------


class Decision(BaseModel):
    approved: bool
    reason: str = ""


@step(pauses=True)
async def decide(text: str) -> Decision:
    raise PauseForHumanInput(f"Is this right? {text}", schema=Decision)


async def test_24_a_question_may_be_made_of_a_value_and_its_answer_is_checked() -> None:
    flujo = Flujo(decide)
    paused = await flujo.run_async("2 + 2 = 4")
    (pause,) = paused.pauses
    assert pause.question == "Is this right? 2 + 2 = 4"
    assert pause.schema["required"] == ["approved"]
    with pytest.raises(InputError, match="approved"):
        await flujo.resume_async(paused, {"reason": "no answer"})
    result = await flujo.resume_async(paused, {"approved": True, "reason": "counted"})
    assert result.output == Decision(approved=True, reason="counted")


async def test_24_several_turns_with_a_person_are_a_loop() -> None:
    @step(pauses=True)
    async def turn(said: str) -> str:
        raise PauseForHumanInput(f"{said}? (say 'done' to end)", schema=str)

    flujo = Flujo(Loop(turn, until=lambda said: said == "done"))
    result = await flujo.run_async("hello")
    for answer in ("more", "still more", "done"):
        assert result.status == "paused"
        assert len(result.pauses) == 1
        result = await flujo.resume_async(result, answer)
    assert result.output == "done"
    assert [r.path for r in result.step_history] == ["loop#1/turn", "loop#2/turn", "loop#3/turn"]


async def test_25_the_tally_goes_on_after_a_pause() -> None:
    @step(pauses=True)
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    flujo = Flujo(costs("before", "0.1") >> ask >> costs("after", "0.2"))
    paused = await flujo.run_async(1)
    result = await flujo.resume_async(paused, 2)
    assert result.total_cost_usd == Decimal("0.3")
    assert result.usage.requests == 2
    assert paused.total_cost_usd == Decimal("0.1")  # a result that was handed out is not changed by a resume


@pytest.mark.parametrize("pipeline", [plus, fails], ids=["completed", "failed"])
async def test_26_a_run_that_is_not_paused_takes_no_decision(pipeline: Step) -> None:
    flujo = Flujo(pipeline)
    ended = await flujo.run_async(1)
    with pytest.raises(ResumeError, match="cannot be resumed"):
        await flujo.resume_async(ended, 5)


async def test_27_a_paused_result_is_not_pickled_its_snapshot_goes_elsewhere() -> None:
    """Differs: the old package resumed a pickled result; whoever can write one can run code where it is read."""
    flujo = Flujo(Map(decide))
    paused = await flujo.run_async(["a"])
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(FlujoError, match=r"result\.snapshot"):
            pickle.dumps(paused, protocol)
    for copied in (copy.copy(paused), copy.deepcopy(paused)):
        assert (copied.pauses, copied.usage, copied.run_id) == (paused.pauses, paused.usage, paused.run_id)
    kept = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    with pytest.raises(ResumeError, match="cannot be resumed"):
        await flujo.resume_async(pickle.dumps(kept), Decision(approved=True))  # type: ignore[arg-type]
    assert (await flujo.resume_async(kept, Decision(approved=True))).status == "completed"


async def test_28_30_pauses_of_a_map_are_one_per_item_and_those_in_a_row_come_one_by_one() -> None:
    each = Flujo(Map(decide))
    paused = await each.run_async(["a", "b", "c"])
    assert [pause.step_path for pause in paused.pauses] == ["map[0]/decide", "map[1]/decide", "map[2]/decide"]
    for pause in paused.pauses:
        paused = await each.resume_async(paused, Decision(approved=True, reason=pause.question[-1]), pause=pause)
    output: Any = paused.output
    assert [decision.reason for decision in output] == ["a", "b", "c"]
    assert paused.pauses == ()


async def test_29_a_pause_may_be_the_last_thing_of_a_pipeline() -> None:
    @step(inline=True)
    def shout(text: str) -> str:
        return text.upper()

    flujo = Flujo(shout >> decide)
    result = await flujo.resume_async(await flujo.run_async("x"), {"approved": False})
    assert result.output == Decision(approved=False)


async def test_29_a_paused_run_goes_on_by_its_id_after_its_process_went_away() -> None:
    store = MemoryStore()
    await Flujo(decide, store=store).run_async("x", run_id="r1")
    result = await Flujo(decide, store=store.reopened()).resume_async("r1", {"approved": True})
    assert result.output == Decision(approved=True)


# --- fallbacks, loops, branches ---------------------------------------------------------------------------------------


async def test_31_a_fallback_is_used_on_failure_only_and_all_that_was_done_counts() -> None:
    good = await Flujo(Fallback(costs("a", "0.1"), costs("b", "0.2"))).run_async(1)
    assert [r.name for r in good.step_history] == ["a"]
    used = await Flujo(Fallback(costs("a", "0.1", True, 0.02), costs("b", "0.2", wait_s=0.02))).run_async(1)
    assert (used.output, used.total_cost_usd) == (1, Decimal("0.3"))
    assert used.duration_s >= 0.035
    none = await Flujo(Fallback(costs("a", "0.1", True), costs("b", "0.2", True))).run_async(1)
    assert (none.status, none.total_cost_usd) == ("failed", Decimal("0.3"))
    assert "b is down" in str(none.error)


async def test_32_a_fallback_cannot_go_in_circles() -> None:
    """Differs: no InfiniteFallbackError; alternatives are a list that is walked once, so there is no circle to find."""
    calls: list[str] = []

    async def down(value: int, ctx: RunContext) -> int:
        calls.append(ctx.step_path)
        raise OSError("down")

    a, b = Step(down, name="a"), Step(down, name="b")
    result = await Flujo(Fallback(a, b, Fallback(Step(a, name="a2"), b, name="inner"))).run_async(1)
    assert result.status == "failed"
    assert calls == ["fallback/a", "fallback/b", "fallback/inner/a2", "fallback/inner/b"]


async def test_33_feedback_of_validators_is_bounded_by_the_retry_policy() -> None:
    """Differs: a validator cannot redirect to another agent, so there is no redirect loop; attempts are counted."""
    told: list[tuple[str, ...]] = []

    async def writes(value: int, ctx: RunContext) -> str:
        told.append(tuple(ctx.feedback))
        return "draft"

    never = Step(writes, validators=(lambda text: "too short",), retry=RetryPolicy(max_attempts=3, backoff_s=0))
    result = await Flujo(never).run_async(1)
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "ValidationFailed"
    assert len(told) == 3
    assert [feedback[-1:] for feedback in told] == [(), ("too short",), ("too short",)]


def raises(*_: object) -> bool:
    raise KeyError("no such thing")


async def test_34_a_loop_at_its_limit_fails_with_the_last_output_kept() -> None:
    result = await Flujo(Loop(plus, until=lambda value: False, max_iterations=3)).run_async(0)
    assert result.status == "failed"
    assert isinstance(result.error, LoopLimit)
    assert result.error.partial == 3
    assert [r.path for r in result.step_history] == ["loop#1/plus", "loop#2/plus", "loop#3/plus", "loop"]
    returned = Loop(plus, until=lambda value: False, max_iterations=3, on_limit="return")
    assert (await Flujo(returned).run_async(0)).output == 3


async def test_34_an_error_of_until_or_of_the_body_fails_the_loop() -> None:
    """Differs: a body that failed never leaves the loop "by condition"; catch it with Fallback where that is meant."""
    broken = await Flujo(Loop(plus, until=raises)).run_async(0)
    assert broken.status == "failed"
    assert "KeyError" in str(broken.error)
    assert [r.output for r in broken.step_history if r.name == "plus"] == [1]
    failed = await Flujo(Loop(fails, until=lambda value: True)).run_async(0)
    assert failed.status == "failed"
    assert "loop#1/fails" in str(failed.error)
    caught = await Flujo(Loop(Fallback(fails, plus), until=lambda value: True)).run_async(0)
    assert caught.output == 1


@pytest.mark.parametrize(("value", "path"), [(1, "branch[odd]/odd"), (2, "branch[otherwise]/plus")])
async def test_35_a_branch_takes_its_case_or_otherwise_and_the_path_says_which(value: int, path: str) -> None:
    odd = Step(lambda value: -value, name="odd", inline=True)
    branch = Branch(on=lambda value: "odd" if value % 2 else "even", cases={"odd": odd}, otherwise=plus)
    result = await Flujo(branch).run_async(value)
    assert [r.path for r in result.step_history] == [path]
    assert result.output == (-1 if value == 1 else 3)


async def test_35_no_case_and_a_broken_condition_are_failures() -> None:
    none = await Flujo(Branch(on=lambda value: "c", cases={"a": plus, "b": fails})).run_async(1)
    assert none.status == "failed"
    assert isinstance(none.error, StepFailed)
    assert none.error.error_type == "NoCase"
    broken = await Flujo(Branch(on=raises, cases={"a": plus}, otherwise=plus)).run_async(1)
    assert broken.status == "failed"
    assert "KeyError" in str(broken.error)
    assert "plus" not in [r.name for r in broken.step_history]
