"""`Flujo.stream_async`: a run that is read while it goes on.

The run has a task of its own; the reader pulls the chunks in its own. No cancel scope and no task group is open while
user code reads, so a reader may itself be an async generator, and may be cancelled and closed like one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from time import perf_counter
from types import AsyncGeneratorType, TracebackType
from typing import Any, NoReturn, cast

import anyio
import anyio.lowlevel

from .errors import ConfigurationError, StepFailed
from .feed import Feed, Source
from .folds import Chunks
from .foreign import attempt, attempt_async, fault_of
from .handle import RunHandle
from .items import Chunk, PausedItem, ResultItem, StreamItem
from .result import PipelineResult
from .run import Run

_LEFT = "its reader left before the end"
_TURN_S = 0.005
_LOOK_EACH = 16
"""A source that never waits is read for so many seconds before others get a turn; the clock is asked each so many."""


class RunStream:
    """A run that is being read: `async for item in stream`, or `async for text in stream.text()`.

    One task reads. Nothing is made before it is asked for: a reader that is slow makes the whole chain slow, and one
    that leaves the block has closed the source, and ended the run, before the next statement.
    """

    def __init__(self, run: Run, feed: Feed, handle: RunHandle) -> None:
        self._run = run
        self._feed = feed
        self._handle = handle
        self._items: AsyncGenerator[StreamItem, None] | None = None
        self._result: PipelineResult | None = None
        self._error: Exception | None = None
        self._readers: list[AsyncGeneratorType[Any, None]] = []
        self._task: asyncio.Task[Any] | None = None
        self._scope: anyio.CancelScope | None = None
        self._cancelling: int | None = None
        self._pulls = False
        self._turn_s = 0.0
        feed.cut = self._cut

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._run.run_id

    @property
    def result(self) -> PipelineResult:
        """How the run ended, once it has: after the last item, and after the block.

        Raises:
            ConfigurationError: It goes on.
        """
        if self._result is None:
            what, why = "`stream.result` cannot be read", "the run goes on"
            raise self._error or ConfigurationError(what, why, "Read it to its end, or leave its block, first")
        return self._result

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run, from whatever task of the event loop; the reader gets an `aborted` result as the last item."""
        self._run.cancel(reason)

    # --- reading ----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[StreamItem]:
        """All items, ResultItem last; however the run ends, nothing is raised."""
        if self._items is None:
            self._items = self._read()
            self._note(self._items)
        return self._items

    def text(self, step: str | None = None) -> AsyncIterator[str]:
        """The chunks that are text.

        Args:
            step: Name of the step whose chunks are wanted, of a chain of streaming steps as `draft>>polish`, or that
                of its last stage; None is all.

        Raises:
            Exception: At the end of a run that did not complete: what a streaming step raised itself, with a note that
                names the stage; of other ends what `result.unwrap()` raises.
        """
        reader = self._read_text(step)
        self._note(reader)
        return reader

    def _note(self, reader: object) -> None:
        self._readers.append(cast("AsyncGeneratorType[Any, None]", reader))

    async def _read(self) -> AsyncGenerator[StreamItem, None]:
        feed, make = self._feed, tuple.__new__  # half of what to call Chunk costs
        told = feed.told
        while await self._news():
            while told:
                yield told.popleft()
            if (source := feed.source) is None:
                continue
            add, path, error, count = source.fold.add, source.path, None, 0
            try:
                async for value in self._pulled(source):
                    add(value)
                    while told:
                        yield told.popleft()
                    yield make(Chunk, (value, path, 0))
                    count += 1
                    if not count % _LOOK_EACH:
                        await self._take_turns()
                    if source.is_cut:
                        break
            except BaseException as raised:  # the step's failure, or the end of its time; a cancel goes on up
                error = self._fault(source, raised)
            await self._close(source, error, count)
        result = await self._ended()
        for pause in result.pauses:
            yield PausedItem(pause)
        yield ResultItem(result)

    async def _read_text(self, step: str | None) -> AsyncGenerator[str, None]:
        feed = self._feed
        while await self._news():
            if (source := feed.source) is None:
                chunk = feed.told.popleft()
                if isinstance(chunk, Chunk) and isinstance(chunk.value, str) and _is_of(chunk.step_path, step):
                    yield chunk.value
                continue
            add, wanted, error, count = source.fold.add, _is_of(source.path, step), None, 0
            try:
                async for value in self._pulled(source):
                    add(value)
                    if wanted and isinstance(value, str):
                        yield value
                    count += 1
                    if not count % _LOOK_EACH:
                        await self._take_turns()
                    if source.is_cut:
                        break
            except BaseException as raised:  # as above
                error = self._fault(source, raised)
            await self._close(source, error, count)
        result = await self._ended()
        if isinstance(result.error, StepFailed) and isinstance(result.error.__cause__, Exception):
            raise result.error.__cause__
        result.unwrap()

    async def _ended(self) -> PipelineResult:
        """How the run ended; raises what kept it from being run."""
        self._result, self._error = await attempt_async(self._handle.wait())
        return self.result

    async def _news(self) -> bool:
        """Wait for something to read; False when there is nothing any more."""
        feed = self._feed
        while not (feed.told or feed.source is not None or feed.has_taken()):
            if feed.is_over:
                return False
            feed.news = anyio.Event()
            await feed.news.wait()
        return True

    async def _take_turns(self) -> None:
        """Let others have a turn where it is time: a source that never waits would have all."""
        if perf_counter() - self._turn_s > _TURN_S:
            await anyio.lowlevel.checkpoint()
            self._turn_s = perf_counter()

    # --- pulling ----------------------------------------------------------------------------------------------------

    def _pulled(self, source: Source) -> AsyncIterator[Any]:
        """The chunks, so that the run's task can end a pull that waits."""
        source.is_read = source.is_begun  # by the reader before
        source.is_begun = self._pulls = True
        self._turn_s = perf_counter()
        self._task = attempt(asyncio.current_task)[0]
        # On asyncio the task is cancelled, as asyncio.timeout does: a scope for each pull costs more than the pull.
        return source.chunks if self._task is not None else _Scoped(source.chunks, self)

    def _cut(self) -> bool:
        """End the pull of the reader, if it is in one."""
        if not (self._pulls and self._is_read()):
            return False
        if self._task is None:
            assert self._scope is not None
            self._scope.cancel()
        elif self._cancelling is None:
            self._cancelling = self._task.cancelling()
            self._task.cancel()
        return True

    def _is_read(self) -> bool:
        """Whether some task waits for the next item."""
        return any(reader.ag_running for reader in self._readers)

    def _fault(self, source: Source, raised: BaseException) -> Exception | None:
        """What a pull ended with, where it was not cut; a cancel from outside is raised."""
        if source.is_cut and (isinstance(raised, _Cut) or self._uncancelled()):
            return None
        fault = fault_of(raised)
        if fault is None:
            del raised  # this frame will stand in its traceback: both would wait for the garbage collector
            raise
        return fault

    def _uncancelled(self) -> bool:
        """Take back the cancel by which a pull was cut; False where somebody else cancelled as well."""
        before, self._cancelling = self._cancelling, None
        return before is not None and self._task is not None and self._task.uncancel() <= before

    async def _close(self, source: Source, error: Exception | None, count: int) -> None:
        if self._cancelling is not None:  # its generator went on, whatever it was told
            self._uncancelled()
        self._pulls, self._feed.source = False, None
        source.is_read = source.is_read or count > 0
        await source.close(error)

    # --- the block --------------------------------------------------------------------------------------------------

    async def leave(self, error: BaseException | None) -> None:
        """Close the source, and end the run if it goes on."""
        source = None if self._is_read() else self._feed.source  # a pull of another task is ended by the run's
        with anyio.CancelScope(shield=True):
            if source is not None:
                await source.shut(None)
            self._run.cancel(_LEFT if error is None else f"its reader ended with {type(error).__name__}", "the reader")
            if source is not None:
                source.ended.set()
            for reader in self._readers:
                if not reader.ag_running:
                    await reader.aclose()
            self._result, self._error = await attempt_async(self._handle.wait())
        self._readers.clear()
        self._items, self._feed.source, self._feed.cut = None, None, bool


class _Cut(Exception):
    """A pull was ended from the run's task."""


class _Scoped:
    """Each pull in a scope of its own, which the run's task may cancel."""

    __slots__ = ("_chunks", "_stream")

    def __init__(self, chunks: Chunks, stream: RunStream) -> None:
        self._chunks = chunks
        self._stream = stream

    def __aiter__(self) -> _Scoped:
        return self

    async def __anext__(self) -> Any:
        with anyio.CancelScope() as scope:
            self._stream._scope = scope
            return await anext(self._chunks)
        raise _Cut


Prepared = tuple[Run, Callable[[], Awaitable[PipelineResult]]]
"""A run, and what drives it."""


class StreamOpening:
    """What `stream_async` returns: `async with` starts the run and gives the RunStream."""

    def __init__(self, prepare: Callable[[], Awaitable[Prepared]], handles: set[RunHandle]) -> None:
        self._prepare = prepare
        self._handles = handles
        self._stream: RunStream | None = None

    async def __aenter__(self) -> RunStream:
        if self._stream is not None:
            raise ConfigurationError("this stream cannot be entered", "it was read before", "Call stream_async again")
        self._stream = _opened(*await self._prepare(), self._handles)
        return self._stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stream is not None
        await self._stream.leave(error)

    def __aiter__(self) -> NoReturn:
        raise TypeError("a stream is read in a block, which closes it: `async with flujo.stream_async(x) as stream:`")


def _opened(run: Run, execute: Callable[[], Awaitable[PipelineResult]], handles: set[RunHandle]) -> RunStream:
    """Start a run that is read."""
    run.scope = run.scope or anyio.CancelScope()
    feed = run.feed = Feed(lambda: run.spent)
    run.hooks, run.plain = feed.listen(run.hooks), False
    run.on_asyncio = attempt(asyncio.current_task)[0] is not None

    def ended(handle: RunHandle) -> None:
        handles.discard(handle)
        feed.end()

    handle = RunHandle(run, execute, ended)
    handles.add(handle)
    return RunStream(run, feed, handle)


def _is_of(path: str, step: str | None) -> bool:
    """Whether a path is that of a step, by its name or that of its last stage."""
    name = path.rpartition("/")[2]
    return step is None or step in (name, name.rpartition(">>")[2], path)
