"""Persons' names: seeds, cues, growth over neighbours, and every other occurrence in the text.

The strongest rule without a model is the complement of a dictionary: a capitalised word that is no English word, no
medicine, no state and no eponym is taken as a name. It finds names that are in no list. Names that are also words
("Grace Young", "Dr. Stone") need a reason: a cue, a neighbour, or a capital in the middle of a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.lexicon import bare
from flujo.deidentifier.rules import dictation, fields, staff
from flujo.deidentifier.rules.name_cues import adjoining, announced, initials
from flujo.deidentifier.rules.tokens import INITIAL, LOWER, TITLE, UPPER, Page, read_page
from flujo.deidentifier.rules.vocabulary import (
    ACRONYMS,
    AFTER_EPONYM,
    CREDENTIALS,
    EPONYM_HEADS,
    NOT_NAMES,
    PARTICLES,
    PERSON_VERBS,
    VIRTUES,
)

__all__ = ["find"]

_TITLES = frozenset(("mr", "mrs", "ms", "dr", "prof", "miss", "mister", "doctor", "professor"))
_VOWELS = frozenset("aeiouy")
# "Alvarado 8", "Deauville 2", "Clark III": an eponym with a value is a scale.
_GRADED = re.compile(r"(?:'s)? (?:\d{1,3}(?![\w-])|[1-5][abc]\b|I{1,3}\b|IV\b|VI?\b)")
_APART = re.compile(r"\s*(?:'s?)?\s*")
_SCALES = frozenset(
    ("scale", "scales", "score", "inventory", "questionnaire", "index", "classification", "criteria", "examination")
).union(("assessment", "test", "battery"))
_AFFIX = re.compile(r"(?:anti|auto|non|pre|post|peri|sub|mid|pro|semi|multi|inter|intra|trans)-")
_GENERATION = re.compile(r",? (?:[JS]r\b\.?|(?:III?|IV)\b(?! \w))")
_ACTS = re.compile(
    r" (?:(?:denie|report|state|complain|endorse|admit|feel|live|agree|want|request|refuse|decline|smoke|drink"
    r"|enjoy|understand|tell|describe|recall|say|walk)[sd]?|complained|reported|stated|endorsed|felt|asked|wanted"
    r"|requested|verbalized|told|said|walked|ate|slept"
    r"|(?:was|is|has been|will be) (?:discharged|admitted|transferred|brought|referred|informed"
    r"|told|advised|intubated|extubated|counsel+ed|born|married|divorced|a \d))\b"
)
_TOLD = re.compile(
    r"\b(?:(?:[Dd]iscussed|[Ss]poke|[Tt]alked|[Mm]et|[Aa]greed) with|[Dd]/[Ww]|[Pp]aged|informed|notified|told) $"
)
_APPLIED = re.compile(r"(?:'s)? (?:catheter|drain|tube|score|sign|test|scale|in place)")
_JOINS = (" - ", ' "', '" ', " (", ") ", " '", "' ")


def find(view: str, known: Iterable[str] = ()) -> Iterator[Finding]:
    """Names in `view`, and the other values that labels and table heads announce.

    Args:
        view: The plain text.
        known: Names from elsewhere, e.g. from an earlier part of the same stream.
    """
    page = read_page(view)
    labelled = fields.find(view)
    yield from labelled.findings
    strong = {i for i in range(len(page.tokens)) if _seed(page, i)}
    strong |= set(announced(page))
    for start, end in labelled.names:
        strong |= set(range(page.at(start), page.at(end)))
    strong |= set(dictation.announced_small(page))
    marked = strong | _grown(page, strong)
    marked |= _again(page, _cores(page, strong, marked) | {bare(word) for word in known}, marked)
    runs = list(_runs(page, marked))
    for first, last in runs:
        yield _finding(page, first, last)
    yield from staff.signatures(page, runs)
    yield from dictation.find(view)
    for start, end in initials(view):
        yield Finding(start, end, "PERSON", 0.8)


def _unknown(page: Page, index: int) -> bool:
    """Whether no list knows the word, and its shape is not that of a medical term."""
    token, lex = page.tokens[index], page.lex
    low = token.low
    if token.kind in (LOWER, INITIAL) or len(low) < 2 or low in NOT_NAMES or low in CREDENTIALS:
        return False
    if lex.is_allowed(low) or lex.is_word(low) or lex.is_medical(low):
        return False
    if _AFFIX.match(low):
        return False
    if "-" in low or "'" in low:
        parts = [
            p
            for p in zip(low.replace("'", "-").split("-"), token.text.replace("'", "-").split("-"), strict=False)
            if len(p[0]) > 1
        ]
        return any(
            text[0].isupper() and not (lex.is_word(p) or lex.is_allowed(p) or lex.is_medical(p) or p in NOT_NAMES)
            for p, text in parts
        )
    return not _VOWELS.isdisjoint(low) or not low.isascii()


def _seed(page: Page, index: int) -> bool:
    token, lex = page.tokens[index], page.lex
    if ord(max(token.text)) > 0x24F:  # beyond the Latin blocks: a Greek letter alone is a symbol, more is a name
        return len(token.text) > 1
    if token.kind == TITLE and token.low in lex.eponyms and _bearer(page, index):
        return True
    if _eponym(page, index):
        return False
    if token.kind == TITLE:
        if _unknown(page, index):
            return True
        if token.low in lex.places and token.low not in NOT_NAMES:
            return not page.opens(index) and not page.heading(index)
        return lex.is_name(token.low) and _names_a_person(page, index)
    if token.kind == UPPER:
        return _shouted(page, index)
    if token.kind == LOWER and len(token.low) > 3:
        return (token.low in lex.given or (token.low in lex.surnames and len(token.low) > 4)) and not _ordinary(
            page, token.low
        )
    return False


def _ordinary(page: Page, low: str) -> bool:
    return page.lex.is_word(low) or page.lex.is_allowed(low) or low in NOT_NAMES or low in page.lex.eponyms


def _eponym(page: Page, index: int) -> bool:
    """ "Parkinson's disease", "Foley catheter", "Wolff-Parkinson-White syndrome", "McBurney's point"."""
    token = page.tokens[index]
    following = [t.low for t in page.tokens[index + 1 : index + 4]]
    if token.kind == LOWER:
        return False
    if token.low in page.lex.eponyms and _GRADED.match(page.view, token.end) and not _addressed(page, index):
        return True
    if not following:
        return False
    head = following[0] in EPONYM_HEADS or following[0].removesuffix("s") in EPONYM_HEADS
    if head and _APART.fullmatch(page.gap(index)):
        return True
    if _scale(page, index):
        return True
    if token.low in page.lex.eponyms and following[0] in AFTER_EPONYM and page.gap(index) in (" ", "'s "):
        return True
    return (
        token.low in page.lex.eponyms and any(word in EPONYM_HEADS for word in following) and "." not in page.gap(index)
    )


def _bearer(page: Page, index: int) -> bool:
    """Whether an eponym is a living person's name: "Kehr denies pain", "discussed with Kehr", "Kehr, Helen"."""
    token = page.tokens[index]
    if _TOLD.search(page.view, max(0, token.start - 20), token.start) and not _APPLIED.match(page.view, token.end):
        return True
    if _ACTS.match(page.view, token.end):
        return True
    if index + 1 == len(page.tokens) or page.gap(index) != ", ":
        return False
    return page.tokens[index + 1].kind == TITLE and page.tokens[index + 1].low in page.lex.given


def _scale(page: Page, index: int) -> bool:
    """ "Edinburgh Postnatal Depression Scale": capitalised words up to the name of a scale, and no title before."""
    at = index
    while at + 1 < len(page.tokens) and at < index + 4 and page.gap(at) == " ":
        at += 1
        if page.tokens[at].low in ("classification", "staging", "criteria") or (
            page.tokens[at].kind == TITLE and page.tokens[at].low in _SCALES
        ):
            return not _addressed(page, index)
        if page.tokens[at].kind != TITLE:
            return False
    return False


def _addressed(page: Page, index: int) -> bool:
    """Whether a title, a given name or an initial stands directly before the token."""
    if not index or page.gap(index - 1) not in (" ", ". "):
        return False
    before = page.tokens[index - 1]
    return before.kind == INITIAL or before.low in _TITLES or (before.kind == TITLE and before.low in page.lex.given)


def _shouted(page: Page, index: int) -> bool:
    """A word in capitals counts as a name if a list says so, or if it is too long for an abbreviation."""
    low, lex = page.tokens[index].low, page.lex
    if len(low) < 3 or low in ACRONYMS or _ordinary(page, low) or lex.is_medical(low) or low in CREDENTIALS:
        return False
    if lex.is_name(low) or (low in lex.proper and len(low) > 3):
        return True
    return len(low) > 5 and _unknown(page, index)


def _names_a_person(page: Page, index: int) -> bool:
    """Whether a word that is also a name is used as one."""
    token, lex = page.tokens[index], page.lex
    if token.low in NOT_NAMES and token.low not in ("will", "young"):
        return False
    if (
        token.low in lex.given
        and index + 1 < len(page.tokens)
        and page.gap(index) in (" ", "-")
        and _surname_like(page, index + 1)
    ):
        return True
    if token.low not in lex.given:
        return False
    if not page.opens(index):
        return not page.heading(index)
    verb = page.tokens[index + 1].low if index + 1 < len(page.tokens) and page.gap(index) == " " else ""
    return verb in PERSON_VERBS and not (token.low in VIRTUES and verb in ("is", "was", "has", "had"))


def _surname_like(page: Page, index: int) -> bool:
    token = page.tokens[index]
    if token.kind not in (TITLE, UPPER) or token.low in CREDENTIALS:
        return False
    known = token.low in page.lex.surnames or token.low in page.lex.eponyms
    return (known and not _eponym(page, index)) or _unknown(page, index)


def _grown(page: Page, strong: set[int]) -> set[int]:
    """Neighbours of names that belong to them: initials, particles, capitalised words."""
    grown: set[int] = set()
    for index in sorted(strong):
        right = index + 1
        while (
            right < len(page.tokens)
            and right not in strong
            and _joins(page, right - 1)
            and _extends(page, right, to_right=True)
        ):
            grown.add(right)
            right += 1
        left = index - 1
        while (
            left >= 0
            and left not in strong
            and left not in grown
            and _joins(page, left)
            and _extends(page, left, to_right=False)
        ):
            grown.add(left)
            left -= 1
    return {i for i in grown if page.tokens[i].kind != LOWER or {i - 1, i + 1} <= (grown | strong)}


def _joins(page: Page, index: int) -> bool:
    return adjoining(page, index) or page.gap(index) in _JOINS


def _extends(page: Page, index: int, *, to_right: bool) -> bool:
    token, lex = page.tokens[index], page.lex
    if token.kind == LOWER:
        return token.low in PARTICLES
    if token.kind == INITIAL:
        return (
            token.text not in ("I", "A")
            or page.view[token.end : token.end + 1] in (".", "\n", "", "|", ",")
            or page.view[token.end : token.end + 2] == "  "
        )
    if token.low in NOT_NAMES or token.low in CREDENTIALS or _eponym(page, index):
        return False
    if lex.is_name(token.low):
        return True
    if lex.is_allowed(token.low):
        return token.low in lex.eponyms
    if token.kind == UPPER:
        return len(token.low) > 3 and not lex.is_word(token.low) and not lex.is_medical(token.low)
    return not lex.is_medical(token.low) and not page.heading(index) and (to_right or not page.opens(index))


def _cores(page: Page, strong: set[int], marked: set[int]) -> set[str]:
    """The words of the names found; of those found by growth only the ones that can hardly be anything else."""
    sure = strong | {i for i in marked if _unknown(page, i) or page.lex.is_name(page.tokens[i].low)}
    sure |= {i for i in marked if i - 1 in sure and page.tokens[i].low in page.lex.eponyms}  # "Helen Kehr"
    return {page.tokens[i].low for i in sure if len(page.tokens[i].low) > 2 and page.tokens[i].low not in PARTICLES}


def _again(page: Page, cores: set[str], marked: set[int]) -> set[int]:
    """Other places where a found name stands: what a cue told once holds for the whole text."""
    cores |= {
        part
        for core in cores
        if "-" in core
        for part in core.split("-")
        if len(part) > 3 and not page.lex.is_word(part)
    }
    cores = {c for c in cores if c not in NOT_NAMES and c not in CREDENTIALS}
    found = set()
    for index, token in enumerate(page.tokens):
        if index in marked or token.low not in cores or _eponym(page, index):
            continue
        if token.kind in (TITLE, UPPER) or (token.kind == LOWER and not _ordinary(page, token.low)):
            found.add(index)
    return found


def _runs(page: Page, marked: set[int]) -> Iterator[tuple[int, int]]:
    """First and last token of each name: neighbouring tokens of one name joined."""
    ordered = sorted(marked)
    at = 0
    while at < len(ordered):
        last = at
        while last + 1 < len(ordered) and ordered[last + 1] == ordered[last] + 1 and _one_name(page, ordered[last]):
            last += 1
        yield ordered[at], ordered[last]
        at = last + 1


def _finding(page: Page, first: int, last: int) -> Finding:
    end = page.tokens[last].end
    if page.tokens[last].kind == INITIAL and page.view[end : end + 1] == ".":
        end += 1
    generation = _GENERATION.match(page.view, end)
    end = generation.end() if generation else end
    return Finding(page.tokens[first].start, end, _label(page, first, last), 0.8)


def _one_name(page: Page, index: int) -> bool:
    return _joins(page, index) or page.gap(index) in (", ", ",")


def _label(page: Page, first: int, last: int) -> str:
    low = page.tokens[first].low
    if low in page.lex.places and first == last:
        return "LOCATION"
    lone = first == last and page.tokens[first].low not in page.lex.given
    return (
        "LOCATION"
        if lone and first and page.gap(first - 1) == " " and page.tokens[first - 1].low in ("in", "near", "outside")
        else "PERSON"
    )
