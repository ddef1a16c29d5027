"""Names that the words around them announce: titles, relations, credentials, signatures, "Last, First", labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flujo.deidentifier.rules.pattern import compile_small, small_letters
from flujo.deidentifier.rules.tokens import INITIAL, LOWER, TITLE, UPPER, Page
from flujo.deidentifier.rules.vocabulary import BOTH, CREDENTIALS, NOT_NAMES, PARTICLES, RELATIONS, TITLES

__all__ = ["adjoining", "announced", "initials", "take"]

# Particles with which a surname may begin ("Dr. ten Broek").
_OPENING = frozenset(
    ("de", "van", "von", "al", "el", "ten", "ter", "den", "der", "zu", "zum", "dos", "da", "di", "del")
)
_VOWELS = frozenset("aeiouy")

_TITLE_CUE = compile_small(rf"(?<![\w-])(?<!\d )(?:{TITLES})\b\.?[ \t]{{1,3}}")
_RELATION_CUE = compile_small(
    rf"(?<![\w-])(?:{RELATIONS})s?\b(?:'s name(?: is)?|,? (?:named|is named|called|whose name is"
    r"|name is|name:)|,| is| -|:)?[ \t]{0,2}[\"'(]?"
)
_STRONG_CUE = compile_small(
    r"(?<![\w-])(?:dear|hi|hello|hey|named|name is|name was|my name's|nicknamed|goes by"
    r"|prefers? to be called|likes to be called|a\.?k\.?a\.?|n[ée]e|formerly|(?:best|kind"
    r"|warm)? ?regards|sincerely(?: yours)?|yours(?: truly| sincerely| faithfully)?"
    r"|respectfully|thank you|thanks|many thanks|cheers|signed|/s/|s/|e-signed(?: by)?|signature)[,:]?\s{1,4}[\"'(]?"
)
_WEAK_CUE = compile_small(
    r"(?<![\w-])(?:by|with|per|via|from|to|for|and|called|paged|told|informed|notified|contacted|saw"
    r"|sees|met|asked|cc|attn|d/w|w/|signed out to|care of|c/o|re|of)[:.]?[ \t]{1,3}[\"'(]?"
)
_CREDENTIAL = re.compile(
    r"(?:,[ \t]{0,2}|[ \t]{1,2})(?:M\.?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-C)?|Ph\.?\s?D|Pharm\.?D"
    r"|L\.?C\.?S\.?W|LMSW|MSW|LPN|LVN|CRNA|D\.?D\.?S|DMD|DPM|D\.?P\.?T|PT|OT|OTR(?:/L)?|RPh"
    r"|FNP(?:-[A-Z]{1,2})?|APRN|ARNP|CNM"
    r"|MBBS|MBChB|FRC[SP]|MRCP|FAC[SPC]|FAAP|MPH|MSN|BSN|RD|RDN|LMFT|PsyD|CMA|EMT(?:-P)?|CNA|RRT|SLP"
    r"|CCC-SLP|DNP|CNP|PMHNP|AGNP|LPC|OD|Jr|Sr|Esq)\b\.?"
)
_AGE_CUE = re.compile(
    r"(?:,? (?:is|was) an? |, (?:an? )?|,? \(?)(?:\d{1,3}|[a-z]+ty)(?:[ -]{0,2}(?:years?|yrs?|yo\b|y/o"
    r"|y\.o)|[ ]?[MF]\b)"
)
_IN_APPOSITION = compile_small(rf"(?:, ?| \()(?:(?:his|her|their|the|patient's|pt's) )*(?:{RELATIONS})\b")
_INITIALS = re.compile(
    r"\b(?:[Pp]atient|[Pp]t|[Rr]esident|[Cc]lient|[Ii]nitials|[Mm]rs?|[Mm]s|by|with"
    r"|of)\b[.:]? {0,2}(?P<a>(?:[A-Z]\. ?){1,2}[A-Z]\.)|(?:^"
    r"|\n)(?P<b>[A-Z]\.[A-Z]\.(?:[A-Z]\.)?)(?=,? (?:is|was|\d|presents|reports|denies))"
    r"|\b[Ii]nitials?[: ]{1,3}(?P<c>[A-Z]{2,3})\b|(?:^|\n|[ \t]{2})(?P<d>[A-Z]{2,3}[:/][A-Za-z]{2,3})(?=\s*(?:\n|$))"
    r"|\b(?:MD|DO|RN|NP|PA|M\.D\.) ?[/:] ?(?P<e>[a-z]{2,3})(?=\s*(?:\n|$))"
)
_CHILDREN = re.compile(
    r"\b(?:children|kids|siblings|sons|daughters|brothers|sisters|twins|triplets|grandchildren|pets"
    r"|dogs|cats)(?:,| are|:| named| -)? ?[(:]? ?(?=[A-Z])"
)
_NEXT_IN_LIST = re.compile(
    r" ?\(?,? ?\(?(?:age[ds]? )?(?:\d{1,2}(?: ?(?:years?|yrs?|yo|y|months?|mo|m)\b)?)?\)?,? ?(?:and " r"|& )?"
)
_BETWEEN = re.compile(r" |\^| ?-|\t| [\"(']|[\"')] ")


def take(page: Page, position: int, *, plain_words: bool, small: bool = False, limit: int = 4) -> list[int]:
    """The tokens of a name that starts at `position`, or none.

    Args:
        page: The text.
        position: Where the cue ends.
        plain_words: Whether a capitalised English word may be the name (after "Dr." yes, after "by" no).
        small: Whether words in small letters may be the name ("dr smith").
        limit: At most so many tokens.
    """
    taken: list[int] = []
    index = page.at(position)
    if index >= len(page.tokens) or page.tokens[index].start - position > 2:
        return []
    while index < len(page.tokens) and len(taken) < limit:
        if not _name_part(page, index, plain_words=plain_words or bool(taken), small=small, first=not taken):
            break
        taken.append(index)
        if index + 1 >= len(page.tokens) or not adjoining(page, index):
            break
        index += 1
    while taken and page.tokens[taken[-1]].low in PARTICLES and page.tokens[taken[-1]].kind == LOWER:
        taken.pop()
    kinds = {page.tokens[i].kind for i in taken}
    if (kinds == {INITIAL} and len(taken) == 1) or (
        not plain_words
        and not kinds - {INITIAL, UPPER}
        and not any(page.lex.is_name(page.tokens[i].low) for i in taken)
    ):
        return []
    return taken


def adjoining(page: Page, index: int) -> bool:
    """Whether token `index` and the next may belong to one name; a full stop only after an initial or "St."."""
    gap = page.gap(index)
    if gap in (". ", "."):
        return page.tokens[index].kind == INITIAL or page.tokens[index].low in (
            "st",
            "wm",
            "chas",
            "jos",
            "thos",
            "geo",
            "jas",
        )
    return bool(_BETWEEN.fullmatch(gap))


def _name_part(page: Page, index: int, *, plain_words: bool, small: bool, first: bool) -> bool:
    token, lex = page.tokens[index], page.lex
    if token.low in CREDENTIALS and token.kind != LOWER and (not first or token.kind == UPPER):
        return False
    if token.kind == LOWER:
        if not first and token.low in PARTICLES:
            return index + 1 < len(page.tokens) and page.tokens[index + 1].kind != LOWER
        known = lex.is_name(token.low) or token.low in lex.proper
        return (
            small and len(token.low) > 2 and (known or not lex.is_word(token.low)) and not _closed(page, index)
        ) or (first and token.low in _OPENING)
    if token.low in NOT_NAMES and not (token.low in BOTH and (plain_words or not first)):
        return False
    if token.kind == INITIAL:
        return token.text != "I" or not first
    named = lex.is_name(token.low)
    if lex.is_allowed(token.low) and not named:
        return plain_words and token.kind == TITLE and (token.low in lex.eponyms or token.low in BOTH)
    if token.kind == UPPER and len(token.low) < 4 and not named:
        return plain_words and not first and any(c in "aeiouy" for c in token.low)
    if plain_words or named:
        return True
    return not (lex.is_word(token.low) or lex.is_medical(token.low) or _VOWELS.isdisjoint(token.low))


def _closed(page: Page, index: int) -> bool:
    token = page.tokens[index]
    return token.low in NOT_NAMES or page.lex.is_allowed(token.low) or page.lex.is_medical(token.low)


def _before(page: Page, position: int) -> list[int]:
    """Up to four capitalised tokens that end at `position`."""
    index = page.at(position) - 1
    taken: list[int] = []
    while index >= 0 and len(taken) < 4:
        token = page.tokens[index]
        touching = token.end == position if not taken else adjoining(page, index)
        if token.kind == LOWER and not (taken and token.low in PARTICLES):
            break
        if not touching or token.low in NOT_NAMES or token.low in CREDENTIALS or _only_allowed(page, index):
            break
        taken.append(index)
        index -= 1
    if (
        index >= 0
        and taken
        and page.gap(index) == ", "
        and page.tokens[index].kind != LOWER
        and not _closed(page, index)
        and page.opens(index)
    ):
        taken.append(index)  # "Last, First MD"
    while taken and page.tokens[taken[-1]].kind == LOWER:
        taken.pop()
    return taken


def _only_allowed(page: Page, index: int) -> bool:
    low = page.tokens[index].low
    return page.lex.is_allowed(low) and not page.lex.is_name(low) and low not in page.lex.eponyms


def announced(page: Page) -> Iterator[int]:
    """Indexes of the tokens that a cue makes part of a name."""
    view, low = page.view, small_letters(page.view)
    for match in _TITLE_CUE.finditer(low):
        small = match[0].rstrip(". \t").lower() in ("mr", "mrs", "ms", "dr", "miss", "doctor", "prof")
        taken = take(page, match.end(), plain_words=True, small=small)
        yield from taken
        if match[0][:3].lower() == "drs":
            yield from _list_goes_on(page, taken)
    for cue, plain_words in ((_RELATION_CUE, True), (_STRONG_CUE, True), (_WEAK_CUE, False)):
        for match in cue.finditer(low):
            yield from take(page, match.end(), plain_words=plain_words)
    for match in _CREDENTIAL.finditer(view):
        yield from _credentialed(page, match)
    for match in _CHILDREN.finditer(view):
        yield from _enumerated(page, match.end())
    yield from _described(page)
    yield from _last_first(page)


def _list_goes_on(page: Page, taken: list[int]) -> Iterator[int]:
    while taken and taken[-1] + 1 < len(page.tokens):
        last = taken[-1]
        step = 2 if page.tokens[last + 1].low == "and" else 1
        if last + step >= len(page.tokens) or page.view[page.tokens[last].end] not in ", ":
            return
        taken = take(page, page.tokens[last + step].start, plain_words=True)
        yield from taken


def _enumerated(page: Page, position: int) -> Iterator[int]:
    """ "two children (Juniper, 6, and Ash, 3)"."""
    taken = take(page, position, plain_words=True)
    while taken:
        yield from taken
        following = _NEXT_IN_LIST.match(page.view, page.tokens[taken[-1]].end)
        taken = take(page, following.end(), plain_words=True) if following else []


def _credentialed(page: Page, match: re.Match[str]) -> Iterator[int]:
    taken = _before(page, match.start())
    tokens = [page.tokens[i] for i in taken]
    if not tokens or all(t.kind == INITIAL for t in tokens):
        return
    comma = match[0].startswith(",")
    if comma or any(page.lex.is_name(t.low) or not page.lex.is_word(t.low) for t in tokens):
        yield from taken


def _described(page: Page) -> Iterator[int]:
    """ "Stone is a 54-year-old", "Hope, his daughter", "Will (son)"."""
    for match in _AGE_CUE.finditer(page.view):
        yield from _before(page, match.start())
    for match in _IN_APPOSITION.finditer(small_letters(page.view)):
        yield from (i for i in _before(page, match.start()) if page.tokens[i].kind == TITLE)


def _last_first(page: Page) -> Iterator[int]:
    """ "GARCIA, MARIA L." and "Stone, Helen": both name-like, and at least one no ordinary word or both known names."""
    for i in range(len(page.tokens) - 1):
        a, b = page.tokens[i], page.tokens[i + 1]
        if (
            page.view[a.end : a.end + 1] != ","
            or b.start - a.end not in (1, 2, 3)
            or a.kind != b.kind
            or a.kind not in (TITLE, UPPER)
        ):
            continue
        if _closed(page, i) or _closed(page, i + 1) or page.gap(i).strip(" ,") or "\n" in page.gap(i):
            continue
        lex = page.lex
        named = [lex.is_name(t.low) for t in (a, b)]
        unknown = [not lex.is_word(t.low) for t in (a, b)]
        if all(named) or (
            any(unknown)
            and (a.kind == TITLE or any(named) or b.low in lex.proper)
            and (named[0] or unknown[0] or page.opens(i))
        ):
            yield from (i, i + 1)


def initials(view: str) -> Iterator[tuple[int, int]]:
    """Spans of a person's initials that stand for the name ("pt J.D.", the transcriptionist's "JK/mm")."""
    for match in _INITIALS.finditer(view):
        group = next(name for name in "abcde" if match[name])
        yield match.span(group)
