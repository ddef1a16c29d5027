"""What of a pydantic-ai run its reader is given while it goes on. Importing this imports pydantic-ai."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar, get_args

from pydantic_ai import AgentRunResult, AgentRunResultEvent
from pydantic_ai import messages as pai
from pydantic_ai.output import NativeOutput, PromptedOutput, TextOutput, ToolOutput
from pydantic_core import to_json

from .errors import AgentFault
from .streamed import text_of

__all__ = ["Answer"]

T = TypeVar("T")


class Answer(Generic[T]):
    """One run, event by event.

    Args:
        agent: The agent's name.
        output: Its output type, as pydantic-ai takes it.

    Attributes:
        result: What the run ended with.
    """

    def __init__(self, agent: str, output: object) -> None:
        self.result: AgentRunResult[T] | None = None
        self._agent = agent
        self._is_told = _may_be_text(output)
        self._final: pai.FinalResultEvent | None = None
        self._has_told = False

    def text_of(self, event: object) -> str:
        """What an event adds to what the reader is given.

        Raises:
            AgentFault: The model begins anew, for what the reader has was refused. It cannot be taken back.
        """
        if isinstance(event, AgentRunResultEvent):
            self.result = event.result
        elif isinstance(event, pai.FinalResultEvent):
            self._final = event
        elif isinstance(event, (pai.FunctionToolCallEvent, pai.EnqueuedMessagesEvent)):
            self._final = None  # that text was said on the way
        elif self._is_told:
            return self._told(event)
        return ""

    def _told(self, event: object) -> str:
        if isinstance(event, pai.PartStartEvent) and event.index == 0 and self._has_told and self._final is not None:
            raise AgentFault(
                f"agent {self._agent!r} gave an answer that does not fit, and its reader has been given it",
                "what is streamed cannot be taken back, so no repair is streamed behind it",
                "Do not stream it, or bound the answer (max_tokens, the lengths of texts in its type)",
            )
        text = text_of(event)
        self._has_told = self._has_told or bool(text)
        return text

    def rest(self) -> str:
        """What the reader lacks at the end: an answer that did not come as text."""
        if self.result is None or (self._has_told and (self._final is None or self._final.tool_name is None)):
            return ""
        output = self.result.output
        return output if isinstance(output, str) else to_json(output).decode()


def _may_be_text(output: object) -> bool:
    """Whether a text may be the answer; what a model says beside an output tool is not, and is kept from its reader."""
    if isinstance(output, (NativeOutput, PromptedOutput, TextOutput)):
        return True
    if isinstance(output, Sequence):
        return any(_may_be_text(one) for one in output)
    return not isinstance(output, ToolOutput) and (output is str or str in get_args(output))
