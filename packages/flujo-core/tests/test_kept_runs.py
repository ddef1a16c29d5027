"""Runs that a store keeps: what it holds is what the run knows, and a run goes on from it, whatever went away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from flujo.core import (
    AlreadyResumed,
    AmbiguousPause,
    ConfigurationError,
    EntryData,
    Flujo,
    Hold,
    MemoryStore,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    Policy,
    PostStepExecution,
    Receipt,
    Resource,
    Resources,
    ResumeConflict,
    ResumeError,
    RunContext,
    RunExists,
    Snapshot,
    Step,
    StillRunning,
    TokenFacts,
    UsageLimits,
    step,
)

pytestmark = pytest.mark.anyio


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


@step
async def double(value: int) -> int:
    return 2 * value


# --- a claim that is never given back ---------------------------------------------------------------------------------


async def test_a_resume_that_could_not_begin_can_be_tried_again_with_a_store() -> None:
    down = [True]

    def connect() -> dict[str, int]:
        if down[0]:
            raise OSError("the database is down")
        return {"one": 1}

    class Use(Resources):
        db: dict[str, int] = Resource(connect)

    @step
    async def use(value: int, db: dict[str, int]) -> int:
        return value + db["one"]

    down[0] = False
    flujo = Flujo(ask >> use, resources=Use(), store=MemoryStore())
    assert (await flujo.run_async(1, run_id="r")).status == "paused"
    down[0] = True
    assert (await flujo.resume_async("r", 5)).status == "failed"
    down[0] = False
    assert (await flujo.resume_async("r", 5)).unwrap() == 6


async def test_a_process_that_dies_between_the_claim_and_the_first_entry_does_not_lose_the_run() -> None:
    store = MemoryStore()
    assert (await Flujo(ask, store=store).run_async(1, run_id="r")).status == "paused"
    after_claim: list[MemoryStore] = []

    class Dies(MemoryStore):
        async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
            hold = await super().claim(position, stood, receipt, rows)
            after_claim.append(self.reopened())  # what is on disk when the process is gone
            return hold

    dies = Dies()
    dies._runs = store._runs
    await Flujo(ask, store=dies).resume_async("r", 5)
    with pytest.raises(ResumeConflict):  # the decision counts, though nobody went on with it
        await Flujo(ask, store=after_claim[0]).resume_async("r", 6)
    assert (await Flujo(ask, store=after_claim[0].reopened()).resume_async("r", 5)).unwrap() == 5
    assert (await Flujo(ask, store=after_claim[0].reopened()).resume_async("r")).unwrap() == 5
    [recovered] = await Flujo(ask, store=after_claim[0].reopened()).recover_async()
    assert recovered.unwrap() == 5


# --- the order of entries ---------------------------------------------------------------------------------------------


class SlowToReturn(MemoryStore):
    """Writes at once, and returns for some steps only when it is let go on; keeps what was there at a crash."""

    def __init__(self, held: str) -> None:
        super().__init__()
        self.held = held

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        await super().append(hold, rows)
        if any(row.path.endswith(self.held) for row in rows):
            await anyio.sleep(0.05)


async def test_a_run_goes_on_after_a_crash_whatever_the_order_in_which_writes_return() -> None:
    store = SlowToReturn("first_a")
    disks: list[MemoryStore] = []

    @step
    async def first_a(value: int) -> int:
        return value

    @step
    async def first_b(value: int) -> int:
        return value

    @step
    async def in_a(value: int) -> int:
        return value + 100

    @step
    async def in_b(value: int) -> int:
        return value + 200

    @step
    async def last(value: dict[str, int]) -> int:
        disks.append(store.reopened())  # what another process finds when this one dies here
        return value["a"] * 1000 + value["b"]

    def pipeline() -> Pipeline:
        a = Pipeline(first_a >> Pipeline(in_a, name="inner_a"), name="a")
        b = Pipeline(first_b >> Pipeline(in_b, name="inner_b"), name="b")
        return Pipeline(Parallel(a, b) >> last, name="whole")

    whole = await Flujo(pipeline(), store=store).run_async(1, run_id="r")
    assert whole.unwrap() == 101 * 1000 + 201
    again = await Flujo(pipeline(), store=disks[0]).resume_async("r", retry=True)
    assert again.unwrap() == 101 * 1000 + 201


# --- entries that only the store has ----------------------------------------------------------------------------------


async def test_a_run_cancelled_while_an_observer_hears_of_a_step_can_be_resumed() -> None:
    told = anyio.Event()

    async def slow(event: PostStepExecution) -> None:
        told.set()
        await anyio.sleep_forever()

    flujo = Flujo(double >> Step(double, name="again"), hooks=[slow], store=MemoryStore())
    handle = flujo.start(1, run_id="r")
    await told.wait()
    handle.cancel()
    aborted = await handle.wait()
    quiet = Flujo(double >> Step(double, name="again"), store=flujo.store)
    assert (await quiet.resume_async("r", retry=True)).unwrap() == 4
    assert [record.name for record in aborted.step_history] == ["double"]  # it ended, and was kept


async def test_a_run_whose_task_is_cancelled_while_the_store_writes_can_be_resumed() -> None:
    writing = asyncio.Event()

    class Slow(MemoryStore):
        async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
            await super().append(hold, rows)
            if not writing.is_set():
                writing.set()
                await asyncio.sleep(0.05)

    store = Slow()
    flujo = Flujo(double >> Step(double, name="again"), store=store)
    task = asyncio.ensure_future(flujo.run_async(1, run_id="r"))
    await writing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await flujo.resume_async("r", retry=True)).unwrap() == 4


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- a store that fails or hangs --------------------------------------------------------------------------------------


async def test_what_was_done_is_in_the_result_where_the_store_cannot_write() -> None:
    class Full(MemoryStore):
        async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
            raise OSError("disk full")

    result = await Flujo(double, store=Full()).run_async(1)  # "everything else is in the result"
    assert result.status == "aborted"
    assert [record.name for record in result.step_history] == ["double"]


async def test_a_store_that_fails_while_a_run_is_cancelled_does_not_swallow_the_cancel() -> None:
    started = anyio.Event()

    @step
    async def wait(value: int) -> int:
        started.set()
        await anyio.sleep_forever()
        return value

    class Gone(MemoryStore):
        async def save(self, hold: Hold, snapshot: Snapshot) -> None:
            raise OSError("gone")

    task = asyncio.ensure_future(Flujo(wait, store=Gone()).run_async(1))
    await started.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
    assert task.cancelled()


async def test_a_store_that_hangs_does_not_make_a_run_that_is_cancelled_immortal() -> None:
    writing, release = anyio.Event(), anyio.Event()

    class Hangs(MemoryStore):
        async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
            writing.set()
            await release.wait()

    flujo = Flujo(double, store=Hangs(), policy=Policy(write_timeout_s=0.1))
    handle = flujo.start(1, deadline_s=0.05)
    await writing.wait()
    handle.cancel()
    with anyio.move_on_after(2):
        await handle.done.wait()
    ended = handle.done.is_set()
    release.set()
    await handle.done.wait()
    assert ended


# --- a run that still goes on -----------------------------------------------------------------------------------------


async def test_a_run_that_still_goes_on_cannot_be_resumed_beside_it_in_one_process() -> None:
    store, calls, go = MemoryStore(), [], anyio.Event()

    @step
    async def work(value: int) -> int:
        calls.append(value)
        if len(calls) == 1:
            await go.wait()
        return value

    handle = Flujo(work, store=store).start(1, run_id="r")
    while not calls:
        await anyio.lowlevel.checkpoint()
    other = Flujo(work, store=store)
    try:
        with pytest.raises(StillRunning, match="goes on at this moment"):
            await other.resume_async("r", retry=True)
    finally:
        go.set()
        await handle.wait()
    assert calls == [1]


# --- ends that were not kept ------------------------------------------------------------------------------------------


class CannotSave(MemoryStore):
    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        raise OSError("disk full")


async def test_a_run_whose_end_could_not_be_kept_gives_its_output_when_it_is_gone_on_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = CannotSave()
    assert (await Flujo(double, store=store).run_async(2, run_id="r")).unwrap() == 4
    assert "run 'r': where it stands could not be kept: OSError: disk full" in caplog.text
    again = MemoryStore()
    again._runs = store._runs
    assert (await Flujo(double, store=again).resume_async("r")).unwrap() == 4
    with pytest.raises(ResumeError, match="it has completed"):
        await Flujo(double, store=again).resume_async("r")


async def test_a_process_gone_between_the_last_entry_and_the_end_loses_nothing() -> None:
    disks: list[MemoryStore] = []

    class Dies(MemoryStore):
        async def save(self, hold: Hold, snapshot: Snapshot) -> None:
            disks.append(self.reopened())
            await super().save(hold, snapshot)

    assert (await Flujo(double >> ask, store=Dies()).run_async(2, run_id="r")).status == "paused"
    flujo = Flujo(double >> ask, store=disks[0])
    [paused] = await flujo.recover_async()
    assert paused.status == "paused"
    assert (await flujo.resume_async("r", 5)).unwrap() == 5
    assert [record.path for record in (await flujo.replay_async("r")).result.step_history] == ["double", "ask"]  # type: ignore[union-attr]


async def test_a_run_that_another_process_took_over_ends_where_it_was() -> None:
    store, calls, go = MemoryStore(), [], anyio.Event()

    @step
    async def work(value: int) -> int:
        calls.append(value)
        if len(calls) == 1:
            await go.wait()
        return value

    handle = Flujo(work >> Step(work, name="next"), store=store).start(1, run_id="r")
    while not calls:
        await anyio.lowlevel.checkpoint()
    store._runs["r"].is_held = False  # its lease was over: the machine slept
    other = await Flujo(work >> Step(work, name="next"), store=store).resume_async("r")
    assert other.unwrap() == 1
    go.set()
    first = await handle.wait()
    assert first.status == "aborted"
    assert "another process took it over" in str(first.error)
    assert len(calls) == 3
    assert (await store.load("r")).snapshot.status == "completed"


async def test_a_run_that_cannot_be_created_does_not_begin() -> None:
    class Down(MemoryStore):
        async def create(self, snapshot: Snapshot) -> Hold:
            raise OSError("the database is down")

    calls: list[int] = []

    @step
    async def work(value: int) -> int:
        calls.append(value)
        return value

    with pytest.raises(OSError, match="down"):
        await Flujo(work, store=Down()).run_async(1)
    assert not calls


async def test_recovering_needs_a_store() -> None:
    with pytest.raises(ConfigurationError, match="store"):
        await Flujo(double).recover_async()


async def test_the_result_of_a_resume_that_came_to_nothing_can_be_gone_on_with() -> None:
    is_down = [False]

    def connect() -> dict[str, int]:
        if is_down[0]:
            raise OSError("the database is down")
        return {"one": 1}

    class Use(Resources):
        db: dict[str, int] = Resource(connect)

    @step(pauses=True)
    async def needs(value: int, db: dict[str, int]) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    flujo = Flujo(needs, resources=Use(), store=MemoryStore())
    paused = await flujo.run_async(1, run_id="r")
    is_down[0] = True
    failed = await flujo.resume_async(paused, 5)
    assert failed.status == "failed"
    is_down[0] = False
    assert (await flujo.resume_async(failed, 5)).unwrap() == 5


async def test_a_run_that_failed_since_it_was_loaded_is_not_tried_again_by_who_recovers() -> None:
    begun, go, ended = anyio.Event(), anyio.Event(), anyio.Event()
    calls: list[int] = []

    class Slow(MemoryStore):
        async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
            go.set()
            await ended.wait()
            return await super().claim(position, stood, receipt, rows)

    @step
    async def fails(value: int) -> int:
        calls.append(value)
        begun.set()
        await go.wait()
        raise OSError("the bank is closed")

    store = Slow()
    handle = Flujo(fails, store=store).start(1, run_id="r")
    await begun.wait()
    async with anyio.create_task_group() as group:

        async def end() -> None:
            assert (await handle.wait()).status == "failed"
            ended.set()

        group.start_soon(end)
        with pytest.raises(ResumeError, match="it went on from there before"):
            await Flujo(fails, store=store).resume_async("r", retry=True)
    assert calls == [1]
    assert (await store.load("r")).snapshot.status == "failed"


async def test_a_run_that_is_being_claimed_cannot_be_started_anew() -> None:
    claiming, go = anyio.Event(), anyio.Event()

    class Slow(MemoryStore):
        async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
            claiming.set()
            await go.wait()
            return await super().claim(position, stood, receipt, rows)

    flujo = Flujo(ask, store=Slow())
    await flujo.run_async(1, run_id="r")
    task = asyncio.ensure_future(flujo.resume_async("r", 5))
    await claiming.wait()
    with pytest.raises(RunExists):
        await flujo.run_async(1, run_id="r")
    go.set()
    assert (await task).unwrap() == 5


async def test_what_a_plugin_counts_is_whole_and_can_be_kept() -> None:
    def counts(event: PostStepExecution) -> None:
        event.run.count("words", "long", 1.5)  # type: ignore[arg-type]

    store = MemoryStore()
    result = await Flujo(double, hooks=[counts], store=store).run_async(1, run_id="r")
    assert result.counts == {"words": {"long": 1}}
    assert (await store.load("r")).snapshot.status == "completed"


# --- tokens -----------------------------------------------------------------------------------------------------------


class PlainTokens:
    """Tokens that anybody could make."""

    def __init__(self) -> None:
        self.made: dict[str, TokenFacts] = {}

    def sign(self, facts: TokenFacts) -> str:
        self.made[f"token-{facts.pause_id}"] = facts
        return f"token-{facts.pause_id}"

    def open(self, token: str) -> TokenFacts | None:
        return self.made.get(token)


async def test_a_token_answers_its_question_once() -> None:
    flujo = Flujo(Parallel(ask, Step(ask, name="too")), store=MemoryStore(PlainTokens()))
    paused = await flujo.run_async(1)
    tokens = [pause.token for pause in paused.pauses]
    assert tokens == ["token-parallel/ask", "token-parallel/too"]
    half = await flujo.resume_async("token-parallel/too", 6)
    assert [pause.id for pause in half.pauses] == ["parallel/ask"]
    with pytest.raises(AlreadyResumed) as same:
        await flujo.resume_async("token-parallel/too", 6)
    with pytest.raises(ResumeConflict) as other:
        await flujo.resume_async("token-parallel/too", 7)
    assert same.value.receipt == other.value.receipt
    assert (await flujo.resume_async("token-parallel/ask", 5)).unwrap() == {"ask": 5, "too": 6}


async def test_a_token_is_good_for_what_was_shown_only() -> None:
    signer = PlainTokens()
    flujo = Flujo(ask, store=MemoryStore(signer))
    await flujo.run_async(1)
    signer.made["token-ask"] = replace(signer.made["token-ask"], shown_digest="of something else")
    with pytest.raises(ResumeError, match="what was shown"):
        await flujo.resume_async("token-ask", 6)


async def test_a_pause_that_is_given_is_good_for_what_it_shows_only() -> None:
    flujo = Flujo(ask, store=MemoryStore())
    (pause,) = (await flujo.run_async(1, run_id="r")).pauses
    with pytest.raises(ResumeError, match="what was shown is not what it asks now"):
        await flujo.resume_async("r", 6, pause=replace(pause, shown_digest="of something else"))
    assert (await flujo.resume_async("r", 6, pause=pause)).status == "completed"


# --- older results ----------------------------------------------------------------------------------------------------


async def number(value: int) -> int:
    raise PauseForHumanInput(f"And after {value}?", schema=int)


@pytest.mark.parametrize("answer", [5, 1000])
async def test_an_answer_to_an_older_result_never_lands_in_a_question_that_came_since(answer: int) -> None:
    store = MemoryStore()
    paused = await Flujo(ask >> Step(number), store=store).run_async(1)
    flujo = Flujo(ask >> Step(number), store=store)  # another process, as far as this goes
    await flujo.resume_async(paused.run_id, 5)
    refused = AlreadyResumed if answer == 5 else ResumeConflict
    with pytest.raises(refused) as told:  # of a network that tries twice, or of who was slower
        await flujo.resume_async(paused, answer)
    assert isinstance(told.value, (AlreadyResumed, ResumeConflict))
    assert told.value.receipt == await store.receipt(paused.run_id, "ask")
    with pytest.raises(ResumeConflict):
        await flujo.resume_async(paused)  # no answer is no answer to another question either
    assert (await store.load(paused.run_id)).snapshot.pauses[0].id == "number"
    assert (await flujo.resume_async(paused.run_id, 6)).output == 6


async def test_an_older_result_that_shows_several_questions_or_none_answers_none() -> None:
    flujo = Flujo(Parallel(ask, Step(ask, name="too")), store=MemoryStore())
    paused = await flujo.run_async(1)
    half = await flujo.resume_async(paused, 5, pause=paused.pauses[0])
    with pytest.raises(AmbiguousPause, match=r"ask.*too"):
        await flujo.resume_async(paused, 6)
    assert (await flujo.resume_async(half, 6)).output == {"ask": 5, "too": 6}

    fails = True

    @step
    async def first(value: int) -> int:
        if fails:
            raise ValueError("not yet")
        return value

    flujo = Flujo(first >> ask, store=MemoryStore())
    failed = await flujo.run_async(1)
    fails = False
    assert (await flujo.resume_async(failed, retry=True)).status == "paused"
    with pytest.raises(ResumeError, match="went on from there"):
        await flujo.resume_async(failed, 5)


async def test_a_run_that_was_ended_takes_no_answer_any_more() -> None:
    @step
    async def sleeps(value: int) -> int:
        handle.cancel()
        await anyio.sleep_forever()
        return value

    flujo = Flujo(Parallel(ask, sleeps), store=MemoryStore(PlainTokens()))
    handle = flujo.start(1, run_id="r")
    stopped = await handle.wait()
    assert stopped.status == "aborted"
    for target in ("r", "token-parallel/ask", stopped):
        with pytest.raises(ResumeError, match="is aborted and asks nothing"):
            await flujo.resume_async(target, 5)
    snapshot = (await flujo.store.load("r")).snapshot if flujo.store is not None else None
    assert snapshot is not None
    assert snapshot.status == "aborted"


# --- limits after a crash ---------------------------------------------------------------------------------------------


async def test_what_a_sub_pipeline_spent_counts_under_its_own_limit_after_a_crash() -> None:
    store = MemoryStore()
    disks: list[MemoryStore] = []

    @step
    async def pay(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.8") as lease:
            lease.settle(cost_usd="0.8")
        return value

    @step
    async def between(value: int) -> int:
        if not disks:
            disks.append(store.reopened())
        return value

    def pipeline() -> Pipeline:
        inner = Pipeline(
            pay >> between >> Step(pay, name="pay_again"), limits=UsageLimits(total_cost_usd_limit=1), name="inner"
        )
        return Pipeline(inner, name="outer")

    assert (await Flujo(pipeline(), store=store).run_async(1, run_id="r")).status == "stopped"
    assert (await Flujo(pipeline(), store=disks[0]).resume_async("r", retry=True)).status == "stopped"


async def test_what_was_cancelled_with_a_failed_body_counts_under_the_limit_around_it_after_a_crash() -> None:
    store, paid, disks = MemoryStore(), anyio.Event(), []

    @step
    async def pay(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.8") as lease:
            lease.settle(cost_usd="0.8")
        if not paid.is_set():
            paid.set()
            await anyio.sleep_forever()
        return 1

    @step
    async def bad(value: int) -> int:
        await paid.wait()
        raise OSError("down")

    @step
    async def between(value: dict[str, object]) -> int:
        await anyio.sleep(0.05)  # what was cancelled is written beside what follows
        disks.append(store.reopened())
        return 1

    def pipeline() -> Pipeline:
        body = Pipeline(Parallel(pay, bad), name="body")
        tried = Parallel(body, double, on_failure="collect")
        inner = tried >> between >> Step(pay, name="pay_again")
        return Pipeline(Pipeline(inner, limits=UsageLimits(total_cost_usd_limit=1), name="inner"), name="outer")

    assert (await Flujo(pipeline(), store=store).run_async(1, run_id="r")).status == "stopped"
    assert (await Flujo(pipeline(), store=disks[0]).resume_async("r", retry=True)).status == "stopped"


# --- at most once -----------------------------------------------------------------------------------------------------


async def test_a_step_that_may_run_at_most_once_is_not_run_again_after_a_crash_in_it() -> None:
    store, sent = MemoryStore(), []
    disks: list[MemoryStore] = []

    @step(effect="at_most_once")
    async def send(value: int) -> int:
        sent.append(value)
        disks.append(store.reopened())
        return value

    await Flujo(send, store=store).run_async(1, run_id="r")
    parked = await Flujo(send, store=disks[0]).resume_async("r", retry=True)
    assert parked.status == "paused"
    assert "may happen at most once" in parked.pauses[0].question
    assert sent == [1]
    done = await Flujo(send, store=disks[0]).resume_async("r", {"happened": True, "output": 7})
    assert done.unwrap() == 7
    assert sent == [1]
