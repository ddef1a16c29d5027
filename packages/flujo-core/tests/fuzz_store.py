"""A store whose process can be gone after anything that it was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flujo.core import MemoryStore, Snapshot
from flujo.core.kept import Hold, Receipt
from flujo.core.snapshot import EntryData


@dataclass(frozen=True)
class Told:
    """One thing that a store was told, and did.

    Attributes:
        word: The method.
        given: What it was given, without the hold.
        before: How much had happened in the world when it was told.
        events: How much had happened when it was done.
    """

    word: str
    given: tuple[object, ...]
    before: int
    events: int


class Diary(MemoryStore):
    """A MemoryStore of one run that remembers all that it was told, in order.

    Args:
        events: Tells how much has happened in the world.
        before: What was told to the stores of the processes before.
    """

    def __init__(self, events: Callable[[], int], before: Sequence[Told] = ()) -> None:
        super().__init__()
        self.events = events
        self.told: list[Told] = list(before)

    async def create(self, snapshot: Snapshot) -> Hold:
        """See RunStore."""
        before = self.events()
        hold = await super().create(snapshot)
        self._note(before, "create", snapshot)
        return hold

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        """See RunStore."""
        before = self.events()
        await super().append(hold, rows)
        self._note(before, "append", tuple(rows))

    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        """See RunStore."""
        before = self.events()
        await super().save(hold, snapshot)
        self._note(before, "save", snapshot)

    async def release(self, hold: Hold) -> None:
        """See RunStore."""
        before = self.events()
        await super().release(hold)
        self._note(before, "release")

    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        """See RunStore."""
        before = self.events()
        hold = await super().claim(position, stood, receipt, rows)
        self._note(before, "claim", position, stood, receipt, tuple(rows))
        return hold

    def _note(self, before: int, word: str, *given: object) -> None:
        self.told.append(Told(word, given, before, self.events()))

    def rows(self) -> list[EntryData]:
        """The journal of the run."""
        return [row for told in self.told if told.word in ("append", "claim") for row in told.given[-1]]  # type: ignore[attr-defined]

    async def after(self, count: int) -> Diary:
        """What a process finds that starts where so many things were told, and then nothing; all went through JSON."""
        left = MemoryStore()
        hold: Hold | None = None
        for told in self.told[:count]:
            given = [read(one) for one in told.given]
            if told.word in ("create", "claim"):
                if told.word == "claim" and hold is not None:
                    left = left.reopened()
                hold = await getattr(left, told.word)(*given)
            else:
                await getattr(left, told.word)(hold, *given)
        found = Diary(self.events, self.told[:count])
        found._runs = left.reopened()._runs
        return found


def read(one: object) -> object:
    """The same as it comes back from JSON."""
    if isinstance(one, Snapshot):
        return Snapshot.model_validate_json(one.sealed().model_dump_json())
    if isinstance(one, EntryData):
        return EntryData.model_validate_json(one.model_dump_json())
    return tuple(map(read, one)) if isinstance(one, tuple) else one
