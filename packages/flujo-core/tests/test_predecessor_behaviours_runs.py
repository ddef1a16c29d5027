"""Behaviours 36 to 45 that the old `flujo` 0.x was tested for: hooks, resources, signatures, backends, runs.

The numbers are those of the list in our notes; 39 is in `test_predecessor_streams.py`, processes that are killed (42)
in flujo-hitl's `test_hitl_kill.py`, more of 44 in `test_bad_snapshots.py`. Where ours is meant to differ, the docstring
says how; docs/how-to/move-from-flujo-0.md has the same differences as a table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from flujo.core import (
    AbortPipeline,
    Branch,
    ConfigurationError,
    Event,
    Fallback,
    Flujo,
    LocalBackend,
    Loop,
    LoopRunning,
    Map,
    OnRunEnd,
    OnStepFailure,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PipelineError,
    PreStepExecution,
    Resource,
    Resources,
    RunContext,
    Snapshot,
    Step,
    StepExecutionRequest,
    StepFailed,
    StepOutcome,
    UsageLimitExceeded,
    UsageLimits,
    hookimpl,
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


# --- hooks, resources, signatures -------------------------------------------------------------------------------------


async def test_36_hooks_are_told_in_order_by_annotation_and_a_faulty_one_changes_nothing() -> None:
    told: list[str] = []

    def every(event: Event) -> None:
        told.append(f"{type(event).__name__} {getattr(event, 'step_path', '')}".strip())

    def only_failures(event: OnStepFailure) -> None:
        told.append(f"failed {event.error.__class__.__name__}")

    def faulty(event: PreStepExecution) -> None:
        raise ZeroDivisionError

    result = await Flujo(
        Fallback(fails, plus) >> Step(plus, name="end"), hooks=[every, only_failures, faulty]
    ).run_async(1)
    assert result.output == 3
    assert told == [
        "OnRunStart",
        "PreStepExecution fallback/fails",
        "OnStepFailure fallback/fails",
        "failed StepFailed",
        "PreStepExecution fallback/plus",
        "PostStepExecution fallback/plus",
        "PreStepExecution end",
        "PostStepExecution end",
        "OnRunEnd",
    ]


async def test_36_an_abort_at_the_end_of_a_run_does_not_hide_why_it_failed() -> None:
    def late(event: OnRunEnd) -> None:
        raise AbortPipeline("too late")

    failed = await Flujo(fails, hooks=[late]).run_async(1)
    assert (failed.status, type(failed.error)) == ("failed", StepFailed)
    stopped = await Flujo(costs("dear", "2"), hooks=[late], limits=UsageLimits(1)).run_async(1)
    assert (stopped.status, type(stopped.error)) == ("stopped", UsageLimitExceeded)


class Session:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.end = "open"


sessions: list[Session] = []


@asynccontextmanager
async def transaction() -> AsyncIterator[Session]:
    session = Session()
    sessions.append(session)
    try:
        yield session
    except BaseException:
        session.end = "rolled back"
        raise
    session.end = "committed"


class Owned(Resources):
    session: Session = Resource(transaction, scope="run")


class Attempted(Resources):
    session: Session = Resource(transaction, scope="step")


@step
async def uses(value: int, session: Session) -> int:
    session.seen.append("step")
    if value < 0:
        raise ValueError("no good")
    return value


@step(pauses=True)
async def asks(value: int, session: Session) -> int:
    raise PauseForHumanInput("How many?", schema=int)


class Watcher:
    @hookimpl
    def post_step_execution(self, payload: Any, session: Session) -> None:
        session.seen.append("plugin")


async def test_37_steps_and_plugins_share_the_resource_of_a_run() -> None:
    sessions.clear()
    result = await Flujo(uses >> Parallel(uses, plus), resources=Owned(), plugins=[Watcher()]).run_async(1)
    assert result.status == "completed"
    assert sorted(sessions[0].seen) == ["plugin", "plugin", "plugin", "step", "step"]
    assert len(sessions) == 1


@pytest.mark.parametrize("kind", [Owned, Attempted])
async def test_37_a_resource_learns_of_a_failure_and_closes_at_a_pause(kind: Callable[[], Resources]) -> None:
    """Differs: the engine commits and rolls back nothing; a resource is a context manager that sees the error. A pause
    is no error: it closes what lives for the run, and a resume opens that anew."""
    for value, end in ((1, "committed"), (-1, "rolled back")):
        sessions.clear()
        await Flujo(uses, resources=kind()).run_async(value)
        assert [session.end for session in sessions] == [end]
    sessions.clear()
    flujo = Flujo(asks >> uses, resources=kind())
    paused = await flujo.run_async(1)
    assert [session.end for session in sessions] == ["committed"]
    assert (await flujo.resume_async(paused, 5)).output == 5
    assert [session.end for session in sessions] == ["committed", "committed"]


async def test_38_any_callable_is_a_step_also_one_that_cannot_be_referenced_weakly() -> None:
    class Slotted:
        __slots__ = ()

        async def run(self, value: int | None, ctx: RunContext | None = None) -> int:
            return (value or 0) + (0 if ctx is None else ctx.attempt)

    assert (await Flujo(Loop(Step(Slotted(), name="slotted"), until=lambda value: value > 3)).run_async(1)).output == 4


# --- backends, runs ---------------------------------------------------------------------------------------------------


async def test_40_a_backend_gets_every_step_however_deep() -> None:
    class Counting:
        def __init__(self) -> None:
            self.paths: list[str] = []

        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            self.paths.append(request.ctx.step_path)
            return await LocalBackend().execute_step(request)

    backend = Counting()
    body = Branch(on=lambda value: value > 0, cases={True: Pipeline(plus, name="sub")}, otherwise=plus)
    result = await Flujo(Map(Loop(body, until=lambda value: value > 1)), backend=backend).run_async([0, 1])
    assert result.output == [2, 2]
    deep = "loop#{}/branch[{}]/"
    assert sorted(backend.paths) == [
        "map[0]/" + deep.format(1, "otherwise") + "plus",
        "map[0]/" + deep.format(2, "True") + "plus",
        "map[1]/" + deep.format(1, "True") + "plus",
    ]


async def test_41_runs_of_one_flujo_at_the_same_time_do_not_mix() -> None:
    flujo = Flujo(Loop(Map(costs("work", "0.1", wait_s=0.001)), until=None, max_iterations=2, on_limit="return"))
    results: dict[int, Any] = {}

    async def one(n: int) -> None:
        results[n] = await flujo.run_async([n] * n)

    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(one, n)
    assert {n: (r.output, r.total_cost_usd) for n, r in results.items()} == {
        n: ([n] * n, Decimal("0.2") * n) for n in range(20)
    }


async def test_42_a_failed_run_goes_on_where_it_failed_without_repeating_what_is_done() -> None:
    """Differs: the failed step counts as not done and runs again, where `retry=True` asks for it."""
    ran: list[str] = []
    working = [False]

    def logged(name: str) -> Step:
        async def work(value: int, ctx: RunContext) -> int:
            ran.append(name)
            if name == "second" and not working[0]:
                raise OSError("down")
            ctx.usage.record(cost_usd="0.1")
            return value + 1

        return Step(work, name=name)

    flujo = Flujo(logged("first") >> logged("second") >> logged("third"))
    failed = await flujo.run_async(0)
    assert failed.status == "failed"
    working[0] = True
    result = await flujo.resume_async(failed, retry=True)
    assert (result.output, result.total_cost_usd) == (3, Decimal("0.3"))
    assert ran == ["first", "second", "second", "third"]


async def test_43_run_inside_a_loop_is_an_error_that_says_what_to_do() -> None:
    """Differs: it is a LoopRunning, which is a RuntimeError; the old package raised a TypeError."""
    with pytest.raises(LoopRunning, match=r"await flujo\.run_async"):
        Flujo(Map(plus)).run([1])


async def test_44_a_state_that_was_kept_is_data_and_runs_nothing(tmp_path: Path) -> None:
    @step
    async def ask(text: str) -> str:
        raise PauseForHumanInput("Say so", schema=str)

    mark = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    texts = [code, f"!!python/object/apply:eval [{code!r}]", f"{{{{ {code} }}}}", f"c__builtin__\neval\n(V{code}\ntR."]
    flujo = Flujo(Map(ask))
    paused = await flujo.run_async(texts)
    while paused.pauses:
        kept = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
        paused = await flujo.resume_async(kept, texts[len(texts) - len(paused.pauses)], pause=paused.pauses[0])
    assert paused.output == texts
    assert (await flujo.replay_async(paused)).divergence is None
    assert not mark.exists()


async def test_45_a_map_keeps_the_order_runs_at_the_same_time_and_takes_nothing_at_all() -> None:
    began: list[int] = []
    all_began = anyio.Event()

    async def work(value: int) -> int:
        began.append(value)
        if len(began) == 4:
            all_began.set()
        await all_began.wait()  # for ever, if they ran one after the other
        return value

    with anyio.fail_after(60):
        assert (await Flujo(Map(Step(work))).run_async([4, 3, 2, 1])).output == [4, 3, 2, 1]
    assert (await Flujo(Map(Step(work))).run_async([])).output == []
    with pytest.raises((PipelineError, ConfigurationError)):
        Map(Step(work), limit=0)
