"""The de-identifier: finds identifiers in text and takes them out."""

from __future__ import annotations

import datetime
import re
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from flujo.core import ConfigurationError
from flujo.deidentifier.errors import DeidentifierError, DetectorFailed, DetectorTimeout, TextTooLong
from flujo.deidentifier.findings import ENTITIES, STRUCTURED, Finding, before, merge, replace, replaced_at
from flujo.deidentifier.normalise import OPAQUE, plain
from flujo.deidentifier.stream import HoldBack, redact_chunks
from flujo.deidentifier.values import redact_value

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

    from flujo.deidentifier.rules.structured import Shapes

__all__ = ["PROFILES", "Deidentifier", "Redaction"]

T = TypeVar("T")
PROFILES = ("hipaa_safe_harbor", "patterns")
_NEAR = 64  # characters between a placeholder and what it lets read differently, at most
_SHORT_CONTEXT = 160  # characters before an identifier in which a word may stand that says what it is
_WORD_AFTER = re.compile(r"[\s.,;:!?)\]\"'](?:[^\w@/]{0,64}[a-zA-Z]{2}|\W{0,64}\Z)|\Z")
_WORD_BEFORE = re.compile(r"[\s,;:(\[\"'](?:[^\w@/]{0,64}[a-zA-Z]{2}|\W{0,64}\Z)|\Z")  # read backwards
_PASSES = 12  # two are usual; so many mean a text made to keep us busy


class Redaction(NamedTuple):
    """A redacted text and how many identifiers of each type were taken out of it."""

    text: str
    counts: dict[str, int]


class Deidentifier:
    """Finds and removes the identifiers of 45 CFR 164.514(b)(2)(i) in English text, without model or network.

    No detector finds everything; `README.md` says what was measured. What is guaranteed: a text that was not analysed
    to its end raises instead of being returned, and equal input gives equal output. Safe for several threads.

    Args:
        profile: `"hipaa_safe_harbor"` (everything), or `"patterns"` (no names, places, Presidio: fast, for pre-checks).
        max_chars: Longer texts raise `TextTooLong`.
        timeout_s: Seconds one call may take; checked between detectors, and inside Presidio's patterns.
        reference_year: The year from which birth years are judged; today's by default.
        recognizers: Further Presidio recognizers (for English); their entity names appear in the placeholders.
        entities: The only types that are looked for, such as `("EMAIL", "SSN")`; all by default. With the profile
            `"patterns"` and none but `STRUCTURED` ones, a stream costs a few microseconds a token.

    Raises:
        ConfigurationError: An unknown profile or type, or a limit that is not positive.
    """

    def __init__(
        self,
        profile: str = "hipaa_safe_harbor",
        *,
        max_chars: int = 2_000_000,
        timeout_s: float = 120.0,
        reference_year: int | None = None,
        recognizers: Sequence[EntityRecognizer] = (),
        entities: Collection[str] = (),
    ) -> None:
        if profile not in PROFILES:
            raise ConfigurationError(
                f"profile {profile!r} is unknown", f"there are {', '.join(PROFILES)}", "Choose one of them"
            )
        if not (max_chars > 0 and timeout_s > 0):
            raise ConfigurationError(
                "a limit of the de-identifier is not positive", f"max_chars={max_chars}, timeout_s={timeout_s}"
            )
        known = {*ENTITIES, *(name for recognizer in recognizers for name in recognizer.supported_entities)}
        if isinstance(entities, str) or not known.issuperset(entities):
            raise ConfigurationError(f"entities={entities!r} are unknown", f"there are {', '.join(sorted(known))}")
        self.profile = profile
        self.entities: frozenset[str] = frozenset(entities)
        self._is_structured = profile == "patterns" and bool(entities) and self.entities <= STRUCTURED
        self._max_chars = max_chars
        self._timeout_s = timeout_s
        self._year = reference_year if reference_year is not None else datetime.date.today().year
        self._recognizers = tuple(recognizers)

    def detect(self, text: str) -> list[Finding]:
        """The identifiers of `text`, sorted, without overlap; `start` and `end` count characters of `text`.

        Raises:
            DeidentifierError: The text was not analysed to its end.
        """
        return self._detect(text, ())

    def _detect(self, text: str, known_names: Collection[str], since: int = 0) -> list[Finding]:
        if len(text) > self._max_chars:
            raise TextTooLong(len(text), self._max_chars)
        view = plain(text)
        found = merge(self._detectors(view.text, known_names, view.position(since)))
        if view.origin is None and OPAQUE not in view.text:
            return found
        original = merge(view.original(f) for f in found if OPAQUE not in view.text[f.start : f.end])
        split = [
            part for f in found if OPAQUE in view.text[f.start : f.end] for part in _around_placeholders(view.text, f)
        ]
        return merge((*original, *(view.original(f) for f in split)))

    def redact(self, text: str) -> str:
        """`text` with a placeholder such as `[PERSON]` for each identifier; redacting twice changes nothing more.

        Raises:
            DeidentifierError: The text was not analysed to its end.
        """
        return self.redaction(text).text

    def redaction(self, text: str) -> Redaction:
        """Like `redact`, with the number of identifiers by type.

        Raises:
            DeidentifierError: The text was not analysed to its end.
        """
        found = self._settled(text, ())
        return Redaction(replace(text, found), dict(Counter(f.entity for f in found)))

    def _settled(
        self, text: str, known_names: Collection[str], since: int = 0, known: Sequence[Finding] = ()
    ) -> list[Finding]:
        """All that is taken out of `text`: a second look finds what reads differently next to a placeholder.

        What is before `since` was looked at when that was the end; `known` is what was found there.
        """
        found = self._detect(text, known_names, since)
        if known:
            found = merge((*known, *found)) if found else list(known)
        if not found or found[-1].end < since - _NEAR:
            return found
        if self._is_structured and all(_stands_alone(text, f) for f in found if f.end >= since - _NEAR):
            return found
        for _ in range(_PASSES):
            again = self._detect(replace(text, found), known_names, replaced_at(since, found))
            if not again:
                return found
            found = merge((*found, *before(found, again)))
        raise DeidentifierError(
            "the redaction did not settle", f"after {_PASSES} looks there was still something to find"
        )

    def counts(self, text: str) -> dict[str, int]:
        """How many identifiers of each type `redact` takes out of `text`."""
        return self.redaction(text).counts

    def redact_value(self, value: T) -> T:
        """A copy of a structured value with all its text redacted: str, list, tuple, dict, pydantic model, dataclass.

        Nothing is turned into a string; numbers, booleans, dates and enums keep their type. Numbers and
        dates inside are not searched. A field that accepts no placeholder makes pydantic raise.

        Raises:
            DeidentifierError: Some text was not analysed, or the value holds an object that cannot be searched.
        """
        return redact_value(value, self.redact)

    def redact_stream(self, chunks: AsyncIterable[str], *, hold_chars: int = 64) -> AsyncIterator[str]:
        """Redacts a stream with a delay of about `hold_chars` characters.

        Text is given out only when it is followed by `hold_chars` more, at the end of a word, and not inside or next to
        an identifier. The output equals `redact` of the whole text unless a *later* passage is what tells that an
        earlier, already released word is a name. Fewer `hold_chars` than the 64 of the default give text out sooner,
        and with it the beginning of an identifier that is longer, as a spaced or spelled IBAN is.

        Raises:
            DeidentifierError: Some text was not analysed; nothing of it was given out.
        """
        return redact_chunks(chunks, self.hold_back(hold_chars))

    def hold_back(self, hold_chars: int = 64) -> HoldBack:
        """The state of a stream that is redacted a piece at a time; see `redact_stream`."""
        if not self._is_structured:
            return HoldBack(self._settled, hold_chars)
        suspect = self._shapes.may_stand_in
        return HoldBack(self._settled, hold_chars, context_chars=_SHORT_CONTEXT, suspect=suspect)

    @cached_property
    def _shapes(self) -> Shapes:
        """What finds the types that have a shape of their own."""
        from flujo.deidentifier.rules.structured import Shapes  # here: compiling the patterns takes over 50 ms

        return Shapes(self.entities)

    def _detectors(self, view: str, known_names: Collection[str], since: int) -> Iterable[Finding]:
        deadline = time.monotonic() + self._timeout_s
        found: list[Finding] = []
        for name, step in self._steps(view, known_names, since):
            try:
                found.extend(step() if not self.entities else (f for f in step() if f.entity in self.entities))
            except DeidentifierError:
                raise
            except Exception as error:  # a detector's own bug must end as "not analysed", whatever its type
                raise DetectorFailed(name, error) from error
            if time.monotonic() > deadline:
                raise DetectorTimeout(name, self._timeout_s)
        return found

    def _steps(
        self, view: str, known_names: Collection[str], since: int
    ) -> Iterable[tuple[str, Callable[[], Iterable[Finding]]]]:
        if self._is_structured:
            return [("structured", lambda: self._shapes.find(view, since))]
        # Here, not above: to compile the patterns takes over 50 ms, which a mere import should not cost.
        from flujo.deidentifier import presidio
        from flujo.deidentifier.rules import ages, contact, dates, ids, names, organisations, places

        steps: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
            ("contact", lambda: contact.find(view)),
            ("ids", lambda: ids.find(view)),
            ("dates", lambda: dates.find(view)),
            ("ages", lambda: ages.find(view, self._year)),
        ]
        if self.profile != "patterns":
            steps += [
                ("places", lambda: places.find(view)),
                ("organisations", lambda: organisations.find(view)),
                ("names", lambda: names.find(view, known_names)),
                ("presidio", lambda: presidio.find(view, self._recognizers)),
            ]
        return steps


def _stands_alone(text: str, found: Finding) -> bool:
    """Whether what has a shape of its own reads the same beside `found` and beside its placeholder.

    Such patterns go over punctuation and white space, but not over a word: a letter comes before the next number.
    """
    return bool(_WORD_AFTER.match(text, found.end) and _WORD_BEFORE.match(text[: found.start][-_NEAR:][::-1]))


def _around_placeholders(view: str, found: Finding) -> Iterable[Finding]:
    """The parts of a finding that are not placeholders already, unless they are only punctuation."""
    start = found.start
    for end in range(found.start, found.end + 1):
        if end == found.end or view[end] == OPAQUE:
            if any(c.isalnum() for c in view[start:end]):
                yield found._replace(start=start, end=end)
            start = end + 1
