"""Redaction of a stream: how much may be given out while more text is still to come.

A cut is safe where it is followed by `hold_chars` characters, stands behind white space, and neither lies in a
finding nor touches one. Everything given out stays known as left context, and its names stay known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, aclosing

from anyio import to_thread

from flujo.core import ConfigurationError
from flujo.deidentifier.findings import Finding, replace

__all__ = ["HoldBack", "fed", "redact_chunks"]

_CONTEXT = 800
_LONGEST_HELD = 512
_LONGEST_GROUPS = 42  # characters of an IBAN of 34 in groups of four
_TOUCHING = 2  # a name that ends this near to the cut may go on behind it ("Dr. " | "Stone")
_WORTH_A_THREAD = 127  # characters; a look at them and their context takes milliseconds, which others need not wait


class HoldBack:
    """The state of one stream. `feed` and `finish` give back what may be released, redacted.

    Attributes:
        counts: Identifiers of each type that were taken out of what was released.
    """

    def __init__(self, detect: Callable[[str, Collection[str], int], list[Finding]], hold_chars: int) -> None:
        if hold_chars < 16:
            raise ConfigurationError(
                f"hold_chars={hold_chars} is too small", "identifiers leak below 16 characters", "Use 16 or more"
            )
        self._detect = detect
        self._hold = hold_chars
        self._context = ""
        self._pending = ""
        self._names: set[str] = set()
        self.counts: Counter[str] = Counter()

    @property
    def pending(self) -> int:
        """How many characters are held."""
        return len(self._pending)

    def feed(self, chunk: str) -> str:
        """Takes the next piece; gives out what is safe, often nothing."""
        self._pending += chunk
        if len(self._pending) < 2 * self._hold:
            return ""
        return self._release(last=False)

    def finish(self) -> str:
        """The rest, redacted."""
        return self._release(last=True) if self._pending else ""

    def _release(self, *, last: bool) -> str:
        text = self._context + self._pending
        base = len(self._context)
        found = self._detect(text, self._names, base)
        cut = len(text) if last else self._safe_cut(text, base, found)
        if cut <= base and len(self._pending) > _LONGEST_HELD + self._hold:
            # Longer than any identifier, and no place to cut: the whole of it goes, rather than a part of it out.
            found, cut = [Finding(base, len(text), "ID", 1.0)], len(text)
        if cut <= base:
            return ""
        inside = [
            Finding(max(f.start, base) - base, f.end - base, f.entity, f.score) for f in found if base < f.end <= cut
        ]
        released = replace(text[base:cut], inside)
        self._remember(text[base:cut], inside)
        self.counts.update(finding.entity for finding in inside)
        self._pending = text[cut:]
        self._context = _tail(text[:cut])
        return released

    def _safe_cut(self, text: str, base: int, found: list[Finding]) -> int:
        cut = _after_space(text, base, len(text) - self._hold)
        for finding in reversed(found):
            if finding.start < cut <= finding.end + _TOUCHING or finding.start == cut:
                cut = _before_digits(text, base, _after_space(text, base, finding.start))
        return cut

    def _remember(self, released: str, inside: list[Finding]) -> None:
        for finding in inside:
            if finding.entity == "PERSON":
                self._names.update(
                    word for word in released[finding.start : finding.end].replace("-", " ").split() if len(word) > 2
                )


def _after_space(text: str, base: int, position: int) -> int:
    """The last place at or before `position` that stands behind white space; `base` if there is none."""
    while position > base and not text[position - 1].isspace():
        position -= 1
    return max(position, base)


def _before_digits(text: str, base: int, position: int) -> int:
    """The place before the words with a digit that stand right before: of half an IBAN the end is found first."""
    start = position
    while start > base and position - start < _LONGEST_GROUPS:
        word = _after_space(text, base, start - 1)
        if not any(letter.isdigit() for letter in text[word:start]):
            break
        start = word
    return start


def _tail(text: str) -> str:
    """The end of what was given out, from the beginning of a line or a word."""
    if len(text) <= _CONTEXT:
        return text
    start = len(text) - _CONTEXT
    line = text.find("\n", start, start + _CONTEXT // 2)
    space = text.find(" ", start)
    return text[(line if line >= 0 else max(space, start)) + 1 :]


async def redact_chunks(chunks: AsyncIterable[str], state: HoldBack) -> AsyncIterator[str]:
    """The redacted stream; closes the source when the reader stops early."""
    async with AsyncExitStack() as stack:
        if isinstance(chunks, AsyncGenerator):
            await stack.enter_async_context(aclosing(chunks))
        async for chunk in chunks:
            released = await fed(state.feed, chunk, state.pending)
            if released:
                yield released
        rest = await fed(lambda _: state.finish(), "", state.pending)
        if rest:
            yield rest


async def fed(work: Callable[[str], str], chunk: str, pending: int) -> str:
    """What `work` releases for a chunk; where there is enough to be looked at, that happens in a worker thread."""
    if len(chunk) + pending > _WORTH_A_THREAD:
        return await to_thread.run_sync(work, chunk)
    return work(chunk)
