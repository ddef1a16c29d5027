"""The cluster that this process is connected to: found within a bound of time, or started here."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
import time
from concurrent.futures import Future
from ipaddress import ip_address
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

from .errors import ClusterUnreachable

__all__ = ["Cluster", "ray_module"]

DIAL_S = 10.0
"""Seconds for which the port of a cluster is tried. Ray itself goes on for minutes, also where nobody listens."""

CONNECT_S = 60.0
"""Seconds that a cluster at a given address may take to let this process in."""

FRESH_S = 1.0
"""Seconds for which a failure is told again: to the step whose backend could not get ready, and to those beside it."""


def ray_module() -> Any:
    """Ray's module. It takes a second to load, and its functions have no types."""
    import ray  # heavy: 1 s

    return ray


class Cluster:
    """The way to a cluster; used by one thread at a time.

    Args:
        address: See RayBackend.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._connecting: Future[None] | None = None
        self._failed: ClusterUnreachable | None = None
        self._failed_at = 0.0

    def connect(self, asked_at: float) -> None:
        """Connect to it, or start one here; does nothing where this process is connected. It blocks.

        Args:
            asked_at: When it was asked for, by `time.monotonic`: who waited while it was not reached tries no more.

        Raises:
            ClusterUnreachable: Nobody answers at the address, or lets this process in, or it is in another cluster.
        """
        ray = ray_module()
        if ray.is_initialized():
            head = _head(self._address or "")
            if head is not None and not _is_at(head, there := ray.get_runtime_context().gcs_address):
                why = f"this process is connected to the cluster at {there}, and can be in one only"
                raise ClusterUnreachable(
                    str(self._address), why, "Leave address= out, or use a process for each cluster"
                )
            return
        # Not left to Ray: it would join whatever cluster a file in the temp directory, which all can write, names.
        where = self._address or os.environ.get("RAY_ADDRESS") or "local"
        if self._failed is not None and asked_at < self._failed_at + FRESH_S:
            raise ClusterUnreachable(where, self._failed.reason)
        try:
            self._reach(where)
        except ClusterUnreachable as error:
            self._failed, self._failed_at = error, time.monotonic()
            raise

    def _reach(self, where: str) -> None:
        dial(where)
        if self._connecting is None or self._connecting.done():
            self._connecting = _connecting(where)
        try:
            error = self._connecting.exception(None if where == "local" else CONNECT_S)
        except TimeoutError:  # its thread goes on, and who asks next waits for that
            raise ClusterUnreachable(where, f"it let nobody in within {CONNECT_S:g} s") from None
        if error is not None:
            raise error if where == "local" else ClusterUnreachable(where, f"{type(error).__name__}: {error}")


def dial(where: str) -> None:
    """Look whether anybody listens at an address that names a host and a port.

    Raises:
        ClusterUnreachable: Nobody does.
    """
    head = _head(where.removeprefix("ray://"), 10001 if where.startswith("ray://") else None)
    if head is None:
        return
    try:
        socket.create_connection(head, timeout=DIAL_S).close()
    except OSError as error:
        raise ClusterUnreachable(where, str(error) or type(error).__name__) from error


def _is_at(head: tuple[str, int], there: str) -> bool:
    """Whether the head of a cluster that says of itself that it is `there` is this one.

    It says an address of its network; on the machine that it is on, it can be given as a loopback one as well.
    """
    other = _head(there)
    if other is None or other[1] != head[1]:
        return False
    try:
        given, said = ({str(at[4][0]) for at in socket.getaddrinfo(*one)} for one in (head, other))
    except OSError:  # a name that nobody knows is not where this process is
        return False
    return not given.isdisjoint(said) or any(ip_address(ip).is_loopback for ip in given)


def _head(where: str, usual_port: int | None = None) -> tuple[str, int] | None:
    """Host and port of an address; None where it names none, or only Ray understands it."""
    try:
        parts = urlsplit(f"//{where}")
        host, port = parts.hostname, parts.port or usual_port
    except ValueError:
        return None
    return None if "://" in where or host is None or port is None else (host, port)


def _connecting(where: str) -> Future[None]:
    """Connect in a thread that stays.

    A local cluster ends with the thread that started it: Linux tells its processes of the end of their parent, which
    is that thread.
    """
    ray = ray_module()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what Ray would tell its makers of this machine stays here
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine takes longer than its 30 s
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what it will do some day
    connected: Future[None] = Future()
    own = {"_temp_dir": _folder()} if where == "local" else {}

    def stay() -> None:
        try:
            ray.init(address=where, include_dashboard=False, log_to_driver=False, logging_level="error", **own)
        except Exception as error:  # whatever it is, who waits is told, and nothing of a cluster stays behind
            ray.shutdown()
            connected.set_exception(error)
            return
        connected.set_result(None)
        Event().wait()

    Thread(target=stay, name="flujo-ray", daemon=True).start()
    return connected


def _folder() -> str:
    """A folder for the files of a local cluster, among them what its steps print; it goes with the process."""
    # Not in TMPDIR: Ray makes sockets in it, and the path of one may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="flujo-ray-", dir="/tmp")

    def end() -> None:
        ray_module().shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return f"{folder}/ray"  # which Ray opens to all; nobody else comes through the folder around it
