"""Checkpoints: the head of a log, taken down elsewhere, so that cutting or rewriting the log afterwards shows.

    {"flujo_audit_checkpoint":1,"log":"<64 hex>","seq":7,"head":"<64 hex>","ts":"...","mac":"<64 hex>"}

`mac` (only with a key) is HMAC-SHA256 over every byte before `,"mac":"`.
"""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path

from flujo.core import ConfigurationError

from . import files
from .keys import checkpoint_key

__all__ = ["Checkpoint", "export", "read_checkpoints"]

_FORM = re.compile(
    r'(\{"flujo_audit_checkpoint":1,"log":"([0-9a-f]{64})","seq":([1-9][0-9]{0,18}),"head":"([0-9a-f]{64})",'
    r'"ts":"([0-9TZ:.-]+)")(?:,"mac":"([0-9a-f]{64})")?\}'
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which record was the newest, and its hash, which covers all before it.

    Attributes:
        log: The log's identity.
        seq: Number of its newest record.
        head: Hash of that record.
        ts: When that record was written (UTC, ISO 8601).
    """

    log: str
    seq: int
    head: str
    ts: str

    def line(self, key: bytes | None = None) -> str:
        """The checkpoint as one line of JSON without a newline, signed when a key is given."""
        text = f'{{"flujo_audit_checkpoint":1,"log":"{self.log}","seq":{self.seq},"head":"{self.head}","ts":"{self.ts}"'
        return f"{text}}}" if key is None else f'{text},"mac":"{_sign(text, key)}"}}'


def export(point: Checkpoint, target: Path, key: bytes | None) -> None:
    """Add a checkpoint to a file of checkpoints, durable on return; raises OSError."""
    files.make_folder(target.parent)
    fd = files.append_file(target, create=True)
    try:
        files.write_all(fd, point.line(key).encode() + b"\n")
        files.sync(fd)
    finally:
        os.close(fd)
    files.sync_folder(target.parent)


def read_checkpoints(source: str | os.PathLike[str] | Checkpoint, key: bytes | None) -> list[Checkpoint]:
    """Read checkpoints, ordered by their record.

    Args:
        source: A file of checkpoints, one checkpoint as text (it begins with a brace), or the object.
        key: With a key, every checkpoint of a file or text must be signed with it.

    Raises:
        ConfigurationError: The file cannot be read or holds something else; or a signature is missing or wrong.
    """
    if isinstance(source, Checkpoint):
        return [source]
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return _parse(source, "the checkpoint", key)
    path = Path(source)
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        what = f"checkpoint file {str(path)!r} cannot be read"
        raise ConfigurationError(what, error.strerror or "", "Name a file of checkpoints") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{str(path)!r} cannot be used", "it is no file of checkpoints") from error
    return _parse(text, f"checkpoint file {str(path)!r}", key)


def _parse(text: str, name: str, key: bytes | None) -> list[Checkpoint]:
    points: list[Checkpoint] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        found = _FORM.fullmatch(line.strip())
        if found is None:
            raise ConfigurationError(f"{name} cannot be used", f"line {number} is not a checkpoint")
        if key is not None and not hmac.compare_digest(found[6] or "", _sign(found[1], key)):
            why = f"the checkpoint in line {number} is {'wrongly signed' if found[6] else 'not signed'}"
            raise ConfigurationError(f"{name} cannot be trusted", why, "Use the key it was signed with")
        points.append(Checkpoint(found[2], int(found[3]), found[4], found[5]))
    if not points:
        raise ConfigurationError(f"{name} cannot be used", "it holds no checkpoint")
    return sorted(points, key=lambda point: point.seq)


def _sign(text: str, key: bytes) -> str:
    return hmac.new(checkpoint_key(key), text.encode("ascii"), "sha256").hexdigest()
