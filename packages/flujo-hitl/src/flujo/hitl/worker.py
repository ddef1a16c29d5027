"""Group commit: whatever waits while the disk syncs becomes the next transaction, and all of it is durable at once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from flujo.core import FlujoError

from .database import Database, Tx
from .errors import StoreClosed
from .tickets import Job, Ticket, Waited, wake

__all__ = ["Beat", "Together", "Worker"]

T = TypeVar("T")
_MAX_BATCH = 512
_log = logging.getLogger("flujo.hitl")


class Together(Protocol):
    """Does many jobs of one kind at once; returns what is wrong with each."""

    def __call__(self, tx: Tx, jobs: Sequence[Any]) -> Sequence[FlujoError | None]:
        """Do them."""


class Beat(Protocol):
    """What the thread of a worker does from time to time, each in a transaction of its own."""

    def wait_s(self) -> float | None:
        """Seconds until it must be done though nothing else is; None is never."""

    def due(self) -> bool:
        """Whether it is to be done before the next work."""

    def __call__(self, tx: Tx) -> None:
        """Do it."""

    def done(self) -> None:
        """It is durable."""

    def leave(self, tx: Tx) -> None:
        """The last thing that is done."""

    def forget(self) -> None:
        """In a forked child: what was done is the parent's."""


class Worker:
    """A thread that owns a connection. Nothing it has acknowledged is lost with it, so it may die with its process.

    Args:
        database: What it owns; no other thread may touch it.
        name: Of the thread.
        together: A kind of jobs, and what does all of it that waits at once.
        beat: What is done from time to time.
    """

    def __init__(
        self, database: Database, name: str, *, together: tuple[type, Together] | None = None, beat: Beat | None = None
    ) -> None:
        self._database = database
        self._name = name
        self._together = together
        self._beat = beat
        self._reset()
        _living.add(self)

    def _reset(self) -> None:
        self._queue: SimpleQueue[Ticket[Any] | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def call(self, job: Job[T], undo: Callable[[T], object] | None = None) -> T:
        """Do a job and wait until it is durable.

        Args:
            job: What to do.
            undo: Takes its result back where the waiting task was cancelled meanwhile.
        """
        ticket = Waited(job, undo)
        self.post(ticket)
        return await ticket.wait()

    def post(self, ticket: Ticket[Any]) -> None:
        """Queue a job.

        Raises:
            StoreClosed: `stop` was called before.
        """
        if self._closed:
            raise StoreClosed(self._database.name)
        if self._thread is None:
            self._start()
        self._queue.put(ticket)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                # a daemon: it waits for work as long as the store lives, and a program that ends must not wait for it
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> threading.Thread | None:
        """Refuse further work; the thread ends when what is queued is done. May be called again."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        return self._thread

    def forget_parent(self) -> None:
        """In a forked child: the thread is not here, and what it owns is the parent's."""
        self._reset()
        self._database.forget()
        if self._beat is not None:
            self._beat.forget()

    # --- in the thread ---

    def _run(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._next()
            error = self._beaten(is_idle=not batch)
            if error is not None:
                _fail(batch, error)
            elif batch:
                self._perform(batch)
            wake(batch)
        if self._beat is not None:
            self._transaction(self._beat.leave, [])
        self._database.close()

    def _next(self) -> tuple[list[Ticket[Any]], bool]:
        """What waits, once something does or the beat is due; and whether it is the last."""
        batch: list[Ticket[Any]] = []
        with suppress(Empty):
            work = self._queue.get(timeout=None if self._beat is None else self._beat.wait_s())
            while work is not None:
                if not work.dropped:
                    batch.append(work)
                if len(batch) == _MAX_BATCH:
                    return batch, False
                work = self._queue.get_nowait()
            return batch, True
        return batch, False

    def _beaten(self, *, is_idle: bool) -> Exception | None:
        """Do what is due; returns why it could not be done."""
        beat = self._beat
        if beat is None or not beat.due() or (is_idle and beat.wait_s() is None):
            return None
        error, _ = self._transaction(beat, [])
        if error is None:
            beat.done()
        elif is_idle:
            _log.warning("store %r: its hold on runs was not renewed: %s", self._database.name, error)
        return error

    def _perform(self, batch: Sequence[Ticket[Any]]) -> None:
        """Do it all in one transaction; where one job breaks that for the others, each in one of its own."""

        def work(tx: Tx) -> None:
            self._do(tx, batch)

        error, has_begun = self._transaction(work, [ticket.job.run_id for ticket in batch if ticket.job.run_id])
        if error is None:
            return
        if has_begun and len(batch) > 1:
            for ticket in batch:
                self._perform([ticket])
            return
        _fail(batch, error)

    def _transaction(self, work: Callable[[Tx], None], run_ids: Sequence[str]) -> tuple[Exception | None, bool]:
        """What went wrong, and whether the transaction had begun by then."""
        while True:
            has_begun = False
            try:
                self._database.begin(run_ids)
                has_begun = True
                work(self._database)
                self._database.commit()
            except Exception as error:  # whatever it is, those who wait must hear of it, or they wait for ever
                if not self._database.rollback(error) or not has_begun:
                    told = self._database.told(error)
                    if told is not error:
                        told.__cause__ = error
                    return told, has_begun
            else:
                return None, True

    def _do(self, tx: Tx, batch: Sequence[Ticket[Any]]) -> None:
        kind, together = self._together or (type(None), None)
        many = [ticket for ticket in batch if isinstance(ticket.job, kind)]
        if many and together is not None:
            for ticket, problem in zip(many, together(tx, [ticket.job for ticket in many]), strict=True):
                ticket.error = problem
        for ticket in batch:
            if not isinstance(ticket.job, kind):
                ticket.error = None
                try:
                    ticket.result = ticket.job(tx)
                except FlujoError as error:
                    ticket.error = error


def _fail(batch: Sequence[Ticket[Any]], error: Exception) -> None:
    for ticket in batch:
        ticket.error = error


# A fork copies the memory of a worker but not its thread. There is no other moment at which the child can learn of it
# before it uses, or merely keeps open, what belongs to the parent; hence the one registration at import.
_living: WeakSet[Worker] = WeakSet()


def _after_fork() -> None:
    for worker in list(_living):
        worker.forget_parent()


os.register_at_fork(after_in_child=_after_fork)
