"""The seam between pydantic-ai and the run: every model request and every tool call of an agent goes through `ctx`."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import cast, get_args

import anyio.to_thread
from pydantic import JsonValue
from pydantic_ai import messages as pai
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ModelAPIError, ToolFailed
from pydantic_ai.messages import ToolReturn
from pydantic_ai.models import (
    CompletedStreamedResponse,
    Model,
    ModelRequestContext,
    ModelRequestParameters,
    StreamedResponse,
)
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext as PaiContext
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
from pydantic_ai.usage import RequestUsage
from pydantic_core import to_jsonable_python

from flujo.core import ConfigurationError, Effect, ModelRequest, ModelResponse, Price, RetryPolicy, RunContext, ToolCall

from .again import given_again, to_be_kept
from .cassette import ACTIVE
from .errors import ModelFault, ModelRejected, ModelUnavailable
from .faults import fault_of
from .models import make
from .prices import STANDARD
from .streamed import GovernedStream, Streaming
from .translate import Outgoing, changed, incoming, outgoing, priced, revised

MAX_TOKENS_UNDER_A_LIMIT = 4096
"""Output tokens that a request asks for where a limit holds and nobody said how many: all that is left of a budget
would be more than providers accept, and would make agents that run side by side wait for each other."""


CURRENT: ContextVar[RunContext] = ContextVar("flujo_agent_step")
"""The attempt of a step that an agent of ours works for. Its models and tools are governed from the start, once, and
find here for whom they are called: to put each run under a capability of its own costs half a millisecond."""

_PASSES_BY = (
    *("extra_body", "extra_headers", "_requests_fields", "_native_tools", "_builtin_tools", "_plugins", "_agent_count"),
    *("_models", "_inference_profile", "_preset"),
    *("_response_id", "_conversation_id", "_cached_content", "_context_management"),
    *("_container", "_prompt_variables", "_prediction"),
)
"""Ends of names of settings that put into a request what nobody was shown: another model, tools, more tokens, earlier
messages or files. Tools at the provider that a policy allows are given to the agent, not set here, and headers that a
connection needs to the client of its provider."""

_PRICED_OTHERWISE = ("service_tier", "_speed", "_performance_configuration")
"""Ends of names of settings by which a token costs something else than price books say."""

_NO_DEARER = STANDARD | {"flex", "flex_only", "on_demand", "pt_only", "pt_then_on_demand", "pt_then_flex"}
"""Values of these with which it costs no more."""

FindStep = Callable[[], RunContext]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a model is called.

    Attributes:
        retry: How a failed request is made again; each attempt is reserved by itself.
        price: What the model costs where the caller knows; None asks the price books.
        record: Whether answers are kept in the journal: a step that runs again after a pause or a crash gets them.
    """

    retry: RetryPolicy | None = None
    price: Price | None = None
    record: bool = False


class GovernedModel(WrapperModel):
    """A model whose requests are transformed, guarded, recorded, reserved and settled by the run.

    A request has two ways out, `request` and `request_stream`. What would be another (token counts and compaction by
    the provider, batches) is refused.
    """

    def __init__(self, wrapped: Model, find_step: FindStep, options: CallOptions) -> None:
        super().__init__(wrapped)
        self._find_step = find_step
        self._options = options

    async def request(
        self,
        messages: list[pai.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> pai.ModelResponse:
        """Make one request through the run; see flujo.core's `RunContext.call_model`."""
        ctx, options = self._find_step(), self._options
        settings, sent = self._outgoing(ctx, messages, model_settings, model_request_parameters)
        wanted = (model_settings or {}).get("max_tokens")
        answers: list[tuple[pai.ModelResponse, ModelResponse]] = []

        async def send(final: ModelRequest) -> ModelResponse:
            cassette = ACTIVE.get()
            ask = partial(self._ask, sent, settings, final)
            try:
                if cassette is None:
                    response = await ask()
                else:  # a limit lowers max_tokens by what is left at the moment, which no two runs have alike
                    response = await cassette.answer(final.model_copy(update={"max_tokens": wanted}), ask)
            except ModelAPIError as error:
                raise fault_of(error, final.model) from error
            answer = (to_be_kept if options.record else incoming)(response)
            answers.append((response, priced(answer, response, final.model)))
            return answers[-1][1]

        with _as_theirs():
            answer = await ctx.call_model(
                sent.request, send, retry=options.retry, price=options.price, record=options.record
            )
        kept, before = answers[-1] if answers else given_again(answer)
        return revised(kept, before, answer, provider=bool(sent.request.provider_tools))

    def _outgoing(
        self,
        ctx: RunContext,
        messages: list[pai.ModelMessage],
        model_settings: ModelSettings | None,
        params: ModelRequestParameters,
    ) -> tuple[ModelSettings, Outgoing]:
        for name, value in {**(self.wrapped.settings or {}), **(model_settings or {})}.items():
            if value and name.endswith(_PASSES_BY):
                raise _other_way(f"the setting {name!r}")
            if self._is_unpriced(name, value) and ctx.usage.limit_that_needs_prices is not None:
                what = f"the setting {name}={value!r} cannot be used under a limit of money"
                raise ConfigurationError(
                    what, "price books say what the standard tier costs", "Say what it costs: price="
                )
        settings = _bounded(model_settings, ctx)
        return settings, outgoing(self.wrapped.model_id, messages, settings, params)

    def _is_unpriced(self, name: str, value: object) -> bool:
        if self._options.price is not None or not name.endswith(_PRICED_OTHERWISE):
            return False
        said = value.values() if isinstance(value, Mapping) else (value,)  # Bedrock's: {"type": "priority"}
        return any(one is not None and one not in _NO_DEARER for one in said)

    async def _ask(self, sent: Outgoing, settings: ModelSettings, final: ModelRequest) -> pai.ModelResponse:
        async with self._target(sent.request.model, final.model) as target:
            messages, params = changed(sent, final)
            return await target.request(messages, _settings(settings, final, target), params)

    @asynccontextmanager
    async def _target(self, asked: str, wanted: str) -> AsyncGenerator[Model]:
        """The model itself, or the one that a transform chose instead, which is closed after its answer."""
        if wanted == asked:
            yield self.wrapped
            return
        if self._options.price is not None:
            why = f"a transform chose it instead of {asked!r}, for which this agent was given a price"
            raise ConfigurationError(f"model {wanted!r} cannot be used", why, "Leave out price= of the agent")
        async with await anyio.to_thread.run_sync(make, wanted) as other:
            yield other

    # --- what would leave by another way ----------------------------------------------------------------------------

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[pai.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: PaiContext[object] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Make one request through the run, and read the answer as it comes; see `RunContext.stream_model`.

        What a cassette answers, and an answer that somebody transforms as a whole, comes in one piece.
        """
        if ACTIVE.get() is not None:
            response = await self.request(messages, model_settings, model_request_parameters)
            yield CompletedStreamedResponse(
                response, model_request_parameters=model_request_parameters, replay_events=True
            )
            return
        ctx = self._find_step()
        settings, sent = self._outgoing(ctx, messages, model_settings, model_request_parameters)

        @asynccontextmanager
        async def opened(final: ModelRequest) -> AsyncGenerator[StreamedResponse]:
            async with self._target(sent.request.model, final.model) as target:
                asked, params = changed(sent, final)
                settled = _settings(settings, final, target)
                async with target.request_stream(asked, settled, params, run_context) as stream:
                    yield stream

        source = Streaming(opened)
        streamed = ctx.stream_model(sent.request, source.send, retry=self._options.retry, price=self._options.price)
        with _as_theirs():
            async with streamed as pieces:
                provider = bool(sent.request.provider_tools)
                yield GovernedStream(model_request_parameters, source, pieces, provider)

    async def count_tokens(
        self,
        messages: list[pai.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> RequestUsage:
        """Refused: the provider would see the messages before any guard and transform."""
        raise _other_way("count_tokens_before_request")

    async def compact_messages(
        self, request_context: ModelRequestContext, *, instructions: str | None = None
    ) -> pai.ModelResponse:
        """Refused: it is a model call that no guard sees and no limit counts."""
        raise _other_way("compaction by the provider")

    @property
    def batch_max_requests(self) -> int | None:
        """None: batches would pass the governor by."""
        return None

    async def batch_encode(self, request: object) -> object:  # type: ignore[override]
        """Refused: batches would pass the governor by."""
        raise _other_way("a batch of requests")

    async def batch_create(self, requests: Sequence[object]) -> object:  # type: ignore[override]
        """Refused: batches would pass the governor by."""
        raise _other_way("a batch of requests")


@contextmanager
def _as_theirs() -> Iterator[None]:
    """Raise pydantic-ai's own word for what a model failed with: its fallbacks go by that."""
    try:
        yield
    except (ModelFault, ModelRejected, ModelUnavailable) as error:
        if error.__cause__ is None:  # a transform or another send raised it
            raise
        raise error.__cause__ from error.__cause__.__cause__


def _bounded(settings: ModelSettings | None, ctx: RunContext) -> ModelSettings:
    """The settings with a bound for the output where a limit holds."""
    bounded = ModelSettings(**(settings or {}))
    if bounded.get("max_tokens") is None:
        left = ctx.usage.left
        if left.tokens is not None or left.cost_usd is not None:
            bounded["max_tokens"] = MAX_TOKENS_UNDER_A_LIMIT
    return bounded


def _settings(settings: ModelSettings, final: ModelRequest, target: Model) -> ModelSettings:
    """The settings of the request that may be sent; the client's own retries are off, since the run makes them."""
    made = ModelSettings(**settings)
    if "max_retries" not in target.unsupported_settings and _may_retry(target, made):
        made["max_retries"] = 0
    if final.max_tokens is not None:
        made["max_tokens"] = final.max_tokens
    if final.temperature is not None:
        made["temperature"] = final.temperature
    return made


def _may_retry(target: Model, settings: ModelSettings) -> bool:
    """Whether its client might make retries. One of OpenAI's kind that is told not to is copied for that request."""
    said = "max_retries" in settings or "max_retries" in (target.settings or {})
    return said or getattr(getattr(target, "client", None), "max_retries", None) != 0


def _other_way(what: str) -> ConfigurationError:
    return ConfigurationError(f"{what} cannot be used in a Flujo run", "it would pass its guards and limits by")


# --- tools ------------------------------------------------------------------------------------------------------------


@dataclass
class GovernedToolset(WrapperToolset[object]):
    """Tools whose calls are guarded and recorded by the run; those of MCP servers too.

    What becomes of a call that a crash cut off, a tool says by its metadata: `Tool(pay, metadata={"effect":
    "at_most_once"})` is put to a human, and not made again by itself.
    """

    find_step: FindStep

    @classmethod
    def of(cls, toolset: AbstractToolset[object], find_step: FindStep) -> GovernedToolset:
        """The governed form of a toolset.

        Raises:
            ConfigurationError: An MCP server of it may ask a model by itself.
        """
        toolset.apply(_refuse_sampling)
        return cls(toolset, find_step)

    async def get_tools(self, ctx: PaiContext[object]) -> dict[str, ToolsetTool[object]]:
        """The tools.

        Raises:
            ConfigurationError: One says an effect that there is not.
        """
        tools = await self.wrapped.get_tools(ctx)
        for name, tool in tools.items():
            if (effect := _effect(tool)) not in get_args(Effect):
                why = f"its metadata says the effect {effect!r}; there are: {', '.join(get_args(Effect))}"
                raise ConfigurationError(f"tool {name!r} cannot be used", why)
        return tools

    async def call_tool(
        self, name: str, tool_args: dict[str, object], ctx: PaiContext[object], tool: ToolsetTool[object]
    ) -> object:
        """Call a tool through the run; see flujo.core's `RunContext.call_tool`."""
        call = ToolCall(name=name, arguments=_arguments(tool_args), id=ctx.tool_call_id or "")
        given: list[tuple[object, JsonValue]] = []

        async def send(final: ToolCall) -> JsonValue:
            arguments = tool_args if final.arguments == call.arguments else dict(final.arguments)
            value = await self.wrapped.call_tool(name, arguments, ctx, tool)
            given.append((value, _json(value.return_value if isinstance(value, ToolReturn) else value)))
            return given[-1][1]

        result = await self.find_step().call_tool(call, send, effect=cast("Effect", _effect(tool)))
        if given and result.content == given[-1][1]:
            return given[-1][0]  # the value itself: what it carries beside its JSON goes on to pydantic-ai
        if result.is_error:
            raise ToolFailed(str(result.content))
        return result.content


def _effect(tool: ToolsetTool[object]) -> object:
    return (tool.tool_def.metadata or {}).get("effect", "idempotent")


def _refuse_sampling(toolset: AbstractToolset[object]) -> None:
    if getattr(toolset, "sampling_model", None) is not None:  # of an MCPToolset, which is an extra
        raise _other_way("a model that an MCP server may ask (sampling_model)")


def _arguments(given: dict[str, object]) -> dict[str, JsonValue]:
    return {name: _json(value) for name, value in given.items()}


def _json(value: object) -> JsonValue:
    made: JsonValue = to_jsonable_python(value, fallback=repr, bytes_mode="base64")
    return made


@dataclass(init=False)
class Governed(AbstractCapability[object]):
    """Puts one run of a wrapped agent under one attempt of a step. It acts last, next to the model and the tools."""

    def __init__(self, find_step: FindStep, options: CallOptions) -> None:
        self._find_step = find_step
        self._options = options

    def get_ordering(self) -> CapabilityOrdering:
        """Innermost: nothing stands between it and what it governs."""
        return CapabilityOrdering(position="innermost")

    def get_wrapper_model(self, model: Model) -> Model:
        """The governed form of whichever model serves a request."""
        if isinstance(model, FallbackModel):
            governed = copy.copy(model)
            governed.models = [self.get_wrapper_model(member) for member in model.models]
            return governed
        inner = model
        while isinstance(inner, WrapperModel):
            inner = inner.wrapped
            if isinstance(inner, FallbackModel):
                why = (
                    "each attempt at a model is reserved by itself, and those of a fallback inside cannot be told apart"
                )
                raise ConfigurationError(f"{type(model).__name__} around a FallbackModel cannot be used", why)
        return GovernedModel(model, self._find_step, self._options)

    def get_wrapper_toolset(self, toolset: AbstractToolset[object]) -> AbstractToolset[object]:
        """The governed form of the agent's tools."""
        return GovernedToolset.of(toolset, self._find_step)
