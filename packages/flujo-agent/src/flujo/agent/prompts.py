"""What goes between agents and those around them: prompts, messages of a conversation, decisions on tool calls."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticSerializationError, to_json

from flujo.core import ConfigurationError


class Turn(BaseModel):
    """One message of a conversation.

    Attributes:
        speaker: Who says it: the human, or the agent.
        text: What is said.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    speaker: Literal["human", "agent"]
    text: str


class Dialogue(BaseModel):
    """What was said so far: an agent on a model gets it as messages, any other as this object.

    Attributes:
        turns: The messages, first to last; where an agent is to answer, the last one is the human's.
        ended: Whether the human ended it.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    turns: tuple[Turn, ...] = Field(min_length=1)
    ended: bool = False

    @property
    def latest(self) -> str:
        """The last message."""
        return self.turns[-1].text

    @property
    def earlier(self) -> tuple[Turn, ...]:
        """All messages but the last."""
        return self.turns[:-1]


class ToolApproval(BaseModel):
    """A human's answer to whether an agent may call a tool.

    Attributes:
        approved: Whether it may.
        reason: Why not; the model is told.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    approved: bool
    reason: str = ""


def prompt_of(value: object, agent: str) -> str:
    """A text as it is; anything else as JSON, as pydantic writes it, so that secrets stay masked.

    Raises:
        ConfigurationError: pydantic cannot write it as JSON, or it is bytes.
    """
    if isinstance(value, str):
        return value
    what, do = f"agent {agent!r} cannot be prompted with {type(value).__name__}", "Let a step make a text of it"
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise ConfigurationError(what, "models are given text only", do)
    try:
        return to_json(value, indent=2).decode()
    except PydanticSerializationError as error:
        raise ConfigurationError(what, "it cannot be written as JSON", do) from error
