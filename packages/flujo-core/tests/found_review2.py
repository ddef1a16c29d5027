"""Faults found by the second hostile review; each test fails until its fault is mended."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from flujo.core import EntryData, Hold, MemoryStore, PauseForHumanInput, step

pytestmark = pytest.mark.anyio


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


class Slow(MemoryStore):
    """Takes its time."""

    def __init__(self, seconds: float = 0.02) -> None:
        super().__init__()
        self.seconds = seconds

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        await anyio.sleep(self.seconds)
        await super().append(hold, rows)
