"""One invocation: sent once, and again only where AWS says that it was not let through."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import anyio
import anyio.to_thread

from flujo.core import StepExecutionRequest, StepFailed, StepTask, StepTimeout

from .clients import LambdaClient, error_code
from .errors import LambdaFault, PayloadTooLarge, Throttled, WorkerCrash
from .report import Report, report_in

__all__ = ["ASYNC_LIMIT", "SYNC_LIMIT", "Answer", "Refused", "Sending", "check_size", "fault_of", "invoke"]

SYNC_LIMIT, ASYNC_LIMIT = 6 * 1024 * 1024, 1024 * 1024
"""Bytes that AWS takes in a synchronous and in an asynchronous invocation."""

_THROTTLED = ("TooManyRequestsException", "ThrottlingException", "EC2ThrottledException", "Throttling")
_NOT_SENT = ("EndpointConnectionError", "ConnectTimeoutError", "NoCredentialsError", "PartialCredentialsError")
_BASE_S, _MOST_S = 0.1, 20.0
_TEXT = 2000
"""Characters of what a failed function says; it may say 6 MB."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What AWS gave for an invocation.

    Attributes:
        payload: The function's answer, or its error as JSON.
        error: `Unhandled` where it failed.
        report: What was billed; None where AWS did not say.
    """

    payload: bytes
    error: str | None
    report: Report | None


def check_size(event: bytes, task: StepTask, *, limit: int = SYNC_LIMIT) -> None:
    """Check that an event fits into an invocation, before anything is sent.

    Raises:
        PayloadTooLarge: It does not; it names the largest part of the task.
    """
    if len(event) > limit:
        parts = dict(_parts(task))
        raise PayloadTooLarge(task.path, max(parts, key=parts.__getitem__), len(event), limit)


def _parts(task: StepTask) -> Iterator[tuple[str, int]]:
    """What the user gave a task, and how long each is as JSON."""
    yield "its code", len(task.code.model_dump_json())
    yield "what it was told before", len(json.dumps(task.told))
    given = {"input": task.inputs}
    given |= {} if task.context is None else {"context field": task.context.fields}
    given |= {} if task.resources is None else {"resource": task.resources.values}
    for kind, values in given.items():
        for name, value in values.items():
            yield f"{kind} {name!r}", len(json.dumps(value))


class Sending:
    """An invocation in its thread. A timeout or a cancel leaves it behind: nothing stops what runs at AWS.

    It is the RunningThread of its request, so that a step that was given up counts as abandoned.
    """

    def __init__(self, client: LambdaClient, function: str, event: bytes, step_path: str, most: int) -> None:
        """Take what is sent; see `invoke`."""
        self._send = partial(_send, client, function, event, step_path, most)
        self._lock = Lock()
        self._running = self._dropped = False
        self._then: list[Callable[[], object]] = []

    async def wait(self) -> Answer | Refused:
        """Send it, and wait for what comes back."""
        # A limiter of its own: anyio's lets 40 through, and the backend's has let this one through already.
        limiter = anyio.CapacityLimiter(1)
        try:
            return await anyio.to_thread.run_sync(self._work, abandon_on_cancel=True, limiter=limiter)
        finally:
            with self._lock:
                self._dropped = True

    def _work(self) -> Answer | Refused:
        with self._lock:
            if self._dropped:  # it was given up before a thread was free
                return Refused("a cancel", 0.0)
            self._running = True
        try:
            return self._send()
        finally:
            with self._lock:
                self._running = False
            for act in self._then:
                act()

    def on_return(self, then: Callable[[], object]) -> bool:
        """See RunningThread."""
        with self._lock:
            if self._running:
                self._then.append(then)
            return self._running


async def invoke(make: Callable[[], Sending], request: StepExecutionRequest, patience_s: float) -> Answer:
    """Invoke a function; wait and come back where AWS throttles.

    Args:
        make: Makes what is sent.
        request: The attempt.
        patience_s: Seconds after which throttling is a fault.

    Raises:
        Throttled: It was not let through in time; it was never sent.
        LambdaFault: It may have been.
    """
    give_up, tries = anyio.current_time() + patience_s, 0
    while True:
        tries += 1
        sending = make()
        request.thread = sending
        answer = await sending.wait()
        request.thread = None
        if isinstance(answer, Answer):
            return answer
        # Full jitter, so that parallel steps do not come back in step; at least as long as AWS asks for.
        wait = answer.after_s + random.uniform(0, min(_MOST_S, _BASE_S * 2**tries))
        if anyio.current_time() + wait > give_up:
            raise Throttled(request.ctx.step_path, tries, answer.reason)
        await anyio.sleep(wait)


@dataclass(frozen=True, slots=True)
class Refused:
    """That AWS let an invocation not through.

    Attributes:
        reason: Its word for why.
        after_s: Seconds after which it wants to be asked again.
    """

    reason: str
    after_s: float


def _send(client: LambdaClient, function: str, event: bytes, step_path: str, most: int) -> Answer | Refused:
    try:
        given = client.invoke(FunctionName=function, Payload=event, LogType="Tail")
    except Exception as error:  # botocore makes its classes when it runs; their names and codes tell them apart
        refused = _refused(error)
        if refused is not None:
            return refused
        code = error_code(error) or type(error).__name__
        raise LambdaFault(step_path, f"{code}: {error}") from error
    payload: bytes = given["Payload"].read(most + 1)
    log = base64.b64decode(given.get("LogResult", "")).decode(errors="replace")
    request_id = str(given.get("ResponseMetadata", {}).get("RequestId", ""))  # AWS gives the invocation its call's id
    return Answer(payload, given.get("FunctionError"), report_in(log, request_id))


def _refused(error: Exception) -> Refused | None:
    """Whether AWS surely ran nothing, so that it may be sent again."""
    code, name = error_code(error), type(error).__name__
    if code not in _THROTTLED and name not in _NOT_SENT:
        return None
    response: Mapping[str, Any] = getattr(error, "response", {})
    after = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "0")
    return Refused(code or name, float(after) if str(after).replace(".", "", 1).isdigit() else 0.0)


def fault_of(answer: Answer, step_path: str, timeout_s: float) -> StepFailed:
    """What a failed invocation means for the step."""
    try:
        told = json.loads(answer.payload)
        kind, text = str(told.get("errorType", ""))[:_TEXT], str(told.get("errorMessage", ""))[:_TEXT]
    except (ValueError, AttributeError):
        kind, text = "", "the function failed without a word that could be read"
    if kind == "Sandbox.Timedout" or "Task timed out after" in text:
        return StepTimeout(step_path, timeout_s)
    if kind in ("Runtime.ExitError", "Runtime.OutOfMemory") or "signal: killed" in text:
        return WorkerCrash(step_path, f"{kind}: {text}")
    if kind.startswith("Runtime."):
        do = "See the function's log; the package may be incomplete, or the worker refused to start"
        return LambdaFault(step_path, f"{kind}: {text}", do)
    return LambdaFault(step_path, f"{kind or 'Unhandled'}: {text}")
