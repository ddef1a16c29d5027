"""Where steps run: what a backend is given, what it gives back, and what it says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .context import RunContext
from .errors import ConfigurationError
from .outcome import Outcome
from .usage import Usage

if TYPE_CHECKING:
    from .payloads import Event
    from .steps import Step
    from .wire import Code, OutcomeData, StepTask, WorkerFacts


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do. One that says nothing runs steps in this process.

    Attributes:
        remote: Steps run in another process: only `request.task()` may leave this one, and only JSON comes back.
        pickle: It ships code that no import path leads to: `request.task(code=...)`.
        max_payload: Most bytes of a task, or of what comes back; None is no limit.
        loops: Event loops that it can be used from.
        prepare: Awaited before each attempt, and before the step's time begins: a cluster that is first to be started
            costs no step its time. What it raises is told by `execute_step`, which meets the same, or
            by the timeout of a step that was not done in time.
        streams: Of a streaming step it hands over each chunk as it comes, by `request.give`, and asks its worker for
            no more than a few ahead of the reader. Without it a stream runs in this process; one that names the backend
            is refused.
    """

    remote: bool = False
    pickle: bool = False
    max_payload: int | None = None
    loops: tuple[str, ...] = ("asyncio", "trio")
    prepare: Callable[[], Awaitable[object]] | None = None
    streams: bool = False


def capabilities_of(backend: object) -> Capabilities:
    """What a backend says that it can do: its attribute `capabilities`."""
    said = getattr(backend, "capabilities", None)
    return said if isinstance(said, Capabilities) else Capabilities()


class Sender(Protocol):
    """Makes the task of one attempt, and reads what comes back; the engine gives it to requests that leave."""

    def task(self, code: Code | None) -> StepTask:
        """See StepExecutionRequest.task."""

    def outcome(self, data: OutcomeData | str | bytes) -> StepOutcome:
        """See StepExecutionRequest.outcome."""

    async def give(self, data: str | bytes) -> None:
        """See StepExecutionRequest.give."""


@dataclass(slots=True)
class StepExecutionRequest:
    """One attempt of a step, in this process: live objects, not to be sent anywhere; `task()` is what may be sent.

    Attributes:
        step: The step.
        arguments: Everything the step's function is called with, by parameter name; of a remote step its inputs only.
        timeout_s: Seconds after which the engine cancels the attempt; None is never.
        ctx: The attempt's RunContext.
        thread: Set by the backend while the attempt runs in a thread that cannot be cancelled.
        trace: W3C trace context of the attempt, for a backend that runs it elsewhere: spans made there under it are
            part of the run's trace. None where nothing is traced.
        sender: What `task`, `outcome` and `give` ask; None where the backend does not say that it is remote.
        unready: What the backend's `prepare` raised before this attempt.
    """

    step: Step
    arguments: Mapping[str, object]
    timeout_s: float | None
    ctx: RunContext
    thread: RunningThread | None = None
    trace: Mapping[str, str] | None = None
    sender: Sender | None = None
    unready: Exception | None = None

    def task(self, code: Code | None = None) -> StepTask:
        """The attempt as JSON, the only thing of it that leaves the process.

        Args:
            code: What stands for the step's code where the backend ships it itself; None is its import path.

        Raises:
            StepFailed: A value cannot be written as JSON.
            ConfigurationError: The backend does not say that it is remote.
        """
        return self._sender().task(code)

    def outcome(self, data: OutcomeData | str | bytes) -> StepOutcome:
        """Read what a worker gave. All of it is checked, nothing is unpickled; what does not fit is a Failure."""
        return self._sender().outcome(data)

    async def give(self, chunk: str | bytes) -> None:
        """Hand over the next chunk of a step whose `task().is_stream`, as `Worker.execute` gave it.

        It returns when the reader asks for the one after: what a backend fetches meanwhile is made ahead of the reader.
        Chunks are given one after another, and all of them before `outcome` is asked.

        Raises:
            StepFailed: It is not the chunk that comes next, or none of the step's type. The step must end there, and
                `execute_step` raise it on.
        """
        await self._sender().give(chunk)

    def _sender(self) -> Sender:
        if self.sender is None:
            what = f"step {self.ctx.step_path!r} cannot be sent"
            do = "Give it the attribute capabilities = Capabilities(remote=True)"
            raise ConfigurationError(what, "its backend does not say that it is remote", do)
        return self.sender


class RunningThread(Protocol):
    """A worker thread that may outlive its attempt. A backend sets it on the request when it starts one."""

    def on_return(self, then: Callable[[], object]) -> bool:
        """Let the thread call `then` when it returns; False when it does not run: it has returned, or never began."""


@dataclass(slots=True)
class StepOutcome:
    """What one attempt gave.

    Attributes:
        outcome: How it ended.
        changes: The context fields it wants to write.
        usage: What it really used elsewhere. None of an attempt that left: nobody knows, and its whole lease counts; so
            it does where it is no tally of amounts of 0 or more, and the step fails then.
        events: What recorders and observers are to be told of it, in order.
        told: What tools told it, by a digest of the call, for when it runs again.
        counts: What plugins counted there; see `RunInfo.counts`.
        worker: Who did it.
    """

    outcome: Outcome
    changes: Mapping[str, object] | None = None
    usage: Usage | None = None
    events: Sequence[tuple[str, Event]] = ()
    told: Sequence[tuple[str, object]] = ()
    counts: Mapping[str, Mapping[str, int]] | None = None
    worker: WorkerFacts | None = None


class ExecutionBackend(Protocol):
    """Where steps run. One `execute_step` is one attempt; the engine retries.

    One that runs them in another process says so by an attribute `capabilities`, sends `request.task()`, and returns
    `request.outcome(...)` of what came back.
    """

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        """Run one attempt. Faults of the step are a Failure; only a cancellation is raised.

        Whatever else is raised fails the step with a WorkerLost, for nobody knows then whether it ran.

        A remote backend returns `StepOutcome(Failure(WorkerLost(...)))` where a worker went away or did not answer: the
        whole lease counts, and the engine tries again where the step's `retry` says so, with the same key.
        """


@dataclass(frozen=True, slots=True)
class BackendFactory:
    """Makes a backend by its name.

    Attributes:
        name: What `step(backend=...)`, `Flujo(backend=...)` and `--backend` call it.
        open: Makes it, from the environment and its own defaults; nothing is started before it is used.
    """

    name: str
    open: Callable[[], ExecutionBackend]
