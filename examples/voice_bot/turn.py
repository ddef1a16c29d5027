"""One answer: words from the pipeline become frames, a few ahead of the loudspeaker, until interrupted."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import anyio

from .mouth import Mouth, Spoken

AHEAD = 4
"""How many frames may be made before they are played: 80 ms."""

Answer = AbstractAsyncContextManager[AsyncIterator[str]]
"""Sentences, given one by one as they are asked for; leaving the block stops what makes them."""


class Lead:
    """The frames that have been made and not played, at most `AHEAD` of them."""

    def __init__(self) -> None:
        self._frames = deque[Spoken]()
        self._changed = anyio.Event()
        self.ended = False
        """Whether nothing more comes."""

    async def put(self, frame: Spoken) -> None:
        """Add a frame, once there is room."""
        while len(self._frames) >= AHEAD:
            await self._changed.wait()
        self._frames.append(frame)
        self._wake()

    def take(self) -> Spoken | None:
        """Take the frame that is to be played now; None when none is ready."""
        if not self._frames:
            return None
        self._wake()
        return self._frames.popleft()

    def clear(self) -> None:
        """Forget what has not been played."""
        self._frames.clear()

    def end(self) -> None:
        """Say that nothing more comes."""
        self.ended = True
        self._wake()

    async def settled(self) -> None:
        """Wait until as much is ready as there is room for, or nothing more comes."""
        while len(self._frames) < AHEAD and not self.ended:
            await self._changed.wait()

    def __len__(self) -> int:
        return len(self._frames)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one answer took to begin, in seconds."""

    endpoint: float
    """From the end of speech until it was sure that it was the end: in time of the sound, the same on each machine."""
    words: float
    """From then until there was a sentence to say."""
    sound: float
    """From then (the end of speech was sure) until the first frame was played."""

    @property
    def total(self) -> float:
        """From the end of speech to the first sound of the answer."""
        return self.endpoint + self.sound


class Turn:
    """The answer to what was heard last.

    Args:
        answer: Where its sentences come from.
        endpoint: How long it took to be sure that somebody has finished (s).
        clock: Gives the time now (s).
        began: What that clock showed before the frame was looked at which made it sure.
    """

    def __init__(self, answer: Answer, endpoint: float, clock: Callable[[], float], began: float) -> None:
        self._answer, self._endpoint, self._clock, self._began = answer, endpoint, clock, began
        self._words: float | None = None
        self._scope, self._over = anyio.CancelScope(), anyio.Event()
        self.lead = Lead()
        self._done, self._saying = list[str](), ""
        self.latency: Latency | None = None
        """Known once something was played."""
        self.interrupted = False

    async def run(self, mouth: Mouth, saying: Callable[[str], None]) -> None:
        """Speak the answer; ``saying`` is told each sentence before it is spoken."""
        try:
            with self._scope:
                async with self._answer as sentences:
                    async for sentence in sentences:
                        if self._words is None:
                            self._words = self._clock() - self._began
                        saying(sentence)
                        async with mouth.speak(sentence) as frames:
                            async for frame in frames:
                                await self.lead.put(frame)
        finally:
            self.lead.end()
            self._over.set()

    def next_frame(self) -> Spoken | None:
        """Take the frame that is played now."""
        frame = self.lead.take()
        if frame is None:
            return None
        if self.latency is None:
            self.latency = Latency(self._endpoint, self._words or 0.0, self._clock() - self._began)
        self._saying = frame.text[: frame.upto]
        if frame.upto == len(frame.text):  # the last one of a sentence
            self._done.append(frame.text)
            self._saying = ""
        return frame

    @property
    def said(self) -> str:
        """What has been heard of the answer: whole words that were played."""
        return " ".join([*self._done, self._saying]).strip()

    @property
    def over(self) -> bool:
        """Whether everything was said and played."""
        return self._over.is_set() and not len(self.lead)

    async def interrupt(self) -> None:
        """Say nothing more, from the next frame on, and wait until everything that worked for it has stopped."""
        self.interrupted = True
        self.lead.clear()
        self._scope.cancel()
        await self._over.wait()
        self.lead.clear()
