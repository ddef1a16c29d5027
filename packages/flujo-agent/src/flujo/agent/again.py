"""Answers of models that are kept in the journal, to be given again where their step runs again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from pydantic import ValidationError
from pydantic_ai import messages as pai
from pydantic_ai.usage import RequestUsage

from flujo.core import ModelResponse, ModelUsage, ToolCall

from .translate import incoming


def to_be_kept(response: pai.ModelResponse) -> ModelResponse:
    """A model's answer for core, with what only the provider understands beside it: signed thoughts, for one.

    Texts and arguments stand in core's message only: transforms may mask what they say, before it is kept.
    """
    answer = incoming(response)
    if all(type(part) in (pai.TextPart, pai.ToolCallPart) and not part.provider_details for part in response.parts):
        return answer
    rest = replace(response, parts=[_emptied(part) for part in response.parts])
    return answer.model_copy(update={"details": pai.ModelMessagesTypeAdapter.dump_python([rest], mode="json")})


def given_again(answer: ModelResponse) -> tuple[pai.ModelResponse, ModelResponse]:
    """A kept answer for its provider's client, and that for core, which may lack what transforms added."""
    if answer.details is not None:
        with suppress(ValidationError):  # another pydantic-ai wrote it: the conversation goes on without thoughts
            for rest in pai.ModelMessagesTypeAdapter.validate_python(answer.details):
                if isinstance(rest, pai.ModelResponse):
                    whole = replace(rest, parts=list(_filled(rest.parts, answer)))
                    return whole, incoming(whole)
    usage = answer.usage or ModelUsage()
    used = RequestUsage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    parts: list[pai.ModelResponsePart] = [pai.TextPart(answer.content)] if answer.content else []
    parts += [pai.ToolCallPart(call.name, dict(call.arguments), call.id) for call in answer.tool_calls]
    return pai.ModelResponse(parts=parts, usage=used, model_name=answer.model or None), answer


def _emptied(part: pai.ModelResponsePart) -> pai.ModelResponsePart:
    if isinstance(part, pai.TextPart):
        return replace(part, content="")
    return replace(part, args=None) if isinstance(part, pai.ToolCallPart) else part


def _called(part: pai.ToolCallPart, call: ToolCall) -> pai.ToolCallPart:
    return replace(part, tool_name=call.name, args=dict(call.arguments))


def _filled(parts: Sequence[pai.ModelResponsePart], answer: ModelResponse) -> Iterator[pai.ModelResponsePart]:
    text, calls = answer.content, {call.id: call for call in answer.tool_calls}
    for part in parts:
        if isinstance(part, pai.ToolCallPart):
            if (call := calls.get(part.tool_call_id)) is not None:
                yield _called(part, call)
        elif not isinstance(part, pai.TextPart):
            yield part
        elif text or part.provider_details:  # which of several texts it belongs to is not known: the first has all
            yield replace(part, content=text)
            text = ""
