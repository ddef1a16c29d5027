"""Tokens: nobody else makes one, none can be changed, and keys can be changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flujo.core import AlreadyResumed, ConfigurationError, Flujo, PauseForHumanInput, ResumeError, TokenFacts, step
from flujo.hitl import HmacSigner, SQLiteStore

KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"
FACTS = TokenFacts("run", "outer/ask", "a" * 64, "b" * 64, datetime(2100, 1, 1, tzinfo=UTC), frozenset({"cfo", "ceo"}))


def test_a_token_gives_back_its_facts() -> None:
    signer = HmacSigner({"k1": KEY})
    assert signer.open(signer.sign(FACTS)) == FACTS
    plain = TokenFacts("run", "ask", "a" * 64, "b" * 64)
    assert signer.open(signer.sign(plain)) == plain


@pytest.mark.parametrize("text", ["run-17", "", "fp1.", "fp1.k1.x", "fp2.k1.x.y", "a.b.c.d"])
def test_what_is_no_token_is_taken_for_something_else(text: str) -> None:
    assert HmacSigner({"k1": KEY}).open(text) is None


def test_every_changed_character_is_found() -> None:
    signer = HmacSigner({"k1": KEY})
    token = signer.sign(FACTS)
    for place in range(len("fp1.k1."), len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        if changed.count(".") == 3:
            with pytest.raises(ResumeError, match="cannot be used"):
                signer.open(changed)


def test_a_token_of_another_key_is_refused() -> None:
    token = HmacSigner({"k1": OTHER}).sign(FACTS)
    with pytest.raises(ResumeError, match="signature"):
        HmacSigner({"k1": KEY}).open(token)
    with pytest.raises(ResumeError, match="'k1' is not known"):
        HmacSigner({"k2": OTHER}).open(token)


def test_keys_are_rotated() -> None:
    old = HmacSigner({"k1": KEY}).sign(FACTS)
    signer = HmacSigner({"k1": KEY, "k2": OTHER}, current="k2")
    assert signer.sign(FACTS).startswith("fp1.k2.")
    assert signer.open(old) == FACTS


def test_an_expired_token_is_refused() -> None:
    signer = HmacSigner({"k1": KEY})
    token = signer.sign(TokenFacts("run", "ask", "", "", datetime.now(UTC) - timedelta(seconds=1)))
    with pytest.raises(ResumeError, match="expired"):
        signer.open(token)


@pytest.mark.parametrize(
    ("keys", "current"),
    [({"k1": b"short"}, None), ({}, None), ({"k1": KEY, "k2": KEY}, None), ({"k1": KEY}, "k2"), ({"k.1": KEY}, None)],
)
def test_keys_that_cannot_be_used_are_refused(keys: dict[str, bytes], current: str | None) -> None:
    with pytest.raises(ConfigurationError, match="HmacSigner"):
        HmacSigner(keys, current)


def test_no_key_is_shown() -> None:
    signer = HmacSigner({"k1": KEY})
    assert KEY.decode() not in repr(signer) + repr(vars(signer))


@pytest.mark.anyio
async def test_a_token_answers_its_question_once(tmp_path: Path) -> None:
    @step(pauses=True)
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    with SQLiteStore(tmp_path / "runs.db", signer=HmacSigner({"k1": KEY})) as store:
        flujo = Flujo(ask, store=store)
        [pause] = (await flujo.run_async(1)).pauses
        assert pause.token is not None
        assert (await flujo.resume_async(pause.token, 5)).unwrap() == 5
        with pytest.raises(AlreadyResumed):
            await flujo.resume_async(pause.token, 5)
