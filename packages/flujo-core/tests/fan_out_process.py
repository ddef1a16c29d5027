"""What `test_orchestration_checks.py` runs in processes of its own: a fan-out of twenty whose effects go to a file.

python fan_out_process.py start  EFFECTS SNAPSHOT    ten branches end, one breaks; writes the snapshot and is killed
python fan_out_process.py resume EFFECTS SNAPSHOT    goes on from the snapshot; prints status and outputs as JSON
"""

import json
import os
import signal
import sys
from pathlib import Path

import anyio

from flujo.core import Flujo, Parallel, Snapshot, Step

resuming = sys.argv[1] == "resume"
effects, stored = Path(sys.argv[2]), Path(sys.argv[3])
ten_ended = anyio.Event()


def note(name: str) -> None:
    with effects.open("a") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())


def branch(number: int) -> Step:
    async def work(value: int) -> int:
        if number >= 10 and not resuming:
            await ten_ended.wait()
            if number == 19:
                raise OSError("the machine is about to go away")
            await anyio.sleep_forever()
        note(f"b{number}")
        if effects.read_text().count("\n") == 10:
            ten_ended.set()
        return value + number

    return Step(work, name=f"b{number}")


async def main() -> None:
    flujo = Flujo(Parallel(*(branch(number) for number in range(20))))
    if resuming:
        snapshot = Snapshot.model_validate_json(stored.read_bytes())
        result = await flujo.resume_async(snapshot, retry=True)
        print(json.dumps({"status": result.status, "output": result.output, "history": len(result.step_history)}))  # noqa: T201
        return
    result = await flujo.run_async(100)
    stored.write_text(result.snapshot().model_dump_json())
    os.kill(os.getpid(), signal.SIGKILL)


anyio.run(main)
