"""Keys, and what is written in place of texts: a keyed digest, the same for the same text, useless without the key."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from flujo.core import ConfigurationError

from . import files

__all__ = ["Key", "checkpoint_key", "own_key", "read_key", "text_key"]

Key = bytes | str | os.PathLike[str]
"""A key itself (bytes, or text that counts as UTF-8), or the path of a file that holds one."""

_SHORTEST = 16


def read_key(key: Key) -> bytes:
    """Read a key; white space around the content of a key file does not count.

    Raises:
        ConfigurationError: The file cannot be read, or the key is shorter than 16 bytes.
    """
    if isinstance(key, bytes | str):
        return _long_enough(key.encode() if isinstance(key, str) else key, "the key")
    path = Path(key)
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        what = f"key file {str(path)!r} cannot be read"
        raise ConfigurationError(what, error.strerror or "", "Name a file that holds the key") from error
    return _long_enough(content, f"key file {str(path)!r}")


def own_key(path: Path) -> bytes:
    """Read the key file at `path`, or create it with 256 random bits, readable by its owner only.

    Raises:
        ConfigurationError: The file is there and cannot be used.
        OSError: It cannot be created.
    """
    if not path.exists():
        files.make_folder(path.parent)
        # Whole before it has its name: another process that starts now must not read half a key.
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        files.create_file(draft, secrets.token_hex(32).encode() + b"\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was faster: its key is the log's key
        finally:
            draft.unlink()
        files.sync_folder(path.parent)
    return read_key(path)


def text_key(key: bytes) -> bytes:
    """The key for digests of texts. Each use has its own, so that a digest of a text never equals a signature."""
    return hmac.digest(key, b"flujo-audit text 1", "sha256")


def checkpoint_key(key: bytes) -> bytes:
    """The key for signatures of checkpoints."""
    return hmac.digest(key, b"flujo-audit checkpoint 1", "sha256")


def _long_enough(key: bytes, name: str) -> bytes:
    if len(key) < _SHORTEST:
        why = f"it has {len(key)} bytes, at least {_SHORTEST} are needed"
        raise ConfigurationError(f"{name} cannot be used", why, "Make one with `openssl rand -hex 32`")
    return key
