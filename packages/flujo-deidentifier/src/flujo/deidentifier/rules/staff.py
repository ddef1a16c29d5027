"""Initials that stand for a person: in signatures, after "typed by", in the staff column of a flow sheet."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.lexicon import bare
from flujo.deidentifier.rules.tokens import INITIAL, LOWER, Page
from flujo.deidentifier.rules.vocabulary import ACRONYMS, CREDENTIALS

__all__ = ["signatures"]

_UPPER = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĖĘĚĞĢĪĮİĶĹĻĽŁŃŅŇŌŐŘŚŞŠŢŤŪŮŰŲŹŻŽ"
_SHORT = re.compile(rf"(?<![\w'./-])[{_UPPER}](?:[a-z]?[{_UPPER}]){{1,3}}(?![\w'-])")
_BY = re.compile(
    r"\b(?:(?:by|by:|per|cosign(?:ed)?|co-sign(?:ed)?|approved|transcribed|typed|dictated|initials?:?|scribe:?"
    r"|typist:?|tech:?"
    r"|witness:?) ?)(?:RN |MD |Dr )?$",
    re.IGNORECASE,
)
_DEFINED = re.compile(rf"\((?P<value>[{_UPPER}](?:[a-z]?[{_UPPER}]){{1,3}})\)")
_CLOSES = re.compile(r"[ \t]{0,40}(?:\Z|\n[ \t]{0,40}(?:\n|\Z|[-_=*]{3}))")
_COLUMN = re.compile(rf"(?m)(?:[ \t]{{2}}|\t|\| ?)(?P<value>[{_UPPER}](?:[a-z]?[{_UPPER}]){{1,2}})[ \t|]{{0,40}}$")
_STAFF_HEAD = re.compile(
    r"(?mi)(?:[ \t]{2}|\t|\| ?)(?:init(?:ials?)?|by|prov(?:ider)?|staff|rn|nurse|sign(?:ed|ature)?|sig|tech"
    r"|clinician|who|hcp"
    r"|dr|operator|therapist|entered|given)\.?[ \t|]{0,40}$"
)


def signatures(page: Page, persons: Collection[tuple[int, int]]) -> Iterator[Finding]:
    """Initials in the text of `page`; `persons` are the names found in it, as ranges of tokens."""
    known = {short for first, last in persons for short in _initials(page, first, last)}
    known |= set(_defined(page, {page.tokens[last].end for _, last in persons}))
    columns = set(_columns(page.view))
    for match in _SHORT.finditer(page.view):
        if match.start() in columns or _accepted(page.view, match, known):
            yield Finding(match.start(), match.end(), "PERSON", 0.75)


def _accepted(view: str, match: re.Match[str], known: Collection[str]) -> bool:
    low = bare(match[0])
    if low in CREDENTIALS or low in ACRONYMS:
        return False
    if match[0] in known:
        return True
    if len(match[0]) > 4 or not match[0].isupper():
        return False
    if _BY.search(view, max(0, match.start() - 24), match.start()):
        return True
    before = view[max(0, match.start() - 3) : match.start()]
    opens = before[-2:] == ". " or before[-1:] == "\n"
    return opens and len(match[0]) < 4 and bool(_CLOSES.match(view, match.end()))


def _initials(page: Page, first: int, last: int) -> Iterator[str]:
    """How a name is shortened: "AMO", "AO", "AdO", "ALO"; nothing for a single word."""
    tokens = page.tokens[first : last + 1]
    if not 2 <= len(tokens) <= 5:
        return
    parts = [t for t in tokens if t.kind != LOWER]
    long = [t for t in parts if t.kind != INITIAL]
    split = [piece for t in parts for piece in t.text.split("-") if piece]
    for letters in (parts, long):
        if len(letters) > 1:
            yield "".join(t.text[0] for t in letters)
            yield letters[0].text[0] + letters[-1].text[0]
    yield "".join(piece[0].upper() for piece in split)


def _defined(page: Page, ends: set[int]) -> Iterator[str]:
    """ "Ada Obi RN (AdO)": short forms in brackets shortly after a name."""
    for match in _DEFINED.finditer(page.view):
        if (
            not ends.isdisjoint(range(match.start() - 8, match.start() + 1))
            and bare(match["value"]) not in ACRONYMS | CREDENTIALS
        ):
            yield match["value"]


def _columns(view: str) -> Iterator[int]:
    """Where initials stand in the last column of a table whose head says that staff sign there."""
    at = 0
    for block in re.split(r"(\n[ \t]*\n)", view):
        head = _STAFF_HEAD.search(block)
        if head:
            for match in _COLUMN.finditer(block, head.end()):
                yield at + match.start("value")
        at += len(block)
