"""The loop of the bot: every 20 ms it hears a frame and plays one; in between, an answer is made or stopped.

The sound device is the only clock. A microphone gives a frame each 20 ms; a file may give them as fast as they are
dealt with, and then each waits until the answer is as far as it may get: so the outcome is the same on each machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from .audio import FRAME_S, SILENCE
from .devices import Device
from .ears import Ears, Heard, Onset
from .mouth import Mouth
from .turn import Answer, Latency, Turn


class Brain(Protocol):
    """What answers."""

    @property
    def grammar(self) -> str:
        """The name of the grammar of what it expects to hear next."""
        ...

    def answer(self, heard: Heard) -> Answer:
        """Give what to say to that."""
        ...

    def said(self, text: str, interrupted: bool) -> None:
        """Be told what the human has heard of the last answer."""
        ...


@dataclass(frozen=True, slots=True)
class Saying:
    """The bot begins a sentence."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """An answer is over."""

    text: str
    """What was heard of it."""
    interrupted: bool
    latency: Latency | None
    """None when it was interrupted before anything was played, or there was nothing to say."""


Event = Onset | Heard | Saying | Said
"""What happens in a conversation, in order."""


def ignore(event: Event) -> None:
    """Look at nothing."""


class Conversation:
    """A human and a bot on one sound device.

    Args:
        device: Where sound comes from and goes to.
        ears: What finds the words in it.
        mouth: What speaks.
        brain: What answers.
        tell: Is told what happens, at once.
        half_duplex: Hear nothing while the bot speaks: for loudspeakers that the microphone hears.
    """

    def __init__(
        self,
        device: Device,
        ears: Ears,
        mouth: Mouth,
        brain: Brain,
        tell: Callable[[Event], None] = ignore,
        *,
        half_duplex: bool = False,
    ) -> None:
        self._device, self._ears, self._mouth, self._brain, self._tell = device, ears, mouth, brain, tell
        self._half_duplex = half_duplex
        # what a file costs is the work of this process; where time passes by itself, it is that time
        self._clock = time.perf_counter if device.paced else time.process_time
        self._turn: Turn | None = None

    async def run(self) -> None:
        """Talk until the device has no more sound; being cancelled ends it at any moment."""
        async with anyio.create_task_group() as tasks:
            while (frame := await self._device.hear(idle=self._idle)) is not None:
                await self._tick(frame, tasks)
            if self._turn is not None:
                await self._interrupt(self._turn)

    @property
    def _idle(self) -> bool:
        return self._turn is None and not self._ears.listening

    async def _tick(self, frame: bytes, tasks: TaskGroup) -> None:
        began = self._clock()
        self._ears.listen_for(self._brain.grammar)
        deaf = self._half_duplex and self._turn is not None
        event = None if deaf else self._ears.hear(frame)
        if event is not None:
            self._tell(event)
        if isinstance(event, Onset) and self._turn is not None:
            await self._interrupt(self._turn)
        if isinstance(event, Heard):
            self._begin(event, began, tasks)
        await self._wait(first=isinstance(event, Heard))
        self._play()

    def _begin(self, heard: Heard, began: float, tasks: TaskGroup) -> None:
        endpoint = (heard.decided + 1 - heard.end) * FRAME_S
        self._turn = Turn(self._brain.answer(heard), endpoint, self._clock, began)
        tasks.start_soon(self._turn.run, self._mouth, lambda text: self._tell(Saying(text)))

    async def _wait(self, *, first: bool) -> None:
        """Let the answer get ahead: where no time passes as far as it can, else until its first frame."""
        if self._turn is None:
            return
        if not self._device.paced:
            await self._turn.lead.settled()
        elif first:
            with anyio.move_on_after(FRAME_S / 2):
                await self._turn.lead.settled()

    def _play(self) -> None:
        frame = None if self._turn is None else self._turn.next_frame()
        self._device.play(SILENCE if frame is None else frame.pcm, speech=frame is not None)
        if self._turn is not None and self._turn.over:
            self._close(self._turn)

    async def _interrupt(self, turn: Turn) -> None:
        await turn.interrupt()
        self._close(turn)

    def _close(self, turn: Turn) -> None:
        self._turn = None
        self._brain.said(turn.said, turn.interrupted)
        self._tell(Said(turn.said, turn.interrupted, turn.latency))
