"""What the workers of one test run share: locks between processes."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock of that kind on a file, which is made where there is none."""
    with path.open("a") as file:
        fcntl.flock(file, kind)
        yield
