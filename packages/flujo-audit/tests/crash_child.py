"""Programs that the crash tests run and kill: `python crash_child.py MODE PATH ...`. Each prints one JSON line."""

import asyncio
import ctypes
import errno
import json
import multiprocessing
import os
import platform
import random
import resource
import signal
import struct
import sys
import time

from flujo.audit import AuditLog, AuditWriteError

WRITERS = 8


async def _write_for_ever(log: AuditLog, out: int, name: str) -> None:
    n = 0
    while True:
        n += 1
        await log.append({"event": "work", "id": f"{name}-{n}", "pad": "x" * (n * 37 % 500)})
        os.write(out, f"{name}-{n}\n".encode())


async def _eight_writers(path: str, out: int, moment: int) -> None:
    log = AuditLog(path)
    await asyncio.gather(*(_write_for_ever(log, out, f"m{moment}w{writer}") for writer in range(WRITERS)))


async def _append(path: str, *records: dict[str, object]) -> None:
    async with AuditLog(path) as log:
        for record in records:
            await log.append(record)


def kill(path: str, moments: str) -> dict[str, object]:
    """Fork a child with eight writers, kill it at a random moment, check the log; again and again on one log."""
    dice = random.Random(7)
    acknowledged: list[str] = []
    torn = 0
    for moment in range(int(moments)):
        out_of, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(out_of)
            asyncio.run(_eight_writers(path, into, moment))
        os.close(into)
        with open(out_of, "rb") as lines:
            lines.peek(1)
            time.sleep(dice.random() * 0.08)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            acknowledged += [line.decode().strip() for line in lines if line.endswith(b"\n")]
        with open(path, "rb") as log:
            torn += not log.read().endswith(b"\n")
        asyncio.run(_append(path, {"event": "restart"}))
    return {"acknowledged": acknowledged, "torn": torn}


def write(path: str, name: str, count: str) -> dict[str, object]:
    """Append some records, several tasks at a time."""

    async def work(log: AuditLog, task: int) -> None:
        for n in range(int(count)):
            await log.append({"id": f"{name}-{task}-{n}"})

    async def main() -> None:
        async with AuditLog(path) as log:
            await asyncio.gather(*(work(log, task) for task in range(4)))

    asyncio.run(main())
    return {}


def fork(path: str) -> dict[str, object]:
    """Fork, and spawn, while the log is open and its thread lives; all three then write at the same time."""

    async def main() -> list[int | None]:
        log = AuditLog(path)
        await log.append({"id": "before"})
        child = os.fork()
        if child == 0:
            # A new loop in the child: the parent's is not the child's to run.
            os._exit(0 if _in_new_loop(log, "child") else 1)
        spawned = multiprocessing.get_context("spawn").Process(target=write, args=(path, "spawned", "10"))
        spawned.start()
        for n in range(100):
            await log.append({"id": f"parent-{n}"})
        await asyncio.to_thread(spawned.join)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        return [os.waitstatus_to_exitcode(status), spawned.exitcode]

    return {"exit": asyncio.run(main())}


def _in_new_loop(log: AuditLog, name: str) -> bool:
    async def work() -> None:
        for n in range(100):
            await log.append({"id": f"{name}-{n}"})

    asyncio.events._set_running_loop(None)
    asyncio.run(work())
    return True


def orphan(path: str) -> dict[str, object]:
    """Write without a pause, leave a child that only keeps what it inherited, and wait to be killed."""

    async def main() -> None:
        log = AuditLog(path)
        await log.append({"id": "first"})
        writers = [asyncio.create_task(_write_for_ever(log, os.open(os.devnull, os.O_WRONLY), "w")) for _ in range(8)]
        await asyncio.sleep(0.02)
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(json.dumps({"child": child}), flush=True)  # noqa: T201
        await asyncio.gather(*writers)

    asyncio.run(main())
    return {}


def full(path: str, room: str) -> dict[str, object]:
    """Let the file grow by `room` bytes only, as a full disk would; then give space again."""
    asyncio.run(_append(path, {"n": 1}, {"n": 2}))
    size = os.path.getsize(path)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def main() -> dict[str, object]:
        log = AuditLog(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(room), hard))
        answers = await asyncio.gather(*(log.append({"n": n}) for n in (3, 4, 5)), return_exceptions=True)
        while_full = os.path.getsize(path)
        ok_while_full = AuditLog.verify(path).ok
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        receipt = await log.append({"n": 6})
        return {
            "errors": [answer.errno for answer in answers if isinstance(answer, AuditWriteError)],
            "refused": len([answer for answer in answers if isinstance(answer, Exception)]),
            "grown": while_full - size,
            "ok_while_full": ok_while_full,
            "seq": receipt.seq,
        }

    return asyncio.run(main())


def sync_fails(path: str) -> dict[str, object]:
    """Have the kernel itself answer EIO to every fdatasync of this process, and count what the log then does."""
    asyncio.run(_append(path, {"n": 1}))
    size = os.path.getsize(path)
    _refuse_fdatasync()

    async def main() -> dict[str, object]:
        log = AuditLog(path)
        answers = [await asyncio.gather(log.append({"n": n}), return_exceptions=True) for n in (2, 3)]
        errors = [answer.errno for [answer] in answers if isinstance(answer, AuditWriteError)]
        return {"errors": errors, "grown": os.path.getsize(path) - size}

    return asyncio.run(main())


def _refuse_fdatasync() -> None:
    """A seccomp filter: `if syscall == fdatasync: return EIO`."""
    number = {"x86_64": 75, "aarch64": 83}[platform.machine()]
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EIO
    rules = [(load, 0, 0, 0), (jump_if_equal, 0, 1, number), (answer, 0, 0, refuse), (answer, 0, 0, allow)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    set_no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(set_no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filter_mode, header, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp")


def leave(path: str) -> dict[str, object]:
    """Queue records and end the program at once, without close and without waiting for them."""

    async def main() -> None:
        log = AuditLog(path)
        tasks = [asyncio.create_task(log.append({"n": n})) for n in range(50)]
        await asyncio.sleep(0)
        del tasks

    asyncio.run(main())
    return {}


if __name__ == "__main__":
    modes = {mode.__name__: mode for mode in (kill, write, fork, orphan, full, sync_fails, leave)}
    print(json.dumps(modes[sys.argv[1]](*sys.argv[2:])))  # noqa: T201
