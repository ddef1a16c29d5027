"""From text to frames of sound: espeak-ng, called in the process, which makes no more than somebody takes.

The library calls back with every piece of sound it has made, and goes on when the callback returns. The callback waits
until the frames are taken: so the loudspeaker's pace is espeak's pace, and whoever leaves the block stops it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

import anyio
import anyio.from_thread
import anyio.to_thread

from flujo.core import FlujoError

from .audio import FRAME_S, SPOKEN_BYTES, SPOKEN_HZ

SYNCHRONOUS, PIECE_MS = 2, 20
RATE, UTF8 = 1, 1  # of espeak_SetParameter and espeak_Synth
NO_MORE_EVENTS, WORD = 0, 1


class _Event(ctypes.Structure):
    """What espeak-ng tells of a piece of sound: `espeak_EVENT` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # in ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))
_one_at_a_time = threading.Lock()  # the library has one voice in a process


@dataclass(frozen=True, slots=True)
class Spoken:
    """20 ms of speech."""

    pcm: bytes
    text: str
    """What is being said."""
    upto: int
    """How many characters of it have been said when this frame has been played: whole words."""


@cache
def _library() -> ctypes.CDLL:
    """Load espeak-ng and start it, once in a process."""
    try:
        library = ctypes.CDLL("libespeak-ng.so.1")
    except OSError as fault:
        raise FlujoError("the voice bot cannot speak", str(fault), "apt-get install espeak-ng") from fault
    rate = library.espeak_Initialize(SYNCHRONOUS, PIECE_MS, None, 0)
    if rate != SPOKEN_HZ:
        why = f"espeak_Initialize gave {rate} instead of {SPOKEN_HZ} Hz"
        raise FlujoError("espeak-ng does not start", why, "apt-get install --reinstall espeak-ng espeak-ng-data")
    return library


class Mouth:
    """Speaks with a voice of espeak-ng, so many words per minute.

    Raises:
        FlujoError: espeak-ng is not installed, or has no such voice.
    """

    def __init__(self, voice: str = "en-us", words_per_minute: int = 160) -> None:
        self._voice, self._words_per_minute = voice, words_per_minute
        with _one_at_a_time:
            self._choose()

    def _choose(self) -> None:
        if _library().espeak_SetVoiceByName(self._voice.encode()) != 0:
            raise FlujoError(f"voice {self._voice!r}", "espeak-ng has no such voice", "see `espeak-ng --voices`")
        _library().espeak_SetParameter(RATE, self._words_per_minute, 0)

    def make(self, text: str, take: Callable[[Spoken], bool]) -> None:
        """Hand each frame of a text to ``take``, in this thread, until it gives False or there are no more."""
        with _one_at_a_time:
            self._choose()
            cutter = _Cutter(text)
            going = True

            def on_piece(wave: int | None, count: int, events: Iterator[_Event]) -> int:
                nonlocal going
                going = going and all(map(take, cutter.cut(ctypes.string_at(wave, 2 * count) if wave else b"", events)))
                return 0 if going else 1

            callback = _Callback(on_piece)
            _library().espeak_SetSynthCallback(callback)
            said = text.encode() + b"\0"
            _library().espeak_Synth(said, len(said), 0, 1, 0, UTF8, None, None)
            if going:
                all(map(take, cutter.rest()))

    @asynccontextmanager
    async def speak(self, text: str) -> AsyncIterator[AsyncIterator[Spoken]]:
        """Give the frames of a text, made as they are taken; leaving the block stops espeak-ng."""
        into, frames = anyio.create_memory_object_stream[Spoken](0)

        def take(frame: Spoken) -> bool:
            try:
                anyio.from_thread.run(into.send, frame)
            # Whatever it is, nobody takes frames any more: the block was left (BrokenResourceError) or cancelled, which
            # each event loop tells in its own way. It must not pass through C, and the other side has it already.
            except BaseException:
                return False
            return True

        async def make() -> None:
            with into:
                await anyio.to_thread.run_sync(self.make, text, take)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(make)
            with frames:
                yield frames


class _Cutter:
    """Cuts pieces as espeak-ng makes them, of about 49 ms, into frames of 20 ms, and knows which words are over."""

    def __init__(self, text: str) -> None:
        self._text, self._left, self._made = text, b"", 0
        self._words = list[tuple[int, int]]()  # when a word begins (ms), and after how many characters

    def cut(self, piece: bytes, events: Iterator[_Event]) -> Iterator[Spoken]:
        for event in events:
            if event.type == NO_MORE_EVENTS:
                break
            if event.type == WORD:
                self._words.append((event.audio_position, event.text_position - 1))
        self._left += piece
        # the last frame is kept back: nobody knows yet that it is the last
        while len(self._left) > SPOKEN_BYTES:
            frame, self._left = self._left[:SPOKEN_BYTES], self._left[SPOKEN_BYTES:]
            self._made += 1
            played_ms = self._made * FRAME_S * 1000
            upto = max((position for begins, position in self._words if begins < played_ms), default=0)
            yield Spoken(frame, self._text, upto)

    def rest(self) -> Iterator[Spoken]:
        if self._left:
            yield Spoken(self._left.ljust(SPOKEN_BYTES, b"\0"), self._text, len(self._text))
