"""A thread that writes: what is asked for while it commits is committed together next (group commit)."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

from flujo.core import FlujoError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MOST = 1024
"""Pieces of work in one transaction, at most."""


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """A piece of work, and who waits for it.

    Attributes:
        work: Reads or writes; a FlujoError that it raises, before it wrote anything, is its own.
        result: What it gave, once it is durable.
        error: Why there is none.
    """

    work: Work[T]
    result: T | None = None
    error: BaseException | None = None
    _done: anyio.Event = field(default_factory=anyio.Event)
    _loop: object = field(default_factory=lambda: current_token().native_token)

    async def wait(self) -> T:
        """Wait in the loop that made it; a cancel ends the wait, not the work."""
        await self._done.wait()
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # what the work gave, None included

    @staticmethod
    def wake(jobs: list[Job[object]]) -> None:
        """Wake all who wait, each loop once."""
        loops: dict[object, list[Job[object]]] = {}
        for job in jobs:
            loops.setdefault(job._loop, []).append(job)
        for loop, mine in loops.items():
            try:
                if isinstance(loop, asyncio.AbstractEventLoop):
                    loop.call_soon_threadsafe(_set, mine)
                else:  # trio's token; anyio gives both behind one object but offers no call that does not block
                    loop.run_sync_soon(_set, mine)  # type: ignore[attr-defined]
            except RuntimeError:  # that loop is closed, and nobody in it waits any more
                continue


def _set(jobs: list[Job[object]]) -> None:
    for job in jobs:
        job._done.set()


class Committer:
    """Does jobs on one connection in a thread of its own, as many as wait in one transaction.

    Args:
        connect: Opens the connection, in the thread.
        tell: Makes an error of ours of one of the database.
        idle: Called in the thread when `idle_s` seconds passed, and about as often while it works.
        idle_s: Seconds.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        tell: Callable[[sqlite3.Error], FlujoError],
        idle: Work[object],
        idle_s: float,
    ) -> None:
        self._connect = connect
        self._tell = tell
        self._idle = idle
        self._idle_s = idle_s
        self._jobs: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, job: Job[T]) -> None:
        """Have it done."""
        self._start()
        self._jobs.put(job)  # type: ignore[arg-type]  # a queue of jobs of any result

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                # a daemon: who waits for a job waits for it, and a program that ends waits for nobody
                self._thread = threading.Thread(target=self._run, name="flujo-store", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Finish what was asked for, and end."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            jobs, is_last = self._next()
            try:
                connection = connection or self._connect()
                self._commit(connection, jobs)
                if not jobs:
                    self._idle(connection)
            except (sqlite3.Error, FlujoError) as error:  # it could not be opened, or not even rolled back
                fault = self._tell(error) if isinstance(error, sqlite3.Error) else error
                connection = None
                for job in jobs:
                    job.error = job.error or fault
            Job.wake(jobs)
            if is_last:
                if connection is not None:
                    connection.close()
                return

    def _next(self) -> tuple[list[Job[object]], bool]:
        """All that waits; nothing when nobody came for a while."""
        jobs: list[Job[object]] = []
        try:
            first = self._jobs.get(timeout=self._idle_s)
            while first is not None:
                jobs.append(first)
                if len(jobs) >= MOST:
                    return jobs, False
                first = self._jobs.get_nowait()
        except queue.Empty:
            return jobs, False
        return jobs, True

    def _commit(self, connection: sqlite3.Connection, jobs: list[Job[object]]) -> None:
        """All in one transaction; where the database refuses that, each in its own, so that one spoils no other."""
        if jobs and not self._try(connection, jobs):
            for job in jobs:
                if job.error is None:
                    self._try(connection, [job])

    def _try(self, connection: sqlite3.Connection, jobs: list[Job[object]]) -> bool:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                if job.error is None:
                    try:
                        job.result = job.work(connection)
                    except FlujoError as error:  # refused, before it wrote anything
                        job.error = error
            connection.execute("COMMIT")
        except Exception as error:  # of the database, or of a codec, which is not ours: it is told to who asked
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if len(jobs) > 1:
                return False
            jobs[0].error = self._tell(error) if isinstance(error, sqlite3.Error) else error
        return True
