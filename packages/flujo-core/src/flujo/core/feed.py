"""The hand-over between a run and the one reader of its stream: no item is made before the reader asks for it.

A run that does one thing at a time hands the reader the generators of a streaming step themselves, and waits until they
are exhausted: the reader pulls from them in its own task, which costs nothing more than they do. Where several things
go on at once, each gives its items from its own task, and goes on when the reader comes back for the next. What tells
of steps waits for nobody: it is bounded by the steps there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field

import anyio

from .context import RunInfo
from .folds import Chunks, Fold
from .hooks import Hooks, Implementation
from .items import Chunk, StepEnded, StepStarted, StreamItem, UsageUpdate
from .payloads import Event, OnModelCall, OnStepFailure, PostStepExecution, PreStepExecution
from .result import StepRecord
from .usage import Usage

CLEAN_UP_S = 1.0
"""Seconds that generators get to clean up, whatever is cancelled meanwhile."""


_HEARD = ("pre_step_execution", "post_step_execution", "on_step_failure", "on_model_call")


@dataclass(slots=True, eq=False)
class Source:
    """Generators that pull from each other, first to last, and what becomes of their chunks.

    Attributes:
        run: The run, which is told of a clean-up that was given up.
        stages: The generators.
        fold: What their chunks make.
        path: Where their step stands.
        ended: Is set when they are closed.
        error: What they raised.
        is_begun: Whether the reader pulls from them.
        is_cut: Whether they are to end now: their step was cancelled, or its time is up.
        is_read: Whether the reader was given a chunk.
    """

    run: RunInfo
    stages: tuple[Chunks, ...]
    fold: Fold
    path: str
    ended: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None
    is_begun: bool = False
    is_cut: bool = False
    is_read: bool = False

    @property
    def chunks(self) -> Chunks:
        """The last of the generators, from which the reader pulls."""
        return self.stages[-1]

    async def close(self, error: Exception | None = None) -> None:
        """Close them, and say that they are."""
        await self.shut(error)
        self.ended.set()

    async def shut(self, error: Exception | None) -> None:
        """Close them, the last first, each with its clean-up done; what that raises is told after `error`."""
        self.error = self.error or error
        for stage in reversed(self.stages):
            if getattr(stage, "ag_frame", stage) is None:  # it has ended
                continue
            with anyio.move_on_after(CLEAN_UP_S, shield=True) as limit:
                try:
                    await stage.aclose()
                except Exception as fault:  # the first error wins, and says what came after it
                    self._also(fault)
            if limit.cancelled_caught:
                self.run.count("abandoned_cleanups", self.path)

    def _also(self, fault: Exception) -> None:
        if self.error is None:
            self.error = fault
        elif fault is not self.error:
            self.error.add_note(f"closing it failed as well: {type(fault).__name__}")


class Feed:
    """What a run gives its reader.

    Attributes:
        told: Items that wait for nobody.
        source: Generators that the reader is to pull from.
        news: Is set when there is something new, where the reader waits for it.
        is_over: Whether the run has ended.
        cut: Ends the reader's pull, if it is in one; says whether it was.
        withheld: Paths of steps whose chunks may be seen only when all of them were transformed.
    """

    def __init__(self, spent: Callable[[], Usage]) -> None:
        self._spent = spent
        self._paid: Usage = Usage()
        self._offers: deque[tuple[Chunk, anyio.Event]] = deque()
        self._taken: anyio.Event | None = None
        self.told: deque[StreamItem] = deque()
        self.source: Source | None = None
        self.news: anyio.Event | None = None
        self.is_over: bool = False
        self.cut: Callable[[], bool] = bool
        self.withheld: set[str] = set()

    # --- the run's side ---------------------------------------------------------------------------------------------

    async def hand_over(self, source: Source) -> None:
        """Let the reader pull the chunks in its own task, and wait until they are exhausted and closed."""
        try:
            if self.source is not None:  # of a step whose time was up while its reader was busy elsewhere
                await self.source.ended.wait()
            self.source = source
            self._wake()
            await source.ended.wait()
        except BaseException:  # a cancel, or its time is up: who pulls from it closes it
            source.is_cut = True
            if not source.is_begun:
                self.source = None if self.source is source else self.source
                await source.close()
            elif not source.ended.is_set() and self.cut():
                with anyio.CancelScope(shield=True):
                    await source.ended.wait()
            raise

    async def give(self, chunk: Chunk) -> None:
        """Give one chunk, and wait until the reader wants the next."""
        taken = anyio.Event()
        self._offers.append((chunk, taken))
        self._wake()
        await taken.wait()

    def tell(self, item: StreamItem) -> None:
        """Give an item that waits for nobody."""
        self.told.append(item)
        self._wake()

    def end(self) -> None:
        """The run has ended; nothing of it is held, as what stands in a circle waits for the collector."""
        last = copy(self._spent())
        self.is_over, self._spent = True, lambda: last
        self._wake()

    def _wake(self) -> None:
        if self.news is not None:
            self.news.set()

    # --- the reader's side ------------------------------------------------------------------------------------------

    def has_taken(self) -> bool:
        """Take the next chunk that a task waits with; the task whose chunk was taken before goes on."""
        if self._taken is not None:
            self._taken.set()
            self._taken = None
        if self._offers:
            chunk, self._taken = self._offers.popleft()
            self.told.append(chunk)
        return bool(self.told)

    # --- as an observer ---------------------------------------------------------------------------------------------

    def listen(self, hooks: Hooks) -> Hooks:
        """The hooks, and this as the last observer of what a reader is told."""
        mine = Implementation("stream", "a stream", self._hear, False, False, (), False)
        return Hooks(hooks.policy, hooks.table | {hook: (*hooks.of(hook), mine) for hook in _HEARD})

    def _hear(self, event: Event) -> None:
        if isinstance(event, PreStepExecution):
            self.tell(StepStarted(event.step_path, event.name, event.attempt))
        elif isinstance(event, OnModelCall):
            self._note_paid(event.step_path)
        elif isinstance(event, (PostStepExecution, OnStepFailure)):
            self._ended(event.step_path, event.record)

    def _ended(self, path: str, record: StepRecord) -> None:
        if path in self.withheld:
            self.withheld.discard(path)
            if record.status == "completed":
                self.tell(Chunk(record.output, path))
        self._note_paid(path)
        self.tell(StepEnded(path, record))

    def _note_paid(self, path: str) -> None:
        spent = self._spent()
        if spent != self._paid:
            self._paid = copy(spent)
            self.tell(UsageUpdate(path, copy(spent)))
