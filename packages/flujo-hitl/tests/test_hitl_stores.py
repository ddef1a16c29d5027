"""What core's RunStore promises, of both stores."""

import asyncio

import anyio
import pytest
from kept_runs import new_id, question, receipt, row, snapshot, store_at

from flujo.core import (
    AlreadyResumed,
    EntryData,
    FlujoError,
    HoldLost,
    ResumeConflict,
    ResumeError,
    RunExists,
    Snapshot,
    SnapshotError,
    StillRunning,
    Usage,
)
from flujo.hitl import StoreClosed, StoreError

pytestmark = pytest.mark.anyio


async def test_what_was_created_is_loaded(open_store):
    store, run_id = open_store(), new_id()
    kept = snapshot(run_id, tenant="north", actor="ann", tags={"ticket": "7"}, limits=None)
    hold = await store.create(kept)
    assert (hold.run_id, hold.fence) == (run_id, 1)
    found = await store.load(run_id)
    assert found.snapshot == kept
    assert (found.late, found.history(), found.length) == ((), [], 0)


async def test_a_store_without_a_run_knows_none(open_store):
    store = open_store()
    for ask in (store.load, store.receipt, store.cancel_requested, store.request_cancel):
        with pytest.raises(ResumeError, match="does not know it"):
            await ask("nobody")
    assert (await store.runs()).items == ()


async def test_an_id_is_used_once(open_store):
    store, run_id = open_store(), new_id()
    hold = await store.create(snapshot(run_id))
    await store.append(hold, [row(0)])
    with pytest.raises(RunExists):
        await open_store().create(snapshot(run_id, "failed"))
    found = await store.load(run_id)
    assert (found.snapshot.status, found.length) == ("running", 1)


async def test_entries_come_back_equal(open_store):
    """Also where a field has its usual value, which is not written, or one that is equal to it and of another type."""
    store, run_id = open_store(), new_id()
    values = [None, False, 0, "", [], {}, 1.5, -0.0, 2**70, "ü\u0000\u2028", {"a": [None, {"b": 1e308}]}]
    usage = Usage(3, 4, 1, unmeasured=2)
    rows = [row(number, value=value) for number, value in enumerate(values)]
    rows.append(row(99, changes={"note": None}, usage=usage, cached=True, attempts=3, is_void=True, unwritten="Socket"))
    rows.append(EntryData(frame=0, node=0, kind="skipped", started_at=1764316441.123456, duration_s=1e-9))
    hold = await store.create(snapshot(run_id))
    await store.append(hold, rows)
    found = await store.load(run_id)
    assert list(found.late) == rows == found.history()
    assert [type(one.value) for one in found.late] == [type(one.value) for one in rows]


async def test_rows_of_many_tasks_are_all_kept(open_store):
    store, run_id = open_store(), new_id()
    hold = await store.create(snapshot(run_id))
    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(store.append, hold, [row(2 * number), row(2 * number + 1)])
    found = [one.value["number"] for one in (await store.load(run_id)).late]
    assert sorted(found) == list(range(200))
    assert all(found[at + 1] == found[at] + 1 for at in range(0, 200, 2)), "the rows of one call stand together"


async def test_saving_gives_the_hold_back_and_leaves_the_journal(open_store):
    store, run_id = open_store(), new_id()
    hold = await store.create(snapshot(run_id))
    await store.append(hold, [row(0), row(1), row(2)])
    kept = snapshot(run_id, "paused", pauses=[question(), question("pay", payload=None)], position=2)
    await store.save(hold, kept)
    found = await open_store().load(run_id)
    assert found.snapshot == kept
    assert found.late == (row(2),)
    assert found.history() == [row(0), row(1), row(2)]
    for late in (store.append(hold, [row(3)]), store.save(hold, kept), store.release(hold)):
        with pytest.raises(HoldLost):
            await late
    assert (await store.load(run_id)).length == 3


async def test_a_decision_is_journaled_with_its_claim(open_store):
    store, run_id = open_store(), new_id()
    await store.save(await store.create(snapshot(run_id)), snapshot(run_id, "paused", pauses=[question()]))
    assert await store.receipt(run_id) is None
    decided = receipt(run_id)
    hold = await store.claim(0, decided, [row(0)])
    assert hold.fence == 2
    found = await store.load(run_id)
    assert (found.snapshot.status, found.late) == ("running", (row(0),))
    assert await store.receipt(run_id) == decided == await store.receipt(run_id, "approve")
    assert await store.receipt(run_id, "other") is None
    await store.append(hold, [row(1)])
    await store.save(hold, snapshot(run_id, "completed", position=2))
    assert (await store.load(run_id)).late == ()


async def test_claims_are_told_apart(open_store):
    store, run_id = open_store(), new_id()
    first = receipt(run_id)
    hold = await store.create(snapshot(run_id))
    with pytest.raises(StillRunning):
        await store.claim(0, first, [])
    await store.release(hold)
    with pytest.raises(ResumeError, match="went on from there before"):
        await store.claim(1, first, [])
    with pytest.raises(ResumeError, match="does not know it"):
        await store.claim(0, receipt("nobody"), [])
    hold = await store.claim(0, first, [])
    with pytest.raises(AlreadyResumed) as same:
        await open_store().claim(0, receipt(run_id), [])
    assert same.value.receipt == first
    with pytest.raises(ResumeConflict) as other:
        await store.claim(0, receipt(run_id, digest="e" * 64), [])
    assert other.value.receipt == first
    with pytest.raises(StillRunning):
        await store.claim(0, receipt(run_id, "elsewhere"), [])
    with pytest.raises(StillRunning):
        await open_store().claim(0, receipt(run_id, ""), [])
    await store.release(hold)
    again = await store.claim(0, receipt(run_id, ""), [])
    assert again.fence == 3
    assert await store.receipt(run_id) == first, "going on without a decision leaves no receipt"
    with pytest.raises(HoldLost):
        await store.append(hold, [row(0)])


async def test_the_receipt_of_the_last_answer(open_store):
    store, run_id = open_store(), new_id()
    hold = await store.create(snapshot(run_id))
    for pause_id in ("b", "a", "c"):
        await store.release(hold)
        hold = await store.claim(0, receipt(run_id, pause_id), [])
    last = await store.receipt(run_id)
    assert last is not None
    assert last.pause_id == "c"


async def test_of_many_claims_one_wins(open_store):
    stores, run_id = [open_store() for _ in range(4)], new_id()
    await stores[0].release(await stores[0].create(snapshot(run_id)))
    ends: list[object] = []

    async def race(number: int) -> None:
        try:
            ends.append(await stores[number % 4].claim(0, receipt(run_id, digest=f"{number:064}"), [row(number)]))
        except ResumeConflict as error:
            ends.append(error.receipt)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(race, number)
    winner = await stores[0].receipt(run_id)
    assert sum(end == winner for end in ends) == 19
    assert (await stores[1].load(run_id)).length == 1


async def test_runs_are_apart(open_store):
    store, one, other = open_store(), new_id(), new_id()
    holds = [await store.create(snapshot(run_id)) for run_id in (one, other)]
    await store.append(holds[0], [row(0)])
    await store.release(holds[1])
    await store.claim(0, receipt(other), [])
    assert (await store.load(other)).length == 0
    assert await store.receipt(one) is None


async def test_a_cancelled_claim_holds_nothing(open_store):
    store, run_id = open_store(), new_id()
    await store.release(await store.create(snapshot(run_id)))
    for _ in range(30):
        with anyio.move_on_after(0):
            await store.claim(0, receipt(run_id, ""), [])
        with anyio.fail_after(5):
            while (await store.runs()).items[0].held:
                await anyio.sleep(0.001)


async def test_a_snapshot_that_json_cannot_hold_is_refused(open_store):
    store, run_id = open_store(), new_id()
    hold = await store.create(snapshot(run_id))
    bad = row(1).model_copy(update={"value": "\ud800"})
    with pytest.raises(SnapshotError, match=run_id):
        await store.append(hold, [row(0), bad])
    assert (await store.load(run_id)).length == 0
    await store.append(hold, [row(0)])


async def test_after_its_close_a_store_takes_nothing_and_holds_nothing(open_store):
    store, run_id = open_store(), new_id()
    async with store:
        await store.create(snapshot(run_id))
    with pytest.raises(StoreClosed):
        await store.load(run_id)
    await store.aclose()
    other = open_store()
    assert await other.orphaned() == [run_id]
    assert (await other.claim(0, receipt(run_id, ""), [])).fence == 2


def test_a_store_is_used_from_several_loops(where):
    store, run_id = store_at(where), new_id()
    hold = asyncio.run(store.create(snapshot(run_id)))
    anyio.run(store.append, hold, [row(0)], backend="trio")
    assert asyncio.run(store.load(run_id)).length == 1
    asyncio.run(store.aclose())


async def test_the_load_of_a_run_does_not_grow_with_its_past(open_store):
    store, run_id = open_store(), new_id()
    hold = await store.create(snapshot(run_id))
    await store.append(hold, [row(number) for number in range(1000)])
    await store.save(hold, snapshot(run_id, "paused", pauses=[question()], position=1000))
    found = await store.load(run_id)
    assert (len(found.late), found.length) == (0, 1000)
    assert len(found.history()) == 1000


async def test_a_later_version_of_the_snapshot_keeps_its_number(open_store):
    store, run_id = open_store(), new_id()
    later = snapshot(run_id).model_copy(update={"version": 7})
    await store.create(later)
    assert (await store.load(run_id)).snapshot == later
    assert isinstance((await store.load(run_id)).snapshot, Snapshot)


async def test_an_id_that_is_no_text_spoils_nothing_for_others(open_store):
    store = open_store()
    ends: list[object] = []

    async def create(run_id: str) -> None:
        try:
            ends.append(await store.create(snapshot(run_id)))
        except FlujoError as error:
            ends.append(type(error))

    async with anyio.create_task_group() as group:
        for run_id in ("r0", "bad\ud800", "r1"):
            group.start_soon(create, run_id)
    assert sum(end in (StoreError, SnapshotError) for end in ends) == 1
    assert len((await store.runs()).items) == 2
    with pytest.raises(FlujoError):
        await store.load("bad\ud800")
