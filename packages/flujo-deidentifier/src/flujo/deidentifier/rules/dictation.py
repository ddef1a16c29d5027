"""Dictated and hasty text in small letters: names after cues, spelled-out names, numbers in words.

Without capitals the dictionary is the only witness: after "doctor", "his wife" or "an operative note on", a word in
small letters that is no English word is a name, and so are the like that follow it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.rules.pattern import compile_rule, compile_small, scan, small_letters
from flujo.deidentifier.rules.tokens import LOWER, Page
from flujo.deidentifier.rules.vocabulary import CREDENTIALS, GENERIC, NOT_NAMES, PARTICLES, PERSON_VERBS

__all__ = ["announced_small", "find"]

_CUE = compile_small(
    r"(?<![\w-])(?P<title>doctor|dr\.?|mister|missus|mrs?\.?|ms\.?|miss|surgeon|assistants?|an[a]?esthesiologist"
    r"|attending"
    r"|dictating (?:an? |the )?(?:[a-z]{2,20} ){0,3}(?:on|for|regarding|about)"
    r"|(?:note|report|summary|letter|consult|consultation|evaluation|dictation) (?:on|for|regarding)|copy to"
    r"|named|name is"
    r"|patient is|pt is)[ \t]{1,2}"
    r"|(?<![\w-])(?:wife|husband|spouse|partner|mother|father|mom|mum|dad|son|daughter|sister|brother|aunt|uncle"
    r"|niece|nephew"
    r"|cousin|grand(?:mother|father|son|daughter)|fianc[ée]e?|boyfriend|girlfriend|roommate|neighbou?r"
    r"|caregiver)[ \t]{1,2}"
)
_DICTATED_SHARE = 0.004  # capitals per character: prose has five times as many
_VOWELS = frozenset("aeiouy")
_INFLECTED = ("ed", "ing", "ly", "s")
_DIGIT = r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|\d)"
_NUMBER = (
    rf"(?:{_DIGIT}|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty)"
)


def _no_row(match: re.Match[str]) -> bool:
    """Spelled letters, not the alphabet in order ("a b c d")."""
    letters = re.sub(r"[^a-z]", "", match[0].lower())
    return letters not in "abcdefghijklmnopqrstuvwxyz"


_RULES = (
    compile_rule("PERSON", 0.8, r"(?<![\w'.-])[a-z](?:[ -][a-z]){3,30}(?![\w'-])", _no_row),
    compile_rule("PERSON", 0.7, r"\bend of dictation[.,]? (?P<value>[a-z](?: [a-z]){1,2})(?![\w'])"),
    compile_rule("ID", 0.75, rf"(?<!\w)(?:[a-z]{{1,4}} )?dash {_NUMBER}(?:(?: dash)? {_NUMBER}){{2,20}}\b"),
    compile_rule(
        "ID",
        0.75,
        r"\b(?:number|code|pin|badge|account|licen[cs]e|serial)(?: is)? "
        rf"(?P<value>(?:[a-z]{{1,2}} ){{0,3}}{_DIGIT}(?: (?:{_DIGIT}|dash|[a-z](?= {_DIGIT}))){{3,20}})(?!\w)",
    ),
)


def find(view: str) -> Iterator[Finding]:
    """Spelled-out names and numbers in `view`."""
    yield from scan(_RULES, view)


def announced_small(page: Page) -> Iterator[int]:
    """Indexes of the tokens in small letters that a cue makes part of a name."""
    dictated = sum(map(str.isupper, page.view)) < _DICTATED_SHARE * len(page.view)
    for match in _CUE.finditer(small_letters(page.view)):
        index = page.at(match.end())
        if index >= len(page.tokens) or page.tokens[index].start != match.end() or not _heard(page, index):
            continue
        yield index
        yield from _continued(page, index, dictated=dictated and match["title"] is not None)


def _heard(page: Page, index: int) -> bool:
    """Whether a word in small letters is a known name that is no ordinary word, or in no list at all."""
    token, lex = page.tokens[index], page.lex
    if token.kind != LOWER or len(token.low) < 4 or token.low in NOT_NAMES or token.low in CREDENTIALS:
        return False
    return not (lex.is_word(token.low) or lex.is_allowed(token.low) or lex.is_medical(token.low)) and not (
        _VOWELS.isdisjoint(token.low)
    )


def _continued(page: Page, index: int, *, dictated: bool) -> Iterator[int]:
    """The rest of a name: unknown words after the first one, particles, and in dictation one ordinary noun."""
    pending: list[int] = []
    for at in range(index + 1, min(index + 4, len(page.tokens))):
        token = page.tokens[at]
        if page.gap(at - 1) not in (" ", ". ") or token.kind != LOWER:
            return
        if token.low in PARTICLES and len(token.low) > 1:
            pending.append(at)
        elif _heard(page, at) or token.low in page.lex.surnames or token.low in page.lex.proper:
            yield from (*pending, at)
            pending = []
        else:
            if dictated and at == index + 1 and _noun(token.low):
                yield at
            return


def _noun(low: str) -> bool:
    closed = low in NOT_NAMES or low in GENERIC or low in PERSON_VERBS or low in CREDENTIALS
    return len(low) > 3 and not closed and not low.endswith(_INFLECTED)
