"""Secrets and personal data out of what is written to a file that people share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

from flujo.core import ConfigurationError, scrub

Redactor = Callable[[str], str]
"""Masks personal data in a text."""

_MASK = "[SECRET]"


@dataclass(frozen=True, slots=True)
class Cleaner:
    """Masks secrets of a known form, and what a redactor finds.

    Attributes:
        redact: Masks personal data; None masks secrets only.
    """

    redact: Redactor | None = None

    def text(self, text: str) -> str:
        """The text without them.

        Raises:
            ConfigurationError: The redactor gives no text, or masks its own masks: a replay would not be the same.
        """
        cleaned = scrub(text)
        if self.redact is None or not cleaned:
            return cleaned
        once = self._redacted(cleaned)
        if once != cleaned and self._redacted(once) != once:
            why = "what it made of a text is not the same when it is redacted again"
            raise ConfigurationError("redact= cannot be used", why, "Leave masks as they are")
        return once

    def value(self, value: JsonValue) -> JsonValue:
        """A JSON value with all its texts cleaned; what stands under a name like `password` is masked whole."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._under(key, item) for key, item in value.items()}
        return value

    def _under(self, key: str, value: JsonValue) -> JsonValue:
        scalar = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        probe = f'{key}: "x"'
        return _MASK if scalar and scrub(probe) != probe else self.value(value)

    def _redacted(self, text: str) -> str:
        assert self.redact is not None
        redacted: object = self.redact(text)
        if not isinstance(redacted, str):
            why = f"it gave {type(redacted).__name__}, not a text"
            raise ConfigurationError("redact= cannot be used", why, "Give a function from text to text")
        return redacted
