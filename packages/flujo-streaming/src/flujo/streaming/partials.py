"""Structured output while it comes: what of a JSON text can be relied on already."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json

from flujo.streaming.steps import StreamingStep

__all__ = ["partial_json"]

_QUOTE = re.compile(r'\\.|"', re.DOTALL)
_OPEN_WORD = re.compile(r"[-+.0-9a-zA-Z]*$")
_SHARE = 32


def partial_json(type_: Any = None, *, min_chars: int = 16) -> StreamingStep:
    """A step that reads the text of a JSON value and gives snapshots of what has arrived; the last one is the whole.

    A snapshot is plain data. A text in it may still grow; numbers, true, false, null, and texts whose field takes only
    certain words appear when they are closed, since half of one looks like another. The last snapshot is validated
    strictly as `type_`, and is what the step gives to an ordinary step after it.

    Args:
        type_: A pydantic model, or any type pydantic knows; None takes any JSON.
        min_chars: Snapshots are made at least that many characters apart, and a thirty-second of what there is: the
            work stays in proportion to the text.
    """
    adapter = TypeAdapter[Any](Any if type_ is None else type_)

    async def snapshots(chunks: AsyncIterator[str]) -> AsyncIterator[Any]:
        text, reader, seen, last = "", _Reader(), 0, object()
        parts: list[str] = []
        length = 0
        async for chunk in chunks:
            reader.feed(chunk)
            parts.append(chunk)
            length += len(chunk)
            if length - seen < max(min_chars, seen // _SHARE):
                continue
            text = "".join(parts)
            parts, seen = [text], length
            snapshot = snapshot_of(text, type_, in_text=reader.in_text)
            if snapshot is not None and snapshot != last:
                last = snapshot
                yield snapshot
        yield adapter.validate_json("".join(parts), strict=True)

    return StreamingStep(snapshots, name="partial_json", collect="last")


class _Reader:
    """Knows whether a text ends within a JSON text."""

    def __init__(self) -> None:
        self.in_text = False
        self._escaped = False

    def feed(self, chunk: str) -> None:
        """Take the next piece."""
        if self._escaped:
            chunk, self._escaped = chunk[1:], False
        for found in _QUOTE.finditer(chunk):
            if found.group() == '"':
                self.in_text = not self.in_text
        tail = len(chunk) - len(chunk.rstrip("\\"))
        self._escaped = bool(tail % 2)


def snapshot_of(text: str, type_: Any, *, in_text: bool) -> Any:
    """What can be relied on of the beginning of a JSON text; None where nothing can."""
    if not in_text:
        text = _OPEN_WORD.sub("", text)
    if not text.strip():
        return None
    closed = from_json(text, allow_partial=True)
    if not in_text:
        return closed
    return _grown(closed, from_json(text, allow_partial="trailing-strings"), type_)


def _grown(closed: Any, grown: Any, hint: Any) -> Any:
    """The closed part, and the text at its end where its field may hold any text."""
    if isinstance(grown, dict) and isinstance(closed, dict) and grown:
        name = next(reversed(grown))
        inner = _field(hint, name)
    elif isinstance(grown, list) and isinstance(closed, list) and grown:
        name, inner = len(grown) - 1, next(iter(get_args(hint)), None)
    else:
        return grown if isinstance(grown, str) and _may_grow(hint) else closed
    value = grown[name]
    has = name in closed if isinstance(closed, dict) else name < len(closed)
    if isinstance(value, str):
        return grown if _may_grow(inner) else closed
    if not has:
        return closed
    closed[name] = _grown(closed[name], value, inner)
    return closed


def _field(hint: Any, name: object) -> Any:
    """The type of a field, as far as it is known."""
    for one in (hint, *get_args(hint)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            field = one.model_fields.get(str(name))
            return None if field is None else field.annotation
    arguments = get_args(hint)
    return arguments[1] if len(arguments) == 2 else None


def _may_grow(hint: Any) -> bool:
    """Whether any text will do, so that the beginning of one is no other value."""
    return hint is None or hint is Any or hint is str or str in get_args(hint)
