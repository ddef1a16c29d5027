"""The bytes of a log line, and nothing else: no file, no clock. The README specifies the format for other languages.

    {"v":1,"seq":7,"prev":"<64 hex>","ts":..,"mono_ns":..,"writer_id":..,"event_id":..,<record>,"hash":"<64 hex>"}\n

`hash` is SHA-256 over every stored byte before `,"hash":"`; `prev` is the hash of the line before. Bytes are hashed as
stored, never re-serialised: a verifier needs no JSON, and floats or Unicode cannot make two verifiers differ. The first
line's `prev` is random: it is the identity of the log, and everything after is chained to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from uuid import UUID

from .errors import AuditRecordError

__all__ = [
    "GENESIS",
    "MARK",
    "MAX_LINE",
    "TAIL",
    "Envelope",
    "Stamp",
    "build_line",
    "encode_record",
    "format_time",
    "line_start",
    "log_id_of",
    "looks_like_log",
    "make_event_id",
    "parse_line",
]

MAX_LINE = 1 << 20
"""Most bytes of a line, newline included. It bounds the memory of a verifier and the search for the last line."""

GENESIS = b'{"v":1,"seq":1,"prev":"'
"""How every log begins."""

MARK = b'"mark":"'
"""Stands right after `prev` in a line that a reader should notice: `recovered`, `clock_back`."""

TAIL = len(b',"hash":"') + 64 + len(b'"}\n')
"""How many bytes at the end of a line are not hashed."""

_ROOM_FOR_ENVELOPE = 512
_RESERVED = frozenset({"v", "seq", "prev", "mark", "ts", "mono_ns", "writer_id", "event_id", "hash"})
_LINE = re.compile(
    rb'\{"v":1,"seq":([1-9][0-9]{0,18}),"prev":"([0-9a-f]{64})",(?:"mark":"[a-z_,]+",)?"ts":"([0-9TZ:.-]+)"'
)
_HASH = re.compile(rb',"hash":"[0-9a-f]{64}"\}\n\Z')


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a line says about itself."""

    seq: int
    prev: bytes
    ts: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class Stamp:
    """When and by whom a line is written. `ts` is UTC; `mono_ns` is the machine's monotonic clock, nanoseconds."""

    ts: str
    mono_ns: int
    writer_id: str
    event_id: str


def _plain(value: object) -> str:
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    raise TypeError(type(value).__name__)


# One encoder for all lines. ASCII only: a line then has no byte a terminal, a shipper or an editor could normalise.
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_plain)


def encode_record(record: Mapping[str, object]) -> bytes:
    """Encode what the user records, as it will stand in the line.

    Args:
        record: JSON values; Decimal and UUID become text, dates become ISO 8601.

    Raises:
        AuditRecordError: It is not JSON (NaN and infinity included), too long, or uses a name of the envelope.
    """
    clash = sorted(_RESERVED.intersection(record))
    if clash:
        why = f"the log itself writes {', '.join(map(repr, clash))}"
        raise AuditRecordError(why, "Choose other names for these fields")
    if not all(isinstance(name, str) for name in record):
        raise AuditRecordError("a field name is not text", "Use text for every name")
    try:
        body = _ENCODER.encode(dict(record)).encode("ascii")[1:-1]
    except (TypeError, ValueError, RecursionError) as error:
        # The encoder's own message may show the value, so only the kind of fault is told.
        why = f"a value is not JSON ({type(error).__name__})"
        raise AuditRecordError(why, "Record text, finite numbers, booleans, None, lists and dicts") from None
    if len(body) > MAX_LINE - _ROOM_FOR_ENVELOPE:
        why = f"it has {len(body)} bytes, a record may have {MAX_LINE - _ROOM_FOR_ENVELOPE}"
        raise AuditRecordError(why, "Record a digest of long content, not the content")
    return body


def line_start(seq: int, prev: bytes) -> bytes:
    """How the line with this number begins when it follows the line with the hash `prev`."""
    return b'{"v":1,"seq":%d,"prev":"%b",' % (seq, prev)


def build_line(seq: int, prev: bytes, stamp: Stamp, body: bytes, marks: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """Build one line.

    Returns:
        The line with its newline, and its hash (64 lower-case hex digits).
    """
    mark = f'"mark":"{",".join(marks)}",' if marks else ""
    when = f'"ts":"{stamp.ts}","mono_ns":{stamp.mono_ns}'
    middle = f'{mark}{when},"writer_id":"{stamp.writer_id}","event_id":"{stamp.event_id}"'
    hashed = line_start(seq, prev) + middle.encode("ascii") + (b"," + body if body else b"")
    digest = sha256(hashed).hexdigest().encode("ascii")
    return b'%b,"hash":"%b"}\n' % (hashed, digest), digest


def parse_line(line: bytes) -> Envelope | None:
    """Read a line; None unless it is complete, of this format, and has the hash of its own bytes."""
    found = _LINE.match(line)
    if found is None or len(line) > MAX_LINE:
        return None
    digest = sha256(line[:-TAIL]).hexdigest().encode("ascii")
    if not line.endswith(b',"hash":"%b"}\n' % digest):
        return None
    return Envelope(int(found[1]), found[2], found[3].decode("ascii"), digest)


def log_id_of(beginning: bytes) -> str | None:
    """The log's identity, from the first bytes of its file; None when they do not begin a log."""
    identity = beginning[len(GENESIS) : len(GENESIS) + 64]
    if beginning.startswith(GENESIS) and re.fullmatch(rb"[0-9a-f]{64}", identity):
        return identity.decode("ascii")
    return None


def looks_like_log(first_line: bytes) -> bool:
    """Whether a file with this first line was once a log, even if the line was damaged, edited or cut since."""
    began = first_line.startswith(GENESIS) or (first_line != b"" and GENESIS.startswith(first_line))
    return began or _HASH.search(first_line) is not None


def format_time(unix_ns: int) -> str:
    """UTC in ISO 8601 with microseconds and a Z; texts of equal length, so they sort like the instants."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def make_event_id(unix_ns: int, randomness: bytes) -> str:
    """A UUID of version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 of the 80 given random bits."""
    random = int.from_bytes(randomness[:10], "big")
    high = (unix_ns // 1_000_000) << 16 | 0x7000 | random >> 68
    low = 0b10 << 62 | random & (1 << 62) - 1
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
