"""Processes that are killed, race, or run out of disk: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROGRAM = '''
import os, sys
from pathlib import Path

import anyio

from flujo.core import Flujo, Map, Parallel, PauseForHumanInput, RunContext, Step, ToolCall
from flujo.core.testing import FaultInjector
from flujo.hitl import SQLiteStore

FOLDER, ACT, POINT, STEP = Path(sys.argv[1]), *sys.argv[2:5]


def effect(name):
    """What the world sees, on the disk before anything else happens."""
    with open(FOLDER / "effects", "a") as file:
        file.write(name + "\\n")
        file.flush()
        os.fsync(file.fileno())


async def work(value: int, ctx: RunContext) -> int:
    effect(ctx.step_path)
    return value + 1


async def tools(value: int, ctx: RunContext) -> int:
    async def send(call):
        effect(f"{ctx.step_path}:{call.name}")
        if POINT == "in_tool" and ACT == "start" and call.name == "second":
            os.kill(os.getpid(), 9)
        return 1

    for name in ("first", "second", "third"):
        kind = "at_most_once" if name == "second" else "idempotent"
        await ctx.call_tool(ToolCall(name=name, arguments={}), send, effect=kind)
    return value + 1


async def once(value: int, ctx: RunContext) -> int:
    effect(ctx.step_path)
    return value + 1


async def total(value: list[int]) -> int:
    effect("total")
    return sum(value)


async def each(value: int) -> list[int]:
    effect("each")
    return [value, value + 1, value + 2]


async def ask(value: int) -> int:
    effect("ask")
    raise PauseForHumanInput("How many?", schema=int)


pipeline = (
    Step(work, name="a") >> Step(each) >> Map(Step(work, name="b")) >> Step(total) >> Step(tools)
    >> Step(ask) >> Step(once, effect="at_most_once") >> Step(work, name="z")
)


async def goes_on(flujo):
    """Until it ends: a person answers what is asked, and says that what was cut off did happen."""
    for _ in range(5):
        [result, *_] = await flujo.recover_async() or [None]
        if result is None:
            kept = await flujo.store.load("r")
            if kept.snapshot.status == "completed":
                return
            if kept.snapshot.status != "paused":
                result = await flujo.resume_async("r", retry=True)
        for pause in (await flujo.store.load("r")).snapshot.pauses:
            answer = {"happened": True, "output": 7} if "at most once" in pause.question else 5
            result = await flujo.resume_async("r", answer, pause=pause.id)
        if result is not None and result.status == "completed":
            print(result.output)
            return


async def main():
    store = SQLiteStore(FOLDER / "runs.db", durability="normal")
    if ACT == "start":
        if POINT != "in_tool":
            faults = FaultInjector().kills(at=POINT, step=STEP or None)
            store = faults.store(store)
            flujo = Flujo(pipeline, store=store, backend=faults)
        else:
            flujo = Flujo(pipeline, store=store)
        await flujo.run_async(1, run_id="r")
        await flujo.resume_async("r", 5)
    else:
        await goes_on(Flujo(pipeline, store=store))


anyio.run(main)
'''

STEPS = {"a": 1, "each": 1, "map[0]/b": 1, "map[1]/b": 1, "map[2]/b": 1, "total": 1, "ask": 1, "once": 1, "z": 1}
TOOLS = {"tools:first": 1, "tools:second": 1, "tools:third": 1}
OUTPUT = {False: "7", True: "8"}
"""Of the last step: of 5 + 1 + 1; or of the 7 that a person reported of the step that was cut off."""

POINTS = [
    ("before_step", "tools"), ("after_step", "map[1]/b"), ("after_step", "once"), ("before_write", "tools"),
    ("after_write", "ask"), ("before_claim", ""), ("after_claim", ""), ("before_save", ""), ("in_tool", ""),
]  # fmt: skip
FURTHER = [
    *(("before_step", step) for step in ("a", "each", "map[1]/b", "total", "ask", "once", "z")),
    *(("after_step", step) for step in ("a", "tools", "z")),
    *(("before_write", step) for step in ("a", "map[2]/b", "ask", "once", "z")),
    *(("after_write", step) for step in ("a", "map[2]/b", "tools", "once", "z")),
    *((point, "") for point in ("after_save", "after_create")),
]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ.copy())


@pytest.mark.parametrize(("point", "step"), [*POINTS, *(pytest.param(*one, marks=pytest.mark.soak) for one in FURTHER)])
def test_a_run_killed_anywhere_goes_on_in_a_fresh_process(tmp_path: Path, point: str, step: str) -> None:
    killed = run(tmp_path, "start", point, step)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(tmp_path, "resume", "", "")
    assert resumed.returncode == 0, resumed.stderr
    done = Counter((tmp_path / "effects").read_text().split())
    assert done.keys() <= {*STEPS, *TOOLS}
    parked = step == "once" and point in ("before_step", "after_step", "before_write")
    for name in STEPS.keys() - {"once"}:
        # one that was cut off may be done again, and so may those that were at it beside it
        again = (name == step and point in ("after_step", "before_write")) or ("map[" in name and "map[" in step)
        assert 1 <= done[name] <= 1 + again, (name, done)
    assert done["once"] <= 1
    for name in TOOLS:  # what was recorded before is not called again; what may happen at most once, never
        again = step == "tools" and point == "before_write" and name == "tools:first"
        assert done[name] <= 1 + again, (name, done)
    if resumed.stdout:
        assert resumed.stdout.strip() == OUTPUT[parked], (done, resumed.stdout)


RACE = """
import sys
from pathlib import Path

import anyio
from flujo.core import Flujo, PauseForHumanInput, ResumeError, Step
from flujo.hitl import SQLiteStore


async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


async def pay(value: int) -> int:
    print(value, flush=True)
    return value


async def main():
    with SQLiteStore(sys.argv[1], durability="normal") as store:
        flujo = Flujo(Step(ask, pauses=True) >> Step(pay), store=store)
        if sys.argv[2] == "start":
            for number in range(int(sys.argv[3])):
                await flujo.run_async(number, run_id=f"r{number}")
            return
        while not Path(sys.argv[4]).exists():
            await anyio.sleep(0.001)
        for number in range(int(sys.argv[3])):
            try:
                await flujo.resume_async(f"r{number}", number * 100 + int(sys.argv[2]))
            except ResumeError:
                pass


anyio.run(main)
"""


@pytest.mark.parametrize(("processes", "pauses"), [(4, 50), pytest.param(8, 200, marks=pytest.mark.soak)])
def test_of_processes_that_answer_the_same_questions_one_wins_each(tmp_path: Path, processes: int, pauses: int) -> None:
    program, store, go = tmp_path / "race.py", tmp_path / "runs.db", tmp_path / "go"
    program.write_text(RACE)
    subprocess.run([sys.executable, str(program), str(store), "start", str(pauses)], check=True, timeout=60)
    racers = [
        subprocess.Popen(
            [sys.executable, str(program), str(store), str(number), str(pauses), str(go)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(processes)
    ]  # fmt: skip
    go.touch()
    told = [racer.communicate(timeout=110) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * processes, told
    paid = sorted(int(line) // 100 for out, _ in told for line in out.split())
    assert paid == list(range(pauses))


FULL = """
import resource, signal, sys

import anyio
from flujo.core import Flujo, Step
from flujo.hitl import SQLiteStore


async def big(value: str) -> str:
    return value + "x" * 20_000


async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails as on a full disk
    with SQLiteStore(sys.argv[1]) as store:
        await Flujo(Step(big, name="first"), store=store).run_async("", run_id="whole")
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        pipeline = Step(big, name="s0")
        for number in range(1, 20):
            pipeline = pipeline >> Step(big, name=f"s{number}")
        result = await Flujo(pipeline, store=store).run_async("", run_id="r")
        print(result.status, len(result.step_history), result.error)


anyio.run(main)
"""


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    program, store = tmp_path / "full.py", tmp_path / "runs.db"
    program.write_text(FULL)
    command = [sys.executable, str(program), str(store)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    status, steps, error = ended.stdout.split(" ", 2)
    assert status == "aborted", ended.stdout
    assert "could not keep what it did" in error
    look = """
import sys, anyio
from flujo.hitl import SQLiteStore
async def main():
    with SQLiteStore(sys.argv[1]) as store:
        whole, part = await store.load("whole"), await store.load("r")
        print(whole.snapshot.status, part.snapshot.status, len(part.history()))
anyio.run(main)
"""
    command = [sys.executable, "-c", look, str(store)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout.split()[:2] == ["completed", "running"], found.stderr
    assert 0 < int(found.stdout.split()[2]) == int(steps) - 1
