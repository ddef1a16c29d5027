"""A run whose pipeline a step changed, and that goes on later: elsewhere, from a store, after a crash; and replays."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any, cast

import anyio
import mutating_pipeline as flows
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.core import (
    AbortPipeline,
    Allow,
    Chain,
    Deny,
    EntryData,
    Flujo,
    GuardMutation,
    MemoryStore,
    OnMutation,
    PauseForHumanInput,
    Pipeline,
    PipelineMutation,
    PipelineResult,
    PutIn,
    RecordResult,
    RetryPolicy,
    RunContext,
    RunHandle,
    Snapshot,
    SnapshotError,
    Step,
    UsageLimits,
    compile_plan,
    hookimpl,
    migrate,
    step,
)
from flujo.core.run import Run
from flujo.core.setup import Setup

pytestmark = pytest.mark.anyio

PAUSED = "first=0 more=100"
WHOLE = "32 first=0 more=100 ask=7 last=8 twice#1/double=16 twice#2/double=32"


def told(result: PipelineResult) -> str:
    return " ".join(f"{record.path}={record.output}" for record in result.step_history if record.status != "paused")


async def paused(name: str = "pipeline", **given: Any) -> PipelineResult:
    result = await flows.flujo_of(name, **given).run_async(0, run_id="r")
    assert result.status == "paused"
    return result


@pytest.mark.parametrize(("name", "expected"), [("pipeline", WHOLE), ("nested", "8 again=5 again-2=10 ask=7 last=8")])
def test_a_fresh_process_goes_on_from_the_json_of_its_snapshot(name: str, expected: str, tmp_path: Path) -> None:
    stood = flows.flujo_of(name).run(0)
    (tmp_path / "run.json").write_text(stood.snapshot().model_dump_json())
    command = [sys.executable, flows.__file__, name, str(tmp_path / "run.json"), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == (expected, "")


SCRIPT = """
from flujo.core import Flujo, PauseForHumanInput, PipelineMutation, step

@step
async def ask(value: int) -> int:
    raise PauseForHumanInput("how much?", int)

@step
async def first(value: int) -> PipelineMutation[int]:
    return PipelineMutation(value, insert_after={"first": ask})

@step
async def last(value: int) -> int:
    return value + 1

flujo = Flujo(first >> last, experimental={"mutation"})

if __name__ == "__main__":
    print(flujo.run(1).snapshot().model_dump_json())
"""
IMPORTS = """
import sys, asyncio, app
from flujo.core import Snapshot
print(asyncio.run(app.flujo.resume_async(Snapshot.model_validate_json(sys.stdin.read()), 7)).output)
"""


def test_what_began_in_a_script_goes_on_where_its_file_is_imported(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SCRIPT)
    command = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    snapshot = command([sys.executable, "app.py"]).stdout
    assert '"path":"__main__:ask"' in snapshot
    assert command([sys.executable, "-c", IMPORTS], input=snapshot).stdout.strip() == "8"


async def test_it_goes_on_in_this_process_from_whatever_there_is_of_it() -> None:
    for way in ("result", "snapshot", "store"):
        store = MemoryStore() if way == "store" else None
        stood = await paused(store=store)
        flujo = flows.flujo_of("pipeline", store=store)
        target: Any = {"result": stood, "snapshot": stood.snapshot(), "store": "r"}[way]
        result = await flujo.resume_async(target, 7)
        assert f"{result.output} {told(result)}" == WHOLE, way
        assert len(result.snapshot().mutations) == 1
        assert (await flujo.replay_async(result)).divergence is None


async def test_a_run_that_changed_its_pipeline_replays_and_has_its_changes_in_its_journal() -> None:
    stood = await paused("nested")
    result = await flows.flujo_of("nested").resume_async(stood, 7)
    snapshot = Snapshot.model_validate_json(result.snapshot().model_dump_json())
    played = await flows.flujo_of("nested").replay_async(snapshot)
    assert played.divergence is None
    assert played.result is not None
    assert (played.result.output, told(played.result)) == (8, told(result))
    changes = [row.mutation for row in snapshot.journal if row.mutation is not None]
    assert (changes, [one.step for one in changes]) == (snapshot.mutations, ["again", "again-2"])
    assert changes[0].before == snapshot.fingerprint == flows.flujo_of("nested").plan.fingerprint
    assert changes[0].after == changes[1].before


async def test_a_journal_that_tells_of_what_was_put_in_before_that_happened_goes_another_way() -> None:
    result = await flows.flujo_of("pipeline").resume_async(await paused(), 7)
    snapshot = result.snapshot()
    rows = [snapshot.journal[1], snapshot.journal[0], *snapshot.journal[2:]]
    played = await flows.flujo_of("pipeline").replay_async(snapshot.model_copy(update={"journal": rows, "digest": ""}))
    assert played.divergence is not None
    assert (played.divergence.position, played.divergence.replayed) == (0, "it is not due here")


@pytest.mark.parametrize("change", [None, {"added": ("harmless",)}, {"step": ""}])
async def test_a_journal_without_the_changes_that_its_run_stands_with_is_not_replayed(change: Any) -> None:
    snapshot = (await paused()).snapshot()
    row = snapshot.journal[0]
    other = None if change is None else replace(snapshot.mutations[0], **change)
    rows = [row.model_copy(update={"mutation": other}), *snapshot.journal[1:]]
    with pytest.raises(SnapshotError, match="its journal does not have the changes that it stands with"):
        await flows.flujo_of("pipeline").replay_async(snapshot.model_copy(update={"journal": rows, "digest": ""}))


class Crashing(MemoryStore):
    """Loses its process after so many entries."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.left = entries

    async def append(self, hold: Any, entries: Sequence[EntryData]) -> None:
        for entry in entries:
            if self.left == 0:
                raise OSError("the process is gone")
            self.left -= 1
            await super().append(hold, [entry])


@pytest.mark.parametrize("entries", range(4))
async def test_a_run_whose_process_went_away_goes_on_from_wherever_that_was(entries: int) -> None:
    store = Crashing(entries)
    flujo = flows.flujo_of("pipeline", store=store)
    lost = await flujo.run_async(0, run_id="r")
    assert lost.status == ("aborted" if entries < 3 else "paused")
    store.left = 99
    if lost.status == "aborted":
        stood = await flows.flujo_of("pipeline", store=store).resume_async("r", retry=True)
        assert (stood.status, told(stood)) == ("paused", PAUSED)
    result = await flows.flujo_of("pipeline", store=store).resume_async("r", 7)
    assert f"{result.output} {told(result)}" == WHOLE


async def test_what_no_module_has_under_a_name_is_refused_where_a_store_keeps_the_run() -> None:
    @step
    async def start(value: int) -> PipelineMutation[int]:
        return PipelineMutation(value, insert_after={"start": Step(lambda value: value, name="new")})

    result = await Flujo(start >> flows.last, experimental={"mutation"}, store=MemoryStore()).run_async(1)
    assert result.status == "failed"
    assert "'new' cannot be put in: a store keeps the run, and no module has it under a name" in str(result.error)
    assert result.snapshot().mutations == []


async def test_where_code_changed_or_is_gone_or_it_is_off_a_changed_run_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshot = (await paused()).snapshot()
    with pytest.raises(SnapshotError, match=r"one of its steps changed its pipeline.* Pass Flujo"):
        await Flujo(flows.pipeline).resume_async(snapshot, 7)

    @step
    async def another(value: int) -> bool:
        return value > 0

    with monkeypatch.context() as patch:
        patch.setattr(flows, "ask", Step(another, name="ask"))
        with pytest.raises(SnapshotError, match="what it put in, or what was there, has changed since"):
            await flows.flujo_of("pipeline").resume_async(snapshot, 7)
    with monkeypatch.context() as patch:
        patch.delattr(flows, "more")
        with pytest.raises(SnapshotError, match=r"cannot be made again: .*no attribute 'more'"):
            await flows.flujo_of("pipeline").resume_async(snapshot, 7)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "mutating_pipeline")
        with pytest.raises(SnapshotError, match=r"module 'mutating_pipeline' is not loaded\. Import it at the top"):
            await flows.flujo_of("pipeline").resume_async(snapshot, 7)
        assert "mutating_pipeline" not in sys.modules  # what a snapshot names is not imported
    assert (await flows.flujo_of("pipeline").resume_async(snapshot, 7)).output == 32


LAZY = """
from flujo.core import Flujo, PipelineMutation, step

@step
async def first(value: int) -> PipelineMutation[int]:
    from app import ask
    return PipelineMutation(value, insert_after={"first": ask})

@step
async def last(value: int) -> int:
    return value + 1

flujo = Flujo(first >> last, experimental={"mutation"})
"""


def test_what_a_step_imported_itself_is_not_imported_where_it_did_not_run_and_it_is_said_what_to_do(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(SCRIPT)
    (tmp_path / "lazy.py").write_text(LAZY)
    command = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    snapshot = command([sys.executable, "-c", "import lazy; print(lazy.flujo.run(1).snapshot().model_dump_json())"])
    refused = command([sys.executable, "-c", IMPORTS.replace("app", "lazy")], input=snapshot.stdout)
    why = "module 'app' is not loaded. Import it at the top of the module that defines the pipeline"
    assert why in refused.stderr.splitlines()[-1]
    loaded = "import app\n" + IMPORTS.replace(", app", ", lazy as app")
    done = command([sys.executable, "-c", loaded], input=snapshot.stdout)
    assert (done.stdout.strip(), done.stderr) == ("8", "")


async def test_a_changed_run_is_not_migrated() -> None:
    other = Flujo(flows.first >> flows.skipped >> flows.last >> flows.double, experimental={"mutation"})
    snapshot = (await paused()).snapshot()
    migrate(snapshot.fingerprint, other.plan.fingerprint, lambda old: old)
    with pytest.raises(SnapshotError, match="it changed its pipeline"):
        await other.resume_async(snapshot, 7)


# --- whatever ends the run meanwhile ----------------------------------------------------------------------------------


class Records:
    """Ends the run while it records how its first step ended; once."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.handle: RunHandle | None = None
        self.asked = 0

    @hookimpl
    def guard_mutation(self, payload: GuardMutation) -> Allow:
        self.asked += 1
        if self.how == "guard":
            self.end()
        return Allow()

    @hookimpl
    async def record_result(self, payload: RecordResult) -> None:
        if payload.step_path == "first" and self.how == "recorder":
            self.how = ""
            raise AbortPipeline("the disk is full")
        if payload.step_path == "first" and self.how == "cancel":
            self.end()
            await anyio.sleep(0.01)

    def end(self) -> None:
        self.how = ""
        assert self.handle is not None
        self.handle.cancel("enough")


@pytest.mark.parametrize("retry", [None, RetryPolicy(max_attempts=2)])
@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("how", ["recorder", "cancel", "guard"])
async def test_a_change_that_guards_agreed_to_is_kept_whatever_ends_the_run_meanwhile(
    how: str, is_kept: bool, retry: RetryPolicy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "ask", flows.more)  # which asks nobody
    records, store = Records(how), MemoryStore() if is_kept else None
    first = Step(flows.first.function, name="first", retry=retry)
    flujo = Flujo(first >> flows.skipped >> flows.last, experimental={"mutation"}, plugins=[records], store=store)
    records.handle = flujo.start(0, run_id="r")
    ended = await records.handle.wait()
    assert (ended.status, told(ended), len(ended.snapshot().mutations)) == ("aborted", "first=0", 1)
    assert [row.mutation for row in ended.snapshot().journal] == ended.snapshot().mutations
    result = await flujo.resume_async("r" if is_kept else ended, retry=True)
    rest = "more=100 more-2=200 last=201 twice#1/double=402 twice#2/double=804"
    assert (told(result), records.asked) == (f"first=0 {rest}", 1)


async def test_a_change_of_a_step_that_broke_a_limit_is_there_once_the_limit_is_raised() -> None:
    async def pays(value: int, ctx: RunContext) -> PipelineMutation[int]:
        async with ctx.usage.reserve(cost_usd="0.4") as lease:
            lease.settle(cost_usd="2")
        return PipelineMutation(value, insert_after={"pays": flows.more}, remove=["skipped"])

    row = Step(pays) >> flows.skipped >> flows.last
    flujo = Flujo(row, experimental={"mutation"}, limits=UsageLimits(1))
    stopped = await flujo.run_async(0)
    assert (stopped.status, told(stopped)) == ("stopped", "pays=0")
    result = await flujo.resume_async(stopped, limits=UsageLimits(9))
    assert told(result) == "pays=0 more=100 last=101"


# --- once, by whom, and of what it is made ----------------------------------------------------------------------------


class Counts:
    """Answers as it is told, and counts how often it is asked and told."""

    def __init__(self, *answers: Allow | Deny) -> None:
        self.answers = [*answers]
        self.asked = 0
        self.told: list[str] = []

    @hookimpl
    def guard_mutation(self, payload: GuardMutation) -> Allow | Deny:
        self.asked += 1
        return self.answers.pop(0) if self.answers else Allow()

    @hookimpl
    def on_mutation(self, payload: OnMutation) -> None:
        self.told.append(payload.step_path)


@pytest.mark.parametrize(("entries", "asked", "heard"), [(0, 2, 2), (1, 1, 1), (2, 1, 1)])
async def test_guards_are_asked_again_only_where_the_end_of_the_step_was_not_kept(
    entries: int, asked: int, heard: int
) -> None:
    store, counts = Crashing(entries), Counts()
    await flows.flujo_of("pipeline", store=store, plugins=[counts]).run_async(0, run_id="r")
    store.left = 99
    stood = await flows.flujo_of("pipeline", store=store, plugins=[counts]).resume_async("r", retry=True)
    assert (told(stood), len(stood.snapshot().mutations), counts.asked) == (PAUSED, 1, asked)
    assert counts.told == ["first"] * heard


async def test_a_kept_run_whose_change_was_denied_has_the_pipeline_that_it_had() -> None:
    store, counts = MemoryStore(), Counts(Deny("no"))
    flujo = flows.flujo_of("pipeline", store=store, plugins=[counts])
    denied = await flujo.run_async(0, run_id="r")
    assert (denied.status, denied.step_history[0].status) == ("aborted", "aborted")
    kept = await store.load("r")
    assert (kept.snapshot.mutations, [row.mutation for row in kept.history()]) == ([], [None])
    assert kept.snapshot.fingerprint == flujo.plan.fingerprint
    stood = await flujo.resume_async("r", retry=True)
    assert (stood.status, counts.asked, len(stood.snapshot().mutations)) == ("paused", 2, 1)


async def test_a_step_whose_output_the_store_cannot_keep_changes_nothing() -> None:
    @step
    async def start(value: int) -> Any:
        return PipelineMutation(object(), insert_after={"start": flows.takes_any})

    counts = Counts()
    flujo = Flujo(start >> flows.takes_any, experimental={"mutation"}, store=MemoryStore(), plugins=[counts])
    result = await flujo.run_async(1)
    assert (result.status, counts.told, result.snapshot().mutations) == ("failed", [], [])
    assert "cannot be kept by the store" in str(result.error)
    assert [row.mutation for row in result.snapshot().journal] == [None]


def altered(snapshot: Snapshot, **how: Any) -> Snapshot:
    """With another first change, sealed as who forges it would."""
    change = replace(snapshot.mutations[0], **how)
    text = snapshot.model_copy(update={"mutations": [change]}).sealed().model_dump_json()
    return Snapshot.model_validate_json(text)


def with_path(path: str, name: str = "ask") -> dict[str, Any]:
    return {"insert_after": {"first": (PutIn("more", "mutating_pipeline:more"), PutIn(name, path))}}


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"after": "0" * 64}, "what it put in, or what was there, has changed since"),
        ({"before": "0" * 64}, "what it put in, or what was there, has changed since"),
        ({"added": ("harmless",)}, "what it put in, or what was there, has changed since"),
        ({"remove": ("skipped", "last")}, "has changed since"),
        ({"remove": ("first",)}, "no step 'first' stands after it"),
        ({"step": "nobody"}, "only a step of the outermost row"),
        (with_path("os:system"), "it is a builtin_function_or_method, which is no step, combinator or pipeline"),
        (with_path("antigravity:step"), "module 'antigravity' is not loaded"),
        (with_path(""), "module '' is not loaded"),
        (with_path("mutating_pipeline:flows.ask"), "has no attribute 'flows.ask'"),
        (with_path("mutating_pipeline:ask", "other"), "it is called 'ask', and was 'other'"),
        (with_path("mutating_pipeline:ask", "ask-2/x"), "it is called 'ask', and was 'ask-2/x'"),
    ],
)
async def test_a_change_that_was_forged_is_refused_before_anything_of_it_is_used(how: dict[str, Any], why: str) -> None:
    with pytest.raises(SnapshotError, match=re.escape(why)):
        await flows.flujo_of("pipeline").resume_async(altered((await paused()).snapshot(), **how), 7)
    assert "antigravity" not in sys.modules


async def test_a_change_of_a_snapshot_is_under_its_digest_and_has_its_form() -> None:
    written = (await paused()).snapshot().model_dump_json()
    for old, new in (('"mutating_pipeline:ask"', '"mutating_pipeline:last"'), ('["skipped"]', "[]")):
        assert old in written
        with pytest.raises(SnapshotError, match="its digest does not fit"):
            Snapshot.model_validate_json(written.replace(old, new))
    with pytest.raises(SnapshotError, match="snapshot cannot be used"):
        Snapshot.model_validate_json(written.replace('"path":"mutating_pipeline:ask"', '"path":7'))


async def test_a_snapshot_without_changes_has_the_digest_that_it_had_before_there_were_any() -> None:
    snapshot = (await Flujo(flows.last).run_async(1)).snapshot()
    older = hashlib.sha256(snapshot.model_dump_json(exclude={"digest", "mutations"}).encode()).hexdigest()
    written = json.loads(snapshot.model_dump_json(exclude={"mutations"}))
    assert (snapshot.digest, Snapshot.model_validate_json(json.dumps(written)).mutations) == (older, [])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"node": 2}, "where that did not end"),
        ({"kind": "skipped"}, "where that did not end"),
        ({"cancelled": True}, "where that did not end"),
    ],
)
async def test_a_change_in_the_journal_of_a_lost_run_stands_where_its_step_ended(row: dict[str, Any], why: str) -> None:
    store = Crashing(1)
    await flows.flujo_of("pipeline", store=store).run_async(0, run_id="r")
    kept = await store.load("r")
    late = [one.model_copy(update=row) for one in kept.late]
    lost = kept.snapshot.model_copy(update={"journal": late})
    with pytest.raises(SnapshotError, match=why):
        await flows.flujo_of("pipeline").resume_async(lost, retry=True)
    twice = kept.snapshot.model_copy(update={"journal": [*kept.late, *kept.late]})
    with pytest.raises(SnapshotError, match=r"cannot be made again: .*no step 'skipped' stands after it"):
        await flows.flujo_of("pipeline").resume_async(twice, retry=True)


async def test_what_was_lost_between_two_changes_goes_on_from_the_second() -> None:
    store = Crashing(2)
    lost = await flows.flujo_of("nested", store=store).run_async(0, run_id="r")
    assert lost.status == "aborted"
    store.left = 99
    flujo = flows.flujo_of("nested", store=store)
    stood = await flujo.resume_async("r", retry=True)
    assert (stood.status, told(stood)) == ("paused", "again=5 again-2=10")
    result = await flujo.resume_async("r", 7)
    assert (result.output, told(result)) == (8, "again=5 again-2=10 ask=7 last=8")
    assert [row.path for row in result.snapshot().journal if row.mutation] == ["again", "again-2"]
    assert (await flujo.replay_async("r")).divergence is None


async def test_a_run_holds_no_more_than_the_plan_that_it_goes_on_with() -> None:
    flujo = flows.flujo_of("nested")
    result = await flujo.run_async(0)
    gc.collect()
    now = cast("Run", result.origin).setup
    held = [one for one in gc.get_objects() if isinstance(one, Setup) and one.resources is None and one.row is not None]
    mine = [one for one in held if one.hooks is now.hooks]
    assert (len(result.snapshot().mutations), len(mine)) == (2, 2)  # this, and that with which each run begins


# --- any change of any row, stopped anywhere --------------------------------------------------------------------------


def _grown(number: int) -> Step:
    async def grow(value: list[int]) -> list[int]:
        if -number in value:  # where it is to pause
            raise PauseForHumanInput(f"s{number}?", list[int])
        return [*value, number]

    return Step(grow, name=f"s{number}")


STEPS: list[Step] = [_grown(number) for number in range(1, 13)]
globals().update({step.name: step for step in STEPS})  # a run finds them there again


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_row_goes_on_from_its_snapshot_as_the_same_row_written_so(data: st.DataObject) -> None:
    length = data.draw(st.integers(2, 6))
    at, spare = data.draw(st.integers(0, length - 2)), iter(STEPS[6:])
    later = [one.name for one in STEPS[at + 1 : length]]
    removed = data.draw(st.sets(st.sampled_from(later)))
    replaced = {name: next(spare) for name in sorted(data.draw(st.sets(st.sampled_from(later), max_size=2)) - removed)}
    grown = {name: next(spare) for name in sorted(data.draw(st.sets(st.sampled_from(["change", *later]), max_size=3)))}

    async def change(value: list[int]) -> PipelineMutation[list[int]]:
        return PipelineMutation(value, insert_after=grown, replace=replaced, remove=removed)

    row: list[Step] = [*STEPS[:at], Step(change), *STEPS[at + 1 : length]]
    by_hand: list[Step] = []
    for one in row:
        by_hand += [] if one.name in removed else [replaced.get(one.name, one)]
        by_hand += [grown[one.name]] if one.name in grown else []
    expected = [STEPS.index(one) + 1 for one in by_hand if one in STEPS]
    asks = data.draw(st.sampled_from([0, *expected]))
    flujo = Flujo(Pipeline(reduce(_after, row[1:], row[0])), experimental={"mutation"})
    result = flujo.run([-asks])
    assert (result.status == "paused") == (asks > 0)
    if asks:
        snapshot = Snapshot.model_validate_json(result.snapshot().model_dump_json())
        decision = [-asks, *expected[: expected.index(asks) + 1]]
        result = anyio.run(partial(flujo.resume_async, snapshot, decision))
    assert result.output == [-asks, *expected]
    done = [record.path for record in result.step_history if record.status != "paused"]
    assert done == [one.name for one in by_hand]
    changes = [] if not (removed or replaced or grown) else [_fingerprint(by_hand)]
    assert [change.after for change in result.snapshot().mutations] == changes


def _after(left: Chain | Step, right: Step) -> Chain:
    return left >> right


def _fingerprint(row: Sequence[Step]) -> str:
    return compile_plan(Pipeline(reduce(_after, row[1:], row[0]))).fingerprint
