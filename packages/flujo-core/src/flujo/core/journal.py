"""The journal of a run: what ended, in the order it ended. The state of a run is a fold of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .outcome import Outcome
from .result import StepRecord


class Entry(NamedTuple):
    """The end of a step. One entry holds both instants, its start and its end.

    Attributes:
        node: Index of the step in its plan.
        outcome: How it ended.
        changes: Context fields it wrote; None when it wrote none.
        record: The facts for people.
    """

    node: int
    outcome: Outcome
    changes: Mapping[str, object] | None
    record: StepRecord


Journal = list[Entry]
"""Entries are only ever appended."""
