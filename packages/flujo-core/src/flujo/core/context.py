"""What a step may know and do beside its inputs: the run, its budget, models, tools, and the user's context."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import JsonValue

from .assignable import type_name
from .check import adapter_of
from .errors import ConfigurationError, GuardDenied, StepFailed, UsageLimitExceeded
from .foreign import attempt
from .ledger import Ledger
from .messages import ModelRequest, ModelResponse, ToolCall, ToolResult
from .meter import Meter
from .outcome import Effect
from .pause import PauseForHumanInput, pause_of
from .reading import StreamGate, StreamingContext
from .retry import RetryPolicy
from .scrubbing import cleaned
from .usage import Price, Usage

if TYPE_CHECKING:
    from .delivery import Emitted

T = TypeVar("T")

SendModel = Callable[[ModelRequest], Awaitable[ModelResponse]]
"""Sends a request, as the guards and transforms left it, to the provider."""

MakeCall = Callable[[], Awaitable[ModelResponse]]
"""Makes a whole call of a model, through guards and limits."""

SendTool = Callable[[ToolCall], Awaitable[object]]
"""Runs a tool; what it returns becomes the `ToolResult`'s content."""


@dataclass(slots=True)
class RunInfo:
    """Which run this is. Hooks, steps and telemetry share one object per run.

    Attributes:
        run_id: Unique id of the run.
        pipeline: Name of the pipeline.
        fingerprint: Fingerprint of the plan.
        actor: Who started the run, in the caller's words.
        tenant: For whom, in the caller's words.
        tags: Further words of the caller.
        counts: What plugins counted in this run, by kind and label, e.g. `{"redactions": {"PERSON": 3}}`.
        trace: W3C `traceparent` of the run's span; before a resume begins, that of the run before it. None where it
            was never traced.
    """

    run_id: str
    pipeline: str
    fingerprint: str
    actor: str | None = None
    tenant: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    trace: str | None = None

    def count(self, kind: str, label: str, number: int = 1) -> None:
        """Add `number` to what is counted under `kind` and `label`; it appears in the result and in the audit log."""
        labels, label = self.counts.setdefault(cleaned(str(kind)), {}), cleaned(str(label))
        labels[label] = labels.get(label, 0) + int(number)


class Update(Generic[T]):
    """What a step returns to change the context: its output, and new values of the fields it declared in `writes`."""

    __slots__ = ("changes", "output")

    def __init__(self, output: T, /, **changes: object) -> None:
        self.output: T = output
        self.changes: Mapping[str, object] = changes

    def __repr__(self) -> str:
        return f"Update({self.output!r}, fields={sorted(self.changes)})"


class CallGate(StreamGate, Protocol):
    """The one way to a model or a tool; the engine gives it to each step."""

    async def call_model(
        self, ctx: RunContext, request: ModelRequest, send: SendModel, retry: RetryPolicy | None, price: Price | None
    ) -> ModelResponse:
        """See RunContext.call_model."""

    async def recorded(self, ctx: RunContext, request: ModelRequest, make: MakeCall) -> ModelResponse:
        """The answer that is in the journal for an equal request of this visit, else the one that `make` gets."""

    async def call_tool(self, ctx: RunContext, call: ToolCall, send: SendTool, effect: Effect) -> ToolResult:
        """See RunContext.call_tool."""

    def breached(self, ctx: RunContext, error: UsageLimitExceeded) -> None:
        """A limit refused a reservation of this attempt: the run ends, whatever the step makes of it."""

    def spent(self, ctx: RunContext, used: Usage, priced_by: str) -> None:
        """Something was booked for this attempt, from whatever thread; it is kept where the run is."""


@dataclass(slots=True, eq=False, repr=False)
class RunContext(StreamingContext):
    """What a step learns about its run, and its only way to models and tools.

    Attributes:
        run: The run.
        step_path: Where the step stands in the pipeline, for people.
        attempt: Number of this attempt, from 1.
        deadline: When this attempt must end, on the event loop's clock (`anyio.current_time()`); None is never.
        denial: What a guard or a required recorder said no with; the step cannot undo it by catching it.
        feedback: What the validators said to the attempt before this one.
        visit: Frame and node of this visit of the step, by which the engine knows it.
        pending: The question that `ask` raised; the step cannot undo it by catching it.
        metered: The meter, if this attempt has touched the budget at all.
        is_over: Whether this attempt has ended.
        is_stream: Whether its chunks are its output.
        is_read: Whether a reader was given a part of its stream; it is not tried again then.
        partial: What there was of its stream when it was cut off, where that may be told.
        emitted: What it gives a reader beside its output, if it has.
    """

    run: RunInfo
    step_path: str
    attempt: int
    deadline: float | None
    _ledger: Ledger
    _gate: CallGate
    denial: GuardDenied | None = None
    feedback: tuple[str, ...] = ()
    pending: PauseForHumanInput | None = None
    visit: tuple[int, int] = (0, 0)
    _told: dict[str, list[JsonValue]] | None = None
    metered: Meter | None = None
    is_over: bool = False
    is_stream: bool = False
    is_read: bool = False
    partial: object = None
    emitted: Emitted | None = None

    @property
    def run_id(self) -> str:
        """Unique id of the run."""
        return self.run.run_id

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step in this run, and for no other; give it to services you call."""
        return hashlib.sha256(f"{self.run.run_id}\0{self.step_path}".encode()).hexdigest()

    @property
    def usage(self) -> Meter:
        """The budget: `reserve`, `record`, and what is `left`."""
        if self.metered is None:
            self.metered = Meter(self._ledger, partial(self._gate.breached, self), partial(self._gate.spent, self))
            if self.is_over:
                self.metered.settle_open()
        return self.metered

    def told(self, told: Iterable[tuple[str, JsonValue]]) -> None:
        """Give it what humans and tools told this visit of the step before."""
        self._told = {}
        for key, value in told:
            self._told.setdefault(key, []).append(value)

    def end(self) -> None:
        """Settle what is open; a thread that outlives the attempt can reserve nothing more."""
        self.is_over = True
        if self.metered is not None:
            self.metered.settle_open()

    @property
    def spent(self) -> Usage:
        """What this attempt used so far."""
        return Usage() if self.metered is None else self.metered.spent

    @property
    def holds_lease(self) -> bool:
        """Whether a metered call of this attempt is under way."""
        return self.metered is not None and self.metered.holds_lease

    def check_open(self) -> None:
        """Refuse what is asked of it when its attempt has ended.

        Raises:
            ConfigurationError: It has.
        """
        if self.is_over:
            what, why = f"ctx of step {self.step_path!r} cannot be used", "this attempt of the step is over"
            raise ConfigurationError(what, why, "Await its calls inside the step")

    async def ask(
        self,
        question: str,
        schema: object = None,
        *,
        payload: object = None,
        expires_at: datetime | None = None,
        roles: Collection[str] = (),
        on_expiry: JsonValue = None,
    ) -> Any:
        """Ask a human: the run pauses, and when it is resumed the step's body runs again from its start.

        What it does before this call is done again then, so effects belong in steps before, or in `call_tool`.

        Args:
            question: What the human is asked.
            schema: Type of the answer, as of PauseForHumanInput.
            payload: What the human must see to decide, as JSON.
            expires_at: When the question is no longer open; None is never.
            roles: Who may answer; empty is anybody.
            on_expiry: The answer that counts when nobody answered in time; None is none.

        Returns:
            The answer, validated against `schema`.
        """
        self.check_open()
        request = PauseForHumanInput(
            question, schema, payload=payload, expires_at=expires_at, roles=roles, on_expiry=on_expiry
        )
        known, answer = self.recall(pause_of(request, self.step_path, 0).shown_digest)
        if known:
            return self._answer(answer, schema)
        self.pending = request
        self.pending.asked = True
        raise self.pending

    def recall(self, key: str) -> tuple[bool, JsonValue]:
        """Whether this visit was told something under `key` before, and what; each time once, in the order told."""
        told = self._told.get(key) if self._told else None
        return (True, told.pop(0)) if told else (False, None)

    def _answer(self, answer: JsonValue, schema: object) -> Any:
        adapter = None if schema is None else adapter_of(schema)
        if adapter is None:
            return answer
        value, error = attempt(adapter.validate_json, json.dumps(answer), by_name=True)
        if error is not None:  # not as the cause: pydantic's message shows the answer, which may be private
            raise StepFailed(self.step_path, "AnswerMismatch", f"the answer is no {type_name(schema)}") from None
        return value

    async def call_model(
        self,
        request: ModelRequest,
        send: SendModel,
        *,
        retry: RetryPolicy | None = None,
        price: Price | None = None,
        record: bool = False,
    ) -> ModelResponse:
        """Call a model through every transform, guard, recorder and limit of the run.

        Args:
            request: What is asked; transforms may change it, the governor may lower its `max_tokens`.
            send: Sends the final request to the provider.
            retry: How a failed attempt is made again; each attempt is reserved by itself. None: no second attempt.
            price: What the model costs where the caller knows (`Price()` for one that runs in process);
                otherwise the installed price books are asked.
            record: Keep the answer in the journal, so that a step that runs again after a pause or a crash is given it
                for an equal request: no call is made and nothing is paid twice. A step that failed asks anew.

        Raises:
            GuardDenied: A guard or a required recorder said no.
            UsageLimitExceeded: It does not fit a limit, or the price is unknown under a money limit.
            ConfigurationError: The attempt that this context belongs to is over.
        """
        self.check_open()
        make = partial(self._gate.call_model, self, request, send, retry, price)
        return await self._gate.recorded(self, request, make) if record else await make()

    async def call_tool(self, call: ToolCall, send: SendTool, *, effect: Effect = "idempotent") -> ToolResult:
        """Call a tool through every guard and recorder of the run.

        A step that runs again, after a pause or a crash, is given the answer that was recorded.

        Args:
            call: Which tool, with what.
            send: Runs it.
            effect: What becomes of a call whose end was not recorded: made again, or, "at_most_once", put to a human.

        Returns:
            The tool's answer; a guard that denies `to_model` gives one with `is_error`.

        Raises:
            GuardDenied: A guard or a required recorder said no.
        """
        self.check_open()
        return await self._gate.call_tool(self, call, send, effect)
