"""Programs that try to get out of the sandbox, or to take more than their share. All of it really runs."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from flujo.agent import Bubblewrap, SandboxLimits, SandboxMissing
from flujo.agent.seccomp import program
from flujo.agent.watch import descendants, memory_of

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("bwrap")]

SMALL = SandboxLimits(wall_s=5, cpu_s=2)


BOX = Bubblewrap(SMALL)
"""Whether it is a sandbox is found out once, by the first run."""


def run(source, limits=SMALL, files=None):
    if not BOX.probed:
        anyio.run(BOX.run, {}, ["true"])
    box = replace(BOX, limits=limits)
    return anyio.run(
        box.run, {"/box/p.py": textwrap.dedent(source).encode(), **(files or {})}, [box.python, "-I", "p.py"]
    )


def said(source, **more):
    ran = run(source, **more)
    assert ran.exit_code == 0, (ran.stopped, ran.errors.decode())
    return json.loads(ran.output)


def refused(action, setup=""):
    """The name of the error that an action ends with inside."""
    return said(f"""
import json
{setup}
try:
    answer = repr({action})
except Exception as error:
    answer = type(error).__name__
print(json.dumps(answer))
""")


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_outside_are_not_seen(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the key")
    for path in (secret, Path(__file__), Path("/etc/passwd"), Path("/etc/shadow"), Path.home() / ".bashrc"):
        assert refused(f"open({str(path)!r}).read()") == "FileNotFoundError"
    assert said("import json, os; print(json.dumps(sorted(os.listdir('/'))))") == sorted(
        {"bin", "box", "dev", "lib", "proc", "tmp", "usr"}
        | {name for name in ("lib64",) if Path("/", name).exists()}
        | {Path(root).parts[1] for root in Bubblewrap()._roots()}
    )


@pytest.mark.parametrize(
    "folder", ["/", "/usr", "/usr/lib", "/dev", "/dev/shm", "/proc/sys/kernel", "PREFIX", "ENVIRONMENT"]
)
def test_nothing_can_be_written_but_in_the_two_folders(folder):
    place = {"PREFIX": sys.base_prefix, "ENVIRONMENT": sys.prefix}.get(folder, folder)
    assert refused(f"open({place + '/flujo-was-here'!r}, 'w')") in {"OSError", "PermissionError", "FileNotFoundError"}
    assert not Path(place, "flujo-was-here").exists()


def test_the_two_folders_are_empty_again_in_the_next_run():
    seen = "print(json.dumps(os.listdir('/tmp') + os.listdir('/box')))"
    assert said(f"import json, os; open('/tmp/x', 'w'); open('/box/y', 'w'); {seen}").count("x") == 1
    assert {"x", "y"} & set(said(f"import json, os; {seen}")) == set()


def test_a_symlink_leads_nowhere(tmp_path):
    (tmp_path / "secret.txt").write_text("the key")
    for target in (f"{tmp_path}/secret.txt", "/etc/shadow", "/proc/1/root/etc/shadow", "/proc/self/root/../etc/shadow"):
        setup = f"import os; os.symlink({target!r}, 'link')"
        assert refused("open('link').read()", setup) in {"FileNotFoundError", "PermissionError"}
    setup = f"import os; os.symlink({str(tmp_path)!r}, 'folder')"
    assert refused("open('folder/new.txt', 'w')", setup) == "FileNotFoundError"
    assert os.listdir(tmp_path) == ["secret.txt"]


def test_a_file_given_under_a_name_that_leads_out_stays_inside(tmp_path):
    ran = run("print(0)", files={f"/box/../..{tmp_path}/out.txt": b"x"})
    assert os.listdir(tmp_path) == [], ran


def test_no_secret_of_the_caller_is_seen(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-caller")
    text = said("""
        import glob, json, os
        seen = [repr(dict(os.environ))]
        for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline"):
            seen.append(open(path).read())
        print(json.dumps("".join(seen)))
    """)
    assert "sk-of-the-caller" not in text
    assert str(Path.cwd()) not in text.replace(sys.prefix, "")


def test_no_open_file_of_the_caller_is_handed_on(tmp_path):
    with (tmp_path / "open.txt").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        left = said(
            "import json, os; fds = os.listdir('/proc/self/fd')[:-1]; "
            "print(json.dumps([os.readlink(f'/proc/self/fd/{fd}') for fd in fds]))"
        )
    assert left[0] == "/dev/null"
    assert [name for name in left[1:3] if not name.startswith(("pipe:", "socket:"))] == []
    assert [name for name in left[3:] if name != "/box/p.py"] == []


# --- network ----------------------------------------------------------------------------------------------------------


def test_a_server_of_the_host_cannot_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert refused(f"socket.create_connection({address!r}, timeout=1)", "import socket") == "ConnectionRefusedError"
        assert refused("socket.create_connection(('192.0.2.1', 80), timeout=1)", "import socket") == "OSError"


def test_unix_sockets_of_the_host_cannot_be_reached(tmp_path):
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as abstract:
        named.bind(str(tmp_path / "s"))
        named.listen()
        abstract.bind(f"\0flujo-{os.getpid()}")
        abstract.listen()
        setup = "import socket; s = socket.socket(socket.AF_UNIX)"
        assert refused(f"s.connect({str(tmp_path / 's')!r})", setup) == "FileNotFoundError"
        assert refused(f"s.connect('\\0flujo-{os.getpid()}')", setup) == "ConnectionRefusedError"


@pytest.mark.parametrize("family", ["AF_VSOCK", "AF_NETLINK", "AF_PACKET", "AF_ALG", "AF_CAN", "AF_TIPC"])
def test_other_kinds_of_socket_do_not_exist(family):
    assert refused(f"socket.socket(socket.{family}, socket.SOCK_DGRAM)", "import socket") == "OSError"


def test_a_loopback_of_its_own_works():
    assert (
        said("""
        import json, socket
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        print(json.dumps("connected"))
    """)
        == "connected"
    )


# --- rights -----------------------------------------------------------------------------------------------------------


def test_it_is_not_root_has_no_capability_and_gets_none():
    ids, status = said("""
        import json, os
        print(json.dumps([os.getresuid() + os.getresgid(), open("/proc/self/status").read()]))
    """)
    assert 0 not in ids
    for word in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{word}:\t{0:016x}" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    for action in (
        "os.setuid(0)",
        "os.setgroups([0])",
        "os.chroot('/box')",
        "os.mknod('/box/d', 0o20666, os.makedev(1, 1))",
    ):
        assert refused(action, "import os") in {"PermissionError", "OSError"}


SYSCALLS = {"unshare": (272, 97), "keyctl": (250, 219), "ptrace": (101, 117), "mount": (165, 40), "bpf": (321, 280)}
SYSCALLS |= {"io_uring_setup": (425, 425), "memfd_create": (319, 279), "shmget": (29, 194), "userfaultfd": (323, 282)}


@pytest.mark.parametrize("name", SYSCALLS)
def test_dangerous_system_calls_are_refused(name):
    number = SYSCALLS[name][os.uname().machine == "aarch64"]
    assert said(f"""
        import ctypes, json
        libc = ctypes.CDLL(None, use_errno=True)
        print(json.dumps([libc.syscall({number}, 0, 0, 0, 0, 0), ctypes.get_errno()]))
    """) == [-1, 1]


def test_no_user_namespace_can_be_made_by_any_way():
    assert said("""
        import ctypes, json
        libc = ctypes.CDLL(None, use_errno=True)
        number = 56 if __import__("os").uname().machine == "x86_64" else 220
        answers = [libc.syscall(number, 0x10000000 | 17, 0, 0, 0, 0) for _ in range(1)]
        if answers == [0]:
            __import__("os")._exit(0)
        print(json.dumps(answers))
    """) == [-1]


def test_the_second_set_of_system_calls_ends_the_program():
    assert run("import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 272, 0)").exit_code == 128 + 31  # SIGSYS


def test_programs_of_the_host_are_neither_seen_nor_killed():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pids = said("import json, os; print(json.dumps([int(p) for p in os.listdir('/proc') if p.isdigit()]))")
        assert len(pids) <= 3
        said(f"""
            import json, os, signal
            for pid in range(2, 40):
                if pid != os.getpid():
                    try: os.kill(pid, signal.SIGKILL)
                    except OSError: pass
            try: os.kill({other.pid}, signal.SIGKILL)
            except OSError: pass
            print(json.dumps(0))
        """)
        assert other.poll() is None
        other.communicate(b"\n")
    assert other.returncode == 0


def test_imports_cannot_be_led_to_other_code(monkeypatch, tmp_path):
    (tmp_path / "evil.py").write_text("print('evil')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "evil.py"))
    assert refused("__import__('evil')") == "ModuleNotFoundError"
    setup = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    assert refused("__import__('evil')", setup) == "ModuleNotFoundError"
    # from any object a way leads to the interpreter's insides; what is reached there is sealed in like all else
    classes = "{c.__name__: c for c in ().__class__.__base__.__subclasses__()}"
    reached = f"{classes}['Popen'](['id', '-u'], stdout=-1).communicate()[0] != b'0\\n'"
    assert refused(reached, "import subprocess") == "True"


# --- more than its share ----------------------------------------------------------------------------------------------


def test_a_fork_bomb_is_stopped_by_a_limit_that_binds():
    made = said("""
        import json, os, time
        made = 0
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(60)
                made += 1
        except BlockingIOError:
            print(json.dumps(made), flush=True)
            os._exit(0)
    """)
    assert 1 < made < SMALL.processes


def test_a_fork_bomb_that_never_gives_up_is_gone_after_its_time():
    ran = run(
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
    """,
        SandboxLimits(wall_s=2, cpu_s=2),
    )
    assert ran.exit_code != 0
    assert living() == []


def test_threads_count_like_processes():
    made = said("""
        import json, os, threading
        gate, made = threading.Event(), 0
        try:
            while True:
                threading.Thread(target=gate.wait, daemon=True).start()
                made += 1
        except (RuntimeError, MemoryError):
            print(json.dumps(made), flush=True)
            os._exit(0)
    """)
    assert 1 < made < SMALL.processes


def test_one_process_gets_no_more_memory_than_its_limit():
    limits = SandboxLimits(memory_bytes=256 * 1024**2)
    assert refused("len(bytearray(200 * 1024**2))") == str(200 * 1024**2)
    ran = run("x = bytearray(300 * 1024**2)", limits)
    assert b"MemoryError" in ran.errors


def test_all_processes_together_get_no_more_memory_than_the_limit():
    ran = run(
        """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                x = b"x" * (100 * 1024**2)
                time.sleep(60)
        time.sleep(60)
    """,
        SandboxLimits(wall_s=10, memory_bytes=256 * 1024**2),
    )
    assert "256 MiB of memory" in ran.stopped
    assert living() == []


def test_memory_that_many_share_counts_once():
    assert (
        said(
            """
        import json, os, time
        x = b"x" * (200 * 1024**2)
        children = [os.fork() for _ in range(1)]
        for _ in range(3):
            if 0 not in children:
                children.append(os.fork())
        if 0 in children:
            time.sleep(0.5)
            os._exit(0)
        for child in children:
            os.waitpid(child, 0)
        print(json.dumps(len(x)))
    """,
            limits=SandboxLimits(memory_bytes=400 * 1024**2),
        )
        == 200 * 1024**2
    )


def test_files_in_memory_are_bounded_in_size_and_number():
    assert refused("open('/tmp/x', 'wb').write(b'x' * (17 * 1024**2))") in {"OSError", str(16 * 1024**2)}
    ran = run("""
        for number in range(20):
            open(f"/tmp/{number}", "wb").write(b"x" * (15 * 1024**2))
    """)
    assert b"No space left" in ran.errors
    ran = run("""
        for number in range(10**7):
            open(f"/tmp/{number}", "w").close()
    """)
    assert ran.stopped == "it made more than 5000 files"


@pytest.mark.parametrize("source", ["while True: pass", "import time; time.sleep(60)", "import signal; signal.pause()"])
def test_an_endless_loop_ends(source):
    ran = run(source, SandboxLimits(wall_s=2, cpu_s=1))
    assert ran.exit_code == 128 + 9
    assert living() == []


def test_a_program_that_will_not_die_dies():
    ran = run(
        """
        import os, signal, time
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        os.fork(); os.setsid() if os.getpid() != os.getsid(0) else None
        os.fork()
        while True: time.sleep(1)
    """,
        SandboxLimits(wall_s=2),
    )
    assert ran.stopped == "it did not end within 2 s"
    assert living() == []


def test_a_child_left_behind_does_not_outlive_the_run():
    ran = run("""
        import os, time
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
    """)
    assert ran.exit_code == 0
    assert living() == []


def test_endless_output_is_not_kept():
    limits = SandboxLimits(wall_s=2, output_bytes=1000)
    ran = run("import sys\nwhile True: print('x' * 10_000); print('y' * 10_000, file=sys.stderr)", limits)
    assert (len(ran.output), len(ran.errors)) == (1000, 1000)


def test_a_cancelled_run_leaves_nothing_behind():
    async def cancelled():
        box = Bubblewrap()
        await box.run({}, ["true"])
        with anyio.move_on_after(0.5) as scope:
            await box.run({}, [box.python, "-I", "-c", "import time; time.sleep(60)"])
        return scope.cancelled_caught

    assert anyio.run(cancelled)
    assert living() == []


def test_it_runs_on_trio_too():
    async def main():
        return await Bubblewrap().run({}, ["echo", "hi"])

    assert anyio.run(main, backend="trio").output == b"hi\n"


def test_many_at_a_time_do_not_share_their_limits():
    async def main():
        box, codes = Bubblewrap(), []

        async def one():
            source = "import os, time\nfor _ in range(20):\n  if os.fork() == 0: time.sleep(60)\ntime.sleep(1)"
            codes.append((await box.run({}, [box.python, "-I", "-c", source])).exit_code)

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one)
        return codes

    assert anyio.run(main) == [0, 0, 0, 0]


# --- where there is none ----------------------------------------------------------------------------------------------


def test_a_bubblewrap_that_cannot_work_is_refused_with_its_apt_line(tmp_path):
    async def main():
        await Bubblewrap(environment=tmp_path).run({}, ["true"])

    with pytest.raises(SandboxMissing, match="apt-get install bubblewrap"):
        anyio.run(main)


def test_an_interpreter_in_the_users_home_folder_itself_is_refused(monkeypatch):
    monkeypatch.setenv("HOME", sys.base_prefix)
    with pytest.raises(SandboxMissing, match="home"):
        Bubblewrap()._roots()


def test_machines_without_a_filter_are_told_apart():
    assert program("riscv64") is None
    for machine in ("x86_64", "aarch64"):
        made = program(machine)
        assert made is not None
        assert len(made) % 8 == 0


def test_what_descends_from_a_process_is_found_and_measured():
    child = "[sys.executable, '-c', 'print(1, flush=True); input()']"
    code = f"import subprocess, sys; x = b'x' * (30 << 20); subprocess.run({child})"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as top:
        assert top.stdout.readline() == b"1\n"
        assert top.pid in list(descendants(os.getpid()))
        assert len(list(descendants(top.pid))) == 1
        assert memory_of(os.getpid(), 0) > 30 << 20
        top.communicate(b"\n")
    assert list(descendants(top.pid)) == []


def living():
    """Processes of sandboxes that are still there, but for those whose burial is due."""
    first = 0x7000_0000 if os.geteuid() == 0 else os.geteuid()
    found = []
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        facts = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        sealed = facts["Seccomp"] == "2" or facts["Name"] == "bwrap"
        if int(facts["Uid"].split()[0]) >= first and sealed and not facts["State"].startswith(("Z", "X")):
            found.append(facts["Name"])
    return found
