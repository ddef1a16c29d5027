"""One run of a pydantic-ai agent under one attempt of a step. Importing this imports pydantic-ai."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pydantic_ai
from pydantic_ai import messages as pai
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability, ModelFallback
from pydantic_ai.exceptions import ContentFilterError, ModelAPIError, ModelRetry
from pydantic_ai.models import Model
from pydantic_ai.output import NativeOutput, OutputSpec, PromptedOutput, ToolOutput
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDenied
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset, FunctionToolset
from pydantic_ai.usage import RunUsage
from pydantic_ai.usage import UsageLimits as PaiLimits

from flujo.core import RunContext

from .answer import Answer
from .checks import Validator, problems_of
from .faults import as_flujo_errors, narrowed
from .governed import CURRENT, CallOptions, Governed, GovernedModel, GovernedToolset
from .models import known_price, make
from .prompts import ToolApproval, Turn
from .spec import AgentSpec

if TYPE_CHECKING:
    from .spec import AnyTool

T = TypeVar("T")

_MODES: dict[str, Callable[[Any], OutputSpec[object]]] = {
    "tool": ToolOutput[object],
    "native": NativeOutput[object],
    "prompted": PromptedOutput[object],
}


@dataclass(slots=True)
class Runner(Generic[T]):
    """A pydantic-ai agent on one event loop, and how its calls are made.

    Attributes:
        agent: The agent.
        models: Models whose connections are closed when the event loop ends.
        limits: Limits of pydantic-ai's own, beside those of the run; None leaves its default of 50 requests.
        wrapped: How the models of an agent are called that was not made here, and so is governed for each run anew.
    """

    agent: AbstractAgent[object, T]
    models: Sequence[Model] = ()
    limits: PaiLimits | None = None
    wrapped: CallOptions | None = None
    _opened: list[AsyncGenerator[None]] = field(default_factory=list)

    async def open(self) -> None:
        """Keep connections from here to the end of the event loop."""
        if not self._opened:
            self._opened = [_until_the_loop_ends(model) for model in self.models]
            for opened in self._opened:
                await anext(opened)

    async def run(self, name: str, prompt: str, deps: object, ctx: RunContext, earlier: Sequence[Turn] = ()) -> T:
        """Run the agent once, after the messages of `earlier`; everything it calls goes through `ctx`."""
        governed: list[AbstractCapability[object]] = []
        if self.wrapped is not None:
            governed.append(Governed(lambda: ctx, self.wrapped))
        asked: str | None = prompt
        messages, decided, usage = _messages(earlier), None, RunUsage()
        token = CURRENT.set(ctx)
        try:
            while True:
                with as_flujo_errors(name):
                    result = await self.agent.run(
                        asked,
                        message_history=messages,
                        deferred_tool_results=decided,
                        deps=deps,
                        capabilities=governed or None,
                        usage_limits=self.limits,
                        usage=usage,
                        infer_name=False,
                    )
                if not isinstance(result.output, DeferredToolRequests):
                    return result.output
                decided = await _decided(name, result.output, ctx)
                asked, messages = None, result.all_messages()
        finally:
            CURRENT.reset(token)

    async def stream(
        self, name: str, prompt: str, deps: object, ctx: RunContext, earlier: Sequence[Turn] = ()
    ) -> AsyncGenerator[str]:
        """Run the agent once and give its text as it comes; a value that is no text comes as JSON at the end.

        The models find their step in a context variable, which is set around each pull: what a generator sets stays
        set for its reader.
        """
        pieces = self._pieces(name, prompt, deps, ctx, earlier)
        async with aclosing(pieces):
            while True:
                token = CURRENT.set(ctx)
                try:
                    piece = await anext(pieces, None)
                finally:
                    CURRENT.reset(token)
                if piece is None:
                    break
                yield piece

    async def _pieces(
        self, name: str, prompt: str, deps: object, ctx: RunContext, earlier: Sequence[Turn]
    ) -> AsyncGenerator[str]:
        governed: list[AbstractCapability[object]] = []
        if self.wrapped is not None:
            governed.append(Governed(lambda: ctx, self.wrapped))
        asked: str | None = prompt
        messages, decided, usage = _messages(earlier), None, RunUsage()
        while True:
            answer = Answer[T](name, self.agent.output_type)
            with as_flujo_errors(name):
                # Not by `iter`: it holds a task group open in the reader's task, whose cancel would meet the reader.
                async with self.agent.run_stream_events(
                    asked,
                    message_history=messages,
                    deferred_tool_results=decided,
                    deps=deps,
                    capabilities=governed or None,
                    usage_limits=self.limits,
                    usage=usage,
                    infer_name=False,
                ) as events:
                    async for event in events:
                        if text := answer.text_of(event):
                            yield text
            assert answer.result is not None
            if not isinstance(answer.result.output, DeferredToolRequests):
                if value := answer.rest():
                    yield value
                return
            decided = await _decided(name, answer.result.output, ctx)
            asked, messages = None, answer.result.all_messages()


async def _decided(agent: str, requests: DeferredToolRequests, ctx: RunContext) -> DeferredToolResults:
    """What humans say of the calls that wait for them: whether a tool may run, or what one gave that runs elsewhere."""
    results = DeferredToolResults()
    for call in requests.approvals:
        shown = {"tool": call.tool_name, "arguments": call.args_as_dict()}
        question = f"May agent {agent!r} call the tool {call.tool_name!r}?"
        said: ToolApproval = await ctx.ask(question, ToolApproval, payload=shown)
        results.approvals[call.tool_call_id] = said.approved or ToolDenied(said.reason or "A human said no.")
    for call in requests.calls:
        shown = {"tool": call.tool_name, "arguments": call.args_as_dict()}
        question = f"Agent {agent!r} calls the tool {call.tool_name!r}, which runs elsewhere. What does it give?"
        results.calls[call.tool_call_id] = await ctx.ask(question, payload=shown)
    return results


def _messages(turns: Sequence[Turn]) -> list[pai.ModelMessage] | None:
    return [
        pai.ModelRequest([pai.UserPromptPart(turn.text)])
        if turn.speaker == "human"
        else pai.ModelResponse([pai.TextPart(turn.text)])
        for turn in turns
    ] or None


async def _until_the_loop_ends(model: Model) -> AsyncGenerator[None]:
    """Holds a model's connections open; an event loop closes the generators that began in it before it ends.

    Nothing else tells that a loop is about to end, and to close after each run would cost each run a new connection.
    """
    async with model:
        yield


def runner_of(spec: AgentSpec) -> Runner[object]:
    """Make the agent. Blocks while models are loaded, so call it in a thread.

    Raises:
        ConfigurationError: pydantic-ai, or a provider's client, cannot work with what it is given.
    """
    with as_flujo_errors(spec.name):
        models = _models(spec)
        others, when = models[1:], (ModelAPIError, ContentFilterError)
        agent = pydantic_ai.Agent[object, object](
            models[0],
            output_type=_output(spec),
            instructions=spec.instructions or None,
            name=spec.name,
            model_settings=_settings(spec),
            retries=spec.repairs,
            toolsets=_toolsets(spec.tools),
            capabilities=[ModelFallback[object](*others, fallback_on=when)] if others else [],
        )
        if spec.validators:
            agent.output_validator(partial(_validated, spec.validators))
    limits = PaiLimits(request_limit=spec.max_requests)
    return Runner(agent, models, limits)


def _models(spec: AgentSpec) -> list[Model]:
    """The model and those it falls back to, each under the run."""
    retry = narrowed(spec.retry)
    price = known_price(spec.model) if spec.price is None else spec.price
    record = bool(spec.tools)  # between two requests a tool may wait for a human, or the process go away
    first = make(spec.model, spec.base_url, spec.api_key)
    models: list[Model] = [GovernedModel(first, CURRENT.get, CallOptions(retry, price, record))]
    for other in spec.fallback:
        models.append(GovernedModel(make(other), CURRENT.get, CallOptions(retry, known_price(other), record)))
    return models


def _output(spec: AgentSpec) -> OutputSpec[object]:
    wanted = _wanted(spec)
    # where there are tools one may wait for a human
    return [wanted, DeferredToolRequests] if spec.tools else wanted


def _wanted(spec: AgentSpec) -> OutputSpec[object]:
    mode = spec.output_mode
    wanted: OutputSpec[object] = spec.output_type
    if wanted is str:
        return wanted
    if mode == "auto":
        # a small local model seldom calls a tool, but llama.cpp's grammar makes any model follow a schema
        local = isinstance(spec.model, str) and spec.model.startswith("local:")
        return NativeOutput(spec.output_type) if local else wanted
    return _MODES[mode](spec.output_type)


async def _validated(validators: Sequence[Validator[Any]], output: object) -> object:
    """Sends an output that a validator refuses back to the model."""
    problems = await problems_of(output, validators)
    if problems:
        raise ModelRetry("; ".join(problems))
    return output


def _settings(spec: AgentSpec) -> ModelSettings:
    settings = ModelSettings()
    if spec.max_tokens is not None:
        settings["max_tokens"] = spec.max_tokens
    if spec.temperature is not None:
        settings["temperature"] = spec.temperature
    return settings


def _toolsets(given: Sequence[AnyTool]) -> list[AbstractToolset[object]]:
    """Functions, tools and whole toolsets (an MCP server, say) as one toolset under the run."""
    toolsets = [tool for tool in given if isinstance(tool, AbstractToolset)]
    functions = [tool for tool in given if not isinstance(tool, AbstractToolset)]
    if functions:
        toolsets.insert(0, FunctionToolset[object](functions))
    return [GovernedToolset.of(CombinedToolset(toolsets), CURRENT.get)] if toolsets else []
