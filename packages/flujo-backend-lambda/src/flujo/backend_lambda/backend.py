"""LambdaBackend: each attempt of a step is one invocation of a function, paid for under the run's budget."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from flujo.core import (
    Capabilities,
    CodeRef,
    ConfigurationError,
    Failure,
    FlujoError,
    Lease,
    Signer,
    StepExecutionRequest,
    StepFailed,
    StepOutcome,
    StepTask,
    TaskRejected,
    Usage,
)

from .blobs import BlobStore, S3Blobs, packed
from .clients import LambdaClient, aws
from .envelope import Code, Header, sealed
from .errors import LeaseTooSmall, NotShippable, NotStored, PayloadTooLarge, Throttled
from .invocation import SYNC_LIMIT, Answer, Sending, check_size, fault_of, invoke
from .keys import HmacKey
from .pickling import pickled
from .preflight import Deployed, asking, check_client, preflight
from .reply import MAX_RESULT, read
from .report import Rates
from .scan import find_env_secret
from .signing import Ed25519Signer

__all__ = ["LambdaBackend", "backend_from"]

MARGIN_S = 30.0
"""Seconds by which the client waits longer than the function may take: to give up earlier would run a step twice."""

FRESH_S = 1.0
"""Seconds for which it is told again that AWS could not be asked: to the steps that waited for it meanwhile."""

UNSENT = (Throttled, NotStored, PayloadTooLarge, LeaseTooSmall)
"""What a step fails with that was never sent, so that nothing of its lease counts."""

_MOST_OVERHEAD = 1.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Ready:
    client: LambdaClient
    deployed: Deployed


class LambdaBackend:
    """Runs steps on AWS Lambda, one invocation for each attempt.

    Args:
        function: Name, or ARN, of the function; it may end with `:alias`.
        signer: What signs tasks: an Ed25519 key (its PEM, or the path of it), or `HmacKey.from_secrets_manager(arn)`.
        bucket: S3 bucket for what does not fit into an invocation; the worker must know it too.
        rates: What AWS takes for the function, so that runs can be limited in USD; None counts no cost.
        concurrency: Steps that run at the same time; the others wait here.
        region: AWS region; None leaves that to boto3.
        audience: Name by which the worker knows itself; the function's name where left out.
        allow_pickle: Whether code without an import path (notebooks, closures) may travel as a pickle.
        artifact: Digest of the artifact that the function must be built from; None takes any.
        inline_limit: Bytes from which on an invocation puts its body into the bucket.
        max_result: Bytes of the largest result that is taken.
        patience_s: Seconds for which throttling is waited out; the deadline of a step ends it earlier.
        client: A client of Lambda, which must not retry; None makes one that fits the function.
        store: Where large parts go instead of the bucket.

    Raises:
        ConfigurationError: A setting cannot be used. What only AWS knows is asked before the first step.
    """

    def __init__(
        self,
        function: str,
        *,
        signer: Signer | str | bytes | os.PathLike[str],
        bucket: str | None = None,
        rates: Rates | None = None,
        concurrency: int = 100,
        region: str | None = None,
        audience: str | None = None,
        allow_pickle: bool = False,
        artifact: str | None = None,
        inline_limit: int = 200_000,
        max_result: int = MAX_RESULT,
        patience_s: float = 120.0,
        client: LambdaClient | None = None,
        store: BlobStore | None = None,
    ) -> None:
        if concurrency < 1 or inline_limit < 1 or max_result < 1:
            why = "concurrency, inline_limit and max_result are 1 or more"
            raise ConfigurationError("LambdaBackend(...) cannot be used", why)
        self.function: str = function
        self.audience: str = audience or function.rpartition(":function:")[2].split(":")[0]
        self.capabilities: Capabilities = Capabilities(remote=True, pickle=allow_pickle, prepare=self._prepared)
        self._signer = Ed25519Signer(signer) if isinstance(signer, str | bytes | os.PathLike) else signer
        self._store: BlobStore | None = store or (S3Blobs(bucket) if bucket else None)
        self._rates = rates
        self._concurrency = concurrency
        self._region = region
        self._allow_pickle = allow_pickle
        self._artifact = artifact
        self._inline_limit = inline_limit
        self._max_result = max_result
        self._patience_s = patience_s
        self._client = client
        self._ready: _Ready | None = None
        self._failed: ConfigurationError | None = None
        self._failed_at = 0.0
        self._lock = threading.Lock()
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar("flujo_lambda_steps")

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        """Run one attempt; see ExecutionBackend."""
        async with self._places():
            try:
                ready = await self._prepared()
                async with self._lease(request, ready.deployed) as lease:
                    return await self._executed(request, ready, lease)
            except UNSENT as error:
                return StepOutcome(Failure(error), usage=Usage())
            except ConfigurationError as error:  # of the backend, or of what the step holds
                return StepOutcome(Failure(_unsendable(request.ctx.step_path, error)), usage=Usage())

    async def check(self) -> Deployed:
        """Ask AWS what could make a run fail; done before the first step.

        Raises:
            ConfigurationError: Something would; it says what.
        """
        return (await self._prepared()).deployed

    # --- one attempt ------------------------------------------------------------------------------------------------

    async def _executed(self, request: StepExecutionRequest, ready: _Ready, lease: Lease | None) -> StepOutcome:
        path, deployed = request.ctx.step_path, ready.deployed
        try:
            header, event = await self._event(request, deployed)
        except BaseException:  # whatever it is, a cancel too: nothing was sent
            if lease is not None:
                lease.release()
            raise
        try:
            most = int(SYNC_LIMIT * _MOST_OVERHEAD)
            sending = partial(Sending, ready.client, self.function, event, path, most)
            answer = await invoke(sending, request, self._patience(request))
        except Throttled:
            if lease is not None:
                lease.release()
            raise
        cost = None if self._rates is None or answer.report is None else self._rates.cost(answer.report)
        if lease is not None and cost is not None:
            lease.settle(cost_usd=cost)
        if answer.error is not None:
            return StepOutcome(Failure(fault_of(answer, path, deployed.timeout_s)))
        done = await self._read(request, answer, header)
        if done.usage is not None and self._rates is not None and lease is None:  # it is in the lease of the attempt
            worst = self._rates.worst(deployed.timeout_s, deployed.memory_mb)
            done.usage = replace(done.usage, cost_usd=done.usage.cost_usd + (worst if cost is None else cost))
        return done

    async def _read(self, request: StepExecutionRequest, answer: Answer, header: Header) -> StepOutcome:
        path = request.ctx.step_path
        reading = partial(read, answer.payload, header, self._store, path, self._max_result)
        try:
            # What came along is read here, which takes less than a thread does; what lies in the bucket is fetched.
            here = self._store is None or b'"key"' not in answer.payload
            body, facts = reading() if here else await anyio.to_thread.run_sync(reading)
        except TaskRejected as error:  # nothing ran
            return StepOutcome(Failure(error), usage=Usage())
        except StepFailed as error:
            return StepOutcome(Failure(error))
        done = request.outcome(body)
        report = answer.report
        billed = (
            {} if report is None else {"billed_s": report.billed_ms / 1000, "memory_mb": float(report.max_memory_mb)}
        )
        done.worker = facts.model_copy(update={"engine": "lambda", **billed})
        return done

    @asynccontextmanager
    async def _lease(self, request: StepExecutionRequest, deployed: Deployed) -> AsyncIterator[Lease | None]:
        """Hold what the invocation can cost at most. Where AWS does not say what it did cost, that counts.

        An attempt that holds a lease already, for its models and tools, pays from that: see `_carved`.
        """
        usage, path = request.ctx.usage, request.ctx.step_path
        if self._rates is None and usage.limit_that_needs_prices is not None:
            why = "the run has a limit in USD, and nobody has said what AWS takes"
            do = "Give the backend rates=Rates(usd_per_gb_s=..., usd_per_request=...)"
            raise ConfigurationError(f"step {path!r} cannot be sent", why, do)
        if self._rates is None or usage.holds_lease:
            yield None
            return
        worst = self._rates.worst(deployed.timeout_s, deployed.memory_mb)
        async with usage.reserve(cost_usd=worst, requests=0) as lease:
            yield lease

    async def _event(self, request: StepExecutionRequest, deployed: Deployed) -> tuple[Header, bytes]:
        name = request.ctx.step_path
        demands: Code | None = None
        modules: tuple[str, ...] = ()
        try:
            task = request.task()
        except StepFailed as error:
            if error.error_type != "NotImportable" or not self._allow_pickle:
                raise
            work = partial(pickled, request.step.target, name, self._store, self._inline_limit)
            code, demands, modules = await self._stored(name, work)
            task = request.task(code)
        if self._rates is not None and request.ctx.usage.holds_lease:
            task = _carved(task, self._rates.worst(deployed.timeout_s, deployed.memory_mb))
        body = task.model_dump_json().encode()
        sealing = partial(self._sealed, task, body, demands, (*_modules(task), *modules), deployed)
        # Signing takes less than a thread does; what goes to the bucket waits for S3.
        return await self._stored(name, sealing) if self._spills(body) else sealing()

    async def _stored(self, path: str, work: Callable[[], T]) -> T:
        """Do what may put something into the bucket; the end of the step's time leaves its thread behind.

        Raises:
            NotStored: It was not put there.
        """
        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        except FlujoError:
            raise
        except Exception as error:  # of any store, ours or another's
            failed = NotStored(path, self._store, error)
            raise failed from failed.__cause__

    def _spills(self, body: bytes) -> bool:
        """Whether it goes to the bucket. What counts is the length of the event: JSON in JSON, and that as base64."""
        return self._store is not None and len(body) * 3 // 2 > self._inline_limit

    def _sealed(
        self, task: StepTask, body: bytes, demands: Code | None, modules: Sequence[str], deployed: Deployed
    ) -> tuple[Header, bytes]:
        variable = find_env_secret(body)
        if variable is not None:
            why = f"the value of variable {variable} is somewhere in its inputs or its context"
            raise NotShippable("E_SECRET", f"step {task.path!r}", why, "Take it as a resource that the worker opens")
        blob = packed(body, self._store, spill=self._spills(body))
        lifetime_s = deployed.timeout_s + self._patience_s + MARGIN_S
        header = Header.make(
            self.audience, blob, lifetime_s=lifetime_s, code=demands, modules=modules, artifact=self._artifact
        )
        event = sealed(header, self._signer)
        check_size(event, task)
        return header, event

    # --- around it --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _places(self) -> AsyncIterator[None]:
        """A limiter of this backend in this event loop."""
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(self._concurrency)
            self._limiter.set(limiter)
        async with limiter:
            yield

    def _patience(self, request: StepExecutionRequest) -> float:
        deadline = request.ctx.deadline
        return self._patience_s if deadline is None else min(self._patience_s, deadline - anyio.current_time())

    async def _prepared(self) -> _Ready:
        ready = self._ready
        if ready is None:
            # A cancel leaves it behind; whoever comes next waits for it.
            ready = await anyio.to_thread.run_sync(self._made_ready, abandon_on_cancel=True)
        return ready

    def _made_ready(self) -> _Ready:
        asked_at = time.monotonic()
        with self._lock:
            if self._ready is None:
                failed = self._failed
                if failed is not None and asked_at < self._failed_at + FRESH_S:
                    raise ConfigurationError(failed.what, failed.why, failed.do) from failed
                try:
                    self._ready = self._asked()
                except ConfigurationError as error:
                    self._failed, self._failed_at = error, time.monotonic()
                    raise
            return self._ready

    def _asked(self) -> _Ready:
        client, keyid = self._client or asking(self._region), self._signer.keyid
        checked = preflight(client, self.function, self._concurrency, keyid, pickle=self._allow_pickle)
        return _Ready(self._invoking(checked), checked)

    def _invoking(self, deployed: Deployed) -> LambdaClient:
        """A client that waits longer than the function may take and never sends anything twice."""
        least_s = deployed.timeout_s + MARGIN_S
        if self._client is not None:
            check_client(self._client, deployed.timeout_s)
            return self._client
        client: LambdaClient = aws(
            "lambda",
            region=self._region,
            read_timeout=least_s,
            connect_timeout=10,
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
            max_pool_connections=min(self._concurrency, 1000),
        )
        return client


def backend_from(env: Mapping[str, str]) -> LambdaBackend:
    """The backend that an environment describes, for `--backend lambda`.

    Raises:
        ConfigurationError: The function or the key is not named, or a number is none.
    """
    function, key = env.get("FLUJO_LAMBDA_FUNCTION"), env.get("FLUJO_LAMBDA_SIGNING_KEY")
    arn = env.get("FLUJO_LAMBDA_HMAC_SECRET_ARN")
    if not function or not (key or arn):
        why = "FLUJO_LAMBDA_FUNCTION names the function, FLUJO_LAMBDA_SIGNING_KEY the file of the key; one is missing"
        raise ConfigurationError("backend 'lambda' cannot be used", why, "Set both; see docs/how-to/run-on-lambda.md")
    price = env.get("FLUJO_LAMBDA_USD_PER_GB_S")
    try:
        rates = None if price is None else Rates(price, env.get("FLUJO_LAMBDA_USD_PER_REQUEST", "0"))
        concurrency = int(env.get("FLUJO_LAMBDA_CONCURRENCY", "100"))
    except ValueError as error:
        raise ConfigurationError("backend 'lambda' cannot be used", str(error)) from error
    return LambdaBackend(
        function,
        signer=key or HmacKey.from_secrets_manager(arn or ""),
        bucket=env.get("FLUJO_LAMBDA_BUCKET"),
        rates=rates,
        concurrency=concurrency,
        audience=env.get("FLUJO_LAMBDA_AUDIENCE"),
        allow_pickle=env.get("FLUJO_LAMBDA_ALLOW_PICKLE") == "1",
        artifact=env.get("FLUJO_LAMBDA_ARTIFACT"),
    )


def _unsendable(path: str, error: ConfigurationError) -> StepFailed:
    """What a step fails with that was not sent: what is to be done is that of the fault, not of the step."""
    why = f"{error.what}: {error.why}" if error.why else error.what
    failed = StepFailed(path, type(error).__name__, why, error.do)
    failed.__cause__ = error
    return failed


def _carved(task: StepTask, worst: Decimal) -> StepTask:
    """The task with what the invocation itself can cost taken off its lease.

    Raises:
        StepFailed: The lease does not even hold that.
    """
    held = task.lease.cost_usd
    if held is None:
        return task
    if held < worst:
        why = f"it holds {held} USD, and the function alone can cost {worst}"
        do = "Raise it, or give the function less time or memory: lease=UsageLimits(total_cost_usd_limit=...)"
        raise LeaseTooSmall(task.path, "LeaseTooSmall", why, do)
    return task.model_copy(update={"lease": task.lease.model_copy(update={"cost_usd": held - worst})})


def _modules(task: StepTask) -> list[str]:
    """Modules that the worker imports for a task."""
    refs = [task.code.ref] if isinstance(task.code, CodeRef) else []
    refs += [] if task.context is None else [task.context.model]
    refs += [] if task.resources is None else [task.resources.ref]
    return sorted({ref.partition(":")[0] for ref in refs})
