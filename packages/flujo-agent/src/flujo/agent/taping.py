"""What goes to a model and comes back, as JSON that people read, and back again. Importing this imports pydantic-ai."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_ai import exceptions
from pydantic_ai import messages as pai
from pydantic_ai.usage import RequestUsage

from flujo.core import ConfigurationError, Message, ModelRequest, ToolCall

from .cleaning import Cleaner
from .errors import ModelRejected, ModelUnavailable
from .faults import fault_of
from .prices import STANDARD
from .tapefile import Call
from .translate import incoming, revised

Json = dict[str, JsonValue]

_ERRORS: dict[str, type[exceptions.ModelAPIError]] = {
    "unavailable": exceptions.ModelUnavailableError,
    "rejected": exceptions.ModelRequestRejectedError,
    "fault": exceptions.ModelAPIError,
}
"""Of each kind of failure that a run tells apart, an error of pydantic-ai that counts as one."""


class _Read(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class _Text(_Read):
    text: str


class _Thinking(_Read):
    thinking: str


class _Tool(_Read):
    tool: str
    arguments: dict[str, JsonValue] = {}
    id: str


class _Usage(_Read):
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    cost_usd: Decimal | None = Field(default=None, ge=0)
    cache_read_tokens: int = Field(default=0, ge=0)
    cache_write_tokens: int = Field(default=0, ge=0)


class _Response(_Read):
    parts: list[Annotated[_Text | _Thinking | _Tool, Field(union_mode="left_to_right")]]
    usage: _Usage | None = None
    service_tier: str = ""
    speed: str = ""
    model: str = ""
    finish_reason: Literal["stop", "length", "content_filter", "tool_call", "error"] | None = None


class _Error(_Read):
    kind: Literal["unavailable", "rejected", "fault"]
    message: str


def request_json(request: ModelRequest, cleaner: Cleaner) -> Json:
    """All that is sent, without secrets and personal data."""
    cleaned = request.model_copy(update={"messages": tuple(_cleaned(one, cleaner) for one in request.messages)})
    shown: Json = cleaned.model_dump(mode="json", exclude_defaults=True, exclude={"unseen_tokens"})
    for name in ("tools", "output_schema"):
        if name in shown:
            shown[name] = cleaner.value(shown[name])
    return shown


def _cleaned(message: Message, cleaner: Cleaner) -> Message:
    calls = _calls(message.tool_calls, cleaner)
    return message.model_copy(update={"content": cleaner.text(message.content), "tool_calls": calls})


def _calls(calls: Sequence[ToolCall], cleaner: Cleaner) -> tuple[ToolCall, ...]:
    # names and ids stay: by them a result finds its call
    return tuple(call.model_copy(update={"arguments": cleaner.value(call.arguments)}) for call in calls)


# --- taking down ------------------------------------------------------------------------------------------------------


async def taken_down(
    asked: Json, ask: Callable[[], Awaitable[pai.ModelResponse]], cleaner: Cleaner, keep: Callable[[Call], None]
) -> pai.ModelResponse:
    """Ask, keep what belongs into the file, and give the response as the file has it. A failure is kept, too."""
    try:
        response = await ask()
    except exceptions.ModelAPIError as error:
        keep(Call(request=asked, error=_error_json(error, cleaner)))
        raise
    before = incoming(response)
    content, calls = cleaner.text(before.content), _calls(before.tool_calls, cleaner)
    if content != before.content or calls != before.tool_calls:
        response = revised(response, before, before.model_copy(update={"content": content, "tool_calls": calls}))
    keep(Call(request=asked, response=_response_json(response, cleaner)))
    return response


def _response_json(response: pai.ModelResponse, cleaner: Cleaner) -> Json:
    details = response.provider_details or {}
    made = _Response(
        parts=[_part(part, cleaner) for part in response.parts],
        usage=_usage(response.usage),
        service_tier=_said(details, "service_tier"),
        speed=_said(details, "speed"),
        model=response.model_name or "",
        finish_reason=response.finish_reason,
    )
    shown: Json = made.model_dump(mode="json", exclude_defaults=True)
    return shown


def _usage(used: RequestUsage) -> _Usage | None:
    if not (used.input_tokens or used.output_tokens):
        return None
    return _Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cost_usd=used.cost,
        cache_read_tokens=used.cache_read_tokens,
        cache_write_tokens=used.cache_write_tokens,
    )


def _said(details: Mapping[str, object], name: str) -> str:
    """A service tier or a speed, by which a call may cost something else than its tokens do."""
    said = details.get(name)
    return said if isinstance(said, str) and said not in STANDARD else ""


def _part(part: pai.ModelResponsePart, cleaner: Cleaner) -> _Text | _Thinking | _Tool:
    if isinstance(part, pai.TextPart):
        return _Text(text=part.content)
    if isinstance(part, pai.ThinkingPart):
        return _Thinking(thinking=cleaner.text(part.content))
    if isinstance(part, pai.ToolCallPart):
        return _Tool(tool=part.tool_name, arguments=part.args_as_dict(), id=part.tool_call_id)
    what = f"a response with a part of kind {part.part_kind!r} cannot be recorded"
    raise ConfigurationError(what, "a cassette holds text and tool calls only")


def _error_json(error: exceptions.ModelAPIError, cleaner: Cleaner) -> Json:
    fault = fault_of(error, error.model_name)
    kind: Literal["unavailable", "rejected", "fault"] = "fault"
    if isinstance(fault, ModelUnavailable):
        kind = "unavailable"
    elif isinstance(fault, ModelRejected):
        kind = "rejected"
    shown: Json = _Error(kind=kind, message=cleaner.text(fault.why)).model_dump(mode="json")
    return shown


# --- giving again -----------------------------------------------------------------------------------------------------


def replayed(call: Call, model: str) -> pai.ModelResponse:
    """The answer that a call holds.

    Raises:
        ModelAPIError: It holds a failure.
        ConfigurationError: It holds nothing that can be read.
    """
    try:
        if call.error is not None:
            error = _Error.model_validate(call.error)
            raise _ERRORS[error.kind](model, error.message)
        response = _Response.model_validate(call.response)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ConfigurationError("a call of the cassette cannot be read", why, "Correct it, or record again") from error
    used = response.usage or _Usage()
    usage = used.model_dump(exclude={"cost_usd"})
    return pai.ModelResponse(
        parts=[_given(part) for part in response.parts],
        usage=RequestUsage(**usage, cost=used.cost_usd),
        provider_details=response.model_dump(include={"service_tier", "speed"}, exclude_defaults=True) or None,
        model_name=response.model or None,
        finish_reason=response.finish_reason,
    )


def _given(part: _Text | _Thinking | _Tool) -> pai.ModelResponsePart:
    if isinstance(part, _Text):
        return pai.TextPart(part.text)
    if isinstance(part, _Thinking):
        return pai.ThinkingPart(part.thinking)
    return pai.ToolCallPart(part.tool, dict(part.arguments), part.id)
