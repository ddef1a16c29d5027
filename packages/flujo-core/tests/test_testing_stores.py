"""The rules for stores: one broken store for each; and faults at what a store writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flujo.core import EntryData, Flujo, MemoryStore, RunStore, Snapshot, Step
from flujo.core.testing import FaultInjector, NotConforming, assert_conforms
from flujo.core.testing.store_rules import STORE_RULES

ALL = tuple(rule.__name__ for rule in STORE_RULES)


class Forgets(MemoryStore):
    async def create(self, snapshot: Snapshot) -> None:
        await super().create(snapshot.model_copy(update={"status": "failed"}))


class Overwrites(MemoryStore):
    async def create(self, snapshot: Snapshot) -> None:
        self._runs.pop(snapshot.run_id, None)
        await super().create(snapshot)


class KeyErrors(MemoryStore):
    async def load(self, run_id: str) -> Snapshot:
        return self._runs[run_id].model_copy(update={"journal": list(self._journals[run_id])})


class Backwards(MemoryStore):
    async def append(self, run_id: str, row: EntryData) -> None:
        self._journals[run_id].insert(0, row)


class Truncates(MemoryStore):
    async def append(self, run_id: str, row: EntryData) -> None:
        self._journals[run_id] = [*self._journals[run_id], row][-20:]


class SavesAll(MemoryStore):
    async def save(self, snapshot: Snapshot) -> None:
        await super().save(snapshot)
        self._journals[snapshot.run_id] = []


class GivesItself(MemoryStore):
    async def load(self, run_id: str) -> Snapshot:
        found = await super().load(run_id)
        return found.model_copy(update={"journal": self._journals[run_id]})


class OneJournal(MemoryStore):
    async def append(self, run_id: str, row: EntryData) -> None:
        for journal in self._journals.values():
            journal.append(row)


class LetsAllThrough(MemoryStore):
    async def claim(self, run_id: str, position: int, pause_id: str, digest: str) -> None:
        pass


class SeesNoDecision(MemoryStore):
    async def claim(self, run_id: str, position: int, pause_id: str, digest: str) -> None:
        await super().claim(run_id, position, pause_id, "")


@pytest.mark.parametrize(
    ("store", "rule"),
    [
        (Forgets, "created_runs_are_found"),
        (Overwrites, "a_known_id_is_refused"),
        (KeyErrors, "an_unknown_id_is_told"),
        (Backwards, "rows_keep_their_order"),
        (Truncates, "rows_survive_being_written_at_once"),
        (SavesAll, "saving_leaves_the_journal"),
        (GivesItself, "what_is_loaded_is_a_copy"),
        (OneJournal, "runs_are_apart"),
        (LetsAllThrough, "one_claim_wins"),
        (SeesNoDecision, "claims_are_told_apart"),
        (Backwards, "a_run_goes_on_by_its_id"),
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
async def test_a_write_that_fails_ends_the_run_with_its_error(at: str) -> None:
    store = MemoryStore()
    with FaultInjector().raises(OSError("disk full"), at=at, step="second") as faults:  # type: ignore[arg-type]
        flujo = Flujo(Step(plus, name="first") >> Step(plus, name="second"), store=faults.store(store))
        with pytest.raises(OSError, match="disk full"):
            await flujo.run_async(1, run_id="run")
    written = [row.path for row in (await store.load("run")).journal]
    assert written == (["first"] if at == "before_write" else ["first", "second"])


PROGRAM = '''
import json, os, sys
from pathlib import Path

import anyio
from flujo.core import EntryData, Flujo, MemoryStore, Snapshot, Step
from flujo.core.testing import FaultInjector

FOLDER = Path(sys.argv[1])


class Lines(MemoryStore):
    """Runs as JSON lines, each on the disk before anything follows from it."""

    def write(self, kind, data):
        with open(FOLDER / "run.jsonl", "a") as file:
            file.write(json.dumps([kind, data]) + "\\n")
            file.flush()
            os.fsync(file.fileno())

    async def create(self, snapshot):
        await super().create(snapshot)
        self.write("run", snapshot.model_dump(mode="json"))

    async def append(self, run_id, row):
        await super().append(run_id, row)
        self.write("row", row.model_dump(mode="json"))

    async def save(self, snapshot):
        await super().save(snapshot)
        self.write("run", snapshot.model_dump(mode="json"))


def read():
    store = Lines()
    for line in (FOLDER / "run.jsonl").read_text().splitlines():
        kind, data = json.loads(line)
        if kind == "run":
            snapshot = Snapshot.model_validate(data)
            store._runs[snapshot.run_id] = snapshot
            store._journals.setdefault(snapshot.run_id, [])
        else:
            store._journals["run"].append(EntryData.model_validate(data))
    return store


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
        await Flujo(pipeline, store=faults.store(Lines())).run_async(0, run_id="run")
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
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ.copy())

    killed = run("start", at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run("resume")
    assert (resumed.returncode, resumed.stdout.strip()) == (0, "4"), resumed.stderr
    assert [int(line) for line in (tmp_path / "effects").read_text().split()] == effects
