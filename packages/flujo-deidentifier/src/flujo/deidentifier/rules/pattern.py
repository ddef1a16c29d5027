"""One way to write a pattern rule.

A rule that does not care for capitals is compiled from small letters and looks at the text in small letters: `re`
then rejects an alternative by its first character, which it does not do under IGNORECASE. That takes about 40 % off
the time of the detectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from string import ascii_lowercase
from typing import NamedTuple

from flujo.deidentifier.findings import Finding

__all__ = [
    "NUMBER",
    "Group",
    "Rule",
    "compile_rule",
    "compile_small",
    "digits",
    "grouped",
    "look",
    "luhn",
    "needing",
    "scan",
    "small_letters",
]

# What must keep its capitals in the text of a pattern: escapes such as \W, the names of groups, flags.
_FIXED = re.compile(r"\\.|\(\?P[<=][^>)]+[>)]|\(\?[a-zA-Z-]+[:)]|(?P<plain>[^\\(]+|\()", re.DOTALL)


NUMBER = r"[+(\d](?<!\d\d)"
"""Where a number begins; not within its digits."""

# A plain view knows no other digits and white space than these; as characters they are found faster than as classes.
_JOINING = r"\t-\r\x1c- ()./-"
_SEVEN_DIGITS = re.compile(rf"[0-9](?=[0-9{_JOINING}]{{6}})(?:[{_JOINING}]*[0-9]){{6}}[0-9{_JOINING}]*")
_BEGINS = re.compile(NUMBER)
_LONG = re.compile(rf"{NUMBER}(?=(?:[{_JOINING}]*[0-9]){{6}})")
_LETTERS = bytes(byte if chr(byte) in ascii_lowercase else ord(" ") for byte in range(256))


class Rule(NamedTuple):
    """`regex` finds `entity`; the span is group `value` where there is one; `accept` may still say no.

    `small`: the regex wants the text in small letters. `cue`: it can only match where this one does. All `needs` and
    one of `words` stand in all that it matches, in small letters, so that it is not tried on other texts. The first
    need (without one, a word) is also its sign in a stream: it stands in the end of a match, whose beginning may be
    out already. `starts`: it can only match where this one does; unlike a cue, at most once in each part of the text.
    `heads`: with these letters, three or two, begins a word of all that it matches. `is_long`: all that it matches has
    seven digits with nothing but white space and `()./-` between them; its starts are looked for in such numbers only.
    """

    entity: str
    score: float
    regex: re.Pattern[str]
    accept: Callable[[re.Match[str]], bool] | None = None
    small: bool = False
    cue: re.Pattern[str] | None = None
    needs: tuple[re.Pattern[str], ...] = ()
    words: tuple[str, ...] = ()
    starts: re.Pattern[str] | None = None
    heads: frozenset[bytes] = frozenset()
    is_long: bool = False


def compile_rule(
    entity: str,
    score: float,
    regex: str,
    accept: Callable[[re.Match[str]], bool] | None = None,
    *,
    case: bool = False,
    cue: str | None = None,
    needs: str | tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    starts: str = "",
    heads: str = "",
    is_long: bool = False,
) -> Rule:
    """A rule from pattern text; small and capital letters are the same unless `case`.

    With `cue`, the beginning of `regex`, the rule is tried only where the cue stands; `accept` sees the text as it is.
    """
    if cue is not None:
        rule = Rule(entity, score, re.compile(regex, re.IGNORECASE), accept, cue=compile_small(f"(?={cue})"))
    elif case:
        rule = Rule(entity, score, re.compile(regex), accept)
    else:
        rule = Rule(entity, score, compile_small(regex), accept, small=True)
    return rule._replace(
        needs=tuple(re.compile(need) for need in ((needs,) if isinstance(needs, str) else needs)),
        words=words,
        starts=(_BEGINS if starts == NUMBER else re.compile(starts)) if starts else None,
        heads=frozenset(heads.encode().split()),
        is_long=is_long,
    )


def needing(needs: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules, each of which needs that unless it says what it needs."""
    return tuple(rule if rule.needs else rule._replace(needs=(re.compile(needs),)) for rule in rules)


def compile_small(regex: str) -> re.Pattern[str]:
    """A pattern for text in small letters (`small_letters`), whatever the capitals in `regex`."""
    return re.compile(_FIXED.sub(lambda m: m[0].lower() if m["plain"] else m[0], regex))


def small_letters(view: str) -> str:
    """`view` in small letters, every character in its place (the capital I with a dot has two small ones)."""
    low = view.lower()
    return low if len(low) == len(view) else "".join(c if len(c.lower()) > 1 else c.lower() for c in view)


class _Asks(NamedTuple):
    """A rule with what it asks of a text that has its sign."""

    heads: frozenset[bytes]
    needs: tuple[re.Pattern[str], ...]
    words: tuple[str, ...]
    is_word_sign: bool
    rule: Rule


class Group(NamedTuple):
    """Rules of which something is asked once for all: a sign, a number of seven digits, heads."""

    sign: re.Pattern[str] | None
    is_long: bool
    heads: frozenset[bytes]
    rules: tuple[_Asks, ...]


def grouped(rules: Iterable[Rule]) -> tuple[Group, ...]:
    """The rules as `look` takes them."""
    groups: dict[tuple[str, bool], list[Rule]] = {}
    for rule in rules:
        groups.setdefault((rule.needs[0].pattern if rule.needs else "", rule.is_long), []).append(rule)
    return tuple(
        Group(
            members[0].needs[0] if members[0].needs else None,
            is_long,
            frozenset[bytes]().union(*(rule.heads for rule in members if all(each.heads for each in members))),
            tuple(_asks(rule) for rule in members),
        )
        for (_, is_long), members in groups.items()
    )


def _asks(rule: Rule) -> _Asks:
    # Words before a value, such as "password", may be out already where the value is not: these are no sign.
    is_word_sign = not rule.needs and "value" not in rule.regex.groupindex
    return _Asks(rule.heads, rule.needs[1:], rule.words, is_word_sign, rule)


def scan(rules: Iterable[Rule], view: str) -> list[Finding]:
    """All findings of all rules; they may overlap."""
    return look(grouped(rules), view)


def look(groups: Iterable[Group], view: str, since: int = 0) -> list[Finding]:
    """What `scan` finds; of what ends before `since`, some may be missing."""
    page = _Page(view, since)
    low, end = page.low, page.low[since:]
    found: list[Finding] = []
    for sign, is_long, any_heads, rules in groups:
        if any_heads and any_heads.isdisjoint(page.heads()):
            continue
        if (sign is not None and not sign.search(low, since)) or (is_long and not page.long_numbers()):
            continue
        for heads, needs, words, is_word_sign, rule in rules:
            if heads and heads.isdisjoint(page.heads()):
                continue
            if needs and not page.has_all(needs):
                continue
            if words and not _any_of(words, end if is_word_sign else low):
                continue
            found += page.findings(rule)
    return found


class _Page:
    """What was asked of a text already.

    By the text of a pattern: the hash of a pattern itself is worked out anew each time, from all of its code.
    """

    __slots__ = ("_heads", "_numbers", "_places", "_since", "_stands", "_view", "low")

    def __init__(self, view: str, since: int) -> None:
        self._view = view
        self.low = small_letters(view)
        self._since = since
        self._stands: dict[str, bool] = {}
        self._places: dict[str, list[int]] = {}
        self._numbers: list[int] | None = None
        self._heads: set[bytes] | None = None

    def heads(self) -> set[bytes]:
        """With what words begin, all in one go: to look for each of seventy takes longer."""
        if self._heads is None:
            words = self.low.encode("latin-1", "replace").translate(_LETTERS).split()
            self._heads = {word[:3] for word in words}
        return self._heads

    def has_all(self, needs: Iterable[re.Pattern[str]]) -> bool:
        """Whether all of them stand in the text."""
        for need in needs:
            found = self._stands.get(need.pattern)
            if found is None:
                found = self._stands[need.pattern] = need.search(self.low) is not None
            if not found:
                return False
        return True

    def findings(self, rule: Rule) -> list[Finding]:
        """What one rule finds."""
        accept, matches = rule.accept, self._matches(rule)
        if not matches:
            return []
        part = "value" if "value" in rule.regex.groupindex else 0
        return [
            Finding(m.start(part), m.end(part), rule.entity, rule.score) for m in matches if not accept or accept(m)
        ]

    def _matches(self, rule: Rule) -> Iterable[re.Match[str]]:
        text = self.low if rule.small else self._view
        if rule.is_long and rule.starts is _BEGINS:
            return _apart(rule.regex, text, self.long_numbers())
        if rule.starts is not None:
            return _apart(rule.regex, text, self._starts(rule.starts, is_long=rule.is_long))
        if rule.cue is None:
            return rule.regex.finditer(text)
        found = (rule.regex.match(self._view, cue.start()) for cue in rule.cue.finditer(self.low))
        return (match for match in found if match)

    def _starts(self, starts: re.Pattern[str], *, is_long: bool) -> list[int]:
        if is_long:
            return [place for place in self.long_numbers() if starts.match(self.low, place)]
        places = self._places.get(starts.pattern)
        if places is None:
            places = self._places[starts.pattern] = [match.start() for match in starts.finditer(self.low)]
        return places

    def long_numbers(self) -> list[int]:
        """Where a number of seven digits begins that goes on behind `since`."""
        if self._numbers is None:
            self._numbers = []
            for run in _SEVEN_DIGITS.finditer(self.low):
                if run.end() > self._since:
                    start = max(0, run.start() - 2)  # with the sign before it
                    self._numbers += [place.start() for place in _LONG.finditer(self.low, start, run.end())]
        return self._numbers


def _any_of(words: tuple[str, ...], text: str) -> bool:
    for word in words:  # noqa: SIM110 - a generator expression takes three times as long, and this is asked all the time
        if word in text:
            return True
    return False


def _apart(regex: re.Pattern[str], text: str, places: Iterable[int]) -> list[re.Match[str]]:
    """What `finditer` gives, where matches begin at these places only."""
    found = []
    after = 0
    for place in places:
        if place >= after and (match := regex.match(text, place)):
            after = match.end()
            found.append(match)
    return found


def digits(text: str) -> int:
    """How many decimal digits `text` has."""
    return sum(c.isdigit() for c in text)


def luhn(text: str) -> bool:
    """Whether the digits of `text` satisfy the Luhn check (ISO/IEC 7812-1), which payment cards and IMEIs carry."""
    total = 0
    for place, char in enumerate(reversed([c for c in text if c.isdigit()])):
        value = int(char) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
