"""A folder as a zip that is the same wherever and whenever it is made, and the list of what is in it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flujo.core import ConfigurationError

__all__ = ["MARKER", "UNZIPPED_LIMIT", "Packed", "pack", "tree_digest"]

UNZIPPED_LIMIT = 250 * 1024 * 1024
"""Bytes that AWS unpacks, layers included."""

MARKER = "flujo-artifact.json"
"""File in the artifact by which a worker knows what it was built from."""

_DATE = (1980, 1, 1, 0, 0, 0)
_FOLDERS = {".git", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
_FILES = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", ".lock", MARKER}
"""What differs from build to build, or serves nobody in a worker; METADATA and entry_points.txt serve plugins."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A folder, packed.

    Attributes:
        data: The zip.
        files: SHA-256 of each file by its path; the marker is not among them.
        unzipped: Bytes of all files.
    """

    data: bytes
    files: Mapping[str, str]
    unzipped: int

    @property
    def digest(self) -> str:
        """SHA-256 of the zip, in hex: its address, and what AWS calls CodeSha256."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def tree(self) -> str:
        """Digest of what is in it: the same where another zlib packs the same files into other bytes."""
        return tree_digest(self.files)


def tree_digest(files: Mapping[str, str]) -> str:
    """Digest of files by their paths and digests."""
    text = "".join(f"{digest}  {path}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def pack(folder: Path) -> Packed:
    """Pack a folder: sorted, without dates, without what differs from build to build.

    Raises:
        ConfigurationError: It is empty, or more than AWS unpacks.
    """
    found = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if _belongs(path, folder))
    contents = {name: path.read_bytes() for name, path in found}
    size = sum(map(len, contents.values()))
    if not contents or size > UNZIPPED_LIMIT:
        why = f"it holds {size:,} bytes in {len(contents)} files; AWS unpacks 1 to {UNZIPPED_LIMIT:,} bytes"
        do = "Leave dependencies out that the steps do not import, or deploy a container image"
        raise ConfigurationError("the artifact cannot be packed", why, do)
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    modes = {name: 0o755 if path.stat().st_mode & 0o100 else 0o644 for name, path in found}
    contents[MARKER], modes[MARKER] = json.dumps({"tree": tree_digest(files)}).encode(), 0o644
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(contents):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3  # as made on Unix, wherever it was: only then the mode counts
            info.external_attr = (0o100000 | modes[name]) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, contents[name])
    return Packed(out.getvalue(), files, size)


def _is_unchecked(path: Path) -> bool:
    """Whether a compiled file is bound to no source (PEP 552): the flags after its magic number say so."""
    return path.read_bytes()[4:8] == b"\x01\x00\x00\x00"


def _belongs(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    if not path.is_file() or path.name in _FILES:
        return False
    if path.suffix == ".pyc" and not _is_unchecked(path):
        return False  # it holds the date of its source
    return not any(part in _FOLDERS for part in parts) and parts[0] != "bin"
