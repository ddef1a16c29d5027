"""One attempt that leaves: what is sent of it, and what is made of the answer, all of which is checked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from pydantic import BaseModel, JsonValue

from .arriving import Arriving
from .codec import dump, dump_changes, load, load_changes
from .errors import FlujoError, GuardDenied, InputError, RunAborted, SnapshotError, StepFailed
from .events import read
from .execution import StepExecutionRequest, StepOutcome
from .foreign import attempt
from .outcome import Failure, Outcome, Paused, Success
from .plan import StepNode
from .retry import RetryPolicy
from .wire import ChunkData, Code, ContextData, ErrorData, LeaseData, OutcomeData, RunData, StepTask, UsageData, task_id


@dataclass(slots=True)
class Outgoing:
    """One attempt on its way; see `execution.Sender`.

    Attributes:
        node: The step.
        fixed: What is the same in all tasks of the step.
        request: The attempt.
        context: The context as the step would see it.
        lease: What was reserved for it.
        mark: Ends the ids of its records.
        told: What humans and tools told this visit before.
        deadline: When the run must end, on the event loop's clock.
        max_payload: Most bytes of a task; None is no limit.
        arriving: Where its chunks go, of a streaming step.
        has_left: Whether a task was made, which may have been sent.
    """

    node: StepNode
    fixed: Mapping[str, Any]
    request: StepExecutionRequest
    context: BaseModel | None
    lease: LeaseData
    mark: str
    told: Sequence[tuple[str, JsonValue]]
    deadline: float | None
    max_payload: int | None
    arriving: Arriving | None = None
    has_left: bool = False

    def task(self, code: Code | None) -> StepTask:
        """See StepExecutionRequest.task."""
        ctx, run, fixed = self.request.ctx, self.request.ctx.run, self.fixed
        if code is None and fixed["code"] is None:
            why = f"its code has no import path, and the backend packs none: {self.node.step.target!r}"
            raise StepFailed(ctx.step_path, "NotImportable", why, "Move it to the top of a module")
        left = None if self.deadline is None else self.deadline - anyio.current_time()
        # Not validated: its values were just written by pydantic, and this is on the way of every attempt.
        task = StepTask.model_construct(
            format="flujo-task",
            version=1,
            **{**fixed, "code": code or fixed["code"], "context": self._context()},
            path=ctx.step_path,
            attempt=ctx.attempt,
            key=ctx.idempotency_key,
            mark=self.mark,
            run=RunData.model_construct(**{name: getattr(run, name) for name in RunData.model_fields}),
            inputs={s.parameter: self._input(s.parameter, s.type) for s in self.node.sources},
            lease=self.lease,
            deadline=None if left is None else time.time() + left,
            feedback=ctx.feedback,
            told=tuple(self.told),
            trace=dict(self.request.trace or {}),
        )
        if self.max_payload is not None:
            self._check_size(task, self.max_payload)
        self.has_left = True
        return task

    def _input(self, name: str, hint: object) -> JsonValue:
        try:
            return dump(hint, self.request.arguments[name], f"input {name!r}")
        except SnapshotError as error:
            raise self._unsent(f"its input {name!r}", error.why) from None

    def _context(self) -> ContextData | None:
        model, reads = self.fixed["context"], self.node.step.options.reads
        if self.context is None or model is None:
            return None
        try:
            fields = dump_changes(type(self.context), {name: getattr(self.context, name) for name in reads}, "the step")
        except SnapshotError as error:
            raise self._unsent("the context that it reads", error.why) from None
        return ContextData.model_construct(model=model.model, fields=fields)

    def _unsent(self, what: str, why: str) -> StepFailed:
        return StepFailed(self.request.ctx.step_path, "NotSerialisable", f"{what} cannot be sent: {why}")

    def _check_size(self, task: StepTask, most: int) -> None:
        size = len(task.model_dump_json().encode())
        if size > most:
            sizes = {name: len(str(value)) for name, value in task.inputs.items()}
            largest = max(sizes, key=lambda name: sizes[name], default="")
            why = f"its task has {size} bytes, most of them in input {largest!r}; the backend takes {most}"
            do = "Send a reference to the data, or give the backend a place for large ones"
            raise StepFailed(self.request.ctx.step_path, "PayloadTooLarge", why, do)

    # --- back -------------------------------------------------------------------------------------------------------

    def outcome(self, data: OutcomeData | str | bytes) -> StepOutcome:
        """See StepExecutionRequest.outcome. Of an answer that does not fit nothing counts, so its lease does whole."""
        try:
            answer = data if isinstance(data, OutcomeData) else OutcomeData.read(data)
            if self.arriving is not None:
                self.arriving.is_answered = True
            if answer.task_id != self._id:
                raise SnapshotError("the answer does not fit", "it is the answer to another task")
            return self._read(answer)
        except (InputError, SnapshotError) as error:
            return StepOutcome(Failure(self._unfit(error)))

    def believed(self, done: object) -> StepOutcome:
        """What a backend returned, made by `outcome` or by itself: what is no outcome, or says that it used less than
        nothing, is an answer that does not fit."""
        why = f"a {type(done).__name__} does not say how the step ended"
        if isinstance(done, StepOutcome) and isinstance(done.outcome, Outcome):
            used = None if done.usage is None else attempt(UsageData.of, done.usage)[0]
            if done.usage is None or used is not None:
                done.usage = None if used is None else used.usage()
                return done
            why = "its usage is no tally of amounts of 0 or more"
        return StepOutcome(Failure(self._unfit(SnapshotError("what the backend returned", why))))

    async def give(self, data: str | bytes) -> None:
        """See StepExecutionRequest.give."""
        arriving = self.arriving
        try:
            if arriving is None:
                raise SnapshotError("a chunk does not fit", "the step is no stream")
            chunk = ChunkData.read(data)
            if not arriving.takes or (chunk.task_id, chunk.number) != (self._id, arriving.count):
                raise SnapshotError("a chunk does not fit", f"it is not number {arriving.count} of this task")
            value = load(arriving.hint, chunk.value, "a chunk", strict=True)
        except (InputError, SnapshotError) as error:
            raise self._unfit(error) from None
        await arriving.give(value)

    @property
    def _id(self) -> str:
        ctx = self.request.ctx
        return task_id(ctx.run_id, ctx.step_path, ctx.attempt, self.mark)

    def _unfit(self, error: FlujoError) -> StepFailed:
        why = f"what came back cannot be used: {error.what}: {error.why}"
        return StepFailed(self.request.ctx.step_path, "AnswerMismatch", why)

    def _read(self, answer: OutcomeData) -> StepOutcome:
        ctx, model = self.request.ctx, None if self.context is None else type(self.context)
        changes = None
        if answer.changes is not None:
            if not answer.changes.keys() <= set(self.node.step.options.writes):
                raise SnapshotError("its changes do not fit", "they name context fields that it does not write")
            changes = load_changes(model, answer.changes, ctx.step_path)
        return StepOutcome(
            self._ended(answer),
            changes,
            None if answer.usage is None else answer.usage.usage(),
            [(event.hook, read(event, ctx.run, ctx.step_path)) for event in answer.events],
            answer.told,
            answer.counts,
            answer.worker,
        )

    def _ended(self, answer: OutcomeData) -> Outcome:
        path, is_abort = self.request.ctx.step_path, answer.status == "aborted"
        if answer.status == "success" and self.arriving is not None:
            if answer.output != self.arriving.count:
                why = f"it gave {answer.output!r} of them, and {self.arriving.count} came"
                raise SnapshotError("its chunks do not fit", why)
            return Success(None)
        if answer.status == "success":
            return Success(load(self.node.output_type, answer.output, "its output", strict=True))
        if answer.status == "paused" and answer.question is not None:
            request, error = attempt(answer.question.request)
            if request is not None:
                return Paused(request)
            raise SnapshotError("its question does not fit", str(error))
        if answer.error is None:
            raise SnapshotError("its end does not fit", "it says neither what it gave nor what went wrong")
        failed = _error(answer.error, path, self.node.step.options.retry)
        if isinstance(failed, (GuardDenied, RunAborted)) != is_abort:
            raise SnapshotError("its error does not fit", f"a {type(failed).__name__} is no {answer.status}")
        return Failure(failed)


ERRORS: Mapping[str, Mapping[str, type]] = {
    "StepFailed": {"step_path": str, "error_type": str},
    "StepTimeout": {"step_path": str, "error_type": str, "seconds": float, "abandoned": bool},
    "ResourceError": {},
    "UsageLimitExceeded": {"limit": str, "value": str},
    "GuardDenied": {"plugin": str, "hook": str, "reason": str},
    "TaskRejected": {"plugin": str, "hook": str, "reason": str},
    "RunAborted": {"reason": str, "by": str},
}
"""Errors that a step may end with, and what is known of each beside its texts."""

TEXTS: Mapping[str, type] = {"what": str, "why": str, "do": str}
"""What is known of every error."""


def _error(data: ErrorData, path: str, retry: RetryPolicy | None) -> FlujoError:
    """The error of an answer, with a cause of the class that `retry_on` names, where the original was one of it."""
    facts: dict[str, JsonValue] = {**data.facts}
    wanted = {**TEXTS, **ERRORS.get(data.kind, {})}
    if "step_path" in facts:
        facts["step_path"] = path
    fits = data.kind in ERRORS and facts.keys() == wanted.keys()
    if not fits or not all(type(facts[name]) is kind for name, kind in wanted.items()):
        raise SnapshotError("its error does not fit", f"it is no {data.kind!r} that a step can end with")
    failed = load(FlujoError, {"error": data.kind, "facts": facts}, "its error")
    assert isinstance(failed, FlujoError)
    named = () if retry is None else retry.retry_on
    original = next((cls for cls in named if f"{cls.__module__}:{cls.__qualname__}" in data.classes), None)
    if original is not None:
        failed.__cause__ = original.__new__(original, failed.why)
    if data.retry_after_s is not None:
        (failed.__cause__ or failed).__dict__["retry_after_s"] = data.retry_after_s
    return failed
