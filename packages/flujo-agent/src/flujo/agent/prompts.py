"""What a step before an agent gave, as the text that the agent is prompted with."""

from __future__ import annotations

from pydantic_core import PydanticSerializationError, to_json

from flujo.core import ConfigurationError


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
