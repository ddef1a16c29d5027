"""`RayBackend`: one async actor per process of the cluster, JSON there and back."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from threading import Event, Lock
from typing import Any

import anyio

from flujo.core import Capabilities, Failure, StepExecutionRequest, StepOutcome, WorkerLost

from .actor import StepActor
from .cluster import Cluster, ray_module
from .errors import NeedsAsyncio

__all__ = ["RayBackend"]

CANCEL_S = 10.0
"""Seconds that a cancelled step may take to end in its actor, before the actor is ended."""

START_S = 60.0
"""Seconds for which the first step waits for all actors; those for which the cluster has no room yet come later."""

AHEAD = 1
"""Chunks of a streaming step that its actor makes ahead of what is read here."""

AGAIN_S = 0.5
"""Seconds after which a cancel is said again: Ray may bring it there before the task that it is for. A start looks as
often whether it is still wanted."""


class RayBackend:
    """Runs steps in actors of a Ray cluster; without an address, of one that is started on this machine.

    Args:
        address: Address of a cluster, as `ray.init` takes it; None is the one that this process is connected to, else
            the one that `RAY_ADDRESS` names, else a local one that ends with this process, and its files with it.
        actors: How many processes work; None is one per CPU of the cluster.
        worker: `package.module:name` of a function that makes the `flujo.core.Worker` in each of them: with plugin
            objects, a policy, a way to secrets. None makes one without any.
        actor_options: Further options of the actors, as `.options(...)` of Ray takes them, e.g. `{"num_gpus": 1}`;
            Ray's own retries stay off whatever they say: the engine retries.

    Raises:
        NeedsAsyncio: When a step is run on another event loop than asyncio's.
        ClusterUnreachable: When a step is run, and no cluster answers at the address.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        actors: int | None = None,
        worker: str | None = None,
        actor_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.capabilities: Capabilities = Capabilities(remote=True, prepare=self._actor, streams=True)
        self._cluster = Cluster(address)
        self._size = actors
        self._maker = worker or ""
        self._options = dict(actor_options or {})
        self._lock = Lock()
        self._closing = Event()
        self._actors: list[Actor] = []
        self._numbers = count(1)

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        """See ExecutionBackend."""
        actor = await self._actor()
        number, task = next(self._numbers), request.task()
        if task.is_stream:
            answer = await actor.stream(number, task.model_dump_json(), request.give)
        else:
            answer = await actor.work(number, task.model_dump_json())
        if answer is None:
            return StepOutcome(Failure(WorkerLost(request.ctx.step_path, actor.lost)))
        return request.outcome(answer)

    async def _actor(self) -> Actor:
        """The one that has least to do, once all that are to work were started."""
        try:
            asyncio.current_task()
        except RuntimeError:
            raise NeedsAsyncio from None
        if not self._actors or any(actor.is_gone for actor in self._actors):
            # A cancel leaves the start behind, which goes on: whoever comes next waits for it, or `aclose` ends it.
            await anyio.to_thread.run_sync(self._start, abandon_on_cancel=True)
        return min(self._actors, key=lambda actor: actor.busy)

    def _start(self) -> None:
        """Start as many as are to work, and others for those that are gone; blocks."""
        asked_at = time.monotonic()
        with self._lock:
            self._cluster.connect(asked_at)
            size = self._size or max(1, int(ray_module().cluster_resources().get("CPU", 1)))
            there = [actor for actor in self._actors if not actor.is_gone]
            new = [Actor(self._maker, self._options) for _ in range(size - len(there))]
            ends_at, late = time.monotonic() + START_S, [one.ready for one in new]
            while late and not self._closing.is_set() and (left_s := ends_at - time.monotonic()) > 0:
                _, late = ray_module().wait(late, num_returns=len(late), timeout=min(AGAIN_S, left_s))
            if self._closing.is_set():  # who was never ready has opened nothing, and would not hear of a close
                for one in new:
                    if one.ready in late:
                        one.kill()
                new = [one for one in new if one.ready not in late]
            self._actors = there + new

    async def aclose(self) -> None:
        """Close what the actors opened, and end them. The cluster stays."""
        for actor in await anyio.to_thread.run_sync(self._taken):
            await actor.close()

    def _taken(self) -> list[Actor]:
        """The actors, which are this backend's no more; blocks until a start that goes on has heard of it."""
        self._closing.set()
        with self._lock:
            self._closing.clear()
            actors, self._actors = self._actors, []
            return actors


class Waiting:
    """A task that waits for its answer: None where its process went away."""

    def __init__(self, number: int, task: str) -> None:
        self.number: int = number
        self.task: str = task
        self.answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def end(self, answer: str | None) -> None:
        """Its answer is there."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Actor:
    """One actor, from this side. Tasks that are given in one turn of the event loop go to it in one call.

    Attributes:
        ready: Ray's word for when it is there, or failed to be.
        busy: How many tasks it has.
        is_gone: Whether its process went away.
        lost: Why an answer of it is missing.
    """

    def __init__(self, maker: str, options: Mapping[str, Any]) -> None:
        kind: Any = ray_module().remote(StepActor)
        usual = {"max_concurrency": 10_000, "num_cpus": 0, "scheduling_strategy": "SPREAD"}
        once = {"max_task_retries": 0, "max_restarts": 0}
        self._handle: Any = kind.options(**{**usual, **options, **once}).remote(
            [path for path in sys.path if path], maker
        )
        self.ready: object = self._handle.__ray_ready__.remote()
        self._outgoing: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self.busy: int = 0
        self.is_gone: bool = False
        self.lost: str = "its actor gave no answer"

    async def work(self, number: int, task: str) -> str | None:
        """Have a task done; None where its process went away."""
        loop, waiting = asyncio.get_running_loop(), Waiting(number, task)
        if loop not in self._outgoing:
            self._outgoing[loop] = []
            loop.call_soon(self._send, loop)
        self._outgoing[loop].append(waiting)
        self.busy += 1
        try:
            return await waiting.answer
        except BaseException:  # a cancel: it ends there before it ends here
            if waiting in self._outgoing.get(loop, ()):
                self._outgoing[loop].remove(waiting)
            else:
                waiting.answer = loop.create_future()  # the first was cancelled with who waited for it
                await self._cancel(number, waiting.answer)
            raise
        finally:
            self.busy -= 1

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        call = loop.create_task(self._call(self._outgoing.pop(loop)))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, batch: list[Waiting]) -> None:
        ray = ray_module()
        left = {waiting.number: waiting for waiting in batch}
        try:
            async for ref in self._handle.run.remote([(one.number, one.task) for one in batch]):
                for number, answer in await ref:
                    left.pop(number).end(answer or None)
        except ray.exceptions.RayError as error:  # of the steps' own errors none comes this way
            self._lose(error)
        finally:
            for waiting in left.values():
                waiting.end(None)

    async def stream(self, number: int, task: str, give: Callable[[str], Awaitable[object]]) -> str | None:
        """Have a streaming step done, and give each of its chunks; None where its process went away."""
        ray = ray_module()
        way = {"num_returns": "streaming", "_generator_backpressure_num_objects": AHEAD}
        items = self._handle.stream.options(**way).remote(number, task)
        answer = ""
        self.busy += 1
        try:
            async for ref in items:
                is_answer, text = await ref
                if is_answer:
                    answer = text
                else:
                    await give(text)
        except ray.exceptions.RayError as error:  # as above
            self._lose(error)
        except BaseException:  # a cancel, or a chunk that does not fit: it ends there before it ends here
            await self._cancel(number, asyncio.ensure_future(_passed(items)))
            raise
        finally:
            self.busy -= 1
        return answer or None

    def _lose(self, error: Exception) -> None:
        self.is_gone = True
        self.lost = f"the process of its actor went away: {_reason(error)}"

    async def _cancel(self, number: int, ended: asyncio.Future[Any]) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_S) as late:
            while not ended.done():
                self._handle.cancel.remote(number)
                await asyncio.wait([ended], timeout=AGAIN_S)
        if late.cancelled_caught:
            self.is_gone = True
            self.kill()

    def kill(self) -> None:
        """End it, whatever it does."""
        ray_module().kill(self._handle)

    async def close(self) -> None:
        """Close what it opened, and end it."""
        ray = ray_module()
        try:
            await self._handle.close.remote()
        except ray.exceptions.RayError:  # it went away before
            return
        self.kill()


async def _passed(items: Any) -> None:
    """Let what still comes pass: its actor waits until it was taken."""
    try:
        async for _ in items:
            pass
    except ray_module().exceptions.RayError:  # it went away
        return


def _reason(error: Exception) -> str:
    """What an error of Ray says of why: of a traceback in it the last line, of a report the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in reversed(lines) if "Error: " in line), lines[0]).strip()[:1000]
