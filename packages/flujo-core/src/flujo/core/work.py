"""What a run does with one due item: a step with all its attempts, or a combinator that asks what to do."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, NoReturn

import anyio.lowlevel

from . import payloads
from .attempt import Attempt, Changes, admit, changed, missing, unwanted
from .backends import told
from .context import CallGate, RunContext, Update
from .errors import GuardDenied, RunAborted, StepFailed, UsageLimitExceeded
from .execution import StepOutcome
from .flow import Branch, Loop
from .foreign import attempt, attempt_async, check_cut, fault_of
from .frames import Due, Frame, Part, Passed
from .hooks import Telling
from .journal import Ended, Entry, record_of
from .mutating import Agreed, adopt, agreed
from .outcome import Aborted, Choice, Failure, Mutated, Outcome, Paused, Skipped, Success
from .places import settled
from .plan import BODY_INPUT, FlowNode, StepNode
from .relay import YIELD_EVERY, Relay, Worker
from .retry import RetryPolicy
from .running import Act, Keep, Running
from .schedule import choose, end_well, limit_reached, repeat
from .told import attempts_before, attempts_told
from .usage import Usage
from .values import Node, called, inputs_of


class Work(Running):
    """The part of a run that does what is due."""

    if TYPE_CHECKING:

        @property
        def calls(self) -> CallGate:
            """The way to models and tools."""

        def unkept(self) -> tuple[Entry, Failure] | None:
            """The end of a step that asked, where the run cannot be kept while it waits."""

    async def do(self, take: Callable[[], Due | None] | None = None, worker: Worker | None = None) -> None:
        """Do one item after another, as long as `take` gives one: journal how it ended, and find out what is due then.

        Without it, all of the run: one thing in this task, several by workers. A step that is one call of its function,
        and that nobody watches, is called here: what `_step` does, for less, and journaled only when it ends.
        """
        state, hooks = self.state, self.hooks
        act = Act("step", "", worker) if hooks.around_step else None
        while (item := self._take() if take is None else take()) is not None:
            frame, node = item
            is_bare = type(node) is StepNode and node.is_bare and self.direct and self.verdict is None
            if type(node) is not StepNode or not is_bare or not frame.is_open or (state.has_words and state.decided):
                if (work := self._begin(frame, node, worker)) is not None:
                    await work
                continue
            inputs = value = error = ok = item = None  # no tuple is held while it waits
            started, clock = time(), perf_counter()
            try:  # not by attempt_async, which costs a call more
                if act is not None:
                    act.path, act.started = frame.prefix + node.name if frame.start else node.name, clock
                    inputs = inputs_of(frame, node)
                    await admit(self, act, node, inputs)
                    call: Any = node.step.function(**inputs) if node.call is None else node.call(*inputs.values())
                else:
                    call = self._announced(frame, node, worker) if hooks.before_step else called(frame, node)
                value = await call
                ok = type(value) is node.gives or (not isinstance(value, Update) and isinstance(value, node.classes))
                value = value if act is None or not (ok and hooks.ends_step) else await self._ended(act, node, value)
            except BaseException as raised:  # an answer like others, but for a cancel
                entry = Entry(frame.id, node.index, _CANCELLED, frame.prefix + node.name, started)
                error = fault_of(raised) or await self._cut_off(entry, clock, raised, act)
            due_before, took_s = len(state.due), perf_counter() - clock
            if error is None and ok:
                ended: Ended = (frame.id, node.index, value, frame.start, frame.slot, started, took_s)
                begins = frame.prefix if frame.start and hooks.after_step else ""
                self.journal.append(ended)
                end_well(state, frame, node, value)
                if worker is not None or state.has_closed or state.failure is not None:
                    self._look(due_before, worker, worker)
                if hooks.after_step and (telling := self._tell_completed(ended, begins + node.name)) is not None:
                    await self._heed_ended(telling, due_before, worker)
            else:
                given, lost = (inputs, None) if inputs is not None else attempt(inputs_of, frame, node)
                entry = Entry(frame.id, node.index, _CANCELLED, frame.prefix + node.name, started, took_s)
                done = told(value, error if lost is None else missing(entry.path, lost), entry.path, given or {})
                await self._note_odd(act, node, entry, done, worker)

    def _take(self) -> tuple[Frame, Node | None] | None:
        """What is to be done next; no node where several things are due, or the event loop has to run."""
        due = self.state.due
        if self.verdict is not None:
            return None
        if not due:  # what asked waits, if that is possible
            return (self.state.root, None) if self.state.has_words and self.unkept() is not None else None
        self.turns -= 1
        return due.pop() if len(due) == 1 and self.turns else (self.state.root, None)

    def _begin(self, frame: Frame, node: Node | None, worker: Worker | None) -> Awaitable[object] | None:
        if self.verdict is not None or not frame.is_open:
            return None
        if type(node) is FlowNode:
            return self._ask(frame, node)
        if type(node) is StepNode:
            return self._step(frame, node, worker)
        if not self.state.due and (unkept := self.unkept()):
            return self._note_end(*unkept, None, None)
        if not self.turns:
            self.turns: int = YIELD_EVERY
            return anyio.lowlevel.checkpoint()
        workers: set[Worker] = set()
        self.workers: set[Worker] | frozenset[Worker] = workers
        return Relay(self.state.due, workers, self.do, self.release).run()

    def note(self, entry: Entry, worker: Worker | None = None, keep: Keep = None) -> None:
        """Write it down and let the schedule go on; a failure that nothing catches ends the run."""
        if isinstance(entry.outcome, Agreed):  # only now that it is kept: else one goes on as no other can
            adopt(self, entry, entry.outcome)
        due_before = len(self.state.due)
        self.take(entry)
        self._look(due_before, worker, keep)

    def _look(self, due_before: int, worker: Worker | None, keep: Keep) -> None:
        """See what came of an entry."""
        state = self.state
        if worker is not None:
            worker.frame = None  # it ended: nothing can cancel it any more with its frame
        if state.has_closed or self.closing:
            self.hold_back(due_before)
        if state.failure is not None:
            self.stop(state.failure.error, keep)

    async def keep(
        self, entry: Entry, worker: Worker | None = None, keep: Keep = None, *, holds: bool = False
    ) -> list[Due]:
        """Have it kept and noted; what is due by it comes back, not to be done yet, where that is to be held."""
        held: list[Due] = []

        def then() -> None:
            due_before = len(self.state.due)
            self.note(entry, worker, keep)
            if holds:
                held.extend(self.state.taken_back(due_before))

        if (kept := self.put(entry, then)) is not None:
            await kept.wait()
        return held

    # --- combinators ------------------------------------------------------------------------------------------------

    def _ask(self, frame: Frame, node: FlowNode) -> Awaitable[object] | None:
        """Ask a branch which case to run, or a loop whether it is good; what comes back, if anything does, goes on."""
        part, clock = frame.parts[node.place], perf_counter()
        flow: Any = node.flow
        about, value = (flow.until, part.output) if node.asks else (flow.on, part.value)
        args = (value, part.context) if about.with_context else (value,)
        answer, error = attempt(about.function, *args)
        if answer is False and part.spare is not None and not (self.setup.is_kept or self.closing):
            self.journal.append((frame.id, node.index, 0))  # the same as what follows, for less
            repeat(self.state, part, part.spare)
            return None
        if type(answer) is not bool and inspect.isawaitable(answer):
            return self._await_answer(part, answer, clock)
        return self._take_answer(part, answer, error, clock)

    async def _await_answer(self, part: Part, answer: Awaitable[object], clock: float) -> None:
        given, error = await attempt_async(answer)
        if (kept := self._take_answer(part, given, error, clock)) is not None:
            await kept

    def _take_answer(
        self, part: Part, answer: object, error: Exception | None, clock: float
    ) -> Awaitable[object] | None:
        frame, node, path = part.frame, part.node, part.path
        flow: Any = node.flow
        if error is None and type(answer) is not bool and isinstance(flow, Loop):
            answer, error = attempt(bool, answer)  # an array has no truth
        if error is not None:
            what, value = ("until", part.output) if isinstance(flow, Loop) else ("on", part.value)
            failed = StepFailed.by(path, error, (value, part.context), f"Mend `{what}=` of {path!r}")
        else:
            choice = self.choice(flow, answer)
            reached = None if choice else limit_reached(part)
            if choice is not None and reached is None:
                if self.setup.is_kept:
                    return self.keep(Entry(frame.id, node.index, Choice(choice)))
                due_before = len(self.state.due)  # the same, for less
                self.journal.append((frame.id, node.index, choice))
                choose(self.state, part, choice)
                self._look(due_before, None, None)
                return None
            failed = reached or _no_case(path, answer, flow)
        took = perf_counter() - clock
        return self.keep(Entry(frame.id, node.index, Failure(failed), path, time() - took, took))

    @staticmethod
    def choice(flow: Branch | Loop, answer: object) -> int | None:
        """What an answer means; None where no case fits it."""
        if isinstance(flow, Loop):
            return int(bool(answer))
        for place, label in enumerate(flow.labels):
            if type(label) is type(answer) and label == answer:
                return place
        return len(flow.labels) if flow.has_otherwise else None

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _note_odd(
        self, act: Act | None, node: StepNode, entry: Entry, done: StepOutcome, worker: Worker | None
    ) -> None:
        """Note the end of a step that was called and did not just give its output, or whose output others look at."""
        outcome, entry.changes = settled(node, entry.path, done, self.setup.plan.context_model)
        clock = perf_counter() - entry.duration_s
        try:
            if act is not None and self.hooks.outputs and isinstance(outcome, Success):
                outcome.output = await changed(self, act, node, outcome.output)
            if isinstance(outcome, Mutated):
                outcome = await agreed(self, (entry.frame, entry.node), entry.path, outcome, worker)
        except (GuardDenied, StepFailed, RunAborted) as failed:
            outcome = Failure(failed) if isinstance(failed, StepFailed) else Aborted(failed)
        except BaseException as stop:  # a cancel
            await self._cut_off(entry, clock, stop, act)
        if act is not None:
            await self.conclude(act, outcome.error, outcome.output, Usage(), paused=isinstance(outcome, Paused))
            entry.duration_s = perf_counter() - clock
        await self._note_end(entry, outcome, worker, worker)

    async def _ended(self, act: Act, node: StepNode, value: object) -> object:
        """What a step gave, when transforms and recorders had their turn."""
        if self.hooks.outputs:
            value = await changed(self, act, node, value)
        if act.intended:
            await self.conclude(act, None, value, Usage())
        return value

    def _announced(self, frame: Frame, node: StepNode, worker: Worker | None) -> Any:
        """Call a step as `called` does, once observers were told; what it gives is to be awaited."""
        value = frame.outputs[at] if (at := node.takes) >= 0 else frame.input if at == BODY_INPUT else frame.run_input
        call = None if type(value) is Passed else node.call
        inputs = inputs_of(frame, node) if call is None else {node.sources[0].parameter: value}
        event = object.__new__(payloads.PreStepExecution)  # to call the class costs twice as much
        event.run, event.step_path = self.info, frame.prefix + node.name if frame.start else node.name
        event.name, event.attempt, event.inputs = node.step.name, 1, inputs
        telling = self.hooks.tell(self.hooks.before_step, event, self.values, self.on_asyncio)
        if telling is None:
            return called(frame, node) if call is None else call(value)
        return self._call_after(telling, frame, node, worker)

    async def _call_after(self, telling: Telling, frame: Frame, node: StepNode, worker: Worker | None) -> object:
        await self.heed(telling, worker)
        if isinstance(self.verdict, RunAborted):
            raise self.verdict
        return await called(frame, node)

    async def _heed_ended(self, telling: Telling, due_before: int, worker: Worker | None) -> None:
        """What follows begins after observers heard of what ended, and may have ended the run."""
        held = self.state.taken_back(due_before)
        try:
            await self.heed(telling, worker)
        finally:
            self.state.due.extend(reversed(held))

    async def _cut_off(self, entry: Entry, clock: float, stop: BaseException, act: Act | None = None) -> NoReturn:
        """Record and journal what a cancel stopped: it keeps what was paid for. The cancel goes on up."""
        if act is not None:
            await self.conclude(act, stop, None, Usage())
        entry.duration_s, entry.cancelled = perf_counter() - clock, True
        entry.outcome = Aborted(self.verdict or RunAborted("cancelled"))
        self.put(entry, partial(self.journal.append, entry))
        check_cut(stop)
        del stop  # this frame will stand in its traceback: both would wait for the garbage collector
        raise

    async def _step(self, frame: Frame, node: StepNode, worker: Worker | None) -> None:
        """Run one step with all its attempts."""
        entry = Entry(frame.id, node.index, _CANCELLED, frame.prefix + node.name, time(), 0.0, attempts=0)
        clock = perf_counter()
        ctx: RunContext | None = None
        try:
            outcome: Outcome | None = None
            if (when := node.step.options.when) is not None and (frame.id, node.index) not in self.state.decided:
                outcome = await unwanted(when, frame, node, entry.path)
            if outcome is None:
                ctx, outcome, entry.changes = await self._attempts(frame, node, entry, worker)
        except BaseException as stop:  # a cancel
            await self._cut_off(entry, clock, stop)
        entry.duration_s = perf_counter() - clock
        await self._note_end(entry, outcome, worker, ctx)

    async def _note_end(self, entry: Entry, outcome: Outcome, worker: Worker | None, keep: Keep) -> None:
        """Note how a step ended, and tell observers."""
        if isinstance(outcome, Agreed):
            entry.mutation = outcome.event.change  # also of a run that ends meanwhile: it may go on later
        entry.outcome, entry.is_void = outcome, self.verdict is not None and isinstance(outcome, Failure)
        if isinstance(outcome, Aborted):
            self.stop(outcome.error, keep)
        held = await self.keep(entry, worker, keep, holds=not self.plain)
        if not self.plain:
            try:
                if isinstance(outcome, Agreed) and entry.mutation is not None:
                    await self.observe("on_mutation", outcome.told, keep)
                if entry.cached:
                    await self.observe("on_cache_hit", partial(payloads.OnCacheHit, self.info, entry.path), keep)
                if (telling := self._tell_ended(entry)) is not None:
                    await self.heed(telling, keep)
            finally:  # what follows begins after observers heard of it, and may have ended the run
                self.state.due.extend(reversed(held))

    def _tell_completed(self, ended: Ended | Entry, path: str) -> Telling | None:
        """Tell that a step completed; what is given, if anything is, is to be heeded."""
        event = object.__new__(payloads.PostStepExecution)  # as above
        event.run, event.step_path, event._record = self.info, path, (record_of, self.setup.plan, ended)
        return self.hooks.tell(self.hooks.after_step, event, self.values, self.on_asyncio)

    def _tell_ended(self, entry: Entry) -> Telling | None:
        """Tell how a step ended; what is given, if anything is, is to be heeded."""
        hooks, outcome = self.hooks, entry.outcome
        if hooks.after_step and isinstance(outcome, (Success, Skipped)):
            return self._tell_completed(entry, entry.path)
        if not isinstance(outcome, Failure) or not (observers := hooks.of("on_step_failure")):
            return None
        failed = payloads.OnStepFailure(self.info, entry.path, entry.record, outcome.error)
        return hooks.tell(observers, failed, self.values, self.on_asyncio)

    async def _attempts(
        self, frame: Frame, node: StepNode, entry: Entry, worker: Worker | None
    ) -> tuple[RunContext, Outcome, Changes]:
        """Try a step until it ends well or may not be tried again."""
        entry.attempts, feedback = attempts_before(self.state, (frame.id, node.index))
        while True:
            entry.attempts += 1
            unready = await away.ready() if (away := self.setup.places.away.get(node.index)) is not None else None
            trial = Attempt(self, self.calls, frame, node, entry.attempts, feedback)
            trial.unready = unready
            if worker is not None:
                worker.ctx = trial.ctx
            try:
                outcome, changes = await trial.execute()
            finally:
                trial.ctx.end()
                if trial.ctx.metered is not None:
                    self._book(trial.ctx, entry)
            if trial.ctx.metered is not None:
                await self._warn(entry.path, trial.ctx)
            entry.cached = trial.cached
            if node.step.options.retry is None or not await self._again(node.step.options.retry, outcome, trial):
                if entry.attempts > 1 and isinstance(outcome, Paused):
                    await self.note_told(trial.ctx, attempts_told(entry.attempts - 1, feedback))
                return trial.ctx, outcome, changes
            feedback = trial.feedback

    def _book(self, ctx: RunContext, entry: Entry) -> None:
        """Count what an attempt used, and stop the run where that broke a limit or a limit refused something."""
        entry.usage = entry.usage or Usage()
        entry.usage.add(ctx.usage.spent)
        if (breach := ctx.usage.breach or ctx.usage.exceeded()) is not None:
            self.stop(breach, ctx)

    async def _warn(self, path: str, ctx: RunContext) -> None:
        """Tell observers of limits that are nearly used up, and of one that stopped the run."""
        await self.warn(ctx)
        if isinstance(breach := self.verdict, UsageLimitExceeded) and not self.breach_told:
            self.breach_told = True
            await self.observe("on_governor_breach", partial(payloads.OnGovernorBreach, self.info, path, breach), ctx)

    async def _again(self, retry: RetryPolicy, outcome: Outcome, trial: Attempt) -> bool:
        """Whether a failed step is tried again; waits before it is."""
        if not isinstance(outcome, Failure) or self.verdict is not None or trial.ctx.is_read:
            return False
        error = cause if isinstance(cause := outcome.error.__cause__, Exception) else outcome.error
        if not any(retry.applies(one, trial.number) for one in (error, outcome.error)):
            return False
        await self.back_off(retry, trial.number, error, trial.ctx)
        return self.verdict is None


_CANCELLED = Aborted(RunAborted("cancelled"))


def _no_case(path: str, answer: object, flow: Branch) -> StepFailed:
    why = f"`on` answered a {type(answer).__name__} that is none of its labels: {', '.join(map(repr, flow.labels))}"
    return StepFailed(path, "NoCase", why, "Add a case, or otherwise=")
