"""Which Python and which cloudpickle run here."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

__all__ = ["PYTHON", "cloudpickle_version", "version_of"]

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def version_of(distribution: str) -> str | None:
    """The installed version; None where it is not installed, or its metadata was left out."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def cloudpickle_version() -> str | None:
    """The installed version of cloudpickle."""
    return version_of("cloudpickle")
