"""Steps on streams of text: whole sentences, and a pace."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import anyio

from flujo.core import ConfigurationError
from flujo.streaming.pump import check_size
from flujo.streaming.steps import StreamingStep

__all__ = ["sentences", "throttle"]

_MARKS, _CLOSING = ".!?\u2026", "\"'\u201d\u2019)]"
_END = re.compile(rf"[{_MARKS}]+[{re.escape(_CLOSING)}]*(?=\s)|[\u3002\uff01\uff1f]|\n\s*\n")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|vs|etc|approx|No|Fig|Inc|Ltd|Co|e\.g|i\.e|a\.m|p\.m)|\b[A-Z])\.$"
)


def sentences(*, max_chars: int = 400) -> StreamingStep:
    """Text in whole sentences, each as soon as it has ended: right before a voice, which cannot speak half of one.

    Args:
        max_chars: A longer one is cut at the last white space before that.

    Raises:
        ConfigurationError: `max_chars` is no whole number above 0.
    """
    check_size("sentences", max_chars)

    async def in_sentences(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
        held = ""
        looked = 0  # how much of it holds no end
        async for chunk in chunks:
            held = (held + chunk).lstrip()
            while (cut := _cut(held, looked, max_chars)) is not None:
                sentence, held, looked = held[:cut].strip(), held[cut:].lstrip(), 0
                if sentence:
                    yield sentence
            looked = min(len(held.rstrip()), len(held.rstrip(_CLOSING).rstrip(_MARKS)))  # an end may have begun there
        if held.strip():
            yield held.strip()

    return StreamingStep(in_sentences, name="sentences")


def _cut(text: str, start: int, max_chars: int) -> int | None:
    """Where the first sentence ends; None where it goes on."""
    for found in _END.finditer(text, start):
        if found.end() > max_chars:
            break
        if not _ABBREVIATION.search(text, max(0, found.start() - 12), found.start() + 1):
            return found.end()
    if len(text) <= max_chars:
        return None
    space = max(text.rfind(white, 1, max_chars) for white in " \n\t")
    return space if space > 0 else max_chars


def throttle(per_second: float) -> StreamingStep:
    """A pace: chunks come no faster than `per_second`; the source is not asked in between.

    Raises:
        ConfigurationError: `per_second` is not above 0.
    """
    if isinstance(per_second, bool) or not isinstance(per_second, (int, float)) or not per_second > 0:
        raise ConfigurationError(f"throttle({per_second!r}) cannot be used", "it must be above 0 chunks a second")

    async def paced(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        due = anyio.current_time()
        async for chunk in chunks:
            await anyio.sleep_until(due)
            due = max(due, anyio.current_time()) + 1 / per_second
            yield chunk

    return StreamingStep(paced, name=f"throttle({per_second:g})")
