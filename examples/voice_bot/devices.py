"""Where sound comes from and goes to: WAV files, which need no sound card, or a sound card."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread

from flujo.core import FlujoError

from .audio import FRAME_S, HEARD_BYTES, HEARD_HZ, SILENCE, SPOKEN_BYTES, SPOKEN_HZ, frames, noise, to_pcm, write_wav

if TYPE_CHECKING:
    import sounddevice

QUIET_FRAMES = 50
"""How long nothing happens before the next file begins, or the conversation ends: 1 s."""


class Device(Protocol):
    """A microphone and a loudspeaker with one clock: for each frame that is heard one is played."""

    @property
    def paced(self) -> bool:
        """Whether a frame comes each 20 ms, rather than as soon as the last one was dealt with."""
        ...

    async def hear(self, *, idle: bool) -> bytes | None:
        """Give the next 20 ms of the microphone (16 kHz), or None at the end.

        Args:
            idle: Whether nobody speaks, and no answer is on its way.
        """
        ...

    def play(self, frame: bytes, *, speech: bool) -> None:
        """Play 20 ms (22.05 kHz); ``speech`` says whether there is anything to hear in it."""
        ...


class Files:
    """Plays what a human says, one recording after another, and keeps what the bot says.

    Args:
        recordings: Sound, 16 kHz. Each begins when the bot has finished with the one before.
        paced: At the pace of a conversation; else as fast as this machine can.
        interrupt_after: The next recording begins when the bot has been speaking so many seconds, rather than when it
            has finished.
        record: A WAV file for what the bot says, silence where it is silent.
    """

    def __init__(
        self,
        recordings: Sequence[bytes],
        *,
        paced: bool = True,
        interrupt_after: float | None = None,
        record: Path | None = None,
    ) -> None:
        self.paced = paced
        self._recordings = deque(recordings)
        self._interrupt_after = interrupt_after
        self._now: Iterator[bytes] = iter(())
        self._room = _room()
        self._quiet = QUIET_FRAMES
        self._spoken = 0  # frames of speech since a recording ended
        self._frame = -1
        self._start = 0.0
        self.began = list[int]()
        """In which frame each recording began."""
        self.answered = list[float | None]()
        """Where it is paced: when the first speech after each recording was played, in seconds from the start."""
        self._record, self._played = record, bytearray()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._record is not None:
            write_wav(self._record, bytes(self._played), SPOKEN_HZ)

    async def hear(self, *, idle: bool) -> bytes | None:
        """Give the next frame: of a recording, or of a quiet room between two."""
        await self._pace()
        self._quiet = self._quiet + 1 if idle else 0
        frame = next(self._now, None)
        if frame is not None:
            self._quiet = self._spoken = 0
            return frame
        if self._is_due():
            if not self._recordings:
                return None
            self._now = frames(self._recordings.popleft())
            self.began.append(self._frame + 1)
            self.answered.append(None)
        return next(self._room)

    def play(self, frame: bytes, *, speech: bool) -> None:
        """Keep a frame."""
        if self.paced and speech and not self._spoken and self.answered:
            self.answered[-1] = anyio.current_time() - self._start
        self._spoken += speech
        if self._record is not None:
            self._played += frame

    def _is_due(self) -> bool:
        """Whether it is somebody's turn to speak, or time to end."""
        wanted = self._interrupt_after
        interrupts = wanted is not None and bool(self._recordings) and self._spoken * FRAME_S >= max(wanted, FRAME_S)
        return interrupts or self._quiet >= QUIET_FRAMES

    async def _pace(self) -> None:
        self._frame += 1
        if not self.paced:
            await anyio.lowlevel.checkpoint()
            return
        if self._frame == 0:
            self._start = anyio.current_time()
        # a microphone gives a frame when its last sample was heard
        await anyio.sleep_until(self._start + (self._frame + 1) * FRAME_S)


def _room() -> Iterator[bytes]:
    """A quiet room, frame by frame: one second of noise, again and again."""
    while True:
        yield from frames(to_pcm(noise(HEARD_HZ)))


class SoundCard:
    """The microphone and the loudspeaker of this machine, by PortAudio.

    Raises:
        FlujoError: PortAudio is not installed, or there is no microphone or no loudspeaker.
    """

    paced = True

    def __init__(self) -> None:
        self._due = deque[bytes](maxlen=2)
        try:
            import sounddevice  # only who has a sound card needs the library it loads
        except OSError as fault:
            do = "apt-get install libportaudio2, or give WAV files: --wav FILE"
            raise FlujoError("the sound card cannot be used", str(fault), do) from fault
        try:
            self._microphone: sounddevice.RawInputStream = sounddevice.RawInputStream(
                samplerate=HEARD_HZ, channels=1, dtype="int16", blocksize=HEARD_BYTES // 2, latency="low"
            )
            self._loudspeaker: sounddevice.RawOutputStream = sounddevice.RawOutputStream(
                samplerate=SPOKEN_HZ,
                channels=1,
                dtype="int16",
                blocksize=SPOKEN_BYTES // 2,
                latency="low",
                callback=self._fill,
            )
        except sounddevice.PortAudioError as fault:
            do = "check `python -m sounddevice`, or give WAV files: --wav FILE"
            raise FlujoError("there is no sound card to use", str(fault), do) from fault

    def __enter__(self) -> SoundCard:
        self._microphone.start()
        self._loudspeaker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._microphone.close()
        self._loudspeaker.close()

    async def hear(self, *, idle: bool) -> bytes:
        """Give the next frame of the microphone, which never ends."""
        heard, _ = await anyio.to_thread.run_sync(self._microphone.read, HEARD_BYTES // 2)
        return bytes(heard)

    def play(self, frame: bytes, *, speech: bool) -> None:
        """Play a frame next. Only two wait, so that an interruption is not followed by what was made before it."""
        self._due.append(frame)

    def _fill(self, out: memoryview, count: int, time: object, status: object) -> None:
        frame = self._due.popleft() if self._due else SILENCE
        out[:] = frame[: 2 * count].ljust(2 * count, b"\0")
