"""A seccomp filter for code that nobody has read: what namespaces and resource limits leave open is closed here.

Key rings of the kernel and vsock, by which a virtual machine speaks to its host, know no namespace. Memory that
belongs to a file without a name, or to a System V segment, is in no limit of a process. Mounts, tracing, io_uring and
their like are the parts of the kernel in which escapes are found.
"""

from __future__ import annotations

import errno
import struct

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""What the kernel calls an architecture, and its column in the tables of numbers."""

_DENIED = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clone3": (435, 435),  # its flags cannot be read by a filter; C libraries fall back to clone
    "fanotify_init": (300, 262),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setns": (308, 268),
    "shmget": (29, 194),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
_MAKES_SOCKETS = {"socket": (41, 198), "socketpair": (53, 199)}
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6: the sandbox has a loopback of its own, and nothing else

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # where they are in what a filter is given
_X32 = 0x40000000  # a second set of numbers for the same calls, on x86_64


def program(machine: str) -> bytes | None:
    """The filter for a machine, as the kernel and bubblewrap take it; None where the machine is not known.

    Args:
        machine: As `os.uname().machine` says.
    """
    if machine not in _ARCHITECTURES:
        return None
    architecture, column = _ARCHITECTURES[machine]
    lines = [
        _line(_LOAD, _ARCHITECTURE),
        _line(_JUMP_EQUAL, architecture, 1, 0),
        _line(_RETURN, _KILL),
        _line(_LOAD, _NUMBER),
        _line(_JUMP_AT_LEAST, _X32, 0, 1),
        _line(_RETURN, _KILL),
    ]
    for name, numbers in _DENIED.items():
        refusal = errno.ENOSYS if name == "clone3" else errno.EPERM
        lines += [_line(_JUMP_EQUAL, numbers[column], 0, 1), _line(_RETURN, _ERRNO | refusal)]
    for numbers in _MAKES_SOCKETS.values():
        lines += _checked_family(numbers[column])
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def _checked_family(number: int) -> list[bytes]:
    checks = [_line(_JUMP_EQUAL, family, len(_FAMILIES) - n, 0) for n, family in enumerate(_FAMILIES)]
    body = [_line(_LOAD, _FIRST_ARGUMENT), *checks, _line(_RETURN, _ERRNO | errno.EAFNOSUPPORT), _line(_RETURN, _ALLOW)]
    return [_line(_JUMP_EQUAL, number, 0, len(body)), *body]


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
