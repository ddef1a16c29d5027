"""Streaming steps: an async generator, or an agent with `stream`, as a step of a pipeline."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, cast, overload

from flujo.core import PipelineError, Stage, StreamingAgent, StreamStep

__all__ = ["StreamingStep", "streaming_step"]


class StreamingStep(StreamStep):
    """A step that gives chunks. Joined with `>>` the next streaming step pulls from it, with nothing between.

    The first of a chain takes the step's input, the next take an `AsyncIterator` of the chunks before. An ordinary step
    after them takes what the chunks make: a text, a list, or what `collect` says.

    Args:
        target: An async generator function, a function that gives an async iterator, an agent with `stream`, or a
            streaming step to be taken over under another name or with another `collect`.
        name: Name in the pipeline; the function's or agent's when left out.
        collect: What the chunks make for who takes the step's output: None (text joined where they are text, else a
            list), "text", "list", "last", "none" (a stream without end takes no memory), or a function of their list.
        **options: `inputs`, `retry`, `timeout_s`, `reads`, `limits`, `effect`, `version`, `validate`, `when`,
            `validators`, `pauses`, `backend`, `lease`; see StepOptions of flujo.core. In a chain they stand at its
            first step, and all of it runs in one place. What fails is tried again as long as its reader was given
            nothing.

    Raises:
        PipelineError: The target gives no stream, or an option cannot be used for one.
    """

    def __init__(self, target: object, *, name: str | None = None, collect: object = None, **options: Any) -> None:
        if isinstance(target, StreamStep):
            stages, collect = target.stages, target.collect if collect is None else collect
            kept = {key: getattr(target.options, key) for key in _KEPT}
            super().__init__(stages, name=name or target.name, collect=collect, **{**kept, **options})
            return
        called = name or _name_of(target)
        stage = Stage.of(called, _function_of(target, called), target)
        super().__init__((stage,), name=called, collect=collect, **options)


_KEPT = (
    *("inputs", "retry", "timeout_s", "reads", "limits", "effect", "version"),
    *("validate", "when", "validators", "pauses", "backend", "lease"),
)


def _name_of(target: object) -> str:
    name = getattr(target, "__name__", None) or getattr(target, "name", None) or type(target).__name__
    if name == "<lambda>":
        raise PipelineError("a lambda cannot name itself", ["give it a name: StreamingStep(..., name='...')"])
    return str(name)


def _function_of(target: object, name: str) -> Callable[..., AsyncIterator[Any]]:
    """The function that gives the stream."""
    if isinstance(target, StreamingAgent) and not inspect.isclass(target):
        target = target.stream
    why = "an async generator (`async def` with `yield`) or an object with `stream` is wanted"
    if inspect.iscoroutinefunction(target):
        raise PipelineError(f"{name!r} cannot be a streaming step", [f"it returns one value; {why}"])
    if not callable(target) or inspect.isclass(target) or inspect.isgeneratorfunction(target):
        raise PipelineError(f"{name!r} cannot be a streaming step", [why])
    return cast("Callable[..., AsyncIterator[Any]]", target)


@overload
def streaming_step(function: Callable[..., AsyncIterator[Any]], /) -> StreamingStep: ...
@overload
def streaming_step(
    *, name: str | None = None, collect: object = None, **options: Any
) -> Callable[[Callable[..., AsyncIterator[Any]]], StreamingStep]: ...
def streaming_step(
    function: Callable[..., AsyncIterator[Any]] | None = None, /, **options: Any
) -> StreamingStep | Callable[[Callable[..., AsyncIterator[Any]]], StreamingStep]:
    """Make an async generator a streaming step: `@streaming_step`, or `@streaming_step(timeout_s=30)`."""

    def make(target: Callable[..., AsyncIterator[Any]]) -> StreamingStep:
        return StreamingStep(target, **options)

    return make if function is None else make(function)
