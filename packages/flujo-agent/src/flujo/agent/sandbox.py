"""A sandbox for programs that nobody has read: bubblewrap, as a user that is not root.

A program sees the system's `/usr`, the running interpreter and one environment, all read-only, and two small folders
in memory, `/box` and `/tmp`. It has no network, no secrets of the caller's environment, no way to more rights, and
limits on time, memory, processes and files. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory
from typing import IO

import anyio
from anyio.abc import ByteReceiveStream, Process

from . import seccomp, watch
from .errors import SandboxMissing

__all__ = ["Bubblewrap", "Ran", "SandboxLimits"]

BOX = "/box"
"""Where a program's files are, in the sandbox."""

_WRITABLE = (BOX, "/tmp")
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_POLL_S = 0.02
_FREE_UIDS = (0x7000_0000, 0x0FFF_0000)
"""First and number of the user ids from which a run as root takes one: no list of users or containers goes so high."""

_STAGE = """
mount -t tmpfs -o mode=0755,size=64k stage "$1"
stage=$1 left=$2 number=0 && shift 2
while [ "$left" -gt 0 ]; do
    mkdir "$stage/$number" && mount --bind "$1" "$stage/$number"
    number=$((number + 1)) left=$((left - 1)) && shift
done
exec "$@"
"""
"""Limits on processes do not bind root, and nobody else can enter root's home. So root shows the folders in a place
that a nameless user can enter, seen by this process alone, and becomes that user, who makes the sandbox."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one run of a program may use.

    Attributes:
        wall_s: Seconds after which all of it is killed.
        cpu_s: Seconds of processor time of each process.
        memory_bytes: Memory of all processes together, and address space of each.
        processes: Processes and threads at a time.
        disk_bytes: Size of each of the two folders it can write to, whole pages; a file may have a quarter of it.
        files: Number of files in the two folders together.
        output_bytes: What is kept of each of its two outputs; more is thrown away.
    """

    wall_s: float = 10
    cpu_s: int = 5
    memory_bytes: int = 512 * 1024**2
    processes: int = 32
    disk_bytes: int = 64 * 1024**2
    files: int = 5_000
    output_bytes: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run in the sandbox ended.

    Attributes:
        exit_code: Its exit code; 128 and more where a signal ended it.
        output: The first bytes of its standard output.
        errors: The first bytes of its standard error.
        stopped: The limit at which it was killed from outside, in words; empty where it ended by itself.
    """

    exit_code: int
    output: bytes
    errors: bytes
    stopped: str = ""


@dataclass(slots=True)
class Bubblewrap:
    """The sandbox.

    Attributes:
        limits: What each run may use.
        environment: The virtual environment whose packages programs can import; that of this process by default.
        probed: Whether a first run has shown that it is a sandbox.
    """

    limits: SandboxLimits = field(default_factory=SandboxLimits)
    environment: Path = field(default_factory=lambda: Path(sys.prefix))
    probed: bool = False

    @staticmethod
    def installed() -> bool:
        """Whether the program is there; whether it works, the first run tells."""
        return sys.platform == "linux" and shutil.which("bwrap") is not None

    @property
    def python(self) -> str:
        """The interpreter, as a program in the sandbox calls it."""
        return str(self.environment / "bin" / "python")

    async def run(self, files: Mapping[str, bytes], command: Sequence[str]) -> Ran:
        """Run a command in a fresh sandbox, and leave nothing of it behind.

        Args:
            files: Its files by their absolute path in the sandbox.
            command: The command; its working folder is `/box`.

        Raises:
            SandboxMissing: There is no bubblewrap, or it cannot work here; nothing was run.
        """
        if not self.probed:
            await self._probe()
            self.probed = True
        return await self._run(files, command)

    async def _probe(self) -> None:
        """Make sure that a sandbox is one before anything is run in it."""
        ran = await self._run({}, [self.python, "-I", "-c", _PROBE])
        if (ran.exit_code, ran.output.strip()) != (0, b"sealed"):
            said = (ran.errors or ran.output).decode(errors="replace").strip()[-500:]
            raise SandboxMissing(f"bubblewrap does not work here: {ran.stopped or said or 'no reason was given'}")

    async def _run(self, files: Mapping[str, bytes], command: Sequence[str]) -> Ran:
        with contextlib.ExitStack() as stack:
            filter_fd = stack.enter_context(_in_memory(_seccomp())).fileno()
            fds = {path: stack.enter_context(_in_memory(text)).fileno() for path, text in files.items()}
            stage = stack.enter_context(TemporaryDirectory(prefix="flujo-", dir="/tmp")) if os.geteuid() == 0 else ""
            if stage:
                Path(stage).chmod(0o755)
            process = await anyio.open_process(
                self._argv(fds, filter_fd, command, stage),
                stdin=DEVNULL,
                cwd="/",
                env={"PATH": _SYSTEM_PATH},  # /proc/1/environ shows it inside
                start_new_session=True,
                pass_fds=[filter_fd, *fds.values()],
            )
            try:
                return await self._supervised(process)
            finally:
                with anyio.CancelScope(shield=True):
                    _kill(process)
                    await process.aclose()

    async def _supervised(self, process: Process) -> Ran:
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors, stopped = bytearray(), bytearray(), ""
        async with anyio.create_task_group() as group:
            group.start_soon(_drain, process.stdout, output, self.limits.output_bytes)
            group.start_soon(_drain, process.stderr, errors, self.limits.output_bytes)
            with anyio.move_on_after(self.limits.wall_s) as clock:
                async with anyio.create_task_group() as watched:
                    reasons: list[str] = []
                    watched.start_soon(self._watch, process, reasons)
                    await process.wait()
                    watched.cancel_scope.cancel()
                stopped = "".join(reasons)
            if clock.cancelled_caught:
                stopped = f"it did not end within {self.limits.wall_s:g} s"
                _kill(process)
                await process.wait()
        assert process.returncode is not None
        return Ran(process.returncode, bytes(output), bytes(errors), stopped)

    async def _watch(self, process: Process, reasons: list[str]) -> None:
        limits = self.limits
        while process.returncode is None:
            if watch.memory_of(process.pid, limits.memory_bytes) > limits.memory_bytes:
                reasons.append(f"its processes took more than {limits.memory_bytes // 1024**2} MiB of memory")
            elif watch.files_of(process.pid, _WRITABLE, limits.disk_bytes) > limits.files:
                reasons.append(f"it made more than {limits.files} files")
            if reasons:
                _kill(process)
                return
            await anyio.sleep(_POLL_S)

    # --- the command line -------------------------------------------------------------------------------------------

    def _argv(self, files: Mapping[str, int], filter_fd: int, command: Sequence[str], stage: str) -> list[str]:
        bwrap, prlimit = _program("bwrap"), _program("prlimit")
        roots = self._roots()
        limited = self._limited(prlimit, command)
        if not stage:
            return [*self._sealed(bwrap, {root: root for root in roots}, files, filter_fd), *limited]
        shown = {f"{stage}/{number}": root for number, root in enumerate(roots)}
        first, count = _FREE_UIDS
        uid = str(first + secrets.randbelow(count))
        return [
            *(_program("unshare"), "--mount", "--propagation", "private", "--"),
            *(_program("sh"), "-euc", _STAGE, "stage", stage, str(len(roots)), *roots),
            *(_program("setpriv"), "--reuid", uid, "--regid", uid, "--clear-groups"),
            *("--inh-caps=-all", "--bounding-set=-all", "--"),
            *self._sealed(bwrap, shown, files, filter_fd),
            *limited,
        ]

    def _sealed(self, bwrap: str, roots: Mapping[str, str], files: Mapping[str, int], filter_fd: int) -> list[str]:
        disk = str(self.limits.disk_bytes)
        argv = [bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
        argv += ["--hostname", "sandbox", "--clearenv", "--seccomp", str(filter_fd)]
        for name, value in _ENVIRONMENT.items():
            argv += ["--setenv", name, value]
        argv += ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]
        for library in ("lib", "lib64"):
            if Path("/", library).exists():
                argv += ["--symlink", f"usr/{library}", f"/{library}"]
        argv += ["--proc", "/proc", "--dev", "/dev"]
        for folder in _WRITABLE:
            argv += ["--perms", "1777", "--size", disk, "--tmpfs", folder]
        for place, root in roots.items():
            argv += ["--ro-bind", place, root]
        for path, fd in files.items():
            for parent in reversed(Path(path).parents[:-1]):
                if parent != Path(BOX):
                    argv += ["--perms", "0777", "--dir", str(parent)]
            argv += ["--perms", "0444", "--file", str(fd), path]
        return [*argv, "--chdir", BOX, "--remount-ro", "/dev", "--remount-ro", "/", "--"]

    def _limited(self, prlimit: str, command: Sequence[str]) -> list[str]:
        limits = self.limits
        return [
            prlimit,
            f"--nproc={limits.processes}",
            f"--as={limits.memory_bytes}",
            f"--cpu={limits.cpu_s}",
            f"--fsize={limits.disk_bytes // 4}",
            "--nofile=128",
            "--core=0",
            "--memlock=0",
            "--msgqueue=0",
            "--",
            *command,
        ]

    def _roots(self) -> list[str]:
        """Folders with the interpreter and the packages, as they are named and as they are; outer ones first."""
        named = {Path(sys.base_prefix), Path(sys.base_exec_prefix), self.environment.absolute()}
        folders = sorted({*named, *(folder.resolve() for folder in named)}, key=lambda folder: len(folder.parts))
        kept: list[Path] = [Path("/usr")]
        for folder in folders:
            if Path.home().is_relative_to(folder):
                raise SandboxMissing(f"the interpreter is in {folder}, and so are the files of the user's home")
            if not any(folder.is_relative_to(other) for other in kept):
                kept.append(folder)
        return [str(folder) for folder in kept[1:]]


_ENVIRONMENT = {
    "PATH": "/usr/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    # few threads: each takes from the limits on processes and on address space
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
}

_PROBE = """
import os, resource
import pytest, ruff
facts = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
assert os.getuid() != 0 != os.geteuid(), "it runs as root"
assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0, "it has capabilities"
assert facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2", "no seccomp filter holds"
assert all(resource.getrlimit(limit)[1] > 0 for limit in (resource.RLIMIT_NPROC, resource.RLIMIT_AS)), "no limits hold"
networks = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
assert networks == ["lo"], f"it has a network: {networks}"
print("sealed")
"""


def _seccomp() -> bytes:
    machine = os.uname().machine
    program = seccomp.program(machine)
    if program is None:
        raise SandboxMissing(f"there is no filter of system calls for {machine} machines")
    return program


def _program(name: str) -> str:
    path = shutil.which(name, path=_SYSTEM_PATH) or shutil.which(name)
    if path is None:
        raise SandboxMissing(f"{name!r} is not installed")
    return path


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[IO[bytes]]:
    """A file that another program can be handed, without a name on any disk."""
    with os.fdopen(os.memfd_create("flujo"), "w+b") as file:
        file.write(content)
        file.seek(0)
        yield file


def _kill(process: Process) -> None:
    """Kill all of a sandbox: its first process, with which the others go, so that bubblewrap can bury it and end."""
    if process.returncode is not None:
        return
    first = next(watch.descendants(process.pid), process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)


async def _drain(stream: ByteReceiveStream, kept: bytearray, most: int) -> None:
    """Read all, so that the writer is not held up, and keep the first bytes."""
    async for chunk in stream:
        kept += chunk[: most - len(kept)]
