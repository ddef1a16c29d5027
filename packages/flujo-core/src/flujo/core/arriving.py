"""The chunks of a streaming step that runs elsewhere, on their way from its worker to its reader: one at a time."""

from __future__ import annotations

import anyio

from .execution import StepOutcome
from .folds import Chunks
from .outcome import Failure, Paused


class Arriving:
    """What stands for the generators of one attempt where its reader is.

    Args:
        hint: Type of the chunks.

    Attributes:
        hint: The same.
        count: How many were taken.
        done: How the attempt ended, once it has.
        is_answered: Whether its worker said how it ended: no chunk comes after that.
    """

    def __init__(self, hint: object) -> None:
        self.hint: object = hint
        self.count: int = 0
        self.done: StepOutcome | None = None
        self.is_answered: bool = False
        self._offer: tuple[object, anyio.Event] | None = None
        self._news = anyio.Event()

    @property
    def takes(self) -> bool:
        """Whether a chunk may be given: none lies here, and none was the last."""
        return self._offer is None and not self.is_answered

    async def give(self, value: object) -> None:
        """Give the next chunk, and wait until the one after is wanted."""
        _, taken = self._offer = (value, anyio.Event())
        self._news.set()
        await taken.wait()

    def end(self, done: StepOutcome) -> None:
        """The attempt has ended."""
        self.done = done
        self._news.set()

    async def chunks(self) -> Chunks:
        """The chunks, as if they were made here; at the end it raises what the attempt ended with."""
        while self._offer is not None or self.done is None:
            if self._offer is None:
                await self._news.wait()
                self._news = anyio.Event()
                continue
            value, taken = self._offer
            self._offer = None
            self.count += 1
            yield value
            taken.set()
        if isinstance(self.done.outcome, Paused):
            raise self.done.outcome.request
        if isinstance(self.done.outcome, Failure):
            raise self.done.outcome.error
