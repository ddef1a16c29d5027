"""Findings, and how overlapping ones become one.

The rule that keeps redaction safe: where two findings overlap, the union of both is kept, never one of
them. Dropping the weaker of two would leave the characters that only it covered in the text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["ENTITIES", "STRUCTURED", "Finding", "before", "merge", "placeholder", "replace", "replaced_at"]

# What may stand in a placeholder; the order decides the name of a merged span when scores are equal.
ENTITIES: tuple[str, ...] = (
    "SSN",
    "CARD",
    "IBAN",
    "SECRET",
    "EMAIL",
    "URL",
    "IP_ADDRESS",
    "MRN",
    "HEALTH_PLAN_ID",
    "ACCOUNT",
    "LICENSE",
    "VEHICLE_ID",
    "DEVICE_ID",
    "BIOMETRIC_ID",
    "PHONE",
    "FAX",
    "DATE",
    "AGE_OVER_89",
    "LOCATION",
    "ZIP",
    "ORGANIZATION",
    "PERSON",
    "ID",
)
# Those with a shape of their own.
STRUCTURED = frozenset({"SSN", "CARD", "IBAN", "SECRET", "EMAIL", "URL", "IP_ADDRESS", "PHONE", "FAX"})
_RANK = {name: -i for i, name in enumerate(ENTITIES)}


class Finding(NamedTuple):
    """One identifier: `start` and `end` count characters of the given text, `score` runs from 0 to 1."""

    start: int
    end: int
    entity: str
    score: float


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Sorted findings without overlap; overlapping ones are joined under the name of the surest."""
    merged: list[Finding] = []
    for found in sorted(findings):
        if merged and found.start < merged[-1].end:
            merged[-1] = _join(merged[-1], found)
        elif found.end > found.start:
            merged.append(found)
    return merged


def _join(a: Finding, b: Finding) -> Finding:
    best = max(a, b, key=lambda f: (f.score, f.end - f.start, _RANK.get(f.entity, -99)))
    return Finding(a.start, max(a.end, b.end), best.entity, best.score)


def placeholder(entity: str) -> str:
    """What stands in the redacted text instead of an identifier, e.g. `[PERSON]`."""
    return f"[{entity}]"


def replace(text: str, findings: Iterable[Finding]) -> str:
    """`text` with every finding replaced by its placeholder; findings must be sorted and free of overlap."""
    parts: list[str] = []
    at = 0
    for found in findings:
        parts += (text[at : found.start], placeholder(found.entity))
        at = found.end
    return "".join((*parts, text[at:]))


def replaced_at(position: int, findings: Iterable[Finding]) -> int:
    """Where `position` is after `replace`; the beginning of what it lies in."""
    moved = 0
    for found in findings:
        if found.start >= position:
            break
        if found.end > position:
            return found.start + moved
        moved += len(placeholder(found.entity)) - (found.end - found.start)
    return position + moved


def before(replaced: Iterable[Finding], again: Iterable[Finding]) -> Iterator[Finding]:
    """Where findings of a redacted text stand in the text before; both sorted, and none in a placeholder."""
    left, moved = deque(replaced), 0
    for found in again:
        while left and left[0].start + moved < found.end:
            gone = left.popleft()
            moved += len(placeholder(gone.entity)) - (gone.end - gone.start)
        yield found._replace(start=found.start - moved, end=found.end - moved)
