"""A process that creates a run and holds it until it is ended: `hitl_holder.py PATH RUN_ID LEASE_S`."""

import sys

import anyio
from hitl_trials import row, run, store_at


async def main(path: str, run_id: str, lease_s: float) -> None:
    store = store_at(path, lease_s=lease_s)
    hold = await store.create(run(run_id))
    await store.append(hold, [row(0)])
    sys.stdout.write("held\n")
    sys.stdout.flush()
    await anyio.sleep(60)


anyio.run(main, sys.argv[1], sys.argv[2], float(sys.argv[3]))
