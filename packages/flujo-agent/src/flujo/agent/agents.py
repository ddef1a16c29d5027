"""Agents: objects with `async def run`, which any pipeline takes as a step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

import anyio.to_thread
from pydantic import BaseModel, SecretStr

from flujo.core import Agent, Chain, PipelineError, Price, RetryPolicy, RunContext, Step

from .cassette import replaying
from .errors import NeedsAsyncio
from .models import short_name
from .prompts import Dialogue, Turn, prompt_of
from .spec import AgentOptions, AgentSpec, OutputMode, call_problems, context_problems, fields_of

if TYPE_CHECKING:
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.models import Model

    from .running import Runner
    from .spec import AnyTool

__all__ = ["ModelAgent", "agent", "wrap"]

T = TypeVar("T")


class ModelAgent(Generic[T]):
    """An agent on a model, as a step: `Step(agent)`, or `>>`.

    Attributes:
        name: Its name, and that of its step unless the step has one of its own.
        output_type: Type of what it gives.
        reads: Fields of the run's context that the model is shown.
        run: The step's function. Its input, whatever the step before gave, becomes the prompt: a text as it is,
            anything else as JSON. Everything it calls goes through the step's RunContext.
        stream: The same as a streaming step, `StreamingStep(agent)` of flujo-streaming: its text as it comes, or the
            JSON of its answer.
    """

    def __init__(
        self,
        name: str,
        output_type: object,
        make: Callable[[], Runner[T]],
        deps: object = None,
        *,
        context_model: type[BaseModel] | None = None,
        reads: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.output_type = output_type
        self.reads: tuple[str, ...] = reads
        self._make = make
        self._deps = deps
        # One for each event loop: connections belong to the loop that opened them. Those that a cassette answers for
        # are apart: they have no key, and no model that was loaded.
        self._runners: dict[bool, WeakKeyDictionary[asyncio.AbstractEventLoop, Runner[T]]] = {
            False: WeakKeyDictionary(),
            True: WeakKeyDictionary(),
        }
        self._lock = Lock()

        async def run(prompt: object, ctx: RunContext) -> T:
            return await self._run(prompt, ctx)

        async def informed(prompt: object, ctx: RunContext, context: BaseModel) -> T:
            return await self._run(prompt, ctx, {name: getattr(context, name) for name in reads})

        self.run: Callable[..., Awaitable[T]] = run if context_model is None else informed
        # What it takes and gives is known by this agent alone, and a pipeline reads it from the annotations.
        known: dict[str, object] = {} if context_model is None else {"context": context_model}
        self.run.__annotations__ = {"prompt": object, "ctx": RunContext, **known, "return": output_type}
        self.run.__qualname__ = f"{type(self).__name__}.run"
        self.stream: Callable[..., AsyncIterator[str]] = self._streaming(context_model)

    def _streaming(self, context_model: type[BaseModel] | None) -> Callable[..., AsyncIterator[str]]:
        async def stream(prompt: object, ctx: RunContext) -> AsyncIterator[str]:
            async with aclosing(self._stream(prompt, ctx)) as pieces:
                async for piece in pieces:
                    yield piece

        async def informed(prompt: object, ctx: RunContext, context: BaseModel) -> AsyncIterator[str]:
            known = {name: getattr(context, name) for name in self.reads}
            async with aclosing(self._stream(prompt, ctx, known)) as pieces:
                async for piece in pieces:
                    yield piece

        function: Callable[..., AsyncIterator[str]] = stream if context_model is None else informed
        if context_model is not None:
            function.__annotations__["context"] = context_model
        return function

    async def _stream(
        self, prompt: object, ctx: RunContext, known: Mapping[str, object] | None = None
    ) -> AsyncGenerator[str]:
        runner, text, earlier = await self._prepared(prompt, known)
        deps = ctx if self._deps is None else self._deps
        async with aclosing(runner.stream(self.name, text, deps, ctx, earlier)) as pieces:
            async for piece in pieces:
                yield piece

    async def _run(self, prompt: object, ctx: RunContext, known: Mapping[str, object] | None = None) -> T:
        runner, text, earlier = await self._prepared(prompt, known)
        return await runner.run(self.name, text, ctx if self._deps is None else self._deps, ctx, earlier)

    async def _prepared(
        self, prompt: object, known: Mapping[str, object] | None
    ) -> tuple[Runner[T], str, Sequence[Turn]]:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise NeedsAsyncio(self.name) from None
        earlier = prompt.earlier if isinstance(prompt, Dialogue) else ()
        text = prompt_of(prompt.latest if isinstance(prompt, Dialogue) else prompt, self.name)
        if known is not None:
            text = f"{text}\n\nWhat is known beside that:\n{prompt_of(known, self.name)}"
        runner = self._runners[replaying()].get(loop)
        if runner is None:
            # in a thread: to import pydantic-ai, and to load a local model, takes seconds
            runner = await anyio.to_thread.run_sync(self._prepare, loop)
            await runner.open()
        return runner, text, earlier

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> Runner[T]:
        runners = self._runners[replaying()]
        with self._lock:
            runner = runners.get(loop)
            if runner is None:
                for over in [other for other in runners if other.is_closed()]:
                    del runners[over]  # its connections know it, so that it would never go by itself
                runner = runners[loop] = self._make()
            return runner

    def __rshift__(self, other: Step | Chain | Agent) -> Chain:
        return Step(self, reads=self.reads) >> other

    def __repr__(self) -> str:
        return f"ModelAgent({self.name!r})"


@overload
def agent(
    model: str | Model,
    *,
    instructions: str = "",
    tools: Sequence[AnyTool] = (),
    base_url: str | None = None,
    api_key: str | SecretStr | None = None,
    retry: RetryPolicy | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    fallback: str | Model | Sequence[str | Model] = (),
    name: str | None = None,
    price: Price | None = None,
    max_requests: int = 50,
    context_model: type[BaseModel] | None = None,
    reads: str | Sequence[str] = (),
) -> ModelAgent[str]: ...
@overload
def agent(
    model: str | Model,
    *,
    instructions: str = "",
    output_type: type[T],
    output_mode: OutputMode = "auto",
    tools: Sequence[AnyTool] = (),
    base_url: str | None = None,
    api_key: str | SecretStr | None = None,
    retry: RetryPolicy | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    fallback: str | Model | Sequence[str | Model] = (),
    name: str | None = None,
    price: Price | None = None,
    max_requests: int = 50,
    repairs: int = 1,
    context_model: type[BaseModel] | None = None,
    reads: str | Sequence[str] = (),
) -> ModelAgent[T]: ...
def agent(
    model: str | Model,
    *,
    instructions: str = "",
    output_type: object = str,
    name: str | None = None,
    **options: Unpack[AgentOptions],
) -> ModelAgent[Any]:
    """Make an agent. Nothing is imported, loaded or connected before it first runs.

    Args:
        model: `PROVIDER:NAME` as pydantic-ai knows it, `local:FILE.gguf` for a model run in this process, or a model
            object of pydantic-ai.
        instructions: What the model is told before the prompt.
        output_type: What the agent gives; anything pydantic can describe and check.
        output_mode: How the model is made to give that.
        tools: Functions the model may call, pydantic-ai Tools, and toolsets such as MCP servers. A function that takes
            pydantic-ai's RunContext finds the step's RunContext in its `deps`.
        base_url: Address of a server that speaks OpenAI's protocol, with `openai:NAME` as the model.
        api_key: Key for the model's provider; left out, the provider's environment variable holds (not for
            `base_url`, which gets no key that was not given).
        retry: How a failed request is made again. Without `retry_on`, only where a second attempt makes sense: rate
            limits, faults of the server and of the connection. Each attempt is reserved by itself.
        max_tokens: Most output tokens of each request; a limit may lower it. Left out, the provider's own bound
            holds, and under a limit 4096.
        temperature: Sampling temperature; None leaves it to the provider.
        fallback: Models that are asked, in order, when the one before fails or refuses to answer.
        name: Its name; left out, the model's.
        price: What the model costs where no price book knows, as for a `base_url`; `Price()` is free.
        max_requests: Most requests of one run of the agent, tool rounds and repairs included.
        repairs: How often an output or a tool call that does not fit its type goes back to the model. Where a stream's
            reader has been given that output, the step fails instead.
        context_model: Type of the run's context, where the agent reads some of it.
        reads: Fields of the context that the model is shown, as JSON after the prompt. Where its step has a cache or
            may run elsewhere, name them there too: `Step(agent, reads=...)`.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """
    called = short_name(model) if name is None else name
    return of_spec(AgentSpec.of(model, called, instructions, output_type, options).check())


def of_spec(spec: AgentSpec) -> ModelAgent[Any]:
    """The agent that a checked spec describes."""
    return ModelAgent(
        spec.name, spec.output_type, runner_maker(spec), context_model=spec.context_model, reads=spec.reads
    )


def runner_maker(spec: AgentSpec) -> Callable[[], Runner[Any]]:
    """What makes the agent of a spec when it first runs."""
    return partial(_runner_of, spec)


def _runner_of(spec: AgentSpec) -> Runner[object]:
    from .running import runner_of  # here: imports pydantic-ai, which takes over a second

    return runner_of(spec)


def wrap(
    agent: AbstractAgent[object, T],
    *,
    deps: object = None,
    retry: RetryPolicy | None = None,
    price: Price | None = None,
    name: str | None = None,
    output_type: type[T] | None = None,
    context_model: type[BaseModel] | None = None,
    reads: str | Sequence[str] = (),
) -> ModelAgent[T]:
    """Put an agent of pydantic-ai under Flujo: its model requests and tool calls go through the run.

    Args:
        agent: The agent; it stays as it is, and used directly it is not under any run.
        deps: Its dependencies; left out, they are the step's RunContext.
        retry: As for `agent`.
        price: What its models cost, where no price book knows.
        name: Name of the step; left out, the agent's.
        output_type: What it gives, where that cannot be read from the agent (output functions without annotation).
        context_model: As for `agent`.
        reads: As for `agent`.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """
    from .wrapped import given_type, is_agent, runner_for  # here: imports pydantic-ai, which who has an agent has done

    called, fields = name or getattr(agent, "name", None) or "agent", fields_of(reads)
    problems = [] if is_agent(agent) else [f"{agent!r} is no agent of pydantic-ai"]
    if not isinstance(called, str):
        problems.append(f"name={called!r} is no name")
    problems += [*context_problems(context_model, fields), *call_problems(retry, price)]
    if problems:
        raise PipelineError(f"agent {called!r} cannot be built", problems)
    given: object = given_type(agent) if output_type is None else output_type
    make = partial(runner_for, agent, retry, price)
    return ModelAgent(called, given, make, deps, context_model=context_model, reads=fields)
