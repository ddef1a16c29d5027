"""Streams give out what redacting the whole text gives, wherever they are cut."""

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.core import ConfigurationError
from flujo.deidentifier import Deidentifier, TextTooLong
from flujo.deidentifier.stream import HoldBack

pytestmark = pytest.mark.anyio

TEXT = (
    "Thanks for the referral. Mrs. Ottoline Vargadottir, born 4/17/1961, was seen by Dr. Stone on 12 March 2024 at "
    "Mercy General Hospital. Her son Will lives at 742 Evergreen Terrace, Apt 4B, Dayton, OH 45402 and can be reached "
    "at (937) 555-0142 or will.v@mail.example.org. Blood pressure was 120/80 and she walks without help. "
    "Vargadottir should return in two weeks, sooner if the cough comes back."
)
SECRETS = ("Ottoline", "Vargadottir", "4/17", "Stone", "12 March", "Will", "Evergreen", "45402", "555-0142", "will.v")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
def deidentifier():
    return Deidentifier(reference_year=2024)


async def pieces(*chunks):
    for chunk in chunks:
        yield chunk


async def redacted(deidentifier, chunks, **options):
    return [piece async for piece in deidentifier.redact_stream(pieces(*chunks), **options)]


@pytest.mark.parametrize("size", [1, 4, 7, 50, 1000])
@pytest.mark.parametrize("hold_chars", [16, 64])
async def test_a_stream_in_pieces_of_any_size_equals_the_whole(deidentifier, size, hold_chars):
    chunks = [TEXT[i : i + size] for i in range(0, len(TEXT), size)]
    assert "".join(await redacted(deidentifier, chunks, hold_chars=hold_chars)) == deidentifier.redact(TEXT)


async def test_what_was_given_out_early_never_holds_a_part_of_an_identifier(deidentifier):
    for cut in range(0, len(TEXT), 5):
        out = "".join(await redacted(deidentifier, [TEXT[:cut], TEXT[cut:]]))
        assert not any(secret in out for secret in SECRETS)


async def test_text_flows_before_the_stream_ends(deidentifier):
    out = await redacted(deidentifier, [TEXT[i : i + 8] for i in range(0, len(TEXT), 8)])
    assert len(out) >= 4
    assert out[0].startswith("Thanks for the referral.")


async def test_a_name_is_remembered_past_the_left_context(deidentifier):
    filler = "The wound is dry and clean and the patient walks well today. " * 40
    text = f"Patient: Hope Rivers\n\n{filler}\nHope went home.\n"
    out = "".join(await redacted(deidentifier, [text[i : i + 90] for i in range(0, len(text), 90)]))
    assert "Hope" not in out


async def test_a_run_without_white_space_is_removed_whole_not_held_for_ever(deidentifier):
    state = HoldBack(lambda *_: [], 64)
    given_out = state.feed("x" * 2_000)
    assert given_out == "[ID]"
    assert state.pending == 0


LETTERS = string.ascii_letters + string.digits
LONG = {
    "a private key": ("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", 64),
    "a web token": ("eyJ{}.{}.{}", 0),
    "a signed address": ("https://example.org/u?sig={}", 0),
    "a run that no rule knows": ("{}", 0),
}


@pytest.mark.parametrize("profile", ["hipaa_safe_harbor", "patterns"])
@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("size", [1, 4, 61, 700])
async def test_what_is_longer_than_may_be_held_is_swallowed_to_its_end(kind, size, profile):
    rng = random.Random(size)
    shape, width = LONG[kind]
    secret = "".join(rng.choices(LETTERS, k=1_800))
    lines = "\n".join(secret[at : at + width] for at in range(0, len(secret), width)) if width else secret
    text = f"Here it is: {shape.format(lines, lines, lines)} and keep it well, for there is no other one of them left."
    state = Deidentifier(profile).hold_back()
    out, longest = "", 0
    for at in range(0, len(text), size):
        out += state.feed(text[at : at + size])
        longest = max(longest, state.pending)
    out += state.finish()
    assert not any(secret[at : at + 8] in out for at in range(len(secret) - 8))
    assert out.count("[") == 1
    assert out.startswith("Here it is: [")
    assert out.endswith("] and keep it well, for there is no other one of them left.")
    assert longest < 700 + size  # nothing is held for ever


@pytest.mark.parametrize("chunks", [[], [""], ["", "", ""]])
async def test_an_empty_stream_gives_nothing(deidentifier, chunks):
    assert await redacted(deidentifier, chunks) == []


async def test_a_fault_stops_the_stream_before_the_text_is_given_out(anyio_backend):
    out = []

    async def read():
        async for piece in Deidentifier(max_chars=50).redact_stream(pieces("Vargadottir " * 20)):
            out.append(piece)

    with pytest.raises(TextTooLong):
        await read()
    assert out == []


async def test_leaving_early_closes_the_source(deidentifier):
    closed = []

    async def source():
        try:
            while True:
                yield TEXT
        finally:
            closed.append(True)

    stream = deidentifier.redact_stream(source())
    async for _ in stream:
        break
    await stream.aclose()
    assert closed == [True]


def test_a_hold_back_that_leaks_is_refused(anyio_backend):
    with pytest.raises(ConfigurationError, match="leak below 16"):
        HoldBack(lambda *_: [], 8)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_random_cuts_leak_nothing(sizes):
    whole = Deidentifier(reference_year=2024)
    state = HoldBack(whole._settled, 64)
    out, at, i = "", 0, 0
    while at < len(TEXT):
        size = sizes[i % len(sizes)]
        out += state.feed(TEXT[at : at + size])
        at, i = at + size, i + 1
    assert out + state.finish() == whole.redact(TEXT)
