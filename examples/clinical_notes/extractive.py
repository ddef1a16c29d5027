"""An extractive summariser that stands where a model would: offline, free, and honest about what it is.

It invents nothing. It scores the lines of the text it is given by how many of the text's frequent words they hold
(Luhn 1958), favours lines that speak of a diagnosis, a treatment or a plan, and returns the best in their order.
"""

from __future__ import annotations

import re
from collections import Counter

from flujo.core import ModelRequest, ModelResponse, ModelUsage, Price

NAME = "extractive-summariser"
PRICE = Price()
"""It runs in process: nothing to pay."""

_WORD = re.compile(r"[^\W\d_]{4,}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\[])")
_CUE = re.compile(
    r"(?i)\b(diagnos|impression|assessment|plan|follow|discharg|admitted|started|stopp|treat|surgery|biopsy|"
    r"refer|recommend|continue|increase|reduce|return)"
)
_SHORTEST = 12
_WORDS_PER_PART = 25
"""A dictation without full stops is cut into parts of so many words."""


def sentences(text: str) -> list[str]:
    """Sentences and lines of a text that say something, in their order."""
    lines = (line.strip(" \t-*•|") for line in text.splitlines())
    parts = (part for line in lines for sentence in _SENTENCE_END.split(line) for part in _parts(sentence.strip()))
    return [part for part in parts if len(part) >= _SHORTEST and len(_WORD.findall(part)) >= 2]


def _parts(sentence: str) -> list[str]:
    words = sentence.split()
    if len(words) <= 2 * _WORDS_PER_PART:
        return [sentence]
    return [" ".join(words[at : at + _WORDS_PER_PART]) for at in range(0, len(words), _WORDS_PER_PART)]


def summarise(text: str, most_words: int) -> str:
    """The sentences that carry most of what the text talks about, up to `most_words` words."""
    found = sentences(text)
    frequent = Counter(word.lower() for sentence in found for word in _WORD.findall(sentence))

    def score(sentence: str) -> float:
        words = {word.lower() for word in _WORD.findall(sentence)}
        weight = sum(frequent[word] for word in words) / (len(words) + 3)
        return weight + 2 * bool(_CUE.search(sentence)) - sentence.count("[") / 2

    chosen: list[str] = []
    words = 0
    for sentence in sorted(found, key=score, reverse=True):
        length = len(sentence.split())
        if sentence not in chosen and words + length <= most_words:
            chosen.append(sentence)
            words += length
    return "\n".join(sorted(chosen, key=found.index))


async def send(request: ModelRequest) -> ModelResponse:
    """Answer a request as a model would: the last message is the text, `max_tokens` bounds the words."""
    text = request.messages[-1].content
    summary = summarise(text, most_words=request.max_tokens or 120)
    used = ModelUsage(input_tokens=len(text.split()), output_tokens=len(summary.split()))
    return ModelResponse(content=summary, usage=used, model=NAME, finish_reason="stop")
