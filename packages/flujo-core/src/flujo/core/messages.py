"""What goes to a model or a tool and what comes back: plain JSON data, the same for every provider."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

_PLAIN = (str, int, type(None), float, Decimal)


class Frozen(BaseModel):
    """What goes to a model or a tool, or comes back. It cannot be changed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy of what can be changed, its JSON; the same where nothing can."""
        made = {name: deepcopy(value, memo) for name, value in vars(self).items() if type(value) not in _PLAIN}
        changed = {name: value for name, value in made.items() if value is not getattr(self, name)}
        return self.model_copy(update=changed) if changed else self


class ToolCall(Frozen):
    """A model's wish, or a step's own, to run a tool."""

    name: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    id: str = ""


class ToolResult(Frozen):
    """What a tool answered. `is_error` marks a refusal or failure that the model may read and react to."""

    content: JsonValue = None
    is_error: bool = False
    call_id: str = ""


class ToolDefinition(Frozen):
    """A tool offered to a model; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class Message(Frozen):
    """One message of a conversation; `tool_call_id` is set where the role is `tool`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


class ModelRequest(Frozen):
    """A call to a model.

    Attributes:
        model: Name of the model as the price book knows it, e.g. `openai:gpt-4o`.
        messages: The conversation so far.
        max_tokens: Most output tokens wanted; the governor may lower it, and sets it where a limit needs one.
        min_tokens: Fewest output tokens with which the answer is of use; below it the call is refused, not clamped.
        temperature: Sampling temperature; None leaves it to the provider.
        tools: Tools the model may ask for.
        output_schema: JSON schema the answer must follow.
        provider_tools: Kinds of tools that the model may use at its provider, as `web_search`; see
            `Policy.allow_provider_tools`.
        unseen_tokens: Most input tokens that its provider counts beside what stands here, as what it says of tools.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = Field(default=None, gt=0)
    min_tokens: int = Field(default=1, gt=0)
    temperature: float | None = None
    tools: tuple[ToolDefinition, ...] = ()
    output_schema: dict[str, JsonValue] | None = None
    provider_tools: tuple[str, ...] = ()
    unseen_tokens: int = Field(default=0, ge=0)


class ModelUsage(Frozen):
    """What a provider says a call used, in tokens.

    Attributes:
        input_tokens: Those it was sent, from its cache or not.
        output_tokens: Those it gave.
        cost_usd: USD that the provider itself says it bills; None where it says nothing.
        listed_usd: USD by price list, called as in `Price.source`, where that knows more of this call than its tokens:
            what came from a cache, another service tier. It counts where that list's price holds.
    """

    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    cost_usd: Decimal | None = Field(default=None, ge=0)
    listed_usd: dict[str, Annotated[Decimal, Field(ge=0)]] = {}


class ModelResponse(Frozen):
    """A model's answer.

    Attributes:
        content: Its text.
        tool_calls: Tools that it wants to be called.
        usage: What the provider reported; None where it reported nothing: the call then counts its whole lease.
        model: Name of the model that answered, as the provider says it.
        finish_reason: Why it ended, as the provider says it.
        details: What only the provider's client understands, e.g. signed thoughts, as JSON. Kept with the answer where
            that is recorded, so that the conversation can go on after a pause.
    """

    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: ModelUsage | None = None
    model: str = ""
    finish_reason: str = ""
    details: JsonValue = None
