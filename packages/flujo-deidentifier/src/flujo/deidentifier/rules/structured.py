"""Identifiers with a shape of their own: they are found by what they are, not by what stands around them."""

from __future__ import annotations

from collections.abc import Collection

from flujo.deidentifier.findings import Finding
from flujo.deidentifier.rules import contact, ids
from flujo.deidentifier.rules.pattern import grouped, look

__all__ = ["Shapes"]


class Shapes:
    """The rules that find some types, with what they ask of a text."""

    def __init__(self, entities: Collection[str]) -> None:
        rules = [rule for rule in (*contact.RULES, *ids.RULES) if rule.entity in entities]
        self._groups = grouped(rules)
        # What stands in the end of all that the rules find: each has one of these patterns or words.
        needs = {rule.needs[0] for rule in rules if rule.needs}
        self._needs = sorted(needs, key=lambda need: (len(need.pattern), need.pattern))
        self._words = sorted({word for rule in rules if not rule.needs for word in rule.words})

    def find(self, view: str, since: int = 0) -> list[Finding]:
        """What is of these types in `view`; of what ends before `since`, some may be missing."""
        return look(self._groups, view, since)

    def may_stand_in(self, text: str) -> bool:
        """Whether anything of these types can stand in `text`: a glance, which costs less than a look."""
        if not text.isascii():
            return True
        low = text.lower()
        return any(need.search(low) for need in self._needs) or any(word in low for word in self._words)
