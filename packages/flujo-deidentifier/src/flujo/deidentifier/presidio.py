"""Presidio's analyzer without a model and without a network, made to fail closed.

Three of its habits are changed here, each measured on presidio-analyzer 2.2.366:

* A pattern that times out is skipped with a log line, and the analyzer returns less. Here it raises.
* Its URL and e-mail recognizers need time quadratic in the text and look up public suffixes on the web. They are not
  used (`rules/contact.py` has linear ones), and tldextract is set to its built-in list in case somebody adds them.
* The default engine downloads a spaCy model. Here the engine does no linguistics at all.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from flujo.deidentifier.errors import DetectorFailed, DetectorTimeout
from flujo.deidentifier.findings import Finding

if TYPE_CHECKING:
    import regex
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer, PatternRecognizer

__all__ = ["PATTERN_SECONDS", "find"]

PATTERN_SECONDS = 5.0
_SEGMENT = 2_000
_OVERLAP = 120
_THRESHOLD = 0.35
# Presidio's name for what it finds, and ours.
_OURS = {
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "CRYPTO": "ACCOUNT",
    "PHONE_NUMBER": "PHONE",
    "MEDICAL_LICENSE": "LICENSE",
    "US_NPI": "LICENSE",
    "US_MBI": "HEALTH_PLAN_ID",
    "US_ITIN": "SSN",
    "US_SSN": "SSN",
    "UK_NHS": "MRN",
}
_DIGIT = re.compile(r"\d")
_lock = threading.Lock()


class _FailClosed:
    """A compiled pattern that turns a time-out into an error Presidio does not swallow."""

    def __init__(self, compiled: regex.Pattern[str], name: str) -> None:
        self._compiled = compiled
        self._name = name

    def finditer(self, text: str, *, timeout: float) -> Iterator[regex.Match[str]]:
        try:
            yield from self._compiled.finditer(text, timeout=min(timeout, PATTERN_SECONDS))
        except TimeoutError as error:
            raise DetectorTimeout(self._name, PATTERN_SECONDS) from error


def find(view: str, extra: Sequence[EntityRecognizer] = ()) -> Iterator[Finding]:
    """What Presidio's recognizers (and `extra` ones) find in `view`.

    Raises:
        DetectorTimeout: A pattern took more than `PATTERN_SECONDS` on a segment of 2,000 characters.
        DetectorFailed: Presidio or a recognizer raised.
    """
    engine = _engine()
    _guard_all(extra)
    for start, end in _segments(view):
        if not extra and not _DIGIT.search(view, start, end):
            continue  # every stock recognizer chosen below needs a digit
        try:
            results = engine.analyze(
                view[start:end], language="en", score_threshold=_THRESHOLD, ad_hoc_recognizers=list(extra) or None
            )
        except DetectorTimeout:
            raise
        except Exception as error:  # any fault of third-party code means "not analysed"; the error says which
            raise DetectorFailed("presidio", error) from error
        for found in results:
            entity = _OURS.get(found.entity_type, found.entity_type if extra else "ID")
            yield Finding(start + found.start, start + found.end, entity, float(found.score))


def _segments(view: str) -> Iterator[tuple[int, int]]:
    """Overlapping pieces, cut at white space where there is some: a span at a cut is seen whole by one side."""
    start = 0
    while start < len(view):
        end = min(len(view), start + _SEGMENT)
        if end < len(view):
            space = max(view.rfind(" ", start + _SEGMENT // 2, end), view.rfind("\n", start + _SEGMENT // 2, end))
            end = space if space > 0 else end
        yield start, end
        if end == len(view):
            return
        start = end - _OVERLAP


def _engine() -> AnalyzerEngine:
    with _lock:  # two threads must not build it twice: it takes seconds
        return _build()


@cache
def _build() -> AnalyzerEngine:
    # Local imports: presidio-analyzer imports spaCy, 2.5 s of CPU that users of other parts should not pay.
    import tldextract.tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NoOpNlpEngine

    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    nlp = NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}])
    registry = RecognizerRegistry(recognizers=_recognizers(), supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=["en"])


def _recognizers() -> list[EntityRecognizer]:
    # Local import: it brings in spaCy, see `_build`.
    from presidio_analyzer import predefined_recognizers as stock

    chosen: list[EntityRecognizer] = [
        stock.CreditCardRecognizer(),
        stock.IbanRecognizer(),
        stock.CryptoRecognizer(),
        stock.PhoneRecognizer(supported_regions=("US",), leniency=1),
        stock.MedicalLicenseRecognizer(),
        stock.UsNpiRecognizer(),
        stock.UsMbiRecognizer(),
        stock.UsItinRecognizer(),
        stock.UsSsnRecognizer(),
        stock.NhsRecognizer(),
    ]
    _guard_all(chosen)
    return chosen


def _guard_all(recognizers: Sequence[EntityRecognizer]) -> None:
    # Local import: it brings in spaCy, see `_build`.
    from presidio_analyzer import PatternRecognizer

    for recognizer in recognizers:
        if isinstance(recognizer, PatternRecognizer):
            _guard(recognizer)


def _guard(recognizer: PatternRecognizer) -> None:
    """Puts the guard where Presidio keeps a compiled pattern, under the flags it will ask for."""
    import regex  # comes with presidio-analyzer, see above

    state = vars(recognizer)  # Presidio's own annotations are incomplete
    for pattern in state["patterns"]:
        if isinstance(pattern.compiled_regex, _FailClosed):
            continue
        flags = state["global_regex_flags"]
        guarded = _FailClosed(regex.compile(pattern.regex, flags=flags), type(recognizer).__name__)
        vars(pattern).update(compiled_with_flags=flags, compiled_regex=guarded)
