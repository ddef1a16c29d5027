"""One way to write a pattern rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from flujo.deidentifier.findings import Finding

__all__ = ["Rule", "compile_rule", "digits", "luhn", "scan"]


class Rule(NamedTuple):
    """`regex` finds `entity`; the span is group `value` where there is one; `accept` may still say no."""

    entity: str
    score: float
    regex: re.Pattern[str]
    accept: Callable[[re.Match[str]], bool] | None = None


def compile_rule(
    entity: str, score: float, regex: str, accept: Callable[[re.Match[str]], bool] | None = None, *, case: bool = False
) -> Rule:
    """A rule from pattern text; small and capital letters are the same unless `case`."""
    return Rule(entity, score, re.compile(regex, 0 if case else re.IGNORECASE), accept)


def scan(rules: Iterable[Rule], view: str) -> Iterator[Finding]:
    """All findings of all rules; they may overlap."""
    for rule in rules:
        group: str | int = "value" if "value" in rule.regex.groupindex else 0
        for match in rule.regex.finditer(view):
            if rule.accept is None or rule.accept(match):
                yield Finding(match.start(group), match.end(group), rule.entity, rule.score)


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
