"""The Invoke API in front of the environments: what boto3's `invoke` and the checks before a run talk to."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .environment import Environment, FunctionSpec, Invocation, Result, template_of
from .forking import Template
from .http import Reply, Request

__all__ = ["ASYNC_LIMIT", "SYNC_LIMIT", "Function", "Record", "Service"]

SYNC_LIMIT, ASYNC_LIMIT = 6 * 1024 * 1024, 1024 * 1024
"""Bytes that a synchronous and an asynchronous invocation may carry."""

_FUNCTIONS = "/2015-03-31/functions/"


@dataclass(frozen=True, slots=True)
class Record:
    """An invocation that was begun.

    Attributes:
        result: What became of it.
        started_at: When, in seconds since the epoch.
        trace_id: The X-Ray header it came with.
    """

    result: Result
    started_at: float
    trace_id: str


@dataclass(slots=True)
class Function:
    """A function with its environments.

    Attributes:
        spec: How it is deployed.
        records: Every invocation that was begun, in the order of their ends.
        dead: Events that failed to the last retry.
        throttled: Invocations that were refused.
    """

    spec: FunctionSpec
    records: list[Record] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    throttled: int = 0
    _warm: list[Environment] = field(default_factory=list)
    _busy: int = 0
    _events: set[asyncio.Task[None]] = field(default_factory=set)
    _template: Template | None = field(init=False)

    def __post_init__(self) -> None:
        self._template = template_of(self.spec)

    @property
    def is_full(self) -> bool:
        """Whether one more at this moment would be one too many."""
        return self._busy >= self.spec.concurrency

    async def run(self, invocation: Invocation) -> Result:
        """Serve one in a warm environment, or in a new one."""
        self._busy += 1
        environment = self._warm.pop() if self._warm else Environment(self.spec, self._template)
        started_at = time.time()
        try:
            result = await environment.invoke(invocation)
            self.records.append(Record(result, started_at, invocation.trace_id))
        finally:
            self._busy -= 1
            if environment.alive:
                self._warm.append(environment)
            else:
                await environment.close()
        return result

    def enqueue(self, body: bytes) -> None:
        """Take an event: it is delivered at least once, and made again where it fails."""
        for _ in range(self.spec.copies):
            task = asyncio.ensure_future(self._deliver(body))
            self._events.add(task)
            task.add_done_callback(self._events.discard)

    async def _deliver(self, body: bytes) -> None:
        for _ in range(1 + self.spec.retries):
            while self.is_full:
                await asyncio.sleep(0.01)
            if (await self.run(Invocation(body))).error is None:
                return
        self.dead.append(body)

    async def cool(self) -> None:
        """End its warm environments."""
        warm, self._warm = self._warm, []
        for environment in warm:
            await environment.close()

    async def close(self) -> None:
        """End all processes that it has."""
        await self.cool()
        if self._template is not None:
            await self._template.close()

    async def settled(self) -> None:
        """Wait until every event that was taken has been delivered or given up."""
        while self._events:
            await asyncio.wait(self._events)


class Service:
    """Answers for the functions it has."""

    def __init__(self, account_concurrency: int) -> None:
        self.functions: dict[str, Function] = {}
        self.account_concurrency: int = account_concurrency

    async def answer(self, request: Request) -> Reply:
        """Answer one request of boto3."""
        if request.path == "/2016-08-19/account-settings":
            limit = {"ConcurrentExecutions": self.account_concurrency}
            limit["UnreservedConcurrentExecutions"] = self.account_concurrency
            return _json(200, {"AccountLimit": limit, "AccountUsage": {"FunctionCount": len(self.functions)}})
        parts = request.path.removeprefix(_FUNCTIONS).removeprefix("/2019-09-30/functions/").split("/")
        name, verb = parts[0].rpartition(":function:")[2].split(":")[0], parts[1] if len(parts) > 1 else ""
        function = self.functions.get(name)
        if function is None:
            return _refused(404, "ResourceNotFoundException", f"Function not found: {name}")
        answers: dict[str, Callable[[Function], dict[str, object]]] = {
            "": lambda one: {"Configuration": _configuration(one.spec), "Code": {}, "Tags": {}},
            "configuration": lambda one: _configuration(one.spec),
            "concurrency": lambda one: {"ReservedConcurrentExecutions": one.spec.concurrency},
        }
        if verb == "invocations":
            return await self._invoke(function, request)
        if verb in answers and request.method == "GET":
            return _json(200, answers[verb](function))
        return _refused(400, "InvalidParameterValueException", f"{request.method} {request.path} is not played here")

    async def cool(self) -> None:
        """End every warm environment."""
        for function in self.functions.values():
            await function.cool()

    async def close(self) -> None:
        """End every process."""
        for function in self.functions.values():
            await function.close()

    async def _invoke(self, function: Function, request: Request) -> Reply:
        kind = request.headers.get("x-amz-invocation-type", "RequestResponse")
        limit = ASYNC_LIMIT if kind == "Event" else SYNC_LIMIT
        if len(request.body) > limit:
            text = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
            return _refused(413, "RequestTooLargeException", text)
        try:
            json.loads(request.body or b"{}")
        except ValueError:
            return _refused(400, "InvalidRequestContentException", "Could not parse request body into json")
        if kind == "DryRun":
            return Reply(204)
        if kind == "Event":
            function.enqueue(request.body)
            return Reply(202)
        if function.is_full:
            function.throttled += 1
            return _throttled()
        headers = request.headers
        client_context = headers.get("x-amz-client-context")
        decoded = base64.b64decode(client_context).decode() if client_context else None
        done = await function.run(Invocation(request.body or b"{}", decoded, headers.get("x-amzn-trace-id", "")))
        told = {"X-Amz-Executed-Version": "$LATEST", "X-Amzn-RequestId": done.request_id}
        if done.error is not None:
            told["X-Amz-Function-Error"] = done.error
        if headers.get("x-amz-log-type") == "Tail":
            told["X-Amz-Log-Result"] = base64.b64encode(done.tail).decode()
        return Reply(200, done.body, {"Content-Type": "application/json", **told})


def _configuration(spec: FunctionSpec) -> dict[str, object]:
    return {
        "FunctionName": spec.name,
        "FunctionArn": spec.arn,
        "Handler": spec.handler,
        "Timeout": int(spec.timeout_s) or 1,
        "MemorySize": spec.memory_mb,
        "Runtime": spec.env.get("FLUJO_SANDBOX_RUNTIME", ""),
        "Environment": {"Variables": dict(spec.env)},
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "Version": "$LATEST",
    }


def _json(status: int, body: object, **headers: str) -> Reply:
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})


def _refused(status: int, kind: str, text: str) -> Reply:
    body = {"Type": "User", "Message": text, "message": text}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", "x-amzn-ErrorType": kind})


def _throttled() -> Reply:
    body = {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."}
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": "TooManyRequestsException", "Retry-After": "1"}
    return Reply(429, json.dumps(body).encode(), headers)
