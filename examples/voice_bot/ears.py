"""From frames of sound to what was said: pocketsphinx with a grammar, which stops listening when a command is complete.

A voice bot waits until somebody has finished. Most wait for half a second of silence or more. Here 0.2 s are enough
when what was heard so far is a whole phrase and not the beginning of a longer one; else it is 0.5 s.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pocketsphinx import Decoder, Vad

from .audio import FRAME_S, HEARD_BYTES, HEARD_HZ, to_samples

WARM_UP_FRAMES = 10  # the detector of voices takes the first noise it meets for one
ONSET_FRAMES = 3  # voiced frames in a row that make a beginning, or an interruption: 60 ms
BEFORE_FRAMES = 15  # what was heard before that, and belongs to the first word
COMPLETE_FRAMES = 10  # silence after a whole phrase: 0.2 s
SILENCE_FRAMES = 25  # silence after anything else: 0.5 s
ROOM_FRAMES = 50  # the quietest of so many is how loud the room is
LOUD = 1.5  # so many times as loud as the room is speech: the detector of voices itself holds on for 0.1 s
FIRST_MEAN = "61.7,-4.8,-3.8,8.8,-4,-0.8,-3.3,-15.7,-6.2,-3.6,4.2,1.7,-8"
"""The mean spectrum that a session begins with, as it was after 12 commands of two made voices.

The decoder goes on learning it from what it hears. With its own first mean, made for other microphones, it
misunderstood 6 of 28 commands that were the first of a session; with this one none.
"""
LONGEST_FRAMES = 500  # a fan or a radio that is heard as speech ends here: 10 s


@dataclass(frozen=True, slots=True)
class Onset:
    """Somebody began to speak."""

    frame: int
    """The frame in which that became sure; frames of 20 ms are counted from 0."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Somebody spoke and has finished."""

    text: str | None
    """A phrase of the grammar, or None: it was none, or too unlike the phrase that is nearest."""
    nearest: str
    """The words of the grammar that are nearest to what was said; empty when none are near."""
    score: float
    """How like those words it was: 0 is best; below `least_score` the phrase is not believed."""
    end: int
    """The frame after the last one that was louder than the room: where speech ended."""
    seconds: float
    """How long somebody spoke."""
    decided: int
    """The frame in which it became sure that this was all."""


def grammar(phrases: Sequence[str]) -> str:
    """Give a list of phrases as a grammar in the JSGF format."""
    return f"#JSGF V1.0;\ngrammar phrases;\npublic <phrase> = {' | '.join(phrases)};\n"


def least_score(seconds: float) -> float:
    """Give what a phrase of that length must score to be believed.

    A grammar has no word for what is not in it: without this, "my neighbour bought a new car" is a question about the
    weather. The line was found with four made voices only; the README has the figures.
    """
    return -0.3 - 0.25 * seconds


class Ears:
    """Listens to frames of 20 ms, one at a time, for the phrases of one of several grammars.

    Args:
        grammars: Phrases, in small letters, by the name of the grammar; the first is the one that is listened for.
    """

    def __init__(self, grammars: Mapping[str, Sequence[str]]) -> None:
        self._grammars = {name: tuple(phrases) for name, phrases in grammars.items()}
        self._decoder = Decoder(lm=None, cmninit=FIRST_MEAN, loglevel="FATAL")
        for name, phrases in self._grammars.items():
            self._decoder.add_jsgf_string(name, grammar(phrases))
        self._vad = Vad(mode=2, sample_rate=HEARD_HZ, frame_length=FRAME_S)
        if self._vad.frame_bytes != HEARD_BYTES:
            raise ValueError(f"pocketsphinx wants frames of {self._vad.frame_bytes} bytes, not {HEARD_BYTES}")
        self._before = deque[bytes](maxlen=BEFORE_FRAMES)
        self._grammar = next(iter(self._grammars))
        self._phrases = self._grammars[self._grammar]
        self._sound = bytearray()
        self._frame = -1
        self._voiced = self._silent = self._began = self._end = 0
        self._room = deque[float](maxlen=ROOM_FRAMES)
        self.listening = False
        """Whether somebody is speaking."""

    @property
    def frame(self) -> int:
        """The frame that was heard last, counted from 0; -1 before the first."""
        return self._frame

    def listen_for(self, name: str) -> None:
        """Listen for the phrases of another grammar, from the next utterance on."""
        if name not in self._grammars:
            raise ValueError(f"there is no grammar {name!r}; known are {', '.join(self._grammars)}")
        self._grammar = name

    def hear(self, frame: bytes) -> Onset | Heard | None:
        """Listen to the next 20 ms."""
        self._frame += 1
        voiced = bool(self._vad.is_speech(frame))
        loudness = float(np.sqrt(np.mean(to_samples(frame) ** 2)))
        if not self.listening:
            self._room.append(loudness)
            return self._wait(frame, voiced)
        if loudness > LOUD * min(self._room):
            self._end = self._frame + 1
        self._take(frame)
        self._silent = 0 if voiced else self._silent + 1
        return self._finished() if self._may_end() else None

    def _wait(self, frame: bytes, voiced: bool) -> Onset | None:
        """Listen before anybody speaks."""
        self._before.append(frame)
        self._voiced = self._voiced + 1 if voiced and self._frame >= WARM_UP_FRAMES else 0
        if self._voiced < ONSET_FRAMES:
            return None
        self._phrases = self._grammars[self._grammar]
        self._decoder.activate_search(self._grammar)
        self._decoder.start_utt()
        self._sound.clear()
        for earlier in self._before:
            self._take(earlier)
        self._before.clear()
        self.listening, self._silent, self._voiced = True, 0, 0
        self._began, self._end = self._frame + 1 - ONSET_FRAMES, self._frame + 1
        return Onset(self._frame)

    def _take(self, frame: bytes) -> None:
        """Decode a frame of the utterance."""
        self._sound += frame
        self._decoder.process_raw(frame, False, False)

    def _may_end(self) -> bool:
        if self._silent >= SILENCE_FRAMES or self._frame - self._began >= LONGEST_FRAMES:
            return True
        if self._silent < COMPLETE_FRAMES:
            return False
        so_far = self._decoder.hyp()
        return so_far is not None and self._is_whole(so_far.hypstr)

    def _is_whole(self, text: str) -> bool:
        return text in self._phrases and not any(phrase.startswith(f"{text} ") for phrase in self._phrases)

    def _finished(self) -> Heard:
        self._decoder.end_utt()
        self.listening = False
        heard = self._judged()
        if heard.text is None:
            # The decoder learns how loud and bright a voice is while it listens, which is too late for the first
            # words of a new one. A second look at the whole knows it from the start.
            self._decoder.start_utt()
            self._decoder.process_raw(bytes(self._sound), False, True)
            self._decoder.end_utt()
            again = self._judged()
            heard = again if again.text is not None else heard
        return heard

    def _judged(self) -> Heard:
        """Give what the decoder has found, as a phrase if it is believed."""
        found = self._decoder.hyp()
        words, best = ("", 0.0) if found is None else (found.hypstr, found.best_score)
        score = math.log(best) if best > 0 else -math.inf
        seconds = (self._end - self._began) * FRAME_S
        believed = words in self._phrases and score >= least_score(seconds)
        return Heard(words if believed else None, words, score, self._end, seconds, self._frame)
