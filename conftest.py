"""How the tests share a machine: several at a time, but for those that measure time.

The run of a folder uses every core. That of files or of single tests stays in this process, as does one that is looked
into with `--pdb`, `--trace` or `-s`; `-n` says otherwise.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
from locks import locked


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Decide what `-n auto` of `addopts` means; None is a worker for each core."""
    looked_into = config.option.usepdb or config.option.trace or config.option.capture == "no"
    measures = config.option.benchmark_only or config.option.collectonly
    folders = any(Path(argument).is_dir() for argument in config.args)
    return None if folders and not looked_into and not measures else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse ids that are others in each process: workers could not agree on what there is to run."""
    strange = [item.nodeid for item in items if re.search(" at 0x[0-9a-f]+", item.nodeid)]
    if strange:
        raise pytest.UsageError("an address in an id, give the values other ids=:\n" + "\n".join(strange))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test of another worker run beside one that is marked `alone`; the wait is not on the test's timeout."""
    if not hasattr(item.config, "workerinput"):  # there is but this process
        return (yield)
    folder = item.config.cache.mkdir("turns")
    kind = fcntl.LOCK_SH if item.get_closest_marker("alone") is None else fcntl.LOCK_EX
    with ExitStack() as held:
        # who waits to be alone keeps the door shut, else the others would never all be out at once
        with locked(folder / "door"):
            held.enter_context(locked(folder / "room", kind))
        return (yield)
