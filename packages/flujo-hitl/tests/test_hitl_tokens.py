"""Tokens: bound to all their facts, refused when changed, expired, or of a key that is gone."""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from flujo.core import AlreadyResumed, ConfigurationError, Flujo, PauseForHumanInput, ResumeError, Step, TokenFacts
from flujo.hitl import HmacSigner, SQLiteStore

OLD, NEW = b"o" * 32, b"n" * 40
FACTS = TokenFacts("run-1", "ask?2", "d" * 64, "f" * 64, datetime.now(UTC) + timedelta(days=1), frozenset({"b", "a"}))
BARE = TokenFacts("r\N{GREEK SMALL LETTER OMEGA}", "", "", "")


@pytest.mark.parametrize("facts", [FACTS, BARE])
def test_a_token_opens_to_its_facts(facts: TokenFacts) -> None:
    signer = HmacSigner({"k1": OLD}, "k1")
    token = signer.sign(facts)
    assert token.startswith("fp1.k1.")
    assert token == signer.sign(facts)
    assert signer.open(token) == facts


@pytest.mark.parametrize(
    "text", ["", "run-1", "a.b.c.d", "fp1.k1.x", "fp2.k1.x.y", "fp1..x.y", "fp1.k 1.x.y", "fp1.k1.x.y.z"]
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert HmacSigner({"k1": OLD}, "k1").open(text) is None


def test_no_character_of_a_token_can_be_changed() -> None:
    signer = HmacSigner({"k1": OLD, "k2": NEW}, "k1")
    token = signer.sign(FACTS)
    for place, letter in enumerate(token):
        for other in {"A", "B", "1", "2", "_", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\ud800"} - {letter}:
            changed = token[:place] + other + token[place + 1 :]
            with suppress(ResumeError):
                assert signer.open(changed) is None, changed


@pytest.mark.parametrize("extra", ["=", "A", " ", "\n", "A" * 9000])
def test_nothing_can_be_added_to_a_token(extra: str) -> None:
    signer = HmacSigner({"k1": OLD}, "k1")
    with pytest.raises(ResumeError, match="token cannot be used"):
        signer.open(signer.sign(FACTS) + extra)


def test_keys_are_changed_without_breaking_tokens_that_are_out() -> None:
    old = HmacSigner({"k1": OLD}, "k1").sign(FACTS)
    both = HmacSigner({"k1": OLD, "k2": NEW}, "k2")
    assert both.open(old) == FACTS
    assert both.sign(FACTS).startswith("fp1.k2.")
    with pytest.raises(ResumeError, match="'k1' is not known"):
        HmacSigner({"k2": NEW}, "k2").open(old)
    with pytest.raises(ResumeError, match="changed"):
        HmacSigner({"k1": NEW}, "k1").open(old)


@pytest.mark.anyio
async def test_a_store_without_a_key_says_so_and_not_the_token(tmp_path: Path) -> None:
    token = HmacSigner({"k1": OLD}, "k1").sign(FACTS)
    store = SQLiteStore(tmp_path / "runs.db")

    async def ask(question: str) -> str:
        raise PauseForHumanInput(question, schema=str)

    with pytest.raises(ResumeError, match="no key that opens it") as caught:
        await Flujo(Step(ask), store=store).resume_async(token, "yes")
    assert "FLUJO_TOKEN_KEY" in str(caught.value)
    assert token not in str(caught.value)
    store.close()


def test_an_expired_token_is_refused() -> None:
    signer = HmacSigner({"k1": OLD}, "k1")
    late = TokenFacts("r", "p", "d", "f", datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(ResumeError, match="expired at"):
        signer.open(signer.sign(late))


def test_what_another_program_signs_with_the_key_is_refused() -> None:
    signer = HmacSigner({"k1": OLD}, "k1")
    for data in ([], {"run": 1, "pause": "", "shown": "", "plan": ""}, {"run": "r"}, {"until": 10**40}):
        text = base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()
        signature = base64.urlsafe_b64encode(signer._signature("k1", f"fp1.k1.{text}")).rstrip(b"=").decode()
        with pytest.raises(ResumeError, match="no pause"):
            signer.open(f"fp1.k1.{text}.{signature}")


@pytest.mark.parametrize(
    ("keys", "current"),
    [({}, "k"), ({"k": OLD}, "l"), ({"k": b"short"}, "k"), ({"k": "x" * 32}, "k"), ({"k.1": OLD}, "k.1")],
)
def test_keys_that_cannot_be_used_are_refused_and_not_shown(keys: dict[str, bytes], current: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        HmacSigner(keys, current)
    assert "ooo" not in str(refused.value)
    assert "short" not in str(refused.value)
    assert "ooo" not in repr(HmacSigner({"k": OLD}, "k"))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_pause_is_answered_by_its_token_once(tmp_path: Path, backend: str) -> None:
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    async def main() -> None:
        async with SQLiteStore(tmp_path / "runs.db", signer=HmacSigner({"k1": OLD}, "k1")) as store:
            flujo = Flujo(Step(ask), store=store)
            paused = await flujo.run_async(1)
            token = paused.pauses[0].token
            assert token is not None
            with pytest.raises(ResumeError):
                await flujo.resume_async(f"{token[:-2]}AA", 5)
            assert (await flujo.resume_async(token, 5)).output == 5
            with pytest.raises(AlreadyResumed):
                await flujo.resume_async(token, 5)

    anyio.run(main, backend=backend)
