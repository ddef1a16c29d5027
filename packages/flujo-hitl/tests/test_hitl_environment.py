"""Stores that are opened by URL: the keys of their tokens, with rotation, and their codec."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from conftest import FlujoCommand as Flujo

from flujo.core import ConfigurationError, ResumeError, TokenFacts
from flujo.hitl import RunSealed, SQLiteStore
from flujo.hitl.environment import codec, signer

FACTS = TokenFacts("r", "p", "d", "f")
ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32

SEALED = """
import os
from flujo.core import Flujo, Pipeline, PauseForHumanInput, step
from flujo.hitl import SQLiteStore
from flujo.hitl.encryption import AesGcmCodec

codec = AesGcmCodec({"2026-11": os.environ["PAYLOAD_KEY"].encode()}, "2026-11")

@step
async def ask(text: str) -> bool:
    raise PauseForHumanInput(f"Send {text}?", schema=bool)

sealed = Flujo(Pipeline(ask, name="sealed"), store=SQLiteStore("runs.db", codec=codec))
"""


# --- keys of tokens ---------------------------------------------------------------------------------------------------


def signed(patch: pytest.MonkeyPatch, keys: str) -> str:
    patch.setenv("FLUJO_TOKEN_KEY", keys)
    made = signer()
    assert made is not None
    token = made.sign(FACTS)
    assert made.open(token) == FACTS
    return token


def opened(patch: pytest.MonkeyPatch, keys: str, token: str) -> bool:
    patch.setenv("FLUJO_TOKEN_KEY", keys)
    made = signer()
    assert made is not None
    try:
        return made.open(token) == FACTS
    except ResumeError:
        return False


def test_the_first_key_signs_and_all_check(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signed(monkeypatch, ONE)
    assert before.startswith("fp1.env.")
    after = signed(monkeypatch, f"{TWO},{ONE}")
    for keys in (f"{TWO},{ONE}", f"{ONE}, {TWO}", f"{THREE}\n{TWO}\n\n{ONE}\n"):
        assert opened(monkeypatch, keys, before)
        assert opened(monkeypatch, keys, after)
    assert opened(monkeypatch, TWO, after)  # the older one is taken away
    assert not opened(monkeypatch, TWO, before)
    assert not opened(monkeypatch, ONE, after)


def test_the_keys_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = signed(monkeypatch, ONE)
    file = tmp_path / "keys"
    file.write_text(f"{TWO}\n{ONE}\n")
    monkeypatch.setenv("FLUJO_TOKEN_KEY_FILE", str(file))
    with pytest.raises(ConfigurationError, match="FLUJO_TOKEN_KEY is set too"):
        signer()
    monkeypatch.delenv("FLUJO_TOKEN_KEY")
    made = signer()
    assert made is not None
    assert made.open(token) == FACTS
    file.unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        signer()


@pytest.mark.parametrize(
    ("keys", "why"), [("", "it has 0"), ("hush", "it has 4"), (f"{ONE},hush", "key 2 of it has 4"), (",\n", "it has 0")]
)
def test_a_key_that_is_too_short_is_not_told(monkeypatch: pytest.MonkeyPatch, keys: str, why: str) -> None:
    monkeypatch.setenv("FLUJO_TOKEN_KEY", keys)
    with pytest.raises(ConfigurationError, match=f"{why} characters, fewer than 32") as told:
        signer()
    assert "hush" not in str(told.value)
    assert ONE not in str(told.value)


def test_a_token_outlives_the_change_of_its_key(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_TOKEN_KEY", ONE)
    told = flujo("run", "flows.py:pay", "--text", "abc", "--json")
    token = json.loads(told.out.splitlines()[0])["pauses"][0]["token"]
    monkeypatch.setenv("FLUJO_TOKEN_KEY", f"{TWO},{ONE}")
    assert flujo("runs", "resume", "flows.py:pay", token, "--answer", "7").out == "paid 7\n"


# --- codec ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_id(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run of `sealed.py`, which waits in an encrypted store."""
    monkeypatch.setenv("PAYLOAD_KEY", ONE)
    Path("sealed.py").write_text(SEALED)
    monkeypatch.delenv("FLUJO_STORE")
    told = flujo("run", "sealed.py:sealed", "--text", "it", "--json")
    monkeypatch.setenv("FLUJO_STORE", "sqlite:///runs.db")
    yield json.loads(told.out.splitlines()[0])["run_id"]
    sys.modules.pop("sealed", None)


def test_questions_of_an_encrypted_store_are_shown_and_answered(
    flujo: Flujo, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_CODEC", "sealed:codec")
    assert "Send it?" in flujo("runs", "inbox").out
    assert "Send it?" in flujo("runs", "show", run_id).out
    assert flujo("runs", "answer", run_id, "true", "--yes", "--reason", "Mustermann agrees").code == 0
    assert b"Mustermann" not in b"".join(one.read_bytes() for one in Path().glob("runs.db*"))
    assert "is completed" in flujo("runs", "worker", "sealed.py:sealed", "--once").out


def test_without_its_codec_it_is_told_how_to_name_it(flujo: Flujo, run_id: str) -> None:
    for words in (["inbox"], ["show", run_id], ["approve", run_id, "--yes"], ["answer", run_id, "true", "--yes"]):
        told = flujo("runs", *words)
        assert (told.code, "a codec wrote it" in told.err, "FLUJO_CODEC=" in told.err) == (2, True, True)
    assert flujo("runs", "list").out.startswith(run_id)  # of payloads it needs none

    async def pages() -> None:
        async with SQLiteStore("runs.db") as store:
            with pytest.raises(RunSealed):
                await store.open_pauses()  # it looked as if nothing waited
            assert not await store.decided()

    anyio.run(pages)


def test_a_store_that_is_named_instead_does_not_take_the_codec_away(
    flujo: Flujo, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ["run", "sealed.py:sealed", "--text", "Mustermann"],
        ["runs", "worker", "sealed.py:sealed", "--once"],
    ):
        told = flujo(*words)  # by FLUJO_STORE; it was written as it is
        assert (told.code, "would not be encrypted" in told.err, "FLUJO_CODEC=" in told.err) == (2, True, True)
    monkeypatch.setenv("FLUJO_CODEC", "sealed:codec")
    assert flujo("run", "sealed.py:sealed", "--text", "Mustermann").code == 5
    assert b"Mustermann" not in b"".join(one.read_bytes() for one in Path().glob("runs.db*"))
    assert len(flujo("runs", "inbox").out.splitlines()) == 2
    assert run_id in flujo("runs", "inbox").out


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("nix:codec", "No module named 'nix'"),
        ("flows:nix", "no attribute 'nix'"),
        ("flows:pay", "no PayloadCodec"),
        ("flujo.hitl.encryption:AesGcmCodec", "no PayloadCodec"),
        ("flows.py", "no module:object"),
        ("keyless:codec", "KeyError: 'NO_SUCH_KEY'"),
        ("broken:codec", "its module raises ValueError"),
        ("short:codec", "key 'a' cannot be used"),
    ],
)
def test_a_codec_that_is_none_is_told(flujo: Flujo, monkeypatch: pytest.MonkeyPatch, named: str, why: str) -> None:
    Path("keyless.py").write_text("import os\ncodec = os.environ['NO_SUCH_KEY']")
    Path("broken.py").write_text("codec = int('hush')")
    Path("short.py").write_text(
        "from flujo.hitl.encryption import AesGcmCodec\ncodec = AesGcmCodec({'a': b'hush'}, 'a')"
    )
    monkeypatch.setenv("FLUJO_CODEC", named)
    with pytest.raises(ConfigurationError) as told:
        codec()
    assert why in str(told.value)
    assert "hush" not in str(told.value)
    for module in ("keyless", "broken", "short", "flows"):
        sys.modules.pop(module, None)
