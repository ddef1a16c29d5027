"""Identifiers with a shape of their own: they are found by what they are, not by what stands around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.rules import contact, ids
from flujo.deidentifier.rules.pattern import Rule, scan

__all__ = ["find", "may_hold", "rules_of"]


@cache
def rules_of(entities: frozenset[str]) -> tuple[Rule, ...]:
    """The rules that find these types."""
    return tuple(rule for rule in (*contact.RULES, *ids.RULES) if rule.entity in entities)


@cache
def _signs(entities: frozenset[str]) -> tuple[tuple[re.Pattern[str], ...], tuple[str, ...]]:
    """What stands in the end of all that the rules find: each has one of these patterns or words."""
    needs = {rule.needs[0] for rule in rules_of(entities) if rule.needs}
    words = {word for rule in rules_of(entities) if not rule.needs for word in rule.words}
    return tuple(sorted(needs, key=lambda need: (len(need.pattern), need.pattern))), tuple(sorted(words))


def find(view: str, entities: frozenset[str]) -> Iterator[Finding]:
    """What is of these types in `view`."""
    return scan(rules_of(entities), view)


def may_hold(text: str, entities: frozenset[str]) -> bool:
    """Whether anything of these types can stand in `text`: a glance, which costs less than a look."""
    if not text.isascii():
        return True
    low = text.lower()
    needs, words = _signs(entities)
    return any(need.search(low) for need in needs) or any(word in low for word in words)
