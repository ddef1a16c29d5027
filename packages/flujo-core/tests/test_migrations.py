"""Runs that wait while their pipeline changes: refused with what changed, or brought over by a registered migration."""

from __future__ import annotations

from contextlib import suppress

import pytest
from pydantic import BaseModel

from flujo.core import (
    ConfigurationError,
    Flujo,
    MemoryStore,
    PauseForHumanInput,
    PipelineResult,
    RunContext,
    Snapshot,
    SnapshotError,
    Step,
    migrate,
    migrations,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_migrations", {})


async def double(value: int) -> int:
    return 2 * value


async def ask(value: int) -> int:
    raise PauseForHumanInput(f"How many of {value}?", schema=int)


async def tell(value: int) -> str:
    return f"{value} it is"


def old(store: MemoryStore | None = None) -> Flujo:
    return Flujo(Step(double) >> Step(ask) >> Step(tell), store=store)


def renamed(store: MemoryStore | None = None) -> Flujo:
    return Flujo(Step(double) >> Step(ask, name="question") >> Step(tell), store=store)


def longer(store: MemoryStore | None = None) -> Flujo:
    """A step more before the one that asks: what stands behind it stands a place further."""
    return Flujo(Step(double) >> Step(double, name="again") >> Step(ask) >> Step(tell), store=store)


def same(snapshot: Snapshot) -> Snapshot:
    return snapshot


def named(snapshot: Snapshot) -> Snapshot:
    """From `old` to `renamed`."""
    (pause,) = snapshot.checkpoint.pauses
    pause = pause.model_copy(update={"path": "question"})
    return snapshot.model_copy(update={"checkpoint": snapshot.checkpoint.model_copy(update={"pauses": [pause]})})


def moved(snapshot: Snapshot) -> Snapshot:
    """From `old` to `longer`: the new step gave what the first one gave."""
    stand = snapshot.checkpoint
    (frame,) = stand.frames
    at = {place + (place > 0): value for place, value in frame.outputs.items()}
    frame = frame.model_copy(update={"outputs": {**at, 1: frame.outputs[0]}})
    pauses = [one.model_copy(update={"node": one.node + 1}) for one in stand.pauses]
    rows = [row.model_copy(update={"node": row.node + (row.node > 0)}) for row in snapshot.journal]
    stand = stand.model_copy(update={"frames": [frame], "pauses": pauses})
    return snapshot.model_copy(update={"checkpoint": stand, "journal": rows})


def unnamed(snapshot: Snapshot) -> Snapshot:
    (pause,) = snapshot.checkpoint.pauses
    pause = pause.model_copy(update={"path": "ask"})
    return snapshot.model_copy(update={"checkpoint": snapshot.checkpoint.model_copy(update={"pauses": [pause]})})


def print_of(flujo: Flujo) -> str:
    return flujo.plan.fingerprint


async def paused() -> Snapshot:
    snapshot = (await old().run_async(2)).snapshot()
    return Snapshot.model_validate_json(snapshot.model_dump_json())


async def test_a_changed_pipeline_is_refused_with_what_it_lacks_and_the_way_round() -> None:
    snapshot = await paused()
    with pytest.raises(SnapshotError) as refused:
        await renamed().resume_async(snapshot, 3)
    assert "it has no 'ask'" in str(refused.value)
    assert f"migrate({snapshot.fingerprint!r}" in str(refused.value)


async def test_a_renamed_step_takes_its_answer() -> None:
    migrate(print_of(old()), print_of(renamed()), named)
    done = await renamed().resume_async(await paused(), 3)
    assert done.output == "3 it is"
    assert [(one.path, one.status, one.output) for one in done.step_history] == [
        ("double", "completed", 4),
        ("ask", "paused", None),  # as it was written then
        ("question", "completed", 3),
        ("tell", "completed", "3 it is"),
    ]


async def test_a_result_of_the_old_pipeline_goes_on_in_the_new_one() -> None:
    migrate(print_of(old()), print_of(renamed()), named)
    assert (await renamed().resume_async(await old().run_async(2), 3)).output == "3 it is"


async def test_a_step_that_was_put_in_moves_what_stands_behind_it() -> None:
    migrate(print_of(old()), print_of(longer()), moved)
    done = await longer().resume_async(await paused(), 3)
    assert (done.output, done.status) == ("3 it is", "completed")


async def test_without_moving_it_a_run_is_refused_and_stays_as_it_was() -> None:
    migrate(print_of(old()), print_of(longer()), same)
    snapshot = await paused()
    with pytest.raises(SnapshotError, match="what 'ask' asked or was told stands in 'again'"):
        await longer().resume_async(snapshot, 3)
    assert (await old().resume_async(snapshot, 3)).output == "3 it is"


async def test_migrations_follow_each_other_by_the_shortest_way() -> None:
    ways: list[str] = []

    def way(name: str, fn: migrations.Migration) -> migrations.Migration:
        return lambda snapshot: (ways.append(name), fn(snapshot))[1]

    a, b, c = print_of(old()), print_of(renamed()), print_of(longer())
    migrate(a, b, way("a-b", named))
    migrate(b, a, way("b-a", same))  # a way back is no trap
    migrate(b, c, way("b-c", lambda one: moved(unnamed(one))))
    snapshot = await paused()
    assert (await longer().resume_async(snapshot, 3)).status == "completed"
    assert ways == ["a-b", "b-c"]
    migrate(a, c, way("a-c", moved))
    other = await paused()
    assert (await longer().resume_async(other, 3)).status == "completed"
    assert ways == ["a-b", "b-c", "a-c"]


async def test_a_migration_puts_no_answer_where_nobody_gave_it() -> None:
    """As with open questions: what was told to another step is refused, whoever forgot to move it."""
    done: list[str] = []

    async def refund(value: int, ctx: RunContext) -> int:
        if await ctx.ask("Approve?", bool):
            raise RuntimeError("the bank does not answer")
        return value

    async def delete_account(value: int, ctx: RunContext) -> int:
        if await ctx.ask("Approve?", bool):
            done.append("deleted")
        return value

    store = MemoryStore()
    before, after = Flujo(Step(refund), store=store), Flujo(Step(delete_account), store=store)
    await before.run_async(1, run_id="r")
    assert (await before.resume_async("r", True)).status == "failed"
    migrate(before.plan.fingerprint, after.plan.fingerprint, lambda snapshot: snapshot)
    with suppress(SnapshotError):
        await after.resume_async("r", retry=True)
    assert not done


async def test_a_run_that_was_told_something_after_where_it_stands_is_not_migrated() -> None:
    """Which step that was for only the pipeline knows that it was made with."""
    store = MemoryStore()
    elsewhere = store

    async def asks(value: int, ctx: RunContext) -> int:
        nonlocal elsewhere
        answer = await ctx.ask("How many?", int)
        elsewhere = store.reopened()
        return answer

    first, then = Flujo(Step(asks), store=store), Flujo(Step(asks, name="other"))
    await first.run_async(1, run_id="r")
    await first.resume_async("r", 3)
    migrate(print_of(first), print_of(then), same)
    with pytest.raises(SnapshotError, match="recover it with the pipeline that it was made with"):
        await Flujo(Step(asks, name="other"), store=elsewhere).resume_async("r", retry=True)


class Cut(RuntimeError):
    pass


def raises(_: Snapshot) -> Snapshot:
    raise Cut("no such thing")


def another(snapshot: Snapshot) -> Snapshot:
    return snapshot.model_copy(update={"run_id": "other"})


def invalid(snapshot: Snapshot) -> Snapshot:
    return snapshot.model_copy(update={"checkpoint": snapshot.checkpoint.model_copy(update={"next_frame": "?"})})


def nothing(_: Snapshot) -> Snapshot:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(("fn", "why"), [(raises, "no such"), (another, "another run"), (invalid, ""), (nothing, "")])
async def test_a_migration_that_fails_refuses_the_run(fn: migrations.Migration, why: str) -> None:
    migrate(print_of(old()), print_of(renamed()), fn)
    snapshot = await paused()
    with pytest.raises(SnapshotError, match=f"migration of run '{snapshot.run_id}'.*failed") as refused:
        await renamed().resume_async(snapshot, 3)
    assert why in str(refused.value)
    migrate(print_of(old()), print_of(renamed()), named)  # mended: the run was not used up
    assert (await renamed().resume_async(snapshot, 3)).output == "3 it is"


def test_both_ends_of_a_migration_differ() -> None:
    with pytest.raises(ConfigurationError, match="both fingerprints"):
        migrate("a", "a", same)


async def test_a_kept_run_goes_on_in_the_new_pipeline_and_is_of_it_from_then_on() -> None:
    migrate(print_of(old()), print_of(longer()), moved)
    store = MemoryStore()
    await old(store).run_async(2, run_id="r")
    done = await longer(store).resume_async("r", 3)
    assert done.output == "3 it is"
    assert (await store.load("r")).snapshot.fingerprint == print_of(longer())
    assert [one.path for one in done.step_history] == ["double", "ask", "tell"]


async def test_a_run_whose_process_went_away_is_recovered_by_the_new_pipeline() -> None:
    store = MemoryStore()
    elsewhere = store

    async def cut(value: int) -> str:
        nonlocal elsewhere
        elsewhere = store.reopened()  # what another process finds when this one is killed now
        return ""

    first = Flujo(Step(double) >> Step(double, name="twice") >> Step(cut, name="tell"), store=store)
    await first.run_async(2, run_id="r")
    now = Flujo(Step(double) >> Step(double, name="again") >> Step(tell), store=elsewhere)
    assert await now.recover_async() == []
    migrate(print_of(first), print_of(now), same)
    (done,) = await now.recover_async()
    assert (done.output, done.run_id) == ("8 it is", "r")


class Before(BaseModel):
    a: int


class After(BaseModel):
    a: int
    b: str


async def test_values_of_another_type_are_changed_by_the_migration_and_old_history_is_shown_as_it_was() -> None:
    async def make(value: int) -> Before:
        return Before(a=value)

    async def make_now(value: int) -> After:
        return After(a=value, b="")

    async def check(value: Before) -> Before:
        raise PauseForHumanInput("Right?", schema=Before)

    async def check_now(value: After) -> After:
        raise PauseForHumanInput("Right?", schema=After)

    first = Flujo(Step(make) >> Step(check))
    then = Flujo(Step(make_now, name="make") >> Step(check_now, name="check"))
    snapshot = (await first.run_async(1)).snapshot()
    with pytest.raises(SnapshotError):
        await then.resume_async(snapshot, After(a=1, b="x"))

    def fill(old: Snapshot) -> Snapshot:
        (frame,) = old.checkpoint.frames
        frame = frame.model_copy(update={"outputs": {0: {"a": 1, "b": "old"}}})
        asked = [one.model_copy(update={"wanted": After.model_json_schema()}) for one in old.checkpoint.pauses]
        stand = old.checkpoint.model_copy(update={"frames": [frame], "pauses": asked})
        return old.model_copy(update={"checkpoint": stand})

    migrate(print_of(first), print_of(then), fill)
    done: PipelineResult = await then.resume_async(snapshot, After(a=2, b="x"))
    assert done.output == After(a=2, b="x")
    assert done.step_history[0].output == {"a": 1}
