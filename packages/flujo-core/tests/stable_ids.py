"""Ids of parametrized tests, the same in every process: the workers of a run must agree on them."""

from __future__ import annotations

import re


def shown(value: object) -> str:
    """A value as an id, without the address that the repr of a function holds."""
    return re.sub(" at 0x[0-9a-f]+", "", str(value))
