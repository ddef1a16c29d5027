"""The bytes of a line: what goes in, what is refused, what a reader in another language can rely on."""

import hashlib
import json
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.audit import AuditRecordError
from flujo.audit.format import (
    MAX_LINE,
    TAIL,
    Stamp,
    build_line,
    encode_record,
    format_time,
    log_id_of,
    looks_like_log,
    make_event_id,
    parse_line,
)

PREV = b"ab" * 32
STAMP = Stamp("2026-01-02T03:04:05.000006Z", 7, "1-0a", "01a21427-0583-7581-9e58-3d50187b7c03")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().map(lambda name: f"x{name}"), json_values, max_size=4))
def test_any_json_record_is_one_ascii_line_that_parses_back_to_it(record):
    line, digest = build_line(1, PREV, STAMP, encode_record(record))
    assert line.count(b"\n") == 1
    assert line.isascii()
    stored = json.loads(line)
    assert {name: stored[name] for name in record} == record
    envelope = parse_line(line)
    assert envelope is not None
    assert (envelope.seq, envelope.prev, envelope.hash) == (1, PREV, digest)


def test_the_hash_is_sha256_over_the_stored_bytes_before_it():
    line, digest = build_line(12, PREV, STAMP, encode_record({"event": "x"}))
    hashed, _, rest = line.rpartition(b',"hash":"')
    assert rest == digest + b'"}\n'
    assert hashlib.sha256(hashed).hexdigest() == digest.decode()
    assert len(line) - len(hashed) == TAIL


def test_fields_stand_in_the_order_the_readme_gives():
    line, _ = build_line(1, PREV, STAMP, encode_record({"event": "x"}), ["recovered", "clock_back"])
    names = ["v", "seq", "prev", "mark", "ts", "mono_ns", "writer_id", "event_id", "event", "hash"]
    assert list(json.loads(line)) == names
    assert json.loads(line)["mark"] == "recovered,clock_back"


def test_an_empty_record_makes_a_line_too():
    line, _ = build_line(1, PREV, STAMP, encode_record({}))
    assert parse_line(line) is not None
    assert "event" not in json.loads(line)


def test_money_dates_and_ids_become_text():
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    record = {"cost": Decimal("0.10"), "at": moment, "day": date(2026, 1, 2), "id": uuid.UUID(int=1)}
    assert json.loads(b"{" + encode_record(record) + b"}") == {
        "cost": "0.10",
        "at": "2026-01-02T00:00:00+00:00",
        "day": "2026-01-02",
        "id": "00000000-0000-0000-0000-000000000001",
    }


def _endless() -> dict[str, object]:
    record: dict[str, object] = {}
    record["self"] = record
    return record


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"seq": 1}, "'seq'"),
        ({"hash": "x", "prev": "y"}, "'hash', 'prev'"),
        ({1: "x"}, "not text"),
        ({"x": float("nan")}, "not JSON"),
        ({"x": float("inf")}, "not JSON"),
        ({"x": object()}, "not JSON"),
        ({"x": {(1, 2): 3}}, "not JSON"),
        (_endless(), "not JSON"),
        ({"x": "y" * MAX_LINE}, "bytes"),
    ],
)
def test_what_cannot_be_written_is_refused_with_the_reason(record, why):
    with pytest.raises(AuditRecordError, match=why):
        encode_record(record)


def test_a_refusal_does_not_show_the_value():
    with pytest.raises(AuditRecordError) as caught:
        encode_record({"x": {"Jane Doe": {1, 2}}})
    assert "Jane" not in str(caught.value)


def test_event_ids_are_version_7_uuids_that_sort_by_time():
    early, late = (make_event_id(ms * 1_000_000, b"\xff" * 10) for ms in (1_700_000_000_000, 1_700_000_000_001))
    assert early < late
    for text in (early, late):
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)
    assert uuid.UUID(early).int >> 80 == 1_700_000_000_000
    assert make_event_id(0, b"\x00" * 10) != make_event_id(0, b"\x00" * 9 + b"\x01")


def test_times_are_utc_microseconds_and_sort_as_text():
    assert format_time(1_000_001_000) == "1970-01-01T00:00:01.000001Z"
    assert format_time(999) == "1970-01-01T00:00:00.000000Z"
    assert format_time(1_999_999_999) < format_time(2_000_000_000)


@pytest.mark.parametrize("damage", [b"", b"{}\n", b'{"v":2,"seq":1}\n', b"\x00" * 400, b"no log\n"])
def test_foreign_bytes_are_no_line_and_no_log(damage):
    assert parse_line(damage) is None
    assert log_id_of(damage) is None
    assert not looks_like_log(damage)


def test_a_cut_beginning_still_looks_like_a_log():
    line, _ = build_line(1, PREV, STAMP, encode_record({"event": "x"}))
    assert all(looks_like_log(line[:cut]) for cut in range(1, len(line) + 1))
    assert looks_like_log(b"?" + line[1:])
    assert log_id_of(line) == PREV.decode()
