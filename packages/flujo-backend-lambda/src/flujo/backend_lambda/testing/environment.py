"""One execution environment: a process with the real runtime client, and the Runtime API that it asks for work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .forking import Process, Template, kill
from .http import Reply, Request, serve

__all__ = ["REGION", "Environment", "FunctionSpec", "Invocation", "Result", "template_of"]

REGION = "eu-central-1"
ACCOUNT = "123456789012"
RESPONSE_LIMIT = 6 * 1024 * 1024 + 100
"""Bytes that a function may answer."""

_TAIL = 4096
_INIT_TIMEOUT_S = 120.0
"""Far more than the 10 s of AWS: a hundred cold starts at once share the few cores of this machine."""
_PATH = "/2018-06-01/runtime/"
_RUNTIME_CLIENT = (sys.executable, "-m", "awslambdaric")
_LOADED = ("awslambdaric.lambda_config", "awslambdaric.lambda_runtime_marshaller", "logging", "traceback")
"""What every process of awslambdaric loads, but for its part in C, which looks for its address when it is loaded."""
_OWN_HANDLERS, _WORKER = "flujo.backend_lambda.", "flujo.backend_lambda.worker"


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A function as it is deployed.

    Attributes:
        name: Its name.
        handler: `module.attribute`, as awslambdaric wants it.
        task_root: Folder of its code: the working directory, and first on the path.
        timeout_s: Seconds after which an invocation is ended.
        memory_mb: What REPORT lines say; the memory of the process is not limited.
        concurrency: Invocations at the same time, after which more are throttled.
        env: Its environment variables; nothing else of this process's environment is given.
        command: What starts the runtime client; the handler is added.
        retries: How often a failed asynchronous invocation is made again.
        copies: How often each asynchronous event is delivered; 2 plays a delivery that happens twice.
        forked: Whether cold starts are forked from a template that has the runtime client loaded, see LocalLambda.
            A function with a `command` of its own has none.
    """

    name: str
    handler: str
    task_root: Path
    timeout_s: float = 30.0
    memory_mb: int = 256
    concurrency: int = 1000
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = _RUNTIME_CLIENT
    retries: int = 2
    copies: int = 1
    forked: bool = True

    @property
    def arn(self) -> str:
        """Its name in full."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.name}"

    @property
    def variables(self) -> dict[str, str]:
        """What of the environment all its processes share."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "_HANDLER": self.handler,
            "LAMBDA_TASK_ROOT": str(self.task_root),
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            **self.env,
        }


@dataclass(frozen=True, slots=True)
class Invocation:
    """One event for a function."""

    body: bytes
    client_context: str | None = None
    trace_id: str = ""
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an invocation.

    Attributes:
        request_id: Its id.
        body: The answer, or the error as JSON.
        error: `Unhandled` where it failed.
        log: Everything that was logged, with the START, END and REPORT lines.
        duration_ms: Time in the handler.
        init_ms: Time of the cold start; None on a warm one.
        status: `success`, `error` or `timeout`.
    """

    request_id: str
    body: bytes
    error: str | None
    log: bytes
    duration_ms: float
    init_ms: float | None
    status: str

    @property
    def tail(self) -> bytes:
        """The last 4 KB of the log, which is what AWS gives."""
        return self.log[-_TAIL:]


class Environment:
    """A process that serves one invocation at a time, as long as it lives."""

    def __init__(self, spec: FunctionSpec, template: Template | None) -> None:
        self.spec: FunctionSpec = spec
        self._template = template
        self.alive: bool = True
        self._folder = tempfile.TemporaryDirectory(prefix="flujo-lambda-")
        self._log = Path(self._folder.name, "log")
        self._ready = asyncio.Event()
        self._init_error: bytes | None = None
        self._inbox: asyncio.Queue[Invocation | None] = asyncio.Queue()
        self._answer: asyncio.Future[tuple[bytes, str | None]] | None = None
        self._request_id = ""
        self._deadline_ms = 0
        self._process: Process | None = None
        self._server: asyncio.Server | None = None

    async def invoke(self, invocation: Invocation) -> Result:
        """Serve one event; afterwards `alive` says whether another can follow."""
        init_ms = await self._start() if self._process is None else None
        start, since = self._log.stat().st_size if self._log.exists() else 0, time.perf_counter()
        start = 0 if init_ms is not None else start
        served = await self._serve(invocation) if self.alive else (self._died(), "Unhandled", "error")
        body, error, status = served
        duration_ms = max((time.perf_counter() - since) * 1000, 0.01)
        if self.alive and self._process is not None and self._process.returncode is not None:
            self.alive = False
        said = self._log.read_bytes()[start:] if self._log.exists() else b""
        log = self._framed(invocation.request_id, said, duration_ms, init_ms, status)
        return Result(invocation.request_id, body, error, log, duration_ms, init_ms, status)

    async def close(self) -> None:
        """End the process and everything it started."""
        self.alive = False
        if self._process is not None:
            kill(self._process)
            await self._process.wait()
        self._inbox.put_nowait(None)  # so that nobody waits for work any more
        if self._server is not None:
            self._server.close()
        self._folder.cleanup()

    # --- the process ------------------------------------------------------------------------------------------------

    async def _start(self) -> float:
        since = time.perf_counter()
        self._server, port = await serve(self._runtime_api)
        own = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}", "HOME": self._folder.name, "TMPDIR": self._folder.name}
        # What the function itself sets wins, as it does in the environment of a process that is started.
        own = {name: value for name, value in own.items() if name not in self.spec.env}
        forked = None if self._template is None else await self._template.fork(own, self._log)
        self._process = forked or await self._spawned(own)
        ready, gone = asyncio.ensure_future(self._ready.wait()), asyncio.ensure_future(self._process.wait())
        await asyncio.wait({ready, gone}, timeout=_INIT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.is_set() or self._init_error is not None:
            ready.cancel()
            self.alive = False
        gone.cancel()
        return (time.perf_counter() - since) * 1000

    async def _spawned(self, env: Mapping[str, str]) -> Process:
        with self._log.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *(*self.spec.command, self.spec.handler),
                cwd=self.spec.task_root,
                env={**self.spec.variables, **env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _serve(self, invocation: Invocation) -> tuple[bytes, str | None, str]:
        assert self._process is not None
        timeout = self.spec.timeout_s
        answer: asyncio.Future[tuple[bytes, str | None]] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._request_id, self._deadline_ms = invocation.request_id, int((time.time() + timeout) * 1000)
        self._inbox.put_nowait(invocation)
        gone = asyncio.ensure_future(self._process.wait())
        waited: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            gone.cancel()
            body, error = answer.result()
            if len(body) > RESPONSE_LIMIT:
                text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
                return _error("Function.ResponseSizeTooLarge", text), "Unhandled", "error"
            return body, error, "success" if error is None else "error"
        if gone.done():
            return self._died(), "Unhandled", "error"
        gone.cancel()
        await self.close_process()
        text = f"{invocation.request_id} Task timed out after {timeout:.2f} seconds"
        return _error("Sandbox.Timedout", text), "Unhandled", "timeout"

    async def close_process(self) -> None:
        """Kill it, as AWS does at the end of its time; the log stays."""
        assert self._process is not None
        self.alive = False
        kill(self._process)
        await self._process.wait()

    def _died(self) -> bytes:
        self.alive = False
        if self._init_error is not None:
            return self._init_error
        code = None if self._process is None else self._process.returncode
        if code is None:
            return _error("Sandbox.Timedout", f"Init timed out after {_INIT_TIMEOUT_S:.2f} seconds")
        how = f"exit status {code}" if code >= 0 else f"signal: {signal.strsignal(-code) or -code}".lower()
        return _error("Runtime.ExitError", f"RequestId: {self._request_id} Error: Runtime exited with error: {how}")

    # --- what it asks -----------------------------------------------------------------------------------------------

    async def _runtime_api(self, request: Request) -> Reply:
        what = request.path.removeprefix(_PATH)
        if what == "invocation/next":
            self._ready.set()
            return self._work(await self._inbox.get())
        if what == "init/error":
            self._init_error = request.body
            self._ready.set()
            return Reply(202, b'{"status":"OK"}')
        _, request_id, verb = [*what.split("/"), "", "", ""][:3]
        if request_id != self._request_id or self._answer is None or self._answer.done():
            return Reply(400, _error("InvalidRequestID", "Invalid request ID"))
        self._answer.set_result((request.body, "Unhandled" if verb == "error" else None))
        return Reply(202, b'{"status":"OK"}')

    def _work(self, invocation: Invocation | None) -> Reply:
        if invocation is None:
            return Reply(410, _error("Sandbox.Closed", "this environment is closed"))
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(self._deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self.spec.arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_id or f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}",
        }
        if invocation.client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        return Reply(200, invocation.body, headers)

    # --- what it leaves ---------------------------------------------------------------------------------------------

    def _framed(self, request_id: str, said: bytes, duration_ms: float, init_ms: float | None, status: str) -> bytes:
        billed = int(duration_ms + (init_ms or 0)) + 1
        report = (
            f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\tBilled Duration: {billed} ms\t"
            f"Memory Size: {self.spec.memory_mb} MB\tMax Memory Used: {self._memory_mb()} MB\t"
        )
        report += "" if init_ms is None else f"Init Duration: {init_ms:.2f} ms\t"
        report += "" if status == "success" else f"Status: {status}\t"
        said = said if not said or said.endswith(b"\n") else said + b"\n"
        start, end = f"START RequestId: {request_id} Version: $LATEST\n", f"END RequestId: {request_id}\n"
        return start.encode() + said + end.encode() + report.encode() + b"\n"

    def _memory_mb(self) -> int:
        """The most it had so far; where the system does not tell, as for a process that is gone, all it could have."""
        try:
            status = Path(f"/proc/{self._process.pid if self._process else 0}/status").read_text("ascii")
        except OSError:
            return self.spec.memory_mb
        lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
        return next((int(line[1]) // 1024 for line in lines), self.spec.memory_mb)


def _error(kind: str, text: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": text}).encode()


def template_of(spec: FunctionSpec) -> Template | None:
    """The template of a function's processes; None where each is started from nothing."""
    if not spec.forked or spec.command != _RUNTIME_CLIENT:
        return None
    # To a function of Flujo the worker is what the runtime client is to all: not its code, but what runs it.
    modules = (*_LOADED, _WORKER) if spec.handler.startswith(_OWN_HANDLERS) else _LOADED
    return Template(sys.executable, spec.handler, modules, spec.task_root, spec.variables)
