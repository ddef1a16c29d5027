"""Where steps run: in this process."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from .context import Update
from .errors import FlujoError, GuardDenied, RunAborted, StepFailed, UsageLimitExceeded
from .execution import StepExecutionRequest, StepOutcome
from .foreign import check_cut, fault_of
from .mutation import PipelineMutation
from .outcome import Failure, Mutated, Paused, Success
from .pause import PauseForHumanInput
from .resources import Resources

THREADS = 256
"""Worker threads for sync steps per event loop, beside those that were abandoned and still run.

anyio's own limiter of 40 is left to the user's code.
"""

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("flujo_step_threads")


class LocalBackend:
    """Runs async steps on the event loop and sync steps in worker threads."""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        """Run one attempt; see ExecutionBackend."""
        step, value, error = request.step, None, None
        try:  # not by `attempt_async`: each coroutine on the way costs every step
            value = await _in_thread(request) if step.needs_thread else step.function(**request.arguments)
            if inspect.iscoroutine(value):  # a plain function may make one too: lambda x: fetch(x)
                value = await value
        except BaseException as raised:  # it may raise anything: that is an answer, but for a cancel
            error = fault_of(raised)
            if error is None:
                check_cut(raised)
                raise
        return told(value, error, request.ctx.step_path, request.arguments)


def told(value: object, error: Exception | None, path: str, arguments: Mapping[str, object]) -> StepOutcome:
    """What a step gave or raised, as an outcome; secrets among its arguments are taken out of the error's text."""
    if error is None:
        if not isinstance(value, Update):
            return StepOutcome(Success(value))
        done = Mutated(value.output, value) if isinstance(value, PipelineMutation) else Success(value.output)
        return StepOutcome(done, value.changes)
    if isinstance(error, PauseForHumanInput):
        return StepOutcome(Paused(error))
    own = isinstance(error, StepFailed) and error.step_path == path  # from its call of a model
    if isinstance(error, FlujoError) and (own or isinstance(error, (UsageLimitExceeded, GuardDenied, RunAborted))):
        return StepOutcome(Failure(error))
    given = arguments.values()
    held = (value for view in given if isinstance(view, Resources) for value in vars(view).values())
    return StepOutcome(Failure(StepFailed.by(path, error, (*given, *held))))


async def _in_thread(request: StepExecutionRequest) -> object:
    step = request.step
    thread = _StepThread(partial(step.function, **request.arguments))
    if (limiter := _limiter.get(None)) is None:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
    # Not by run_sync itself: on trio an abandoned thread would keep its place, and a few that hang hold up all others.
    await limiter.acquire_on_behalf_of(thread)
    request.thread = thread
    try:
        (value,) = await anyio.to_thread.run_sync(
            thread.work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf)
        )
    finally:
        limiter.release_on_behalf_of(thread)
        if not thread.abandon():
            request.thread = None
    return value


class _StepThread:
    """A sync step in its worker thread. A timeout or cancel abandons the thread; what it uses is closed after it."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._lock = Lock()
        self._running = self._dropped = False
        self._then: list[Callable[[], object]] = []

    def work(self) -> tuple[object]:
        """Body of the thread; the value is wrapped since trio refuses a thread that returns a coroutine."""
        with self._lock:
            if self._dropped:  # its attempt was over before a thread was free
                return (None,)
            self._running = True
        try:
            return (self._function(),)
        finally:
            with self._lock:
                self._running = False
            for act in self._then:
                act()

    def abandon(self) -> bool:
        """Whether it still runs, when nobody waits for it any more; what has not begun will not."""
        with self._lock:
            self._dropped = True
            return self._running

    def on_return(self, then: Callable[[], object]) -> bool:
        """See RunningThread."""
        with self._lock:
            if self._running:
                self._then.append(then)
            return self._running
