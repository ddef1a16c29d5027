"""Payloads on their way into a store and back: compact JSON, through the codec, with a sum that finds damage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from zlib import crc32

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from flujo.core import Checkpoint, EntryData, PauseData, PayloadCodec, Snapshot

from .errors import unusable

__all__ = ["Draft", "Packer", "draft_of", "instant", "microseconds", "pause_json", "row_json", "subject_key"]

M = TypeVar("M", bound=BaseModel)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_SUM = 4

# Not Snapshot.model_validate_json: what never leaves its store has no digest, the sum of each part is enough
_snapshots: TypeAdapter[Snapshot] = TypeAdapter(Snapshot)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is kept."""

    pause_id: str
    expires: int | None
    roles: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Draft:
    """A snapshot as it is kept: its questions apart, so that a list of them reads nothing else."""

    run_id: str
    pipeline: str
    tenant: str | None
    subject: bytes | None
    status: str
    length: int
    body: bytes
    asked: Sequence[Asked]


class Packer:
    """Writes and reads bytes of one place of one run.

    The sum covers the place, too: a row that was moved is found like a flipped bit. It is no signature; who must be
    kept from writing into the file needs a codec that authenticates.
    """

    def __init__(self, codec: PayloadCodec | None) -> None:
        self._codec = codec

    def pack(self, data: bytes, run_id: str, part: str) -> bytes:
        """What is written of `data`."""
        about = f"{run_id} {part}"
        if self._codec is not None:
            data = self._codec.encode(data, about)
        return crc32(data, crc32(about.encode())).to_bytes(_SUM, "big") + data

    def unpack(self, kept: object, run_id: str, part: str) -> bytes:
        """What `pack` was given.

        Raises:
            SnapshotError: It was changed or moved; the run and the place are named.
        """
        about = f"{run_id} {part}"
        if not isinstance(kept, bytes) or len(kept) < _SUM:
            raise unusable(run_id, part, "it is not what a store writes")
        data = kept[_SUM:]
        if crc32(data, crc32(about.encode())) != int.from_bytes(kept[:_SUM], "big"):
            raise unusable(run_id, part, "its sum does not fit: it was changed, or belongs elsewhere")
        return data if self._codec is None else self._codec.decode(data, about)

    def row(self, kept: object, run_id: str, position: int) -> EntryData:
        """A row of the journal."""
        part = f"journal[{position}]"
        return _read(EntryData, self.unpack(kept, run_id, part), run_id, part)

    def question(self, kept: object, run_id: str, pause_id: str) -> PauseData:
        """A question."""
        part = f"pause {pause_id!r}"
        return _read(PauseData, self.unpack(kept, run_id, part), run_id, part)

    def note(self, kept: object, run_id: str, pause_id: str) -> dict[str, JsonValue]:
        """What was recorded with a decision."""
        part = f"decision on {pause_id!r}"
        try:
            found: object = from_json(self.unpack(kept, run_id, part))
        except ValueError as error:
            raise unusable(run_id, part, str(error)) from None
        if not isinstance(found, dict) or "decision" not in found:
            raise unusable(run_id, part, "it is no decision")
        return found

    def snapshot(self, kept: object, run_id: str, status: str, asked: Sequence[PauseData]) -> Snapshot:
        """Where a run stands, put together again."""
        head, _, body = self.unpack(kept, run_id, "snapshot").partition(b"\n")
        try:
            version, number = map(int, head.split())
            read = _snapshots.validate_json(body)
        except ValueError as error:  # pydantic's are among them
            raise unusable(run_id, "snapshot", _first(error)) from None
        if read.run_id != run_id or number != len(asked):
            raise unusable(run_id, "snapshot", f"it has {number} questions, and {len(asked)} were found")
        checkpoint = read.checkpoint.model_copy(update={"pauses": list(asked)})
        made = read.model_copy(update={"version": version, "status": status, "checkpoint": checkpoint})
        if status not in _STATUSES:
            raise unusable(run_id, "snapshot", f"its status is {status!r}")
        return made


_STATUSES = ("running", "completed", "failed", "paused", "stopped", "aborted")


def draft_of(snapshot: Snapshot) -> Draft:
    """A snapshot as it is kept.

    Raises:
        SnapshotError: It holds what JSON cannot.
    """
    checkpoint = snapshot.checkpoint
    bare: Checkpoint = checkpoint.model_copy(update={"pauses": []}) if checkpoint.pauses else checkpoint
    rest = snapshot.model_copy(update={"checkpoint": bare, "journal": [], "version": 1})
    ids = [pause.id for pause in snapshot.pauses] if checkpoint.pauses else []
    head = b"%d %d\n" % (snapshot.version, len(ids))
    return Draft(
        run_id=snapshot.run_id,
        pipeline=snapshot.pipeline,
        tenant=snapshot.tenant,
        subject=subject_key(snapshot.tags["subject"]) if "subject" in snapshot.tags else None,
        status=snapshot.status,
        length=checkpoint.position,
        body=head + _json(rest, snapshot.run_id, "snapshot"),
        asked=[_asked(snapshot.run_id, *one) for one in zip(ids, checkpoint.pauses, strict=True)],
    )


def _asked(run_id: str, pause_id: str, pause: PauseData) -> Asked:
    roles = getattr(pause, "roles", None)
    return Asked(
        pause_id,
        None if pause.expires_at is None else microseconds(pause.expires_at),
        None if not roles else "\n" + "\n".join(sorted(roles)) + "\n",
        pause_json(run_id, pause),
    )


def pause_json(run_id: str, pause: PauseData) -> bytes:
    """A question as JSON."""
    return _json(pause, run_id, f"pause at {pause.path!r}")


def row_json(run_id: str, row: EntryData) -> bytes:
    """A row of the journal as JSON, without what is as it usually is.

    Raises:
        SnapshotError: It holds what JSON cannot.
    """
    return _json(row, run_id, f"entry of {row.path!r}")


def note_json(note: dict[str, JsonValue], run_id: str, pause_id: str) -> bytes:
    """What is recorded with a decision as JSON.

    Raises:
        SnapshotError: It holds what JSON cannot.
    """
    try:
        return to_json(note, inf_nan_mode="strings")
    except PydanticSerializationError as error:
        raise unusable(run_id, f"decision on {pause_id!r}", _first(error)) from None


def _json(data: BaseModel, run_id: str, part: str) -> bytes:
    try:
        return data.__pydantic_serializer__.to_json(data, exclude_defaults=True)
    except (PydanticSerializationError, ValueError) as error:
        raise unusable(run_id, part, _first(error)) from None


def _read(model: type[M], data: bytes, run_id: str, part: str) -> M:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise unusable(run_id, part, _first(error)) from None


def _first(error: Exception) -> str:
    """What is wrong, without the value that is wrong: it may be private."""
    if not isinstance(error, ValidationError):
        return type(error).__name__
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def subject_key(subject: str) -> bytes:
    """Finds the runs of a subject without the store saying who that is."""
    return hashlib.sha256(f"flujo-hitl subject {subject}".encode()).digest()[:16]


def microseconds(when: datetime) -> int:
    """Microseconds since the epoch, exactly."""
    return (when - EPOCH) // MICROSECOND


def instant(kept: object, run_id: str) -> datetime:
    """The time that `microseconds` was given.

    Raises:
        SnapshotError: It is none.
    """
    try:
        return EPOCH + timedelta(microseconds=int(str(kept)))
    except (ValueError, OverflowError):
        raise unusable(run_id, "a time", f"it is {kept!r}") from None
