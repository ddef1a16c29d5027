"""A run that a store keeps and whose process is gone, again and again: it goes on with all that was kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fuzz_build import flujo_of
from fuzz_reference import Reference
from fuzz_store import Diary
from fuzz_values import mix

from flujo.core import AlreadyResumed, Flujo, Pause, PipelineResult, ResumeConflict, ResumeError

if TYPE_CHECKING:
    from fuzz_check import Trial

CUTS = 2
"""How often the process of a run is gone."""

ID = "r"


@dataclass(frozen=True)
class Said:
    """A decision: where the store was told of it, for which question, and whether that asks what may happen once."""

    at: int
    pause_id: str
    path: str
    value: Any
    reconciles: bool


@dataclass
class Killed:
    """One such run.

    Attributes:
        trial: What is known of its pipeline.
        said: The decisions that count.
    """

    trial: Trial
    said: list[Said] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        world = self.trial.world
        world.begin(pauses=True)
        self.store = Diary(lambda: len(world.events))
        self.flujo: Flujo = flujo_of(self.trial.spec, world, store=self.store)

    def pick(self, bound: int) -> int:
        """The next number below `bound`, made of the picks of the description."""
        self.turns += 1
        assert self.turns < 200, f"it asks again and again: {self.said[-1]}"
        return mix("pick", self.turns, self.trial.spec.picks) % bound

    async def run(self) -> None:
        """Start the run, and go on with it until it has ended, with cuts on the way."""
        result = await self.flujo.run_async(self.trial.spec.start, run_id=ID)
        self.check(result)
        cuts = CUTS
        while cuts or result.status == "paused":
            if cuts and (result.status != "paused" or self.pick(2)):
                cuts -= 1
                result = await self.found() or result
            else:
                result = await self.decide(result.pauses)
            self.check(result)
        await self.trial.replayed(result, ID, self.flujo)

    async def found(self) -> PipelineResult | None:
        """Another process goes on with the run, from what one that is gone now has left; None where it had ended."""
        trial, count = self.trial, 1 + self.pick(len(self.store.told))
        told = self.store.told
        late = told[count].before if count < len(told) and self.pick(2) else told[count - 1].events
        self.store = await self.store.after(count)
        self.said = [said for said in self.said if said.at < count]
        self.forget(late)
        done = {row.path for row in self.store.rows() if row.kind in ("success", "skipped")}
        told = [row.value[1] for row in self.store.rows() if row.kind == "called"]  # type: ignore[index,call-overload]
        called = [one["content"] for one in told if isinstance(one, dict)]  # else it is where a visit stood
        events = len(trial.world.events)
        self.flujo = flujo_of(trial.spec, trial.world, store=self.store)
        result = await self.taken_up()
        fresh = trial.world.events[events:]
        repeated = {path for kind, path in fresh if kind == "start" and path in done}
        assert not repeated, f"they were done, and are done again: {repeated}"
        used = {path for kind, path in fresh if kind == "tool" and mix("tool", {"path": path}) in called}
        assert not used, f"what their tools gave was kept, and they are used again: {used}"
        return result

    def forget(self, count: int) -> None:
        """The world is as it was when so much had happened: the process was gone then."""
        world = self.trial.world
        del world.events[count:]
        world.happened.clear()
        world.happened.update(event for event in world.events if event[0] in ("tool", "effect"))

    async def taken_up(self) -> PipelineResult | None:
        kept = await self.store.load(ID)
        if kept.snapshot.status == "paused":
            return await self.decide(kept.snapshot.pauses)
        if kept.snapshot.status != "running":
            assert await self.flujo.recover_async() == []
            return None
        last = self.said[-1] if self.said and self.said[-1].at == len(self.store.told) - 1 else None
        if last is not None and self.pick(2):
            return await self.flujo.resume_async(ID, last.value, pause=last.pause_id)
        if self.pick(2):
            return await self.flujo.resume_async(ID)
        [result] = await self.flujo.recover_async()
        return result

    async def decide(self, pauses: tuple[Pause, ...]) -> PipelineResult:
        """Answer one of the open questions; that it is answered twice changes nothing."""
        trial = self.trial
        pause = pauses[self.pick(len(pauses))]
        path, asked = pause.step_path, reconciles(pause)
        value = trial.truth(pause) if asked else trial.world.answers[path]
        if not asked and trial.work_at(path).pause == "raise":
            trial.world.events.append(("end", path))
        self.said.append(Said(len(self.store.told), pause.id, path, value, asked))
        result = await self.flujo.resume_async(ID, value, pause=pause.id)
        await self.refused(AlreadyResumed, value, pause)
        await self.refused(ResumeConflict, ["another"], pause)
        return result

    async def refused(self, error: type[ResumeError], value: Any, pause: Pause) -> None:
        """See a decision refused for a question that was answered."""
        try:
            await self.flujo.resume_async(ID, value, pause=pause.id)
        except error:
            return
        raise AssertionError(f"{pause.id} is answered again, with {value!r}")

    def check(self, result: PipelineResult) -> None:
        """Hold where the run stands against the reference."""
        trial = self.trial
        decided = {said.path for said in self.said if not said.reconciles}
        parked = {pause.step_path for pause in result.pauses if reconciles(pause)}
        reference = Reference(decided, parked=parked)
        trial.same_end(result, reference.run(trial.spec))
        records = {record.path: record for record in result.step_history}  # of a step that failed twice, the last
        for path, visit in reference.visits.items():
            if visit.sure:
                assert path in records, f"{path} is not recorded"
                assert records[path].status == visit.status, f"{path} is {records[path].status}, not {visit.status}"
        trial.once()
        assert not trial.world.active, f"still running: {trial.world.active}"
        assert not trial.world.wrong, trial.world.wrong


def reconciles(pause: Pause) -> bool:
    """Whether a question asks what became of something that may happen at most once."""
    return isinstance(pause.payload, dict) and "needs_reconcile" in pause.payload


async def killed(trial: Trial) -> None:
    """Check a run whose process is gone, again and again."""
    await Killed(trial).run()
