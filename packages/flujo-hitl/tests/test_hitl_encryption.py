"""Payloads at rest: nothing of them stands in the file, and none can be put in another's place."""

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from conftest import OpenStore
from hitl_trials import paused, question

from flujo.core import ConfigurationError, SnapshotError
from flujo.core.testing import assert_conforms
from flujo.hitl import RunDamaged, SQLiteStore
from flujo.hitl.encryption import AesGcmCodec

OLD, NEW = b"o" * 32, b"n" * 32


def test_what_was_encrypted_is_read_in_its_place_alone() -> None:
    codec = AesGcmCodec({"k1": OLD}, "k1")
    written = codec.encode(b"secret", "here")
    assert b"secret" not in written
    assert codec.decode(written, "here") == b"secret"
    assert codec.encode(b"secret", "here") != written
    assert codec.decode(codec.encode(b"", "here"), "here") == b""
    with pytest.raises(SnapshotError):
        codec.decode(written, "there")
    for place in range(len(written)):
        changed = written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :]
        for damaged in (changed, written[:place]):
            with pytest.raises(SnapshotError):
                codec.decode(damaged, "here")


def test_keys_are_changed_without_losing_what_is_kept() -> None:
    old = AesGcmCodec({"k1": OLD}, "k1").encode(b"secret", "here")
    both = AesGcmCodec({"k1": OLD, "k2": NEW}, "k2")
    assert both.decode(old, "here") == b"secret"
    assert both.encode(b"x", "here")[2:4] == b"k2"
    with pytest.raises(SnapshotError, match="'k1' is not known"):
        AesGcmCodec({"k2": NEW}, "k2").decode(old, "here")
    for wrong in ({"k1": b"o" * 31}, {}):
        with pytest.raises(ConfigurationError):
            AesGcmCodec(wrong, "k1")


def test_an_encrypted_store_conforms(path: Path) -> None:
    store = SQLiteStore(path, codec=AesGcmCodec({"k1": OLD}, "k1"), durability="normal")
    assert "a_run_goes_on_by_its_id" in assert_conforms(store, loops=["asyncio"])
    store.close()


def test_nothing_that_is_private_stands_in_the_file(path: Path, open_store: OpenStore) -> None:
    async def main() -> None:
        codec = AesGcmCodec({"k1": OLD}, "k1")
        store = open_store(codec=codec)
        snapshot = await paused(store, "r", question("Treat Mustermann?", payload={"name": "Mustermann"}), rows=3)
        digest = snapshot.pauses[0].shown_digest
        await store.record_decision("r", "ask", "Mustermann: yes", shown_digest=digest, reason="Mustermann is ill")
        content = b"".join(one.read_bytes() for one in path.parent.iterdir())
        assert b"Mustermann" not in content
        assert b"number" not in content
        (waiting,) = await store.decided()
        assert (waiting.decision, waiting.reason) == ("Mustermann: yes", "Mustermann is ill")
        for other, why in ((None, "a codec wrote it"), (AesGcmCodec({"k2": NEW}, "k2"), "its key 'k1' is not known")):
            with pytest.raises(RunDamaged, match=why) as told:
                await open_store(codec=other).load("r")
            assert ("backup" in str(told.value)) == (other is not None)

    anyio.run(main)


def test_an_encrypted_entry_cannot_be_moved(path: Path, open_store: OpenStore) -> None:
    async def main() -> None:
        codec = AesGcmCodec({"k1": OLD}, "k1")
        store = open_store(codec=codec)
        await paused(store, "a", rows=3)
        await paused(store, "b", rows=3)
        store.close()
        with closing(sqlite3.connect(path)) as db:
            db.execute(
                "UPDATE journal SET payload=(SELECT payload FROM journal WHERE run=2 AND position=1) WHERE run=1"
            )
            db.commit()
        with pytest.raises(RunDamaged):
            (await open_store(codec=codec).load("a")).history()

    anyio.run(main)
