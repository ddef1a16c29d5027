"""The rules for stores: one broken store for each; and faults at what a store writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from flujo.core import EntryData, Flujo, Hold, KeptRun, MemoryStore, Receipt, RunStore, Snapshot, Step
from flujo.core.store import _Kept
from flujo.core.testing import FaultInjector, NotConforming, assert_conforms
from flujo.core.testing.faults import Point
from flujo.core.testing.store_rules import STORE_RULES

ALL = tuple(rule.__name__ for rule in STORE_RULES)


class Forgets(MemoryStore):
    async def create(self, snapshot: Snapshot) -> Hold:
        return await super().create(snapshot.model_copy(update={"status": "failed"}))


class Overwrites(MemoryStore):
    async def create(self, snapshot: Snapshot) -> Hold:
        self._runs.pop(snapshot.run_id, None)
        return await super().create(snapshot)


class KeyErrors(MemoryStore):
    def _known(self, run_id: str) -> _Kept:
        return self._runs[run_id]


class Backwards(MemoryStore):
    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        self._held(hold).journal[:0] = rows


class Truncates(MemoryStore):
    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        await super().append(hold, rows)
        del self._runs[hold.run_id].journal[:-20]


class SavesAll(MemoryStore):
    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        await super().save(hold, snapshot)
        self._runs[snapshot.run_id].journal.clear()


class KeepsThePlan(MemoryStore):
    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        before = self._known(hold.run_id).snapshot.fingerprint
        await super().save(hold, snapshot.model_copy(update={"fingerprint": before}))


class GivesItself(MemoryStore):
    async def load(self, run_id: str) -> KeptRun:
        found = await super().load(run_id)
        return KeptRun(found.snapshot, found.late, lambda: self._runs[run_id].journal)


class OneJournal(MemoryStore):
    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        for kept in self._runs.values():
            kept.journal.extend(rows)


class LetsAllThrough(MemoryStore):
    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        self._known(receipt.run_id).decisions.clear()
        self._known(receipt.run_id).is_held = False
        del self._known(receipt.run_id).journal[position:]
        return await super().claim(position, stood, receipt, rows)


class SeesNoDecision(MemoryStore):
    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        return await super().claim(position, stood, replace(receipt, digest=""), rows)


class SeesNoFailure(MemoryStore):
    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        return await super().claim(position, self._known(receipt.run_id).snapshot.status, receipt, rows)


class HoldsNothing(MemoryStore):
    def _held(self, hold: Hold) -> _Kept:
        return self._known(hold.run_id)


class FindsEverything(MemoryStore):
    async def orphans(self, fingerprint: str) -> Sequence[str]:
        return list(self._runs)


class Columns(MemoryStore):
    """Has no columns for some of what it is given."""

    lost: ClassVar[dict[str, object]]

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        await super().append(hold, [row.model_copy(update=self.lost) for row in rows])


class NoUsage(Columns):
    lost: ClassVar[dict[str, object]] = {"usage": None}


class NoChanges(Columns):
    lost: ClassVar[dict[str, object]] = {"changes": None}


class NoMarks(Columns):
    lost: ClassVar[dict[str, object]] = {"cached": False, "cancelled": False}


class ShortPaths(Columns):
    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        await super(Columns, self).append(hold, [row.model_copy(update={"path": row.path[:255]}) for row in rows])


class NoUnicode(Columns):
    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        written = [row.model_dump_json().encode("ascii", "replace") for row in rows]
        await super(Columns, self).append(hold, list(map(EntryData.model_validate_json, written)))


class NoTags(MemoryStore):
    async def create(self, snapshot: Snapshot) -> Hold:
        return await super().create(snapshot.model_copy(update={"tags": {}}))


class OneByOne(MemoryStore):
    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        for row in rows:
            row.model_dump_json()
            await super().append(hold, [row])


class DecidesFirst(OneByOne):
    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        for row in rows:
            row.model_dump_json()
        await super().append(hold, rows)

    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        hold = await super().claim(position, stood, receipt, [])
        await self.append(hold, rows)
        return hold


class ForgetsWhen(MemoryStore):
    async def receipt(self, run_id: str, pause_id: str | None = None) -> Receipt | None:
        found = await super().receipt(run_id, pause_id)
        return found and replace(found, decided_at=found.decided_at.replace(tzinfo=None))


class NotesEveryClaim(MemoryStore):
    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        hold = await super().claim(position, stood, receipt, rows)
        self._known(receipt.run_id).decisions[receipt.pause_id] = receipt
        return hold


class LowerCase(MemoryStore):
    def _known(self, run_id: str) -> _Kept:
        return super()._known(run_id.lower())

    async def create(self, snapshot: Snapshot) -> Hold:
        return await super().create(snapshot.model_copy(update={"run_id": snapshot.run_id.lower()}))


@pytest.mark.parametrize(
    ("store", "rule"),
    [
        (Forgets, "created_runs_are_found"),
        (Overwrites, "a_known_id_is_refused"),
        (KeyErrors, "an_unknown_id_is_told"),
        (Backwards, "rows_keep_their_order"),
        (Truncates, "rows_survive_being_written_at_once"),
        (SavesAll, "saving_leaves_the_journal"),
        (KeepsThePlan, "a_run_may_come_over_to_another_plan"),
        (GivesItself, "what_is_loaded_is_a_copy"),
        (OneJournal, "runs_are_apart"),
        (LetsAllThrough, "one_claim_wins"),
        (SeesNoDecision, "claims_are_told_apart"),
        (SeesNoFailure, "a_claim_is_of_what_was_loaded"),
        (HoldsNothing, "who_holds_a_run_is_alone"),
        (FindsEverything, "orphans_are_found"),
        (SavesAll, "a_run_goes_on_by_its_id"),
        (NoUsage, "rows_keep_their_order"),
        (NoChanges, "rows_keep_their_order"),
        (NoMarks, "rows_keep_their_order"),
        (ShortPaths, "rows_keep_their_order"),
        (NoUnicode, "rows_keep_their_order"),
        (NoTags, "created_runs_are_found"),
        (OneByOne, "all_rows_or_none_are_written"),
        (DecidesFirst, "all_rows_or_none_are_written"),
        (ForgetsWhen, "claims_are_told_apart"),
        (NotesEveryClaim, "claims_are_told_apart"),
        (LowerCase, "runs_are_apart"),
    ],
)
def test_a_broken_store_is_found_by_the_rule_that_it_breaks(store: type[RunStore], rule: str) -> None:
    with pytest.raises(NotConforming) as caught:
        assert_conforms(store, loops=["asyncio"])
    assert rule in caught.value.broken


def test_the_store_in_memory_keeps_every_rule() -> None:
    assert assert_conforms(MemoryStore) == ALL
    assert assert_conforms(MemoryStore(), RunStore) == ALL  # one for all rules and loops: each has ids of its own


# --- faults at writes -------------------------------------------------------------------------------------------------


async def plus(value: int) -> int:
    return value + 1


@pytest.mark.anyio
@pytest.mark.parametrize("at", ["before_write", "after_write"])
async def test_a_write_that_fails_ends_the_run_with_all_that_was_done_in_its_result(at: Point) -> None:
    store = MemoryStore()
    with FaultInjector().raises(OSError("disk full"), at=at, step="second") as faults:
        flujo = Flujo(Step(plus, name="first") >> Step(plus, name="second"), store=faults.store(store))
        result = await flujo.run_async(1, run_id="run")
    assert result.status == "aborted"
    assert "disk full" in str(result.error)
    assert [record.path for record in result.step_history] == ["first", "second"]
    written = [row.path for row in (await store.load("run")).history()]
    assert written == (["first"] if at == "before_write" else ["first", "second"])
    again = await Flujo(Step(plus, name="first") >> Step(plus, name="second"), store=store).resume_async("run")
    assert again.unwrap() == 3  # from what was written, whatever the run thought


PROGRAM = '''
import os, pickle, sys
from pathlib import Path

import anyio
from flujo.core import Flujo, MemoryStore, Step
from flujo.core.testing import FaultInjector

FOLDER = Path(sys.argv[1])


class File(MemoryStore):
    """Runs in a file that is whole at any time."""

    def write(self):
        new = FOLDER / "new"
        with open(new, "wb") as file:
            file.write(pickle.dumps(self._runs))
            file.flush()
            os.fsync(file.fileno())
        new.rename(FOLDER / "runs")

    async def create(self, snapshot):
        hold = await super().create(snapshot)
        self.write()
        return hold

    async def append(self, hold, rows):
        await super().append(hold, rows)
        self.write()

    async def save(self, hold, snapshot):
        await super().save(hold, snapshot)
        self.write()


def read():
    store = MemoryStore()
    store._runs = pickle.loads((FOLDER / "runs").read_bytes())
    return store.reopened()


async def work(value: int, name: str = "") -> int:
    with open(FOLDER / "effects", "a") as file:
        file.write(f"{value}\\n")
        file.flush()
        os.fsync(file.fileno())
    return value + 1


pipeline = Step(work, name="a") >> Step(work, name="b") >> Step(work, name="c") >> Step(work, name="d")


async def main():
    if sys.argv[2] == "start":
        faults = FaultInjector().kills(at=sys.argv[3], step="c")
        await Flujo(pipeline, store=faults.store(File())).run_async(0, run_id="run")
    else:
        print((await Flujo(pipeline, store=read()).resume_async("run", retry=True)).output)


anyio.run(main)
'''


@pytest.mark.parametrize(("at", "effects"), [("before_write", [0, 1, 2, 2, 3]), ("after_write", [0, 1, 2, 3])])
def test_what_was_written_before_a_kill_is_not_done_again(tmp_path: Path, at: str, effects: list[int]) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), str(tmp_path), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=os.environ.copy())

    killed = run("start", at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run("resume")
    assert (resumed.returncode, resumed.stdout.strip()) == (0, "4"), resumed.stderr
    assert [int(line) for line in (tmp_path / "effects").read_text().split()] == effects
