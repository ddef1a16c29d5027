"""Kills runs at every point, and goes on with them in fresh processes: `hitl_matrix.py FOLDER [URL]`.

For each it prints a line of JSON: the case, how its first process ended, how the run ended, and the effects that were
done. All processes are forked from this one, which imported everything and opened nothing.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast, get_args

import anyio
from hitl_trials import note, store_at

from flujo.core import Flujo, MemoryStore, PauseForHumanInput, PipelineResult, ResumeError, RunContext, Step
from flujo.core.outcome import Effect
from flujo.core.testing import FaultInjector
from flujo.core.testing.faults import Point
from flujo.hitl.payloads import Payloads
from flujo.hitl.schema import Durability

ALWAYS = ("before_step", "after_step", "before_write", "after_write")
CASES = [
    *[
        (point, "", visit)
        for point in ("before_create", "after_create", "before_claim", "after_claim", "before_release", "after_release")
        for visit in (1,)
    ],
    *[(point, "", visit) for point in ("before_save", "after_save") for visit in (1, 2)],
    *[(point, step, 1) for point in ALWAYS for step in ("pay", "ship")],
]
assert {point for point, _, _ in CASES} == set(get_args(Point))


URL = sys.argv[2] if len(sys.argv) > 2 else ""


def place(folder: Path) -> str:
    """Each case has a file, or a schema, of its own."""
    return f"{URL}#{folder.name.replace('-', '_').rstrip('_')}" if URL else str(folder / "runs.db")


def pipeline(effects: Path, effect: Effect) -> Any:
    async def pay(value: int, ctx: RunContext) -> int:
        note(effects, f"pay {ctx.idempotency_key}")
        return value + 1

    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    async def ship(value: int, ctx: RunContext) -> int:
        note(effects, f"ship {ctx.idempotency_key}")
        return 2 * value

    return Step(pay, effect=effect) >> Step(ask) >> Step(ship, effect=effect)


async def first(folder: Path, effect: Effect, point: str, step: str, visit: int) -> None:
    """Run, answer, and be killed somewhere."""
    faults = FaultInjector().kills(at=cast(Point, point), step=step or None, visit=visit)
    if point.endswith("release"):  # which is what becomes of a run whose store failed
        faults.raises(OSError("full"), at="before_write", step="ship")
    durability: Durability = "full" if effect == "idempotent" else "normal"  # both survive the end of a process
    store = faults.store(store_at(place(folder), **({} if URL else {"durability": durability})))
    flujo = Flujo(pipeline(folder / "effects", effect), backend=faults, store=store)
    await flujo.run_async(1, run_id="r")
    await flujo.resume_async("r", 21)


async def later(folder: Path, effect: Effect) -> None:
    """Go on, as a worker and a human do who know nothing of what happened before."""
    store = store_at(place(folder))
    flujo = Flujo(pipeline(folder / "effects", effect), store=store)
    asked: list[str] = []
    for _ in range(5):
        for result in await flujo.recover_async():
            note(folder / "log", f"recovered {result.status}")
        try:
            kept = await store.load("r")
        except ResumeError:
            await flujo.run_async(1, run_id="r")
            continue
        if kept.snapshot.status != "paused":
            break
        (pause,) = kept.snapshot.pauses
        asked.append(pause.question)
        await answer(flujo, folder, pause.question, pause.step_path)
    kept = await store.load("r")
    diverged = None if effect == "at_most_once" else (await flujo.replay_async("r")).divergence
    asked = ["reconcile" if "Did it happen" in text else "ask" for text in asked]
    output = [entry.value for entry in kept.history() if entry.path == "ship" and entry.kind == "success"]
    facts = {"status": kept.snapshot.status, "asked": asked, "output": output, "diverged": str(diverged)}
    (folder / "result").write_text(json.dumps(facts))
    store.close()


async def answer(flujo: Flujo, folder: Path, question: str, step: str) -> PipelineResult:
    if "Did it happen" not in question:
        return await flujo.resume_async("r", 21)
    file = folder / "effects"
    happened = file.exists() and any(line.startswith(f"{step} ") for line in file.read_text().splitlines())
    output = {"pay": 2, "ship": 42}[step]
    return await flujo.resume_async("r", {"happened": happened, "output": output if happened else None})


def forked(work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> int:
    if (pid := os.fork()) == 0:
        code = 1
        try:
            anyio.run(work, *arguments)
            code = 0
        except Exception:  # the parent only sees the code
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def warm_up(folder: Path) -> None:
    """Let the parent build, once, what each child would."""
    flujo = Flujo(pipeline(folder / "effects", "at_most_once"), store=MemoryStore())
    await flujo.run_async(1, run_id="r")
    await flujo.resume_async("r", 21)
    await flujo.replay_async("r")
    payloads = Payloads(None)
    kept = await cast(MemoryStore, flujo.store).load("r")
    written = payloads.snapshot(kept.snapshot)
    payloads.standing(written, "r", kept.snapshot.pipeline, kept.snapshot.fingerprint, "completed")
    payloads.rows([(k, payloads.row(row, "r", k)) for k, row in enumerate(kept.history())], "r", 0)


def main(root: Path) -> None:
    (root / "warm").mkdir()
    anyio.run(warm_up, root / "warm")
    for effect in ("idempotent", "at_most_once"):
        for point, step, visit in CASES:
            folder = root / f"{effect}-{point}-{step}-{visit}"
            folder.mkdir()
            ends = (forked(first, folder, effect, point, step, visit), forked(later, folder, effect))
            effects = folder / "effects"
            lines = effects.read_text().split("\n")[:-1] if effects.exists() else []
            result = json.loads((folder / "result").read_text()) if ends[1] == 0 else {}
            case = {"case": f"{effect} {point} {step} {visit}", "ends": ends, "effects": lines}
            sys.stdout.write(json.dumps({**case, **result}) + "\n")
            sys.stdout.flush()


main(Path(sys.argv[1]))
