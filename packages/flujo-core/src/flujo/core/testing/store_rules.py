"""The rules for a `RunStore`."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from flujo.core import (
    AlreadyResumed,
    Checkpoint,
    EntryData,
    Flujo,
    FlujoError,
    PauseForHumanInput,
    ResumeConflict,
    ResumeError,
    RunExists,
    RunStore,
    Snapshot,
    Step,
    Usage,
)

from .verdict import Broken, demand

ROWS = 50
RACERS = 20


@dataclass(slots=True)
class StoreTrial:
    """A store under test; it may hold other runs, so each rule makes ids of its own."""

    store: RunStore
    run_id: str = field(default_factory=lambda: f"trial-{secrets.token_hex(8)}")

    def run(self, run_id: str | None = None, status: str = "running") -> Snapshot:
        """A run as a Flujo would keep it."""
        facts = {"next_frame": 1, "frames": [{"id": 0}], "usage": Usage()}
        checkpoint = Checkpoint.model_validate(facts)
        names = {"pipeline": "trial", "fingerprint": "0" * 64, "status": status}
        return Snapshot.model_validate({"run_id": run_id or self.run_id, **names, "checkpoint": checkpoint})

    def row(self, number: int) -> EntryData:
        """An entry of the journal that knows its place."""
        return EntryData(frame=number, node=0, kind="success", path=f"step{number}", value={"number": number})


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
    demand(found == trial.run(), f"load gave {found!r}, not what create was given")


async def a_known_id_is_refused(trial: StoreTrial) -> None:
    """A second `create` of one id raises RunExists, and leaves the first run as it is."""
    await trial.store.create(trial.run())
    await trial.store.append(trial.run_id, trial.row(0))
    await _refused(trial.store.create(trial.run(status="failed")), RunExists, "a second create of one id")
    found = await trial.store.load(trial.run_id)
    demand(found.status == "running" and len(found.journal) == 1, "the refused create changed the run")


async def an_unknown_id_is_told(trial: StoreTrial) -> None:
    """`load` of an id that was never created raises ResumeError."""
    await _refused(trial.store.load(trial.run_id), ResumeError, "load of an unknown id")


async def rows_keep_their_order(trial: StoreTrial) -> None:
    """The journal holds every row that was appended, whole, in order."""
    await trial.store.create(trial.run())
    for number in range(ROWS):
        await trial.store.append(trial.run_id, trial.row(number))
    found = (await trial.store.load(trial.run_id)).journal
    demand(found == [trial.row(number) for number in range(ROWS)], f"{len(found)} rows came back, not {ROWS} in order")


async def rows_survive_being_written_at_once(trial: StoreTrial) -> None:
    """Rows that several tasks append at the same time are all kept."""
    await trial.store.create(trial.run())
    async with anyio.create_task_group() as group:
        for number in range(ROWS):
            group.start_soon(trial.store.append, trial.run_id, trial.row(number))
    found = sorted(row.frame for row in (await trial.store.load(trial.run_id)).journal)
    demand(found == list(range(ROWS)), f"of {ROWS} rows {len(found)} came back")


async def saving_leaves_the_journal(trial: StoreTrial) -> None:
    """`save` changes where a run stands, never what it did."""
    await trial.store.create(trial.run())
    await trial.store.append(trial.run_id, trial.row(0))
    await trial.store.save(trial.run(status="paused"))
    await trial.store.append(trial.run_id, trial.row(1))
    found = await trial.store.load(trial.run_id)
    demand(found.status == "paused", f"the status is {found.status!r} after it was saved as 'paused'")
    demand(found.journal == [trial.row(0), trial.row(1)], "save touched the journal")


async def what_is_loaded_is_a_copy(trial: StoreTrial) -> None:
    """Changing what `load` gave changes nothing in the store."""
    await trial.store.create(trial.run())
    await trial.store.append(trial.run_id, trial.row(0))
    (await trial.store.load(trial.run_id)).journal.clear()
    demand(len((await trial.store.load(trial.run_id)).journal) == 1, "who loads a run can change it in the store")


async def runs_are_apart(trial: StoreTrial) -> None:
    """Nothing of one run shows in another."""
    other = f"{trial.run_id}-other"
    await trial.store.create(trial.run())
    await trial.store.create(trial.run(other))
    await trial.store.append(other, trial.row(7))
    await trial.store.claim(other, 1, "pause", "digest")
    demand(not (await trial.store.load(trial.run_id)).journal, "a row of another run is in the journal")
    await trial.store.claim(trial.run_id, 1, "pause", "digest")


async def one_claim_wins(trial: StoreTrial) -> None:
    """Of many claims of one place at the same time exactly one is let through."""
    await trial.store.create(trial.run())
    won: list[int] = []
    lost: list[ResumeError] = []

    async def race(number: int) -> None:
        try:
            await trial.store.claim(trial.run_id, 3, "pause", f"digest-{number}")
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


async def claims_are_told_apart(trial: StoreTrial) -> None:
    """The same decision again, another decision and another question get errors of their own, with the receipt."""
    await trial.store.create(trial.run())
    await trial.store.claim(trial.run_id, 3, "pause", "digest")
    again = await _refused(
        trial.store.claim(trial.run_id, 3, "pause", "digest"), AlreadyResumed, "the same claim again"
    )
    receipt = getattr(again, "receipt", None)
    known = (getattr(receipt, "run_id", ""), getattr(receipt, "pause_id", ""), getattr(receipt, "digest", ""))
    demand(known == (trial.run_id, "pause", "digest"), f"the receipt is {receipt!r}")
    await _refused(
        trial.store.claim(trial.run_id, 3, "pause", "other"), ResumeConflict, "a claim with another decision"
    )
    await _refused(
        trial.store.claim(trial.run_id, 3, "elsewhere", "digest"), ResumeError, "a claim of another question"
    )
    await trial.store.claim(trial.run_id, 4, "pause", "other")


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
    replay = await flujo().replay_async(await trial.store.load(trial.run_id))
    demand(replay.divergence is None, f"the replay of what was kept diverges: {replay.divergence}")


StoreRule = Callable[[StoreTrial], Awaitable[None]]

STORE_RULES: tuple[StoreRule, ...] = (
    created_runs_are_found,
    a_known_id_is_refused,
    an_unknown_id_is_told,
    rows_keep_their_order,
    rows_survive_being_written_at_once,
    saving_leaves_the_journal,
    what_is_loaded_is_a_copy,
    runs_are_apart,
    one_claim_wins,
    claims_are_told_apart,
    a_run_goes_on_by_its_id,
)
