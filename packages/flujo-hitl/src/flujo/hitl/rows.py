"""What is written for a snapshot and for an entry: compact JSON, through the codec, with a checksum before it."""

from __future__ import annotations

import zlib
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from flujo.core import EntryData, PayloadCodec, Snapshot, SnapshotError

Data = TypeVar("Data", EntryData, Snapshot)

_SUM_BYTES = 4


def written(data: EntryData | Snapshot) -> bytes:
    """A snapshot or an entry as JSON; what has its default is left out, and comes back with it."""
    return data.model_dump_json(exclude_defaults=True).encode()


def packed(text: bytes, codec: PayloadCodec | None, about: str) -> bytes:
    """The bytes that the store holds: a checksum, so that damage is found, and the text as the codec writes it."""
    body = text if codec is None else codec.encode(text, about)
    return zlib.crc32(body).to_bytes(_SUM_BYTES, "big") + body


def unpacked(kind: type[Data], blob: object, codec: PayloadCodec | None, about: str) -> Data:
    """What was written.

    Raises:
        SnapshotError: It was damaged, or written by something else; none of it is shown.
    """
    if (
        not isinstance(blob, bytes)
        or not blob
        or zlib.crc32(blob[_SUM_BYTES:]) != int.from_bytes(blob[:_SUM_BYTES], "big")
    ):
        raise SnapshotError(f"{about} cannot be read", "its checksum does not fit: it was damaged", _DO)
    body = blob[_SUM_BYTES:]
    text = body if codec is None else codec.decode(body, about)
    try:
        # not Snapshot.model_validate_json: that one asks for the digest of a snapshot that travels
        return kind.model_validate(from_json(text))
    except (ValidationError, ValueError):  # what is wrong would be told with the values, which may be private
        raise SnapshotError(f"{about} cannot be read", f"it is no {kind.__name__} of this version", _DO) from None


_DO = "Restore the store from a backup; other runs in it are not affected"
