"""The plugin on streams: what a reader sees of a streaming step is what redacting the whole text gives."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flujo.core import Chunk, ConfigurationError, Flujo, Stage, StreamStep
from flujo.deidentifier import Deidentifier
from flujo.deidentifier.plugin import Plugin

pytestmark = pytest.mark.anyio

TEXT = (
    "Write to jane.roe@mail.example.org or call (937) 555-0142. The number 123-45-6789 is hers; the account "
    "DE89 3704 0044 0532 0130 00 too. Dr. Stone saw her on 12 March 2024, and she walked without help afterwards."
)
SECRETS = ("jane.roe", "555-0142", "123-45-6789", "0532 0130", "Stone", "12 March")


def told(pieces: list[object]) -> StreamStep:
    async def tell(topic: str) -> AsyncIterator[Any]:
        for piece in pieces:
            yield piece

    return StreamStep((Stage.of("tell", tell),), name="tell")


async def read(flujo: Flujo) -> tuple[list[str], object]:
    async with flujo.stream_async("x") as stream:
        texts = [text async for text in stream.text()]
    return texts, stream.result


def cut(text: str, seed: int) -> list[object]:
    rng, pieces, at = random.Random(seed), list[object](), 0
    while at < len(text):
        size = rng.choice((1, 2, 3, 5, 8, 13, 40))
        pieces.append(text[at : at + size])
        at += size
    return pieces


@pytest.mark.parametrize("profile", ["patterns", "hipaa_safe_harbor"])
async def test_check_17_redaction_across_chunks_equals_that_of_the_whole(profile):
    whole = Deidentifier(profile=profile).redact(TEXT)
    plugin = Plugin(profile=profile)
    for seed in range(60 if profile == "patterns" else 6):
        texts, result = await read(Flujo(told(cut(TEXT, seed)), plugins=[plugin]))
        assert "".join(texts) == whole == result.output
        assert sum(result.counts["redactions"].values()) == sum(Deidentifier(profile=profile).counts(TEXT).values())


BESIDE_ANOTHER = (
    "It was $3.50 at noon;4/17/1961 378282246310005\nThe wound is dry.",
    "She lives at 742 Evergreen Terrace, Apt 4B, Dayton, OH 45402Dr. Stone. ",
    "Patient: Hope Rivers 12 March 2024Jean-Luc Picard :, ",
    "Call (937) 555-0142https://example.org/u/jane today.",
)
"""Identifiers that are found only once their neighbour is a placeholder."""


@pytest.mark.parametrize("text", BESIDE_ANOTHER)
async def test_check_17_what_a_second_look_finds_is_taken_out_of_streams_too(text):
    whole = Deidentifier().redact(text)
    assert not any(secret in whole for secret in ("378282246310005", "Stone", "Picard", "https"))
    plugin = Plugin()
    for pieces in ([text], list(text), cut(text, 1), cut(text, 2)):
        texts, result = await read(Flujo(told(pieces), plugins=[plugin]))
        assert "".join(texts) == whole == result.output


@pytest.mark.parametrize("end", range(10, 130, 13))
async def test_check_17_a_stream_that_ends_within_an_identifier_equals_the_whole_that_does(end):
    text = (
        "Paid with 4111 1111 1111 1111 by jane.roe@mail.example.org, 123-45-6789, DE89 3704 0044 0532 0130 00, on call"
    )
    plugin = Plugin(profile="patterns")
    third = max(1, end // 3)
    pieces = [text[at : min(at + third, end)] for at in range(0, end, third)]
    texts, _ = await read(Flujo(told(pieces), plugins=[plugin]))
    assert "".join(texts) == Deidentifier(profile="patterns").redact(text[:end])


async def test_check_17_no_part_of_an_identifier_is_ever_given_out():
    plugin = Plugin(profile="hipaa_safe_harbor")
    for seed in range(6):
        seen = ""
        async with Flujo(told(cut(TEXT, seed)), plugins=[plugin]).stream_async("x") as stream:
            async for text in stream.text():
                seen += text
                assert not any(secret in seen for secret in SECRETS)


async def test_check_18_the_first_text_comes_after_one_window_not_after_the_whole_answer():
    made = 0

    async def tell(topic: str) -> AsyncIterator[str]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield "nothing private stands here "

    flujo = Flujo(StreamStep((Stage.of("tell", tell),), name="tell"), plugins=[Plugin(profile="patterns")])
    async with flujo.stream_async("x") as stream:
        async for _ in stream.text():
            break
    assert made * len("nothing private stands here ") <= 3 * 64


async def test_what_is_held_back_comes_before_an_error():
    async def tell(topic: str) -> AsyncIterator[str]:
        yield "Call (937) 555-0142"
        raise OSError("gone")

    flujo = Flujo(StreamStep((Stage.of("tell", tell),), name="tell"), plugins=[Plugin(profile="patterns")])
    texts = []
    async with flujo.stream_async("x") as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                texts.append(item.value)
    assert "".join(texts) == "Call [PHONE]"
    assert stream.result.error.partial == "Call [PHONE]"


async def test_chunks_that_are_no_texts_are_redacted_as_values():
    async with Flujo(told([{"mail": "jane.roe@mail.example.org"}, 7]), plugins=[Plugin()]).stream_async("x") as stream:
        chunks = [item.value async for item in stream if isinstance(item, Chunk)]
    assert chunks == [{"mail": "[EMAIL]"}, 7]


async def test_a_hold_back_that_is_too_short_is_refused():
    with pytest.raises(ConfigurationError, match="hold_chars=8"):
        Plugin(hold_chars=8)
