"""Several streams, one reader."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import anyio

from flujo.core import ConfigurationError
from flujo.streaming.pump import Pump, stop_all

__all__ = ["Tagged", "merge"]


class Tagged(NamedTuple):
    """A chunk, and the name of the stream it comes from; `error` where that stream failed and the others go on."""

    name: str
    value: Any
    error: Exception | None = None


class _Merged:
    """The chunks of several streams in the order they come; each waits with one until the reader took it."""

    def __init__(self, streams: dict[str, AsyncIterator[Any]], isolated: bool) -> None:
        self._offers: deque[tuple[Tagged, anyio.Event]] = deque()
        self._news = anyio.Event()
        self._isolated = isolated
        self._taken: anyio.Event | None = None
        self._told: set[str] = set()
        self.pumps: dict[str, Pump] = {}
        for name, stream in streams.items():
            pump = self.pumps[name] = Pump(stream, partial(self._give, name))
            pump.told = self._look

    async def _give(self, name: str, item: Any) -> None:
        taken = anyio.Event()
        self._offers.append((Tagged(name, item), taken))
        self._news.set()
        await taken.wait()

    def _look(self) -> None:
        self._news.set()

    def __aiter__(self) -> _Merged:
        return self

    async def __anext__(self) -> Tagged:
        if self._taken is not None:
            self._taken.set()
            self._taken = None
        while True:
            for name, pump in self.pumps.items():
                if pump.error is not None and name not in self._told:
                    self._told.add(name)
                    if not self._isolated:
                        raise pump.error
                    return Tagged(name, None, pump.error)
            if self._offers:
                item, self._taken = self._offers.popleft()
                return item
            if all(pump.ended.is_set() for pump in self.pumps.values()):
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()


@asynccontextmanager
async def merge(
    *, on_error: Literal["cancel", "isolate"] = "cancel", **streams: AsyncIterator[Any]
) -> AsyncIterator[AsyncIterator[Tagged]]:
    """Read several streams as one: `async with merge(a=first, b=second) as chunks`, each chunk with its stream's name.

    Each stream is pulled by a task of its own and waits with one chunk until that was taken; the order within a stream
    is kept.

    Args:
        on_error: Of a stream that fails: "cancel" raises its error and ends the others, "isolate" tells of it by a
            `Tagged` with `error`, and the others go on.
        **streams: The streams by name; all are closed at the end of the block.

    Raises:
        ConfigurationError: There is no stream, or `on_error` is unknown.
    """
    if not streams or on_error not in ("cancel", "isolate"):
        raise ConfigurationError("merge cannot be used", "it takes streams by name, and on_error cancel or isolate")
    merged = _Merged(streams, on_error == "isolate")
    for pump in merged.pumps.values():
        pump.start()
    try:
        yield merged
    finally:
        await stop_all(merged.pumps.values())
