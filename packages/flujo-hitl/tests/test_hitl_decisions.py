"""Decisions that are recorded, and applied by a worker once; cancel requests; lists."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import OpenStore
from hitl_trials import paused, question, receipt, row, run

from flujo.core import (
    AlreadyResumed,
    ConfigurationError,
    Flujo,
    InputError,
    PauseForHumanInput,
    ResumeConflict,
    ResumeError,
    Snapshot,
    Step,
    decision_digest,
)
from flujo.hitl import HitlStore, SQLiteStore

pytestmark = pytest.mark.anyio


def shown(snapshot: Snapshot, number: int = 0) -> str:
    return snapshot.pauses[number].shown_digest


def keeps_the_protocol(store: SQLiteStore) -> HitlStore:
    return store


async def test_the_first_decision_counts_and_the_same_again_gets_its_receipt(store: SQLiteStore) -> None:
    digest = shown(await paused(store, "r"))
    first = await store.record_decision("r", "ask", {"ok": True}, shown_digest=digest, actor="ann", reason="fine")
    assert first.digest == decision_digest({"ok": True})
    assert await store.record_decision("r", "ask", {"ok": True}, shown_digest=digest, actor="bob") == first
    with pytest.raises(ResumeConflict) as conflict:
        await store.record_decision("r", "ask", {"ok": False}, shown_digest=digest)
    assert conflict.value.receipt == first
    assert await store.receipt("r", "ask") == first == await store.receipt("r")
    (waiting,) = await store.decided()
    assert (waiting.receipt, waiting.decision, waiting.actor, waiting.reason) == (first, {"ok": True}, "ann", "fine")
    assert not (await store.open_pauses()).items


async def test_what_is_not_open_not_shown_or_expired_is_refused(store: SQLiteStore) -> None:
    late = datetime.now(UTC) - timedelta(seconds=1)
    snapshot = await paused(store, "r", question(), question(pause="late", expires_at=late))
    with pytest.raises(ResumeError, match="does not wait for it"):
        await store.record_decision("r", "other", 1, shown_digest=shown(snapshot))
    with pytest.raises(ResumeError, match="not what it asks"):
        await store.record_decision("r", "ask", 1, shown_digest="0" * 64)
    with pytest.raises(ResumeError, match="expired"):
        await store.record_decision("r", "late", 1, shown_digest=shown(snapshot, 1))
    with pytest.raises(ResumeError, match="does not know"):
        await store.record_decision("unknown", "ask", 1, shown_digest=shown(snapshot))
    for no_json in ({1, 2}, float("nan"), {"when": late}, (1, 2)):
        with pytest.raises(InputError):
            await store.record_decision("r", "ask", no_json, shown_digest=shown(snapshot))  # type: ignore[arg-type]
    assert not await store.decided()
    (gone,) = await store.expired(datetime.now(UTC))
    assert (gone.pause_id, gone.expires_at) == ("late", late)
    assert not await store.expired(late)


async def test_a_recorded_decision_is_applied_once_and_no_other_is(store: SQLiteStore) -> None:
    digest = shown(await paused(store, "r"))
    recorded = await store.record_decision("r", "ask", 5, shown_digest=digest)
    with pytest.raises(ResumeConflict):
        await store.claim(0, "paused", receipt("r", digest=decision_digest(6)), [row(0)])
    hold = await store.claim(0, "paused", receipt("r", digest=recorded.digest), [row(0)])
    assert not await store.decided()
    with pytest.raises(AlreadyResumed) as again:
        await store.claim(1, "paused", receipt("r", digest=recorded.digest), [row(0)])
    assert again.value.receipt == recorded  # it was decided when it was recorded
    await store.save(hold, run("r", "completed", 1))
    with pytest.raises(AlreadyResumed):
        await store.claim(1, "paused", receipt("r", digest=recorded.digest), [row(0)])
    assert await store.record_decision("r", "ask", 5, shown_digest=digest) == recorded


async def test_one_of_two_questions_is_answered_while_the_other_waits(store: SQLiteStore) -> None:
    both = [question(pause="a"), question(pause="b")]
    snapshot = await paused(store, "r", *both)
    hold = await store.claim(0, "paused", receipt("r", "a"), [row(0)])
    assert [one.pause_id for one in (await store.open_pauses()).items] == ["b"]
    await store.record_decision("r", "b", 1, shown_digest=shown(snapshot, 1))
    await store.save(hold, run("r", "paused", 1, both[1:]))
    (waiting,) = await store.decided()
    assert waiting.receipt.pause_id == "b"
    assert await store.decided("1" * 64) == []


async def test_a_worker_goes_on_with_a_decision_that_was_only_recorded(store: SQLiteStore) -> None:
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    async def double(value: int) -> int:
        return 2 * value

    flujo = Flujo(Step(ask) >> Step(double), store=store)
    result = await flujo.run_async(1, run_id="r")
    (pause,) = result.pauses
    (listed,) = (await store.open_pauses()).items
    assert (listed.pause_id, listed.question, listed.shown_digest) == (pause.id, "How many?", pause.shown_digest)
    await store.record_decision("r", pause.id, 21, shown_digest=pause.shown_digest)
    (todo,) = await store.decided(flujo.plan.fingerprint)
    with pytest.raises(ResumeConflict):
        await flujo.resume_async("r", 22)
    done = await flujo.resume_async("r", todo.decision, pause=todo.receipt.pause_id)
    assert done.output == 42
    with pytest.raises(AlreadyResumed):
        await flujo.resume_async("r", todo.decision, pause=todo.receipt.pause_id)
    assert not await store.decided()


async def test_pages_hold_each_run_once_and_can_be_filtered(store: SQLiteStore) -> None:
    for number in range(25):
        words = {"tenant": f"t{number % 2}", "pipeline": f"p{number % 5}", "actor": "ann"}
        await paused(store, f"r{number}", **words)
    await store.create(run("busy"))
    seen: list[str] = []
    after = None
    while True:
        page = await store.runs(status="paused", after=after, limit=7)
        seen += [one.run_id for one in page.items]
        after = page.next
        if after is None:
            break
    assert seen == [f"r{number}" for number in reversed(range(25))]
    assert [one.run_id for one in (await store.runs(tenant="t1", pipeline="p3")).items] == ["r23", "r13", "r3"]
    (busy,) = (await store.runs(status="running")).items
    assert (busy.run_id, busy.pipeline, busy.status, busy.tenant) == ("busy", "trial", "running", None)
    asked = await store.open_pauses(tenant="t0", pipeline="p2", limit=2)
    assert [one.run_id for one in asked.items] == ["r2", "r12"]
    rest = await store.open_pauses(tenant="t0", pipeline="p2", limit=2, after=asked.next)
    assert ([one.run_id for one in rest.items], rest.next) == (["r22"], None)
    for wrong in ({"status": "lost"}, {"after": "x"}, {"limit": 0}):
        with pytest.raises(ConfigurationError):
            await store.runs(**wrong)  # type: ignore[arg-type]


async def test_who_has_a_role_sees_what_it_may_answer(store: SQLiteStore) -> None:
    await paused(store, "any")
    await paused(store, "money", question(roles=["finance", "board"]))
    await paused(store, "law", question(roles=["legal"]))

    async def seen(role: str | list[str] | None) -> list[str]:
        return [one.run_id for one in (await store.open_pauses(role=role)).items]

    assert await seen(None) == ["any", "money", "law"]
    assert await seen("finance") == ["any", "money"]
    assert await seen("fin") == ["any"]
    assert await seen(["finance", "legal"]) == ["any", "money", "law"]
    assert await seen([]) == ["any"]
    board = (await store.open_pauses(role="board")).items[1]
    assert board.roles == {"finance", "board"}


async def test_all_decisions_of_a_run_are_listed(store: SQLiteStore) -> None:
    both = [question(pause="a"), question(pause="b")]
    snapshot = await paused(store, "r", *both)
    assert await store.decisions("r") == [] == await store.decisions("unknown")
    await store.record_decision("r", "b", 2, shown_digest=shown(snapshot, 1), actor="ann", reason="fine")
    await store.claim(0, "paused", receipt("r", "a"), [row(0)])
    first, second = await store.decisions("r")
    assert (first.receipt.pause_id, first.decision, first.actor, first.reason, first.is_applied) == (
        *("b", 2, "ann", "fine"),
        False,
    )
    assert (second.receipt.pause_id, second.decision, second.actor, second.is_applied) == ("a", None, None, True)


async def test_a_decision_that_is_withdrawn_leaves_its_question_open(store: SQLiteStore) -> None:
    digest = shown(await paused(store, "r"))
    recorded = await store.record_decision("r", "ask", 1, shown_digest=digest)
    await store.withdraw(receipt("r", digest=decision_digest(2)))  # another one
    assert len(await store.decided()) == 1
    await store.withdraw(recorded)
    assert await store.decided() == []
    assert [one.pause_id for one in (await store.open_pauses()).items] == ["ask"]
    again = await store.record_decision("r", "ask", 2, shown_digest=digest)
    await store.claim(0, "paused", receipt("r", digest=again.digest), [row(0)])
    await store.withdraw(again)  # too late: the run went on with it
    assert [one.receipt for one in await store.decisions("r")] == [again]


async def test_what_was_ended_waits_for_nobody(store: SQLiteStore) -> None:
    snapshot = await paused(store, "r")
    await store.record_decision("r", "ask", 1, shown_digest=shown(snapshot))
    await paused(store, "s")
    for name in ("r", "s"):
        hold = await store.claim(0, "paused", receipt(name, pause=""), [])
        await store.save(hold, run(name, "aborted", 0, [question()]))
        with pytest.raises(ResumeError, match="it is aborted"):
            await store.request_cancel(name)
    assert (await store.open_pauses()).items == [] == await store.decided()
    with pytest.raises(ResumeError, match="does not wait"):
        await store.record_decision("s", "ask", 1, shown_digest=shown(snapshot))


async def test_a_cancel_is_asked_for_until_the_run_ended(store: SQLiteStore) -> None:
    await paused(store, "r")
    with pytest.raises(ResumeError):
        await store.request_cancel("unknown")
    await store.request_cancel("r")
    await store.request_cancel("r")
    assert await store.cancel_requested() == ["r"] == await store.cancel_requested(["r", "s"])
    assert await store.cancel_requested(["s"]) == []
    hold = await store.claim(0, "paused", receipt("r"), [])
    assert await store.cancel_requested() == ["r"]
    await store.save(hold, run("r", "aborted"))
    assert await store.cancel_requested() == []


async def test_a_decision_survives_the_process(path: Path, open_store: OpenStore) -> None:
    first = open_store()
    digest = shown(await paused(first, "r", rows=3))
    recorded = await first.record_decision("r", "ask", "ja \N{GREEK SMALL LETTER OMEGA}", shown_digest=digest)
    first.close()
    (waiting,) = await open_store().decided()
    assert (waiting.receipt, waiting.decision) == (recorded, "ja \N{GREEK SMALL LETTER OMEGA}")
