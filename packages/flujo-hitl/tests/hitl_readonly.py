"""A process that may not write what is there: `hitl_readonly.py FOLDER` prints what each attempt raises."""

import os
import stat
import sys
from pathlib import Path

import anyio
from hitl_trials import paused, run

from flujo.hitl import SQLiteStore, StoreError

folder = Path(sys.argv[1])


async def attempt(path: Path) -> None:
    store = SQLiteStore(path)
    try:
        await store.create(run("s"))
    except StoreError as error:
        sys.stdout.write(f"{type(error).__name__}\n")
    store.close()


async def prepare() -> None:
    store = SQLiteStore(folder / "runs.db")
    await paused(store, "r")
    store.close()


anyio.run(prepare)
if os.getuid() == 0:  # root may write everything
    for one in (folder, *folder.iterdir()):
        os.chown(one, 65534, 65534)
    for parent in folder.parents[:4]:
        os.chmod(parent, os.stat(parent).st_mode | stat.S_IXOTH)
    os.setgid(65534)
    os.setuid(65534)
os.chmod(folder / "runs.db", 0o400)
anyio.run(attempt, folder / "runs.db")
os.chmod(folder, 0o500)
anyio.run(attempt, folder / "new.db")
os.chmod(folder, 0o700)
