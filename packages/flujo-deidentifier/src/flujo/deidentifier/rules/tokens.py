"""Words of a text with what the name rules ask about them."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import NamedTuple

from flujo.deidentifier.lexicon import Lexicon, bare, lexicon

__all__ = ["LOWER", "TITLE", "UPPER", "Page", "Token", "read_page"]

TITLE, UPPER, INITIAL, LOWER = "title", "upper", "initial", "lower"
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"'[sS]$")
_CONTRACTION = re.compile(
    r"(?:^[Ii]|'(?:m|ve|ll|d|re|t)|^(?:[Ww]hat|[Tt]hat|[Tt]here|[Hh]ere|[Ww]ho|[Hh]ow|[Ii]t|[Hh]e"
    r"|[Ss]he|[Ll]et)'s)$"
)
_CAMEL = re.compile(r"[A-ZÀ-Þ][a-zß-ÿ]+(?:[A-ZÀ-Þ]['a-zß-ÿ]+)+$|.*['-].*$")
# "al-Masri", "d'Arcy", "O'": the article is small, the name is not.
_ARTICLE = re.compile(r"(?:a[dlnrstz]|el|ibn|bin|abu|ben|ul|dell?|d|l|t)['-][^\W\d_a-zß-ÿ]")
_START_MARKS = frozenset(".!?:;\n\t|*>#=•·\u2013/")


class Token(NamedTuple):
    """A word: its place, its text, its list form, and how it is capitalised."""

    start: int
    end: int
    text: str
    low: str
    kind: str


class Page(NamedTuple):
    """A text as tokens, with the word lists."""

    view: str
    tokens: list[Token]
    starts: list[int]
    lex: Lexicon

    def at(self, position: int) -> int:
        """The index of the first token that starts at `position` or after it."""
        return bisect_left(self.starts, position)

    def gap(self, index: int) -> str:
        """What stands between token `index` and the next one."""
        return self.view[self.tokens[index].end : self.tokens[index + 1].start]

    def opens(self, index: int) -> bool:
        """Whether the token opens a sentence, a line, a list item or a table cell."""
        start = self.tokens[index].start
        before = self.view[max(0, start - 6) : start].rstrip(" \"'([_")
        if not before:
            return start <= 6 or "\n" in self.view[max(0, start - 6) : start]
        if before[-1] == ")" and before[-2:-1].isalnum() and not before[-3:-2].isalpha():
            return True  # "3) Will call"
        return before[-1] in _START_MARKS or (before[-1] == "-" and before[-2:-1] in ("", " ", "\n"))

    def heading(self, index: int) -> bool:
        """Whether the token stands in a short line where every longer word has a capital."""
        start = self.view.rfind("\n", max(0, self.tokens[index].start - 90), self.tokens[index].start) + 1
        end = self.view.find("\n", self.tokens[index].end)
        line = self.view[start : len(self.view) if end < 0 else min(end, start + 91)]
        if len(line) > 70 or line.rstrip().endswith((".", ",")):
            return False
        long_words = [w for w in _WORD.findall(line) if len(w) > 3]
        return len(long_words) > 1 and all(w[0].isupper() for w in long_words)


def read_page(view: str) -> Page:
    """The tokens of `view`; a word that touches a digit is no word ("SpO2") and a possessive s is cut off."""
    tokens: list[Token] = []
    for match in _WORD.finditer(view):
        start, end = match.span()
        if view[start - 1 : start].isdigit() or view[end : end + 1].isdigit():
            continue
        text = match[0]
        if "'" in text and _CONTRACTION.search(text):
            continue
        tail = _POSSESSIVE.search(text)
        if tail and len(text) > 3:
            text, end = text[: tail.start()], end - 2
        tokens.append(Token(start, end, text, bare(text), _kind(text)))
    return Page(view, tokens, [t.start for t in tokens], lexicon())


def _kind(text: str) -> str:
    if not text[0].isupper():
        return TITLE if _ARTICLE.match(text) else LOWER
    if len(text) == 1:
        return INITIAL
    if text.isupper():
        return UPPER
    if text[:-1].isupper() and text[-1] == "s" and len(text) > 2:
        return UPPER
    if not text[1:].islower() and not _CAMEL.match(text):
        return UPPER  # "HBsAg", "KCl"
    return TITLE
