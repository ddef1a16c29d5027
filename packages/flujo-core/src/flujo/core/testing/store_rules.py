"""The rules for a `RunStore`."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import anyio
from pydantic import JsonValue

from flujo.core import (
    AlreadyResumed,
    Checkpoint,
    EntryData,
    Flujo,
    FlujoError,
    HoldLost,
    PauseForHumanInput,
    Receipt,
    ResumeConflict,
    ResumeError,
    RunExists,
    RunStore,
    Snapshot,
    Step,
    StillRunning,
    Usage,
    UsageLimits,
)
from flujo.core.foreign import attempt_async
from flujo.core.snapshot import LimitsData

from .verdict import Broken, demand

ROWS = 50
RACERS = 20

TEXT = "Größe 模型 \U0001f600 'quoted' \\ end"
PATH = "outer/" + "inner#2/" * 60 + "step"
VALUE: JsonValue = {"text": TEXT + "\0", "whole": 2**60 + 1, "part": 0.1, "none": None, "list": [True, [], {}, ""]}
USAGE = Usage(3, 5, 2, Decimal("0.000000000000000001"), unmeasured=1, unpriced=1, overshoot_usd=Decimal("0.10"))


@dataclass(slots=True)
class StoreTrial:
    """A store under test; it may hold other runs, so each rule makes ids of its own."""

    store: RunStore
    run_id: str = field(default_factory=lambda: f"trial-{secrets.token_hex(8)}")

    def run(self, run_id: str | None = None, status: str = "running", position: int = 0) -> Snapshot:
        """A run as a Flujo would keep it."""
        asks = {"frame": 0, "node": 0, "path": PATH}
        facts = {
            "input": VALUE, "context": {"note": TEXT}, "next_frame": 1, "frames": [{"id": 0}], "usage": USAGE,
            "left_s": 12.625, "position": position, "known": [{**asks, "told": [["key", VALUE]]}],
            "pauses": [{**asks, "number": 0, "question": TEXT, "payload": VALUE}] if status == "paused" else [],
        }  # fmt: skip
        names = {
            "pipeline": "trial", "fingerprint": "0" * 64, "status": status, "actor": TEXT, "tenant": "them",
            "tags": {TEXT: TEXT}, "counts": {"trial": {TEXT: 2}}, "trace": f"00-{'1' * 32}-{'2' * 16}-01",
            "limits": LimitsData.of(UsageLimits("0.50", 1000, 7)),
        }  # fmt: skip
        checkpoint = Checkpoint.model_validate(facts)
        return Snapshot.model_validate({"run_id": run_id or self.run_id, **names, "checkpoint": checkpoint})

    async def paused(self) -> None:
        """Have a run in it that stands still."""
        await self.store.save(await self.store.create(self.run()), self.run(status="paused"))

    def receipt(self, pause_id: str = "pause", digest: str = "digest", run_id: str | None = None) -> Receipt:
        """A decision, or, without a question, that a run goes on without one."""
        return Receipt(run_id or self.run_id, pause_id, digest if pause_id else "", datetime.now(UTC))

    def row(self, number: int) -> EntryData:
        """An entry of the journal that knows its place; every third has all that an entry can have."""
        plain = EntryData(frame=number, node=0, kind="success", path=f"step{number}", value={"number": number})
        if number % 3 == 0:
            return plain
        facts = {"value": VALUE, "started_at": 1764403200.123457, "duration_s": 1.5e-7, "path": PATH}
        if number % 3 == 1:
            return plain.model_copy(update={**facts, "usage": USAGE, "changes": {"note": VALUE}, "attempts": 3})
        marks = {"unwritten": "a Type", "cached": True, "cancelled": True, "is_void": True}
        return plain.model_copy(update={**facts, **marks, "kind": "aborted"})


async def _refused(work: Awaitable[object], kind: type[FlujoError], what: str) -> FlujoError:
    try:
        await work
    except kind as error:
        return error
    except Exception as error:  # a rule tells what the store raised instead, whatever it is
        raise Broken(f"{what} raised {error!r}, not {kind.__name__}") from error
    raise Broken(f"{what} was let through; {kind.__name__} was due")


async def created_runs_are_found(trial: StoreTrial) -> None:
    """What `create` was given is what `load` gives, with an empty journal."""
    await trial.store.create(trial.run())
    found = await trial.store.load(trial.run_id)
    demand(found.snapshot == trial.run(), f"load gave {found.snapshot!r}, not what create was given")
    demand(not found.late and not found.history(), "its journal is not empty")


async def a_known_id_is_refused(trial: StoreTrial) -> None:
    """A second `create` of one id raises RunExists, and leaves the first run as it is."""
    hold = await trial.store.create(trial.run())
    await trial.store.append(hold, [trial.row(0)])
    await _refused(trial.store.create(trial.run(status="failed")), RunExists, "a second create of one id")
    found = await trial.store.load(trial.run_id)
    demand(found.snapshot.status == "running" and len(found.late) == 1, "the refused create changed the run")


async def an_unknown_id_is_told(trial: StoreTrial) -> None:
    """An id that was never created raises ResumeError."""
    await _refused(trial.store.load(trial.run_id), ResumeError, "load of an unknown id")
    await _refused(trial.store.receipt(trial.run_id), ResumeError, "receipt of an unknown id")
    await _refused(trial.store.claim(0, "paused", trial.receipt(), []), ResumeError, "claim of an unknown id")


async def rows_keep_their_order(trial: StoreTrial) -> None:
    """The journal holds every row that was appended, whole, in order."""
    hold = await trial.store.create(trial.run())
    for number in range(0, ROWS, 2):
        await trial.store.append(hold, [trial.row(number), trial.row(number + 1)])
    found = list((await trial.store.load(trial.run_id)).late)
    demand(found == [trial.row(number) for number in range(ROWS)], f"{len(found)} rows came back, not {ROWS} in order")


async def rows_survive_being_written_at_once(trial: StoreTrial) -> None:
    """Rows that several tasks append at the same time are all kept."""
    hold = await trial.store.create(trial.run())
    async with anyio.create_task_group() as group:
        for number in range(ROWS):
            group.start_soon(trial.store.append, hold, [trial.row(number)])
    found = sorted(row.frame for row in (await trial.store.load(trial.run_id)).late)
    demand(found == list(range(ROWS)), f"of {ROWS} rows {len(found)} came back")


async def all_rows_or_none_are_written(trial: StoreTrial) -> None:
    """Where one of several rows cannot be written, none is; nor is the decision that a claim came with."""
    hold = await trial.store.create(trial.run())
    rows = [trial.row(0), EntryData.model_construct(frame=1, node=0, kind="success", path="odd", value=object())]
    _, error = await attempt_async(trial.store.append(hold, rows))
    there = 0 if error is not None else 2
    found = (await trial.store.load(trial.run_id)).length
    demand(found == there, f"of two rows, of which one cannot be written, {found} is there")
    if error is None:
        return  # it takes them as they are
    await trial.store.save(hold, trial.run(status="paused"))
    _, error = await attempt_async(trial.store.claim(0, "paused", trial.receipt(), rows))
    demand(error is not None, "a claim took a row that append could not write")
    demand(await trial.store.receipt(trial.run_id, "pause") is None, "a claim that failed left its decision")
    await trial.store.claim(0, "paused", trial.receipt(), [trial.row(0)])


async def saving_leaves_the_journal(trial: StoreTrial) -> None:
    """`save` changes where a run stands, never what it did; what came before is only read with the history."""
    hold = await trial.store.create(trial.run())
    await trial.store.append(hold, [trial.row(0)])
    await trial.store.save(hold, trial.run(status="paused", position=1))
    again = await trial.store.claim(1, "paused", trial.receipt(), [trial.row(1)])
    await trial.store.append(again, [trial.row(2)])
    found = await trial.store.load(trial.run_id)
    demand(list(found.late) == [trial.row(1), trial.row(2)], f"{len(found.late)} rows are late, not the last two")
    demand(found.history() == [trial.row(number) for number in range(3)], "save touched the journal")
    demand(found.length == 3, f"the length is {found.length}, not 3")


async def a_run_may_come_over_to_another_plan(trial: StoreTrial) -> None:
    """`save` keeps the plan of a run, too: a migration leads from one to another."""
    hold = await trial.store.create(trial.run())
    moved = trial.run(status="paused").model_copy(update={"fingerprint": "1" * 64, "pipeline": "moved"})
    await trial.store.save(hold, moved)
    found = await trial.store.load(trial.run_id)
    demand(found.snapshot == moved, f"load gave {found.snapshot!r}, of another plan than save was given")
    await trial.store.release(await trial.store.claim(0, "paused", trial.receipt(""), []))
    demand(trial.run_id in await trial.store.orphans("1" * 64), "it is no orphan of the plan that it came over to")


async def what_is_loaded_is_a_copy(trial: StoreTrial) -> None:
    """Changing what `load` gave changes nothing in the store."""
    hold = await trial.store.create(trial.run())
    await trial.store.append(hold, [trial.row(0)])
    (await trial.store.load(trial.run_id)).history().clear()
    demand(len((await trial.store.load(trial.run_id)).history()) == 1, "who loads a run can change it in the store")


async def runs_are_apart(trial: StoreTrial) -> None:
    """Nothing of one run shows in another."""
    other = trial.run_id.upper()
    hold, mine = await trial.store.create(trial.run(other)), await trial.store.create(trial.run())
    await trial.store.append(hold, [trial.row(7)])
    demand(not (await trial.store.load(trial.run_id)).late, "a row of another run is in the journal")
    for one, position in ((hold, 1), (mine, 0)):
        await trial.store.save(one, trial.run(one.run_id, "paused", position))
        await trial.store.claim(position, "paused", trial.receipt(run_id=one.run_id), [trial.row(8)])


async def one_claim_wins(trial: StoreTrial) -> None:
    """Of many claims of one place at the same time exactly one is let through."""
    await trial.paused()
    won: list[int] = []
    lost: list[ResumeError] = []

    async def race(number: int) -> None:
        try:
            await trial.store.claim(0, "paused", trial.receipt(digest=f"digest-{number}"), [trial.row(number)])
            won.append(number)
        except ResumeError as error:
            lost.append(error)

    async with anyio.create_task_group() as group:
        for number in range(RACERS):
            group.start_soon(race, number)
    demand(len(won) == 1, f"{len(won)} of {RACERS} claims of one place were let through")
    demand(
        all(isinstance(error, ResumeConflict) for error in lost), "a claim with another decision is a ResumeConflict"
    )
    found = list((await trial.store.load(trial.run_id)).late)
    demand(found == [trial.row(won[0])], f"the decision of the winner is not what is in the journal: {found!r}")


async def claims_are_told_apart(trial: StoreTrial) -> None:
    """The same decision again, another decision and another question get errors of their own, with the receipt."""
    await trial.paused()
    demand(await trial.store.receipt(trial.run_id, "pause") is None, "there is a receipt before there is a decision")
    decided = trial.receipt()
    hold = await trial.store.claim(0, "paused", decided, [trial.row(0)])
    await trial.store.save(hold, trial.run(status="paused", position=1))
    again = await _refused(trial.store.claim(1, "paused", trial.receipt(), []), AlreadyResumed, "the same claim again")
    for receipt in (getattr(again, "receipt", None), await trial.store.receipt(trial.run_id, "pause")):
        known = (getattr(receipt, "run_id", ""), getattr(receipt, "pause_id", ""), getattr(receipt, "digest", ""))
        demand(known == (trial.run_id, "pause", "digest"), f"the receipt is {receipt!r}")
        when = getattr(receipt, "decided_at", None)
        late = None if when is None or when.tzinfo is None else abs(when - decided.decided_at).total_seconds()
        demand(late is not None and late < 0.01, f"it was decided at {decided.decided_at}, by the receipt at {when}")
    other = trial.receipt(digest="other")
    await _refused(trial.store.claim(1, "paused", other, []), ResumeConflict, "a claim with another decision")
    elsewhere = trial.receipt("elsewhere")
    await _refused(trial.store.claim(0, "paused", elsewhere, [trial.row(1)]), ResumeError, "a claim of a place it left")
    hold = await trial.store.claim(1, "paused", elsewhere, [trial.row(1)])
    for _ in range(2):  # it goes on without a question, as often as it has to: that is no decision
        await trial.store.save(hold, trial.run(status="failed", position=2))
        hold = await trial.store.claim(2, "failed", trial.receipt(""), [])
    last = await trial.store.receipt(trial.run_id)
    demand(last is not None and last.pause_id == "elsewhere", f"the receipt of the last decision is {last!r}")


async def who_holds_a_run_is_alone(trial: StoreTrial) -> None:
    """A run that is held cannot be claimed; a hold that was given back writes no more, and holds grow."""
    first = await trial.store.create(trial.run())
    await _refused(
        trial.store.claim(0, "running", trial.receipt(""), []), StillRunning, "a claim of a run that is held"
    )
    await trial.store.release(first)
    await _refused(trial.store.append(first, [trial.row(0)]), HoldLost, "append with a hold that was given back")
    await _refused(trial.store.save(first, trial.run(status="failed")), HoldLost, "save with one that was given back")
    second = await trial.store.claim(0, "running", trial.receipt(""), [])
    demand(second.fence > first.fence, f"the fence went from {first.fence} to {second.fence}")
    await _refused(trial.store.append(first, [trial.row(0)]), HoldLost, "a write with a hold that was taken over")
    await trial.store.append(second, [trial.row(0)])
    await trial.store.save(second, trial.run(status="failed", position=1))
    await _refused(trial.store.append(second, [trial.row(1)]), HoldLost, "a write after the end was kept")
    demand((await trial.store.load(trial.run_id)).length == 1, "a refused write is in the journal")


async def a_claim_is_of_what_was_loaded(trial: StoreTrial) -> None:
    """A run that stands otherwise by now than when it was loaded is not claimed, though its journal is no longer."""
    hold = await trial.store.create(trial.run())
    await trial.store.save(hold, trial.run(status="failed"))
    stale = trial.store.claim(0, "running", trial.receipt(""), [])  # who loaded it then saw no failure to try again
    await _refused(stale, ResumeError, "a claim of a run that failed since it was loaded")
    await trial.store.claim(0, "failed", trial.receipt(""), [])


async def orphans_are_found(trial: StoreTrial) -> None:
    """A run that was given back before it ended is an orphan; one that is held, or stands still, is none."""
    hold = await trial.store.create(trial.run())
    demand(trial.run_id not in await trial.store.orphans("0" * 64), "a run that is held is no orphan")
    await trial.store.release(hold)
    demand(trial.run_id in await trial.store.orphans("0" * 64), "a run that was given back is an orphan")
    demand(trial.run_id not in await trial.store.orphans("1" * 64), "a run is no orphan of another pipeline")
    again = await trial.store.claim(0, "running", trial.receipt(""), [])
    demand(trial.run_id not in await trial.store.orphans("0" * 64), "a run that was claimed is no orphan")
    await trial.store.save(again, trial.run(status="completed"))
    demand(trial.run_id not in await trial.store.orphans("0" * 64), "a run that ended is no orphan")
    await _refused(
        trial.store.claim(0, "running", trial.receipt(""), []), ResumeError, "a claim of a run that has completed"
    )


async def a_run_goes_on_by_its_id(trial: StoreTrial) -> None:
    """A run pauses, goes on in another Flujo, fails, is tried again, and its replay is what it was."""
    calls: list[str] = []

    async def double(value: int) -> int:
        calls.append("double")
        return 2 * value

    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    async def fail_once(value: int) -> int:
        calls.append("fail_once")
        if calls.count("fail_once") == 1:
            raise OSError("once")
        return value

    def flujo() -> Flujo:
        return Flujo(Step(double) >> Step(ask) >> Step(fail_once), store=trial.store)

    paused = await flujo().run_async(1, run_id=trial.run_id)
    demand(paused.status == "paused", f"the run is {paused.status}, not paused: {paused.error}")
    failed = await flujo().resume_async(trial.run_id, 5)
    demand(failed.status == "failed", f"the resumed run is {failed.status}: {failed.error}")
    done = await flujo().resume_async(trial.run_id, retry=True)
    demand(done.status == "completed" and done.value == 5, f"the retried run is {done.status}: {done.error}")
    demand(calls == ["double", "fail_once", "fail_once"], f"its steps ran as {calls}")
    replay = await flujo().replay_async(trial.run_id)
    demand(replay.divergence is None, f"the replay of what was kept diverges: {replay.divergence}")


StoreRule = Callable[[StoreTrial], Awaitable[None]]

STORE_RULES: tuple[StoreRule, ...] = (
    created_runs_are_found,
    a_known_id_is_refused,
    an_unknown_id_is_told,
    rows_keep_their_order,
    rows_survive_being_written_at_once,
    all_rows_or_none_are_written,
    saving_leaves_the_journal,
    a_run_may_come_over_to_another_plan,
    what_is_loaded_is_a_copy,
    runs_are_apart,
    one_claim_wins,
    claims_are_told_apart,
    who_holds_a_run_is_alone,
    a_claim_is_of_what_was_loaded,
    orphans_are_found,
    a_run_goes_on_by_its_id,
)
