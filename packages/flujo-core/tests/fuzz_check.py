"""Runs a described pipeline on the real engine and compares all that can be seen of it with the reference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any

import anyio
from fuzz_build import flujo_of, question
from fuzz_kept import killed
from fuzz_reference import Bad, Good, Open, Reference
from fuzz_shrink import smallest
from fuzz_specs import Spec, works
from fuzz_values import mix, plain, remembered, seen
from fuzz_world import World
from pydantic_core import to_jsonable_python

from flujo.core import Flujo, OnRunEnd, Pause, PipelineResult, Snapshot, UsageLimitExceeded, UsageLimits

PATIENCE_S = 120.0
"""No generated pipeline waits for anything but checkpoints; one that takes so long hangs, on a busy machine too."""


def check_on(backend: str, spec: Spec) -> None:
    """Check a pipeline on asyncio or trio.

    Raises:
        AssertionError: The engine does something else than the reference.
    """
    anyio.run(check, spec, backend=backend)


def hold(backend: str, spec: Spec) -> None:
    """Check a pipeline; one that fails is made smaller first.

    Raises:
        AssertionError: The engine does something else than the reference; the text is code that shows it.
    """
    kind = fault(backend, spec)
    if kind is None:
        return
    small = smallest(spec, lambda smaller: fault(backend, smaller) == kind)
    try:
        check_on(backend, small)
    except Exception as error:
        raise AssertionError(f"{error}\n\n    check_on({backend!r}, {small!r})\n\nfound as\n{spec!r}") from error
    raise AssertionError(f"sometimes {kind}\n\n    check_on({backend!r}, {small!r})\n\nfound as\n{spec!r}")


def fault(backend: str, spec: Spec) -> str | None:
    """What kind of fault a pipeline shows; None where it shows none."""
    try:
        check_on(backend, spec)
    except Exception as error:
        words = [word for word in str(error).split() if word.isalpha()]
        return " ".join([type(error).__name__, *words[:6]])
    return None


async def check(spec: Spec) -> None:
    """Check a pipeline in the running event loop; see `check_on`."""
    steps = works(spec.root)
    with anyio.fail_after(PATIENCE_S):
        trial = Trial(spec)
        if any(work.cancels for work in steps):
            await (trial.cancelled_from_outside if spec.outer else trial.cancelled_by_handle)()
            return
        await trial.straight()
        if any(work.pause for work in steps):
            await trial.interrupted()
        if any(work.flaky for work in steps):
            await trial.healed()
        if spec.outer:
            await killed(trial)
        if spec.limits:
            await trial.limited()


def reconciles(pause: Pause) -> dict[str, Any] | None:
    """What a question about work that may happen at most once is about; None of another question."""
    return pause.payload.get("needs_reconcile") if isinstance(pause.payload, dict) else None  # type: ignore[return-value]


def as_json(value: object) -> object:
    """What a human types for a value."""
    return to_jsonable_python(value)


class Trial:
    """The runs of one pipeline."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.world = World()
        self.flujo: Flujo = flujo_of(spec, self.world)
        self.elsewhere: Flujo | None = None
        self.known: Collection[str] | None = ()
        self.works = {work.name: work for work in works(spec.root)}

    # --- kinds of runs ------------------------------------------------------------------------------------------------

    async def straight(self) -> None:
        """One run to its end; its replay calls no step and gives the same."""
        reference = Reference()
        for _ in range(1 + any(work.cached for work in self.works.values())):
            self.world.begin(pauses=False)
            result = await self.flujo.run_async(self.spec.start)
            self.compare(result, reference, pausing=False)
            self.known = reference.kept if all(visit.sure for visit in reference.visits.values()) else None
            reference = Reference(known=self.known)
        await self.replayed(result)

    async def interrupted(self) -> None:
        """Pauses, each decided with what the step would have given, give what a run without them does."""
        self.world.begin(pauses=True)
        decided: set[str] = set()
        result = await self.flujo.run_async(self.spec.start)
        while True:
            reference = Reference(decided, known=None if self.spec.carried else self.known)
            self.compare(result, reference, pausing=True)
            if result.status != "paused" or not decided:  # a replay at each pause would take a third of all time
                await self.replayed(result)
            if result.status != "paused":
                break
            result = await self.decide(result, decided)
        assert decided or "paused" not in {visit.status for visit in reference.visits.values() if visit.sure}

    async def decide(self, result: PipelineResult, decided: set[str]) -> PipelineResult:
        """Go on with a decision for one of the open pauses, in another process if the pipeline is `carried`."""
        picks = self.spec.picks
        pauses = sorted(result.pauses, key=lambda pause: pause.step_path)
        pause = pauses[picks[len(decided) % len(picks)] % len(pauses)]
        path = pause.step_path
        decided.add(path)
        if self.work_at(path).pause == "raise":
            self.world.events.append(("end", path))
        named: dict[str, Any] = {"pause": (pause, pause.id)[len(decided) % 2]} if len(pauses) > 1 else {}
        target = self.target(result)
        return await self.flujo.resume_async(target, self.world.answers[path], **named)

    def target(self, result: PipelineResult) -> PipelineResult | Snapshot:
        """What a run is gone on with: its result, or the JSON of its snapshot, with a Flujo that was made anew."""
        if not self.spec.carried:
            return result
        if self.elsewhere is None:
            self.elsewhere = self.flujo = flujo_of(self.spec, self.world)
        return Snapshot.model_validate_json(result.snapshot().model_dump_json())

    async def healed(self) -> None:
        """A failed run that is tried again, its faults gone, gives what a run without faults does."""
        self.world.begin(pauses=False, healed=False)
        result = await self.flujo.run_async(self.spec.start)
        failed = Reference(healed=False, known=None)
        self.compare(result, failed, pausing=False)
        if result.status != "failed":
            return
        self.world.healed = True
        await self.replayed(result)
        result = await self.reconciled(await self.flujo.resume_async(self.target(result), retry=True))
        reference = Reference()
        self.same_end(result, reference.run(self.spec))
        starts = self.starts()
        for path, visit in failed.visits.items():
            if visit.sure and visit.status == "completed":
                assert starts[path] == 1 or visit.hit, f"{path} ended well before the failure and runs again"
        assert starts.keys() <= reference.visits.keys()
        self.tools_once()
        self.once()
        assert not self.world.wrong, self.world.wrong
        await self.replayed(result)

    async def limited(self) -> None:
        """Limits that are just enough change nothing; less stops the run, which goes on where there is no limit."""
        reference, world = Reference(), self.world
        end = reference.run(self.spec)
        visits = [(self.work_at(path), visit.attempts) for path, visit in reference.visits.items()]
        costs = {work.name: work.cost * attempts for work, attempts in visits if work.cost * attempts}
        total = sum(work.cost * attempts for work, attempts in visits)
        if not costs or not isinstance(end, Good) or any(v.hit or not v.sure for v in reference.visits.values()):
            return
        short = sorted(costs)[self.spec.picks[0] % len(costs)]
        world.limits = {name: cost + 1 for name, cost in costs.items()} if self.spec.limits == "tight" else {}
        if self.spec.limits == "step":
            world.limits = {short: costs[short] - 1}
        if world.limits or any(work.cached for work in self.works.values()):  # what is found in a cache costs nothing
            self.flujo = flujo_of(self.spec, world)
        world.begin(pauses=False)
        world.limit = {"tight": total + 1, "short": total - 1}.get(self.spec.limits)
        result = await self.flujo.run_async(self.spec.start, limits=UsageLimits(total_tokens_limit=world.limit))
        if self.spec.limits == "tight":
            self.compare(result, reference, pausing=False)
            return
        assert isinstance(result.error, UsageLimitExceeded), f"no limit stops it: {result.status}, {result.error!r}"
        spent = result.usage.total_tokens
        assert world.limit is None or spent <= world.limit, f"{spent} tokens are used under a limit of {world.limit}"
        await self.quiet()
        if self.spec.limits == "short":
            world.limit = None
            again = await self.flujo.resume_async(self.target(result), limits=UsageLimits())
            self.same_end(await self.reconciled(again), end)
            self.once()
        assert not world.wrong, world.wrong

    async def quiet(self) -> None:
        """Wait until threads that were abandoned have returned."""
        while self.world.active:
            await anyio.sleep(0.001)

    async def cancelled_by_handle(self) -> None:
        """A run that one of its own steps cancels by the handle."""
        self.world.begin(pauses=False)
        handle = self.flujo.start(self.spec.start)
        self.world.cancel = handle.cancel
        await self.cancelled(await handle.wait())

    async def cancelled_from_outside(self) -> None:
        """A run whose surrounding scope one of its steps cancels."""
        ends: list[OnRunEnd] = []

        def on_end(end: OnRunEnd) -> None:
            ends.append(end)

        self.flujo = flujo_of(self.spec, self.world, hooks=[on_end])
        self.world.begin(pauses=False)
        result = None
        with anyio.CancelScope() as scope:
            self.world.cancel = scope.cancel
            result = await self.flujo.run_async(self.spec.start)
        assert (result is None) == scope.cancelled_caught, "a cancel from outside is not raised again"
        assert len(ends) == 1
        await self.cancelled(ends[0].result)

    async def cancelled(self, result: PipelineResult) -> None:
        """What holds after a cancel: nothing runs any more, and what began is in the history, once."""
        world, reference = self.world, Reference()
        assert not world.active, f"still running: {world.active}"
        count = len(world.events)
        for _ in range(5):
            await anyio.sleep(0)
        assert len(world.events) == count, "a step goes on after the end of its run"
        await self.replayed(result)
        end = reference.run(self.spec)
        fired = any(self.work_at(path).cancels for path in self.starts())
        if not fired:
            self.compare(result, reference, pausing=False)
            return
        allowed = {"aborted"} if isinstance(end, Good) else {"aborted", "failed"}
        assert result.status in allowed, f"a cancelled run is {result.status}"
        records = self.records(result)
        assert records.keys() >= self.starts().keys(), f"not recorded: {self.starts().keys() - records.keys()}"
        assert records.keys() <= reference.visits.keys()
        ended = {path for kind, path in world.events if kind == "end"}
        for path in self.starts():
            good = records[path].status == "completed"
            assert good == (path in ended), f"{path} is {records[path].status}"
        self.in_order(reference)
        # A cancel from outside takes a turn of the loop to get from the run to its steps: some may just end well.
        self.quiet_after("cancel", self.starts(), self.starts(), ends=not self.spec.outer)
        assert not world.wrong, world.wrong
        used = {path for kind, path in world.events if kind == "tool"}
        world.begin(pauses=False, anew=False)
        again = await self.reconciled(await self.flujo.resume_async(self.target(result), retry=True))
        self.same_end(again, end)
        assert not ended & self.starts().keys(), f"repeated: {ended & self.starts().keys()}"
        again_used = used & {path for kind, path in world.events if kind == "tool"}
        assert not again_used, f"tools are used again: {again_used}"
        self.once()
        await self.replayed(again)

    # --- what may happen at most once ---------------------------------------------------------------------------------

    async def reconciled(self, result: PipelineResult) -> PipelineResult:
        """Tell a run what became of all that was stopped in the middle and may happen at most once."""
        asked: set[str] = set()
        while result.status == "paused":
            await self.replayed(result)
            assert result.pauses[0].id not in asked, f"{result.pauses[0].id} is asked again"
            asked.add(result.pauses[0].id)
            pause = result.pauses[0]
            told = self.truth(pause)
            result = await self.flujo.resume_async(self.target(result), told, pause=pause.id)
        return result

    def truth(self, pause: Pause) -> dict[str, Any]:
        """What became of the work that a run asks about."""
        path = pause.step_path
        asked = reconciles(pause)
        assert asked is not None, f"{path} asks {pause.question!r}"
        work, kind = self.work_at(path), "tool" if asked["tool"] else "effect"
        assert work.once == ("tool" if asked["tool"] else "step"), f"{path} is put to a human: {asked}"
        if not self.world.happened[kind, path]:  # type: ignore[index]
            return {"happened": False}
        if kind == "tool":
            return {"happened": True, "output": mix("tool", {"path": path})}
        self.world.events.append(("end", path))
        return {"happened": True, "output": as_json(self.world.answers[path])}

    def once(self) -> None:
        """What may happen at most once did not happen twice."""
        for (kind, path), count in self.world.happened.items():
            may = kind == "effect" or self.work_at(path).once == "tool"
            assert not may or count == 1, f"{kind} of {path} happened {count} times"

    # --- what is compared ---------------------------------------------------------------------------------------------

    def compare(self, result: PipelineResult, reference: Reference, *, pausing: bool) -> None:
        """Hold a result, its history and the traces in the world against the reference."""
        end = reference.run(self.spec)
        self.same_end(result, end)
        records, starts = self.records(result), self.starts()
        strange = (records.keys() | starts.keys()) - reference.visits.keys()
        assert not strange, f"not due: {strange}"
        for path, visit in reference.visits.items():
            work = self.work_at(path)
            calls = visit.attempts
            if pausing and work.pause == "ask" and visit.status == "completed":
                calls += 1  # in the attempt that asked: once until then, once with the answer
            if not visit.sure:
                assert starts[path] <= calls, f"{path} is called {starts[path]} times"
                continue
            assert path in records, f"{path} is not recorded"
            record = records[path]
            assert not record.cached or visit.hit, f"{path} is taken from the cache"
            assert record.cached or visit.hit != "yes", f"{path} is not taken from the cache"
            calls = 0 if record.cached else calls
            assert starts[path] == calls, f"{path} is called {starts[path]} times, not {calls}"
            assert record.status == visit.status, f"{path} is {record.status}, not {visit.status}"
            if not work.pause and visit.attempts:
                attempts = 1 if record.cached else visit.attempts
                assert record.attempts == attempts, f"{path} has {record.attempts} attempts"
        spent = result.usage.total_tokens
        assert spent == self.world.used, f"{spent} tokens are counted, {self.world.used} were used"
        self.in_order(reference)
        self.within_limits(reference)
        self.tools_once()
        self.once()
        for bad, paths in reference.closed:
            self.quiet_after("fail", {path for _, path in bad.errors}, paths)
        assert not self.world.active, f"still running: {self.world.active}"
        assert not self.world.wrong, self.world.wrong

    @staticmethod
    def same_end(result: PipelineResult, end: Good | Bad | Open) -> None:
        """Hold status, output, context, error and open pauses against the reference."""
        if isinstance(end, Good):
            assert result.status == "completed", f"{result.status}: {result.error!r}"
            assert plain(result.output) == plain(end.value), f"output {result.output!r}, not {end.value!r}"
            context = seen(result.context)  # type: ignore[arg-type]
            assert context == remembered(end.deltas), f"context {context}, not {remembered(end.deltas)}"
        elif isinstance(end, Bad):
            assert result.status == "failed", f"{result.status}, should be failed: {end.errors}"
            error: Any = result.error
            told = (getattr(error, "error_type", type(error).__name__), getattr(error, "step_path", ""))
            assert told in end.errors, f"error {told}, not {end.errors}"
        else:
            assert result.status == "paused", f"{result.status}, should be paused at {set(end.paths)}: {result.error!r}"
            paths = [pause.step_path for pause in result.pauses]
            assert sorted(paths) == sorted(end.paths), f"paused at {paths}, not {set(end.paths)}"
            for pause in result.pauses:
                if reconciles(pause) is None:
                    assert pause.question == question(pause.step_path.rsplit("/", 1)[-1])

    def in_order(self, reference: Reference) -> None:
        """No visit starts before the visits ended on which it depends."""
        ended: set[str] = set()
        for kind, path in self.world.events:
            if kind == "end":
                ended.add(path)
            elif kind == "start":
                early = {one for one in reference.visits[path].after - ended if self.gives(reference, one)}
                assert not early, f"{path} starts before the end of {early}"

    @staticmethod
    def gives(reference: Reference, path: str) -> bool:
        visit = reference.visits[path]
        return visit.status == "completed" and not visit.hit

    def tools_once(self) -> None:
        """A visit uses its tool once, however often its body is called."""
        used = Counter(path for kind, path in self.world.events if kind == "tool")
        assert max(used.values(), default=1) == 1, f"tools are used again: {used}"
        unused = {path for path in self.starts() if self.work_at(path).tool} - used.keys()
        unused -= {path for kind, path in self.world.events if kind == "cut"}
        assert not unused, f"tools are not used: {unused}"

    def quiet_after(self, kind: str, causes: Collection[str], paths: Collection[str], *, ends: bool = True) -> None:
        """Nothing begins (nor `ends` well) in `paths` once an event of this kind has come from one of `causes`."""
        events = self.world.events
        first = next((at for at, event in enumerate(events) if event[0] == kind and event[1] in causes), len(events))
        late = [event for event in events[first:] if event[1] in paths and event[0] in ("start", "end")[: 1 + ends]]
        assert not late, f"after the {kind} of {events[first][1]}: {late}"

    def within_limits(self, reference: Reference) -> None:
        """No more bodies of a Parallel or Map run at once than its limit says, those that clean up included."""
        for prefix, limit in reference.limits.items():
            if limit is None:
                continue
            open_: Counter[str] = Counter()
            for kind, path in self.world.events:
                if path.startswith(prefix) and kind in ("start", "stop", "cut"):
                    body = re.split(r"[/#\[\]]", path[len(prefix) :])[0]
                    open_[body] += 1 if kind == "start" else -1
                    running = sum(count > 0 for count in open_.values())
                    assert running <= limit, f"{running} bodies of {prefix} run at once, its limit is {limit}"

    async def replayed(self, result: PipelineResult, target: str | None = None, flujo: Flujo | None = None) -> None:
        """A replay takes the recorded outcomes: it calls no step, diverges nowhere, and ends alike."""
        count = len(self.world.events)
        replay = await (flujo or self.flujo).replay_async(target or result)
        assert len(self.world.events) == count, "a replay calls a step"
        assert replay.divergence is None, f"a replay diverges: {replay.divergence}"
        again = replay.result
        assert again is not None
        assert again.status == result.status, f"a replay is {again.status}"
        assert again.context == result.context, "a replay has another context"
        if result.status == "completed":
            assert plain(again.output) == plain(result.output), "a replay gives something else"

    # --- traces -------------------------------------------------------------------------------------------------------

    def work_at(self, path: str) -> Any:
        return self.works[path.rsplit("/", 1)[-1]]

    def starts(self) -> Counter[str]:
        """How often each visit's body was called."""
        return Counter(path for kind, path in self.world.events if kind == "start")

    def records(self, result: PipelineResult) -> dict[str, Any]:
        """Records of steps by path; each visit has one at most."""
        found = [record for record in result.step_history if record.name in self.works]
        twice = [path for path, count in Counter(record.path for record in found).items() if count > 1]
        assert not twice, f"recorded twice: {twice}"
        return {record.path: record for record in found}
