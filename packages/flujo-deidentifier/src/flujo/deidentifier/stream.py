"""Redaction of a stream: how much may be given out while more text is still to come.

A cut is safe where it is followed by `hold_chars` characters, stands behind white space, and neither lies in a
finding nor touches one. Everything given out stays known as left context, and its names stay known. What is longer than
may be held (a private key) is told by its placeholder, and swallowed up to its end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing

from anyio import to_thread

from flujo.core import ConfigurationError
from flujo.deidentifier.findings import Finding, merge, replace

__all__ = ["HoldBack", "fed", "redact_chunks"]

_END = 128  # characters of either end of an identifier that is longer than may be held
_SPACE = re.compile(r"\s")
_LONGEST_HELD = 512
_LONGEST_GROUPS = 42  # characters of an IBAN of 34 in groups of four
_TOUCHING = 2  # a name that ends this near to the cut may go on behind it ("Dr. " | "Stone")
_WORTH_A_THREAD = 127  # characters; a look at them and their context takes milliseconds, which others need not wait


class HoldBack:
    """The state of one stream. `feed` and `finish` give back what may be released, redacted.

    Args:
        detect: Finds what is taken out of a text, given names that are known, how much of it was looked at before, and
            what was found there.
        hold_chars: How many characters are held back, at least; twice as many before anything is looked at.
        context_chars: How much of what was given out is looked at again, for what stands behind it.
        suspect: Whether a text may hold what `detect` finds, or the word right before it; if not it is not looked at.

    Attributes:
        counts: Identifiers of each type that were taken out of what was released.
    """

    def __init__(
        self,
        detect: Callable[[str, Collection[str], int, Sequence[Finding]], list[Finding]],
        hold_chars: int,
        *,
        context_chars: int = 800,
        suspect: Callable[[str], bool] | None = None,
    ) -> None:
        if hold_chars < 16:
            raise ConfigurationError(
                f"hold_chars={hold_chars} is too small", "most identifiers leak below 16 characters", "Use 16 or more"
            )
        self._detect = detect
        self._hold = hold_chars
        self._context_chars = context_chars
        self._suspect = suspect
        self._context = ""
        self._known: list[Finding] = []  # what was found in the context
        self._pending = ""
        self._due = 2 * hold_chars  # so many are to be held before the next look
        self._is_open = False  # what was given out ends with a placeholder of what goes on in what is held
        self._is_waiting = False  # the last look found something in what is still held
        self._names: set[str] = set()
        self.counts: Counter[str] = Counter()

    @property
    def pending(self) -> int:
        """How many characters are held."""
        return len(self._pending)

    def feed(self, chunk: str) -> str:
        """Takes the next piece; gives out what is safe, often nothing."""
        self._pending += chunk
        return self._release(last=False) if len(self._pending) >= self._due else ""

    def finish(self) -> str:
        """The rest, redacted."""
        return self._release(last=True) if self._pending else ""

    def _release(self, *, last: bool) -> str:
        text, base = self._context + self._pending, len(self._context)
        found = self._found(text, base)
        cut = len(text) if last else self._safe_cut(text, base, found)
        opened: Finding | None = None
        if cut <= base and len(self._pending) > _LONGEST_HELD + self._hold:
            cut, opened = self._forced_cut(text, base, found)
            found = found if opened is None else merge((*found, opened))
        self._is_waiting = bool(found) and found[-1].end > cut
        if cut <= base:
            self._due = len(self._pending) + self._hold // 2
            return ""
        before = text[:cut]
        self._context = _tail(before, self._context_chars) if opened is None else _ends(before, opened.start)
        self._known = _moved(found or self._known, cut, cut - len(self._context)) if opened is None else []
        released = self._told(text, base, cut, [f for f in found if base < f.end and f.start < cut])
        self._pending = text[cut:]
        self._due = max(2 * self._hold, len(self._pending) + 1)
        self._is_open = opened is not None
        return released

    def _found(self, text: str, base: int) -> list[Finding]:
        """What is found; nothing where a glance says so, unless some of it was looked at before."""
        if not (self._is_open or self._is_waiting or self._suspect is None or self._suspect(self._pending)):
            return []
        if self._is_open:
            found = self._detect(text, self._names, 0, ())
        else:
            found = self._detect(text, self._names, base, self._known)
        if self._is_open and not any(f.start < base < f.end for f in found):
            end = _SPACE.search(text, base)  # no rule knows how it goes on: it ends where the word does
            found = merge((*found, Finding(base - 1, end.start() if end else len(text), "ID", 0.0)))
        return found

    def _told(self, text: str, base: int, cut: int, inside: list[Finding]) -> str:
        if self._is_open and inside and inside[0].start < base:  # its placeholder is out
            base = min(inside.pop(0).end, cut)
        if not inside:
            return text[base:cut]
        inside = [Finding(max(f.start, base) - base, min(f.end, cut) - base, f.entity, f.score) for f in inside]
        self._remember(text[base:cut], inside)
        self.counts.update(finding.entity for finding in inside)
        return replace(text[base:cut], inside)

    def _safe_cut(self, text: str, base: int, found: list[Finding]) -> int:
        cut = _after_space(text, base, len(text) - self._hold)
        for finding in reversed(found):
            if finding.start < cut <= finding.end + _TOUCHING or finding.start == cut:
                cut = _before_digits(text, base, _after_space(text, base, finding.start))
        return cut

    def _forced_cut(self, text: str, base: int, found: list[Finding]) -> tuple[int, Finding | None]:
        """Where too much is held: between two findings that touch, or else within what is longer than that.

        Of the second, the placeholder is given out and the rest goes: see `_is_open`.
        """
        limit = len(text) - self._hold
        cut = _after_space(text, base, limit)
        for finding in reversed(found):
            if finding.start < cut < finding.end:
                cut = _after_space(text, base, finding.start)
        if cut > base:
            return cut, None
        for finding in found:
            if finding.start <= limit <= finding.end:
                return finding.end, finding
        return len(text), Finding(base, len(text), "ID", 0.0)

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


def _ends(text: str, start: int) -> str:
    """What stands before `start`, and both ends of what begins there, by which a pattern knows it."""
    known = text[max(0, start - _END) : start + _END]
    return text if len(text) <= len(known) + _END else known + text[-_END:]


def _tail(text: str, most: int) -> str:
    """The end of what was given out, from the beginning of a line or a word."""
    if len(text) <= most:
        return text
    start = len(text) - most
    line = text.find("\n", start, start + most // 2)
    space = text.find(" ", start)
    return text[(line if line >= 0 else max(space, start)) + 1 :]


def _moved(found: Iterable[Finding], end: int, start: int) -> list[Finding]:
    """What of it lies between `start` and `end`, counted from `start`."""
    return [f._replace(start=f.start - start, end=f.end - start) for f in found if start <= f.start and f.end <= end]


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
