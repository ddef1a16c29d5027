"""Lists, decisions that are recorded first, and what is deleted."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from kept_runs import new_id, question, receipt, row, snapshot

from flujo.core import AlreadyResumed, ConfigurationError, ResumeConflict, ResumeError
from flujo.hitl import SQLiteStore, StoreUnavailable

pytestmark = pytest.mark.anyio
SOON = timedelta(minutes=5)


async def paused(store, run_id, *pauses, **facts):
    """A run that waits for an answer to each of these."""
    hold = await store.create(snapshot(run_id, **facts))
    await store.save(hold, snapshot(run_id, "paused", pauses=pauses or [question()], **facts))


async def test_runs_by_page(open_store):
    store = open_store()
    for number in range(5):
        await paused(store, f"r{number}", tenant="north" if number % 2 else None, pipeline=f"p{number % 2}")
    await store.create(snapshot("r5"))
    first = await store.runs(limit=4)
    assert [line.run_id for line in first.items] == ["r5", "r4", "r3", "r2"]
    rest = await store.runs(limit=4, after=first.after)
    assert [line.run_id for line in rest.items] == ["r1", "r0"]
    assert rest.after is None
    assert [line.run_id for line in (await store.runs(order="oldest", limit=2)).items] == ["r0", "r1"]
    at_work = (await open_store().runs(status="running")).items
    assert [(line.run_id, line.held, line.tenant, line.pipeline) for line in at_work] == [("r5", True, None, "refunds")]
    assert [line.run_id for line in (await store.runs(tenant="north")).items] == ["r3", "r1"]
    assert [line.run_id for line in (await store.runs(status="paused", pipeline="p0")).items] == ["r4", "r2", "r0"]
    assert (await store.runs(tenant="nobody")).items == ()
    line = first.items[1]
    assert datetime.now(UTC) - line.created_at < SOON
    assert line.updated_at >= line.created_at
    assert not line.held


async def test_open_questions_by_page(open_store):
    store = open_store()
    await paused(store, "r0", question("a"), question("b", payload={"private": "ü"}), tenant="north")
    await paused(store, "r1", question("c"), pipeline="p1")
    first = await store.open_pauses(limit=2)
    assert [(one.run_id, one.pause.id) for one in first.items] == [("r1", "c"), ("r0", "b")]
    rest = await store.open_pauses(limit=2, after=first.after)
    assert [one.pause.id for one in rest.items] == ["a"]
    kept = (await store.load("r0")).snapshot.pauses
    assert (first.items[1].pause, rest.items[0].pause) == (kept[1], kept[0])
    assert [one.pause.id for one in (await store.open_pauses(order="oldest")).items] == ["a", "b", "c"]
    assert [one.pause.id for one in (await store.open_pauses(tenant="north")).items] == ["b", "a"]
    assert [one.pause.id for one in (await store.open_pauses(pipeline="p1")).items] == ["c"]
    assert [one.pause.id for one in (await store.open_pauses(run_id="r1")).items] == ["c"]
    assert len((await store.open_pauses(role="anybody")).items) == 3, "who may answer was not said"


async def test_a_question_that_stays_open_keeps_its_place(open_store):
    store = open_store()
    await paused(store, "r0", question("a"), question("b"))
    await paused(store, "r1", question("c"))
    before = {one.pause.id: one.asked_at for one in (await store.open_pauses()).items}
    hold = await store.claim(0, receipt("r0", "a"), [row(0)])
    assert [one.pause.id for one in (await store.open_pauses()).items] == ["c", "b"]
    await store.save(hold, snapshot("r0", "paused", pauses=[question("new"), question("b")], position=1))
    items = (await store.open_pauses()).items
    assert [one.pause.id for one in items] == ["new", "c", "b"]
    assert items[2].asked_at == before["b"]
    assert [pause.id for pause in (await store.load("r0")).snapshot.pauses] == ["new", "b"]


async def test_questions_of_a_run_that_failed_beside_them_are_not_open(open_store):
    store = open_store()
    hold = await store.create(snapshot("r0"))
    await store.save(hold, snapshot("r0", "failed", pauses=[question()]))
    assert (await store.open_pauses()).items == ()
    with pytest.raises(ResumeError, match="not open"):
        await store.record_decision("r0", "approve", True, "d")
    assert (await store.load("r0")).snapshot.pauses


async def test_the_first_decision_counts(open_store):
    store, other = open_store(), open_store()
    await paused(store, "r0")
    first = await store.record_decision("r0", "approve", {"ok": True}, "d", actor="ann", reason="seen")
    assert (first.run_id, first.pause_id, first.digest) == ("r0", "approve", "d")
    assert await other.record_decision("r0", "approve", {"ok": True}, "d", actor="bob") == first
    with pytest.raises(ResumeConflict) as conflict:
        await other.record_decision("r0", "approve", {"ok": False}, "e")
    assert conflict.value.receipt == first
    assert (await store.open_pauses()).items == ()
    assert await store.receipt("r0") is None, "nobody went on with it"
    (waiting,) = await store.decided()
    assert (waiting.receipt, waiting.decision, waiting.actor, waiting.reason) == (first, {"ok": True}, "ann", "seen")


async def test_a_recorded_decision_is_taken_up_once(open_store):
    store, other = open_store(), open_store()
    await paused(store, "r0")
    first = await store.record_decision("r0", "approve", True, "d")
    with pytest.raises(ResumeConflict) as conflict:
        await store.claim(0, receipt("r0", digest="e"), [row(0)])
    assert conflict.value.receipt == first
    hold = await other.claim(0, receipt("r0", digest="d"), [row(0)])
    with pytest.raises(AlreadyResumed) as same:
        await store.claim(0, receipt("r0", digest="d"), [row(0)])
    assert same.value.receipt == first == await store.receipt("r0")
    assert await store.decided() == []
    assert await store.record_decision("r0", "approve", True, "d") == first
    await other.save(hold, snapshot("r0", "completed", position=1))
    assert (await store.load("r0")).length == 1


async def test_a_decision_on_one_of_two_questions_outlives_a_save(open_store):
    store = open_store()
    await paused(store, "r0", question("a"), question("b"))
    await store.record_decision("r0", "b", True, "d")
    hold = await store.claim(0, receipt("r0", "a"), [])
    assert await open_store().decided() == [], "its run is held"
    await store.save(hold, snapshot("r0", "paused", pauses=[question("b")]))
    assert (await store.open_pauses()).items == ()
    assert [one.receipt.pause_id for one in await store.decided()] == ["b"]
    await store.claim(0, receipt("r0", "b", "d"), [])


@pytest.mark.parametrize(
    ("pause", "match"), [("elsewhere", "not open"), ("late", "has expired"), ("shown", "something else was shown")]
)
async def test_what_cannot_be_decided(open_store, pause, match):
    store = open_store()
    late = datetime.now(UTC) - timedelta(seconds=1)
    await paused(store, "r0", question("late", expires_at=late), question("shown"), question("good"))
    with pytest.raises(ResumeError, match=match):
        await store.record_decision("r0", pause, True, "d", shown_digest="0" * 64 if pause == "shown" else None)
    with pytest.raises(ResumeError, match="does not know it"):
        await store.record_decision("nobody", "good", True, "d")
    shown = next(one.pause for one in (await store.open_pauses()).items if one.pause.id == "good")
    await store.record_decision("r0", "good", True, "d", shown_digest=shown.shown_digest)


async def test_expiry_races_approval(open_store):
    """Whoever comes first: a recorded decision, or the claim of who lets the question expire."""
    store = open_store()
    now = datetime.now(UTC)
    await paused(store, "r0", question(expires_at=now + SOON), question("never"), question("past", expires_at=now))
    assert [one.pause.id for one in await store.expired(now + timedelta(seconds=1))] == ["past"]
    assert [one.pause.id for one in await store.expired(now + 2 * SOON)] == ["past", "approve"]
    await store.record_decision("r0", "approve", True, "d")
    assert [one.pause.id for one in await store.expired(now + 2 * SOON)] == ["past"]
    with pytest.raises(ResumeConflict):
        await store.claim(0, receipt("r0", digest="expired"), [])
    await store.claim(0, receipt("r0", "past", digest="expired"), [])
    with pytest.raises(ResumeConflict):
        await store.record_decision("r0", "past", True, "d")


async def test_orphans_are_runs_whose_process_is_gone(open_store):
    store, gone = open_store(), open_store()
    await store.create(snapshot("alive"))
    await gone.create(snapshot("lost"))
    await paused(gone, "waits")
    assert await store.orphaned() == []
    await gone.aclose()
    assert await store.orphaned() == ["lost"]
    await store.release(await store.claim(0, receipt("lost", ""), []))
    assert await store.orphaned() == ["lost"]


async def test_a_cancel_is_asked_for(open_store):
    store = open_store()
    await paused(store, "r0")
    assert not await store.cancel_requested("r0")
    await open_store().request_cancel("r0")
    assert await store.cancel_requested("r0")
    assert (await store.runs()).items[0].cancel_requested


async def test_old_runs_are_purged(open_store):
    store = open_store()
    for status in ("completed", "failed", "paused"):
        hold = await store.create(snapshot(status))
        await store.append(hold, [row(0)])
        await store.save(hold, snapshot(status, status, pauses=[question()] if status == "paused" else []))
    await store.create(snapshot("at work"))
    assert await store.purge(older_than=timedelta(hours=1)) == 0
    assert await store.purge(older_than=timedelta(0), status="failed") == 1
    assert await store.purge(older_than=timedelta(0)) == 1
    assert {line.run_id for line in (await store.runs()).items} == {"paused", "at work"}
    assert await store.purge(older_than=timedelta(0), status="paused") == 1
    assert (await store.open_pauses()).items == ()


async def test_erasure_by_run_tenant_and_subject(open_store):
    store = open_store()
    for number in range(4):
        tags = {"subject": "patient 7"} if number < 2 else {}
        await paused(store, f"r{number}", tags=tags, tenant="north" if number == 2 else None)
    with pytest.raises(ConfigurationError):
        await store.delete()
    with pytest.raises(ConfigurationError):
        await store.delete(run_id="r0", tenant="north")
    assert await store.delete(subject="patient 8") == 0
    assert await store.delete(subject="patient 7") == 2
    assert await store.delete(tenant="north") == 1
    assert [line.run_id for line in (await store.runs()).items] == ["r3"]
    assert await store.delete(run_id="r3") == 1
    await store.create(snapshot("r3"))
    assert (await store.load("r3")).length == 0


async def test_what_is_erased_is_not_on_the_disk(tmp_path):
    """Not in free pages either, and not in the file of newest rows."""
    async with SQLiteStore(tmp_path / "runs.db") as store:
        for number in range(50):
            run_id = new_id()
            hold = await store.create(snapshot(run_id, tags={"subject": "s"}))
            await store.append(hold, [row(0, value="SECRET" * 1000)])
            asked = question(payload=f"SECRET {number}")
            await store.save(hold, snapshot(run_id, "paused", pauses=[asked], tags={"subject": "s"}, position=1))
            await store.record_decision(run_id, "approve", "SECRET", "d")
        files = [path for path in tmp_path.iterdir() if "shm" not in path.name]
        before = sum(path.stat().st_size for path in files)
        assert any(b"SECRET" in path.read_bytes() for path in files)
        assert await store.delete(subject="s") == 50
        assert not any(b"SECRET" in path.read_bytes() for path in files)
        assert sum(path.stat().st_size for path in files) < before / 3


async def test_a_backup_while_it_is_in_use(tmp_path):
    async with SQLiteStore(tmp_path / "runs.db") as store:
        hold = await store.create(snapshot("r0"))

        async def write() -> None:
            for number in range(200):
                await store.append(hold, [row(number)])

        async with anyio.create_task_group() as group:
            group.start_soon(write)
            await store.backup(tmp_path / "copy.db")
        with pytest.raises(StoreUnavailable, match="exists"):
            await store.backup(tmp_path / "copy.db")
        async with SQLiteStore(tmp_path / "copy.db") as copy:
            assert await copy.orphaned() == ["r0"], "nobody holds it there"
            assert (await copy.load("r0")).history() == [row(n) for n in range((await copy.load("r0")).length)]
        assert (await store.load("r0")).length == 200
