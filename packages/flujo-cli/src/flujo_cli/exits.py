"""Exit codes that scripts can use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["COMPLETED", "DENIED", "FAILED", "INTERRUPTED", "NOTHING_RAN", "PAUSED", "STOPPED", "of_status", "worst"]

COMPLETED: Final = 0
FINDINGS: Final = 1
"""Only of commands that check something: it was checked, and something is wrong."""
NOTHING_RAN: Final = 2
"""Wrong usage, a file that does not import or compile, an input that cannot be used, a policy that is not met."""
FAILED: Final = 3
STOPPED: Final = 4
"""A limit stopped it."""
PAUSED: Final = 5
DENIED: Final = 6
"""Denied by a guard, or aborted."""
INTERRUPTED: Final = 130

_OF_STATUS = {"completed": COMPLETED, "failed": FAILED, "stopped": STOPPED, "paused": PAUSED, "aborted": DENIED}

# A pause is no fault; a limit did what it was set for; a denial is what somebody must look at first.
_FROM_GOOD_TO_BAD = (COMPLETED, PAUSED, STOPPED, FAILED, DENIED, INTERRUPTED)


def of_status(status: str) -> int:
    """The exit code of a run that ended with `status`."""
    return _OF_STATUS[status]


def worst(codes: Iterable[int]) -> int:
    """The one code that speaks for several runs."""
    return max(codes, key=_FROM_GOOD_TO_BAD.index, default=COMPLETED)
