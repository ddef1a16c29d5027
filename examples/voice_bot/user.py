"""A human made of espeak-ng: says a command in one of its voices, in a room with a little noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .audio import HEARD_HZ, SPOKEN_HZ, noise, resampled, to_pcm, to_samples
from .mouth import Mouth, Spoken

BEFORE_S, AFTER_S = 0.3, 0.1
LOUD = 300.0
"""From this amplitude on a sample belongs to speech."""


@dataclass(frozen=True)
class Utterance:
    """What somebody said."""

    text: str
    pcm: bytes
    """As a microphone hears it, at 16 kHz."""
    end_s: float
    """When the speech in it ends."""


def say(text: str, voice: str = "en-us", words_per_minute: int = 160, seed: int = 0) -> Utterance:
    """Make the sound of somebody who says that."""
    pieces = list[bytes]()

    def take(frame: Spoken) -> bool:
        pieces.append(frame.pcm)
        return True

    Mouth(voice, words_per_minute).make(text, take)
    speech = resampled(to_samples(b"".join(pieces)), SPOKEN_HZ, HEARD_HZ)
    speech = np.concatenate([np.zeros(round(BEFORE_S * HEARD_HZ)), speech, np.zeros(round(AFTER_S * HEARD_HZ))])
    loud = np.flatnonzero(np.abs(speech) > LOUD)
    end = (loud[-1] + 1) / HEARD_HZ if len(loud) else 0.0
    return Utterance(text, to_pcm(speech + noise(len(speech), seed)), end)
