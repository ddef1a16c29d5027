"""Identifiers with a shape of their own: they are found by what they are, not by what stands around them."""

from __future__ import annotations

import re
from functools import cache

from flujo.deidentifier.rules import contact, ids
from flujo.deidentifier.rules.pattern import Rule

__all__ = ["may_hold", "rules_of"]


@cache
def rules_of(entities: frozenset[str]) -> tuple[Rule, ...]:
    """The rules that find these types."""
    return tuple(rule for rule in (*contact.RULES, *ids.RULES) if rule.entity in entities)


@cache
def _needed(entities: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(sorted({rule.needs for rule in rules_of(entities)})))


def may_hold(text: str, entities: frozenset[str]) -> bool:
    """Whether anything of these types can stand in `text`: a glance, which costs less than a look."""
    return not text.isascii() or _needed(entities).search(text.lower()) is not None
