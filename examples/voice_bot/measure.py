"""How good the bot is on this machine: a made voice says commands, and what is heard and how soon is counted.

In real time the clock of this machine is read when the first frame of each answer is played. As fast as it can, a
latency is time of the sound (the same on each machine) and the CPU time that this process took for the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .audio import FRAME_S
from .brain import Butler
from .conversation import Brain, Conversation, Event, Said
from .devices import Files
from .ears import Ears, Heard
from .mouth import Mouth
from .phrases import BY_PHRASE, GRAMMARS, House
from .user import Utterance, say

MEASURED = tuple(phrase for phrase, rule in BY_PHRASE.items() if not rule.risky)[:24]
"""Commands that are answered at once. A risky one is too, by a question, but then the next answer is expected."""


@dataclass(frozen=True)
class Row:
    """One command."""

    said: str
    heard: str | None
    seconds: float
    """From the end of speech to the first sound of the answer; infinite where there was none."""


@dataclass(frozen=True)
class Report:
    """What was measured."""

    rows: tuple[Row, ...]

    @property
    def right(self) -> int:
        """How many commands were understood."""
        return sum(row.said == row.heard for row in self.rows)

    def quantile(self, share: float) -> float:
        """Give the latency (s) that so large a share of the answers did not exceed."""
        return quantile([row.seconds for row in self.rows], share)


def quantile(values: Sequence[float], share: float) -> float:
    """Give the value that so large a share of them does not exceed: one of them, nothing between two."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def measure(
    commands: Sequence[str] = MEASURED,
    *,
    voice: str = "en-us",
    words_per_minute: int = 160,
    paced: bool = True,
    brain: Brain | None = None,
) -> Report:
    """Let a made voice say the commands, one after the other, and wait for the answer to each.

    Args:
        commands: What it says.
        voice: Which voice of espeak-ng.
        words_per_minute: How fast it speaks.
        paced: In real time, or as fast as this machine can.
        brain: What answers; None is the rules.
    """
    utterances = [say(text, voice, words_per_minute, seed) for seed, text in enumerate(commands)]
    events = list[Event]()
    with Files([utterance.pcm for utterance in utterances], paced=paced) as files:
        await Conversation(files, Ears(GRAMMARS), Mouth(), brain or Butler(House()), events.append).run()
    ends = [*files.began[1:], math.inf]
    return Report(tuple(map(_row, utterances, files.began, ends, files.answered, [events] * len(utterances))))


def _row(utterance: Utterance, began: int, end: float, answered: float | None, events: list[Event]) -> Row:
    """Find what became of one command, which was said from one frame to another."""
    heard = next((event for event in events if isinstance(event, Heard) and began <= event.decided < end), None)
    if heard is None:
        return Row(utterance.text, None, math.inf)
    said = next(event for event in events[events.index(heard) :] if isinstance(event, Said))
    spoken_until = began * FRAME_S + utterance.end_s
    if answered is not None:
        seconds = answered - spoken_until
    elif said.latency is not None:
        seconds = (heard.decided + 1) * FRAME_S - spoken_until + said.latency.sound
    else:
        seconds = math.inf
    return Row(utterance.text, heard.text, seconds)
