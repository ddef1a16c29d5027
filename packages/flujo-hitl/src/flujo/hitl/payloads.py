"""Payloads as they are written: JSON, through the codec, behind a checksum that finds a flipped bit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import attrgetter
from zlib import crc32

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json

from flujo.core import EntryData, PayloadCodec, Snapshot, SnapshotError

from .errors import RunDamaged, RunSealed
from .squeezing import squeezed, whole

__all__ = ["Payloads", "moment", "packed", "stamp", "unpacked"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGEST = 32
_IN_COLUMNS = {"run_id", "pipeline", "fingerprint", "status", "journal"}


def packed(digest: str) -> bytes:
    """A digest in half the bytes, where it is one; what is none gets zeros in front, and never the length of one."""
    if len(digest) == 64:
        try:
            raw = bytes.fromhex(digest)
        except ValueError:
            raw = b""
        if raw.hex() == digest:
            return raw
    text = digest.encode()
    return b"\0" * (2 if len(text) == _DIGEST - 1 else 1) + text


def unpacked(written: bytes) -> str:
    """What `packed` was given."""
    return written.hex() if len(written) == _DIGEST else written.lstrip(b"\0").decode()


def stamp(when: datetime) -> int:
    """A time as microseconds of UTC: exact, and in order."""
    return (when - _EPOCH) // timedelta(microseconds=1)


def moment(written: int) -> datetime:
    """What `stamp` was given."""
    return _EPOCH + timedelta(microseconds=written)


@cache
def _snapshots() -> TypeAdapter[Snapshot]:
    # Snapshot.model_validate_json asks for a digest, which a snapshot that never left its store does not have
    return TypeAdapter(Snapshot)


@cache
def _rows() -> TypeAdapter[EntryData]:
    return TypeAdapter(EntryData)


Short = tuple[str, int, int, JsonValue, float, float]
"""Of a step that just ended well: path, frame, node, value, started_at, duration_s. Most entries are one."""


@cache
def _shorts() -> TypeAdapter[Short]:
    return TypeAdapter(Short, config=ConfigDict(ser_json_inf_nan="strings"))  # as EntryData has it


_SHORT = {"kind", "path", "frame", "node", "value", "started_at", "duration_s"}
_OTHERS = {name: field.default for name, field in EntryData.model_fields.items() if name not in _SHORT}
_others, _UNUSED = attrgetter(*_OTHERS), tuple(_OTHERS.values())


def _dumped(row: EntryData) -> bytes:
    if row.kind != "success" or _others(row) != _UNUSED:
        return _rows().dump_json(row, exclude_defaults=True)
    # perf_counter counts nanoseconds: what a difference of two has beyond is noise, of ten bytes
    times = (row.started_at, round(row.duration_s, 9))
    return _shorts().dump_json((row.path, row.frame, row.node, row.value, *times))


def _loaded(data: bytes) -> EntryData:
    if not data.startswith(b"["):
        return _rows().validate_json(data)
    path, frame, node, value, began, took = _shorts().validate_json(data)
    at = {"path": path, "frame": frame, "node": node}
    return EntryData.model_validate({**at, "kind": "success", "value": value, "started_at": began, "duration_s": took})


_FIRST = {b"", *(bytes([one]) for one in b'\0[{"-0123456789tfn')}
"""What a payload that no codec wrote begins with: JSON, or what stands before JSON that is squeezed."""


@dataclass(frozen=True, slots=True)
class Payloads:
    """Writes and reads what a store keeps of runs; None as codec writes it as it is, without names that all have.

    What is to be encrypted is not squeezed: its length would tell of what it holds.
    """

    codec: PayloadCodec | None

    def seal(self, data: bytes, about: str, *, names: bool = False) -> bytes:
        """What is written for a payload; `about` names the run and the place, `names` whether it is mostly names.

        Raises:
            SnapshotError: The codec cannot.
        """
        if self.codec is not None:
            data = self.codec.encode(data, about)
        elif names:
            data = squeezed(data)
        return crc32(data, crc32(about.encode())).to_bytes(4, "big") + data

    def unseal(self, written: object, about: str, run_id: str) -> bytes:
        """What `seal` was given.

        Raises:
            RunDamaged: It was changed, moved, or its key is not known.
        """
        if not isinstance(written, bytes) or len(written) < 4:
            raise RunDamaged(run_id, f"{about}: it holds no payload")
        data = written[4:]
        if crc32(data, crc32(about.encode())) != int.from_bytes(written[:4], "big"):
            raise RunDamaged(run_id, f"{about}: its checksum does not fit, some of its bits were changed")
        if self.codec is None and data[:1] not in _FIRST:
            raise RunSealed(run_id, about)
        try:
            return whole(data) if self.codec is None else self.codec.decode(data, about)
        except (SnapshotError, ValueError) as error:
            raise RunDamaged(run_id, f"{about}: {error}") from error

    # --- entries ------------------------------------------------------------------------------------------------------

    def row(self, row: EntryData, run_id: str, position: int) -> bytes:
        """An entry of the journal, to be written."""
        return self.seal(_dumped(row), f"journal {position} of {run_id}", names=row.kind == "paused")

    def rows(self, written: Iterable[Sequence[object]], run_id: str, first: int) -> list[EntryData]:
        """Entries from `first` on, read from (position, payload) in order.

        Raises:
            RunDamaged: One is damaged or missing.
        """
        read: list[EntryData] = []
        for expected, (position, payload) in enumerate(written, first):
            about = f"journal {expected} of {run_id}"
            if position != expected:
                raise RunDamaged(run_id, f"{about}: it is missing")
            data = self.unseal(payload, about, run_id)
            try:
                read.append(_loaded(data))
            except ValidationError as error:
                raise RunDamaged(run_id, f"{about}: {_first(error)}") from error
        return read

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self, snapshot: Snapshot) -> bytes:
        """Where a run stands, to be written: what has no column of its own."""
        text = snapshot.model_dump_json(exclude=_IN_COLUMNS, exclude_defaults=True)
        return self.seal(text.encode(), _about(snapshot.run_id, snapshot.pipeline, snapshot.fingerprint), names=True)

    def standing(self, written: object, run_id: str, pipeline: str, fingerprint: str, status: str) -> Snapshot:
        """Where a run stands.

        Raises:
            RunDamaged: It is damaged.
        """
        data = self.unseal(written, _about(run_id, pipeline, fingerprint), run_id)
        facts = {"run_id": run_id, "pipeline": pipeline, "fingerprint": fingerprint, "status": status}
        try:
            return _snapshots().validate_json(to_json(facts)[:-1] + b"," + data[1:])
        except ValidationError as error:
            raise RunDamaged(run_id, f"snapshot: {_first(error)}") from error

    # --- words --------------------------------------------------------------------------------------------------------

    def words(self, value: JsonValue, about: str) -> bytes:
        """Any JSON, to be written."""
        return self.seal(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), about)

    def said(self, written: object, about: str, run_id: str) -> JsonValue:
        """What `words` was given; raises RunDamaged."""
        data = self.unseal(written, about, run_id)
        try:
            value: JsonValue = json.loads(data)
        except ValueError as error:
            raise RunDamaged(run_id, f"{about}: it is no JSON") from error
        return value


def _about(run_id: str, pipeline: str, fingerprint: str) -> str:
    return f"snapshot of {run_id} {pipeline} {fingerprint}"


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
