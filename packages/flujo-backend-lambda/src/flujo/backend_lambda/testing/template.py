"""The template of a function's processes. Run as a script with the handler and modules, it loads them and then forks.

It is started in the function's folder with the function's environment, as the function's processes are, and holds the
runtime client, ready to begin. It never imports the handler: each of its children does, after it was told its own part
of the environment. A line of JSON on standard input asks for a child; lines on standard output tell of its start and
of its end. The standard library only is used here, and no thread.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
import tempfile
import threading
from typing import Any, cast

Asked = dict[str, Any]


def main() -> None:
    """Load, and fork until nobody asks any more."""
    sys.path.insert(0, os.getcwd())  # as `python -m` has it; only now, for -P kept this file's own folder out
    handler, *modules = sys.argv[1:]
    for name in modules:
        importlib.import_module(name)
    if threading.active_count() > 1:
        os._exit(1)  # a module has started a thread, which no child would have, and for which an exit might wait
    gc.freeze()  # what is here stays; a child that looked through it would copy all of it
    asked = _asked()
    if asked is not None:
        _become(asked)
        sys.argv = ["awslambdaric", handler]
        runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


def _asked() -> Asked | None:
    """Fork as asked. Returns in the children, with what each was asked to be; here at the end, with None."""
    woken, waking = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waking, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    running: dict[int, int] = {}
    begun = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(running)
        if 0 not in ready:
            continue
        data = os.read(0, 65536)
        if not data:
            return None
        *lines, begun = (begun + data).split(b"\n")
        for line in lines:
            asked = cast(Asked, json.loads(line))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(woken)
                os.close(waking)
                return asked
            running[pid] = asked["id"]


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _tell(id=running.pop(pid), status=os.waitstatus_to_exitcode(status))


def _become(asked: Asked) -> None:
    """Be a process of the function, in a session of its own."""
    os.setsid()
    _tell(id=asked["id"], pid=os.getpid())
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(asked["log"], os.O_WRONLY | os.O_CREAT, 0o600)
    for here, there in ((null, 0), (log, 1), (log, 2)):
        os.dup2(here, there)
    os.close(null)
    os.close(log)
    os.environ.update(asked["env"])
    tempfile.tempdir = None  # it was found by another TMPDIR


def _tell(**told: int) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main()
