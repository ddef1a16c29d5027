"""How the chunks of a streaming step get to whoever reads the run, and become the step's output."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from anyio.lowlevel import checkpoint

from .context import RunContext
from .errors import FlujoError, GuardDenied, RunAborted, StepFailed, UsageLimitExceeded
from .feed import Feed, Source
from .folds import Chunks, Fold
from .foreign import attempt
from .items import Chunk
from .outcome import Called
from .pause import PauseForHumanInput
from .payloads import Surface, TransformChunk
from .running import Running
from .streamstep import StreamStep

_GIVEN = "stream"
"""Under what the journal knows the text that a reader was given before its step paused."""


async def delivered(run: Running, ctx: RunContext, step: StreamStep, stages: tuple[Chunks, ...], fold: Fold) -> Any:
    """See RunContext.deliver."""
    path = ctx.step_path
    if "transform_chunk" in run.hooks.table:
        stages = (*stages, transformed(run, ctx, stages[-1], f"{path}@{ctx.attempt}", "step"))
    if run.feed is not None and (given := _given_before(ctx)):
        stages = (*stages, _beyond(given, stages[-1], fold))
    whole = needs_whole(run, "transform_step_output")
    source, feed = Source(run.info, stages, fold, path), None if whole else run.feed
    if whole and run.feed is not None:
        run.feed.withheld.add(path)
    try:
        if feed is not None and await _is_alone(run):
            await feed.hand_over(source)
        else:
            await pull(source, None if feed is None else feed.give)
    except BaseException:  # a cancel: what there is of it is kept
        if run.scope is not None and run.scope.cancel_called:
            run.cut()  # by its deadline, perhaps, which nobody noticed yet
        if not whole:
            ctx.partial = attempt(fold.value)[0]  # a reducer is the user's, and may want the whole
            keep_partial(run.verdict, fold)
        raise
    finally:
        ctx.is_read = source.is_read or (source.is_begun and not source.ended.is_set())
    if source.error is not None:
        if ctx.is_read and isinstance(source.error, PauseForHumanInput) and isinstance(text := fold.value(), str):
            await run.note_told(ctx, Called(text, _GIVEN))
        raise told_of(source, step, whole=whole)
    return fold.value()


def _given_before(ctx: RunContext) -> str:
    """The text that a reader was given before this visit of the step paused last."""
    text = ""
    while (found := ctx.recall(_GIVEN))[0]:
        text = str(found[1])
    return text


async def _beyond(given: str, chunks: Chunks, fold: Fold) -> Chunks:
    """The chunks, but for the text that was given before, as far as it comes again."""
    async for chunk in chunks:
        again = isinstance(chunk, str) and (given.startswith(chunk) or chunk.startswith(given))
        known = chunk[: len(given)] if again else ""
        given = given[len(known) :] if again else ""
        if known:
            fold.add(known)
        if not known or len(known) < len(chunk):
            yield chunk[len(known) :] if known else chunk


async def _is_alone(run: Running) -> bool:
    """Whether nothing else of the run goes on, or can begin, before this step ends."""
    if run.workers:
        await checkpoint()  # what is ready gets its worker
        await checkpoint()  # on trio perhaps only now
    return sum(worker.frame is not None for worker in run.workers) <= 1


async def pull(source: Source, give: Callable[[Chunk], Awaitable[object]] | None) -> None:
    """Pull the chunks in this task, and give each away."""
    add, path, error = source.fold.add, source.path, None
    try:
        async for chunk in source.chunks:
            add(chunk)
            if give is not None:
                source.is_read = True
                await give(Chunk(chunk, path))
    except Exception as raised:  # the step's failure, once all is closed
        error = raised
    finally:
        await source.close(error)


def told_of(source: Source, step: StreamStep, *, whole: bool) -> Exception:
    """What a stream failed with: its own error, which knows the stage and what there was of the stream.

    Where outputs are transformed as a whole it is not told what there was: no transform saw it.
    """
    error = source.error
    assert error is not None
    stage = _stage_of(error, source, step)
    if isinstance(error, PauseForHumanInput):
        return error
    if stage is not None and 1 < len(step.stages) <= len(source.stages):  # else they ran elsewhere
        error.add_note(f"raised in stage {stage!r} of step {source.path!r}")
    own = isinstance(error, StepFailed) and error.step_path == source.path
    own = own or isinstance(error, (UsageLimitExceeded, GuardDenied, RunAborted))
    told = error if own and isinstance(error, FlujoError) else StepFailed.by(source.path, error)
    if not whole:
        keep_partial(told, source.fold)
    return told


def _stage_of(error: Exception, source: Source, step: StreamStep) -> str | None:
    """The stage that raised: a traceback goes through the stages from the last on, as far as that one."""
    trace, place, found = error.__traceback__, len(source.stages) - 1, len(source.stages)
    while trace is not None and place >= 0:
        if trace.tb_frame.f_code is getattr(source.stages[place], "ag_code", None):
            found, place = place, place - 1
        trace = trace.tb_next
    return step.parts[found] if found < len(step.parts) else None


def keep_partial(error: FlujoError | None, fold: Fold) -> None:
    """Let an error know what there was of a stream when it ended."""
    if error is not None and error.partial is None:
        error.partial = attempt(fold.value)[0]


# --- chunk transforms -------------------------------------------------------------------------------------------------


def needs_whole(run: Running, hook: str) -> bool:
    """Whether somebody transforms the whole by `hook` and no chunks, so that no chunk may be seen before that."""
    hooks = run.hooks
    return bool({one.plugin for one in hooks.of(hook)} - {one.plugin for one in hooks.of("transform_chunk")})


class ChunkTransforms:
    """The chunk transforms of one stream. A transform may hold text back; what it holds comes at the end."""

    def __init__(self, run: Running, ctx: RunContext, stream_id: str, surface: Surface) -> None:
        self._run = run
        self._ctx = ctx
        self._about = (run.info, ctx.step_path, stream_id, surface, dict[str, object]())

    def feed(self, value: object) -> Awaitable[Any]:
        """What may be given out now that `value` came."""
        return self._transform(value, is_last=False)

    def finish(self) -> Awaitable[Any]:
        """What was held back."""
        return self._transform("", is_last=True)

    def _transform(self, value: object, *, is_last: bool) -> Awaitable[Any]:
        payload = TransformChunk(*self._about, value, is_last)
        return self._run.transform(payload, "transform_chunk", object, self._ctx)


class Emitted:
    """What an attempt of a step gives the reader by `ctx.emit`, as chunk transforms leave it."""

    def __init__(self, run: Running, feed: Feed, ctx: RunContext) -> None:
        self._feed, self._path = feed, ctx.step_path
        self._transforms = ChunkTransforms(run, ctx, f"{ctx.step_path}@{ctx.attempt}", "step")

    async def give(self, chunk: object) -> None:
        """Give a chunk, and wait until the reader wants the next."""
        await self._give(await self._transforms.feed(chunk))

    async def let_go(self) -> None:
        """Give what was held back: the attempt has ended."""
        await self._give(await self._transforms.finish())

    async def _give(self, chunk: object) -> None:
        if not _is_nothing(chunk):
            await self._feed.give(Chunk(chunk, self._path))


async def transformed(run: Running, ctx: RunContext, chunks: Chunks, stream_id: str, surface: Surface) -> Chunks:
    """The chunks as the transforms leave them; what these hold back comes at the end, and before an error."""
    transforms = ChunkTransforms(run, ctx, stream_id, surface)
    error: Exception | None = None
    try:
        async for chunk in chunks:
            given = await transforms.feed(chunk)
            if not _is_nothing(given):
                yield given
    except (StepFailed, RunAborted):
        raise
    except Exception as raised:  # what was held back is given out before it
        error = raised
    rest = await transforms.finish()
    if not _is_nothing(rest):
        yield rest
    if error is not None:
        raise error


def _is_nothing(chunk: object) -> bool:
    """Whether it is the empty text; a chunk may be of a type that answers a comparison by no truth, as arrays do."""
    return isinstance(chunk, str) and not chunk
