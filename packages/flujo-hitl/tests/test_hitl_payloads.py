"""How payloads are written: in little room, and read as what they were, those of earlier versions too."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import reduce
from pathlib import Path

import pytest
from hitl_trials import paused, question, row, run, store_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flujo.core import EntryData, Flujo, Pipeline, Step, Usage, step
from flujo.hitl import RunDamaged, SQLiteStore, approve
from flujo.hitl.payloads import Payloads
from flujo.hitl.squeezing import MOST, squeezed, whole

pytestmark = pytest.mark.anyio

PLAIN = Payloads(None)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.builds(
    EntryData,
    frame=st.integers(0, 2**40),
    node=st.integers(0, 100),
    kind=st.sampled_from(["success", "failure", "paused", "choice"]),
    path=st.text(max_size=20),
    value=JSON,
    unwritten=st.none() | st.just("Odd"),
    started_at=st.floats(0, 4e9),
    duration_s=st.integers(0, 10**15).map(lambda ns: ns / 1e9),
    changes=st.none() | st.just({"note": 1}),
    attempts=st.integers(1, 3),
    usage=st.none() | st.just(Usage(requests=2)),
    cached=st.booleans(),
    cancelled=st.booleans(),
    is_void=st.booleans(),
)


@given(ROWS)
@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
def test_an_entry_is_read_as_it_was(entry: EntryData) -> None:
    assert PLAIN.rows([(7, PLAIN.row(entry, "r", 7))], "r", 7) == [entry]


def test_what_is_not_a_number_is_written_as_before() -> None:
    (read,) = PLAIN.rows([(0, PLAIN.row(row(0, [float("inf")]), "r", 0))], "r", 0)
    assert read.value == ["Infinity"]


@given(st.binary(max_size=300) | st.text(max_size=2000).map(str.encode))
def test_what_is_squeezed_becomes_whole_again(data: bytes) -> None:
    text = b'"' + data.hex().encode() + b'"'
    assert whole(squeezed(text)) == text


@pytest.mark.parametrize("size", [0, 95, 96, MOST, MOST + 1, 10 * MOST])
def test_what_is_short_or_long_is_not_worth_it(size: int) -> None:
    assert whole(squeezed(b"x" * size)) == b"x" * size
    assert squeezed(b"x" * size).startswith(b"\0") == (96 <= size <= MOST)


SQUEEZED = "000143f73e89be36c7e36d60dec8c9a90466547b604d535b0b00"
BOMB = squeezed(b"x" * MOST)


@pytest.mark.parametrize(
    "written", [b"\0", b"\0\2abc", b"\0\1", BOMB[:-3], b"\0\1\xff\xff\xff", b"\0\1" + b"\xed\xc1\x01\x0d" + b"\0" * 200]
)
def test_what_was_not_squeezed_here_is_refused(written: bytes) -> None:
    with pytest.raises(ValueError, match="it "):
        whole(written)


def test_words_that_are_on_disks_stay() -> None:
    text = b'{"checkpoint":{"next_frame":1,"frames":[{"id":0,"outputs":{"0":7}}],"pauses":[{"question":"Really so?"}]}}'
    assert whole(bytes.fromhex(SQUEEZED)) == text


async def test_a_step_takes_its_output_and_a_hundred_bytes(path: Path) -> None:
    steps = 2000

    @step
    async def work(value: int) -> int:
        return value + 1

    works = [Step(work, name=f"work_{number}") for number in range(steps)]
    with closing(SQLiteStore(path, durability="normal")) as store:
        flow = Pipeline(reduce(lambda before, one: before >> one, works), name="long")
        assert (await Flujo(flow, store=store).run_async(10_000_000, run_id="r")).output == 10_000_000 + steps
    assert path.stat().st_size - _spare(path) <= steps * (8 + 100)


@pytest.mark.parametrize("schema", ["none", "approval"])
async def test_a_paused_run_takes_what_it_shows_and_400_bytes(path: Path, schema: str) -> None:
    number = 300
    asks = question("Refund order A-1029?", "approve", payload={"order": "A-1029", "amount": "120.00"})
    with closing(SQLiteStore(path, durability="normal")) as store:
        if schema == "none":
            for one in range(number):
                await paused(store, f"{one:032x}", asks, tenant=f"tenant-{one % 5}")
        else:
            flow = Pipeline(approve("Refund order A-1029?", of=dict[str, str]), name="one")
            for _ in range(number):
                result = await Flujo(flow, store=store).run_async({"order": "A-1029", "amount": "120.00"})
                assert result.status == "paused"
    shown = len('"Refund order A-1029?"' + '{"order":"A-1029","amount":"120.00"}')
    # an approval has its journal beside it: that it was asked, and its schema of 290 bytes
    assert path.stat().st_size - _spare(path) <= number * (shown + (400 if schema == "none" else 700))


async def test_a_store_of_an_earlier_version_goes_on(path: Path) -> None:
    """What was written as it was, without a mark, is read, and its file is of this version then."""
    with closing(store_at(path)) as store:
        await paused(store, "old", question("Why? " * 30), rows=3)
    with closing(sqlite3.connect(path)) as db:
        place = f"snapshot of old trial {'0' * 64}"
        (written,) = db.execute("SELECT payload FROM snapshots").fetchone()
        assert b"next_frame" not in written
        db.execute("UPDATE snapshots SET payload=?", (PLAIN.seal(PLAIN.unseal(written, place, "old"), place),))
        for number in range(3):
            entry = row(number).model_dump_json(exclude_defaults=True).encode()
            facts = (PLAIN.seal(entry, f"journal {number} of old"), number)
            db.execute("UPDATE journal SET payload=? WHERE position=?", facts)
        db.execute("ALTER TABLE decisions DROP COLUMN shown")
        db.execute("PRAGMA user_version=2")
        db.commit()
        assert b"next_frame" in db.execute("SELECT payload FROM snapshots").fetchone()[0]
    with closing(store_at(path)) as store:
        kept = await store.load("old")
        assert kept.history() == [row(number) for number in range(3)]
        assert kept.snapshot.pauses[0].question == "Why? " * 30
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (4,)


async def test_a_squeezed_snapshot_that_cannot_be_read_is_damage_of_its_run(path: Path) -> None:
    with closing(store_at(path)) as store:
        await paused(store, "r")
        await store.create(run("other"))
    with closing(sqlite3.connect(path)) as db:
        place = f"snapshot of r trial {'0' * 64}"
        db.execute("UPDATE snapshots SET payload=? WHERE run=1", (PLAIN.seal(b"\0\7zzz", place),))
        db.commit()
    with closing(store_at(path)) as store:
        with pytest.raises(RunDamaged, match="words 07"):
            await store.load("r")
        await store.load("other")


def _spare(path: Path) -> int:
    """Bytes of pages that are free, and of the tables themselves."""
    with closing(sqlite3.connect(path)) as db:
        (free,), (size,), (made,) = (
            db.execute(ask).fetchone()
            for ask in ("PRAGMA freelist_count", "PRAGMA page_size", "SELECT count(*) FROM sqlite_schema")
        )
    return int((free + made + 2) * size)
