"""What is written in place of texts and values: a keyed digest and a length."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from pydantic_core import to_jsonable_python

from flujo.core import scrub

from .keys import text_key

__all__ = ["Digest", "Digester"]

Digest = dict[str, str | int]
"""`hmac` (64 hex digits) and `length`: characters of a text, bytes of bytes, characters of the JSON of other values."""

# How models, tools, error classes and labels are named. What looks different may be content: a model can answer with
# any "tool name", and identifiers of people begin with a digit or hold a space or an @.
_NAME = re.compile(r"[A-Za-z_][\w./:#<>+-]{0,127}", re.ASCII)


class Digester:
    """Digests with one key: equal contents give equal digests, and without the key nothing can be looked up.

    Args:
        key: The audit key, at least 16 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = text_key(key)

    def text(self, text: str) -> Digest:
        """Digest a text: HMAC-SHA256 over its UTF-8 bytes."""
        return self._digest(text.encode("utf-8", "surrogatepass"), len(text))

    def value(self, value: object) -> Digest:
        """Digest anything: a text as `text` does, bytes as they are, the rest as JSON with sorted keys.

        Returns:
            The digest; `{"undigested": <type>}` where the value cannot be turned into JSON.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._digest(bytes(value), len(value))
        try:
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
        except _UNSERIALISABLE:
            return {"undigested": _type_name(value)}
        return self.text(text)

    def values(self, values: Mapping[str, object]) -> dict[str, Digest]:
        """Digest each value of a mapping; its keys are names and stay."""
        return {self.label(name): self.value(value) for name, value in values.items()}

    def title(self, text: str) -> str:
        """What the program's author wrote (names of steps and pipelines, run ids): as it is, without secrets."""
        return _without_secrets(text)

    def name(self, text: str) -> str | Digest:
        """A name of something technical as it is; its digest where it does not look like one."""
        return text if _is_name(text) else self.text(text)

    def label(self, text: str) -> str:
        """The same where only text can stand."""
        return text if _is_name(text) else f"hmac:{self.text(text)['hmac']}"

    def _digest(self, content: bytes, length: int) -> Digest:
        return {"hmac": hmac.digest(self._key, content, "sha256").hex(), "length": length}


# What the value's own code (a serialiser, a computed field) and JSON itself raise in practice. Anything rarer is a
# fault of the recorder, and the engine decides what that means.
_UNSERIALISABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def _plain(value: object) -> object:
    """What is not JSON by itself, one level deep; the encoder goes on from there."""
    if isinstance(value, Iterator):
        return _type_name(value)  # reading it would take its items away from the step that is to have them
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)  # their own order differs from process to process
    return to_jsonable_python(value, fallback=_type_name, bytes_mode="base64", inf_nan_mode="strings")


def _is_name(text: str) -> bool:
    return not text or (_NAME.fullmatch(text) is not None and _without_secrets(text) == text)


_without_secrets = lru_cache(maxsize=4096)(scrub)  # a run has few names and many records


def _type_name(value: object) -> str:
    return type(value).__qualname__
