"""A plain view of a text for the detectors, with a table back to the original characters.

Full-width digits, mathematical letters, zero-width joiners, soft hyphens, unicode dashes, typographic
quotes, digits of other scripts and Cyrillic or Greek letters inside Latin words are how identifiers slip past
patterns, by accident (a PDF) or on purpose. Detectors see the plain form; findings are given in the original.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from typing import NamedTuple

from flujo.deidentifier.findings import ENTITIES, Finding

__all__ = ["OPAQUE", "Plain", "plain"]

# Stands for every character of a placeholder: no pattern matches it, so redacting twice finds nothing new in it.
OPAQUE = "\ue000"
_PLACEHOLDER = re.compile(r"\[(?:" + "|".join(ENTITIES) + r")\]")

_FOLD = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d\u2043", "-"),
    **dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032\u00b4\uff07", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    "\u2028": "\n",
    "\u2029": "\n",
    "\u0085": "\n",
}
# Letters that look like a Latin one; folded only inside a word that also has Latin letters or digits.
_LOOKALIKE = dict(
    zip(
        "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0423\u0406\u0408\u0405\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u051b\u051d\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf\u03b1\u03bd",
        "ABEKMHOPCTXYIJSaeopcyxijsdhqwABEZHIKMNOPTYXoav",
        strict=True,
    )
)
_RUN = re.compile(r"[\w@.]+")
_ODD = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # with the letter before, to which a combining mark may belong
_LATIN = re.compile(r"[A-Za-z0-9@]")


class Plain(NamedTuple):
    """The plain text and, where it differs from the original, the original place of each of its characters."""

    text: str
    origin: list[int] | None
    length: int

    def original(self, found: Finding) -> Finding:
        """The same finding, in characters of the original text."""
        if self.origin is None:
            return found
        last = self.origin[found.end - 1]
        after = bisect_right(self.origin, last, lo=found.end - 1)
        end = self.origin[after] if after < len(self.origin) else self.length
        return found._replace(start=self.origin[found.start], end=end)

    def position(self, index: int) -> int:
        """Where the original character at `index` stands in the plain text (the next one if it was dropped)."""
        return index if self.origin is None else bisect_right(self.origin, index - 1)


def plain(text: str) -> Plain:
    """The plain view of `text`; costs nothing but one scan when the text is ASCII."""
    origin: list[int] | None = None
    view = text
    if not text.isascii():
        view, origin = _fold(text)
        view = _RUN.sub(_unmask, view)
    if "[" in view:
        view = _PLACEHOLDER.sub(lambda m: OPAQUE * len(m[0]), view)
    return Plain(view, origin, len(text))


def _fold(text: str) -> tuple[str, list[int]]:
    """One character at a time (a letter with its combining marks counts as one), so that places stay known."""
    out: list[str] = []
    origin: list[int] = []
    at = 0
    for odd in _ODD.finditer(text):
        i, n = odd.span()
        out.append(text[at:i])
        origin.extend(range(at, i))
        at = n
        while i < n:
            j = i + 1
            while j < n and unicodedata.combining(text[j]):
                j += 1
            for char in _plain_chars(text[i:j]):
                out.append(char)
                origin.append(i)
            i = j
    origin.extend(range(at, len(text)))
    return "".join((*out, text[at:])), origin


def _plain_chars(cluster: str) -> str:
    if cluster.isascii():
        return cluster
    if cluster in _FOLD:
        return _FOLD[cluster]
    kind = unicodedata.category(cluster[0])
    if kind in ("Cf", "Co") or cluster[0] == "\u034f" or "\ufe00" <= cluster[0] <= "\ufe0f":
        return ""
    if kind == "Zs":
        return " "
    if kind == "Nd":
        return str(unicodedata.digit(cluster[0]))
    folded = unicodedata.normalize("NFKC", cluster)
    if folded[:1] < "\u0250" or "\u1e00" <= folded[:1] <= "\u1eff":
        # A mark that composes with no Latin letter ("ọ̀" of Yoruba) would end the word for every pattern.
        folded = "".join(c for c in folded if not unicodedata.combining(c)) or folded
    return "".join(_FOLD.get(c, c) for c in folded)


def _unmask(match: re.Match[str]) -> str:
    run = match[0]
    if run.isascii() or not _LATIN.search(run):
        return run
    return "".join(_LOOKALIKE.get(c, c) for c in run)
