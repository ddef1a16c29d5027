"""Addresses where no cluster is. Each test has a process of its own, for one process has one cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flujo.backend_ray.cluster import dial

pytestmark = pytest.mark.timeout(120)

RUN = """
import json, os, sys, time
import ray_steps as steps
from flujo.backend_ray import RayBackend, cluster
from flujo.core import Flujo, Map, UsageLimits
cluster.CONNECT_S = 2.0
backend = RayBackend(address=sys.argv[1])
flow = Map(steps.cost_ten_cents, on_failure="collect")
since = time.monotonic()
result = Flujo(flow, backend=backend, limits=UsageLimits(total_cost_usd_limit=100)).run([1, 2, 3])
took, items = time.monotonic() - since, result.unwrap()
print(json.dumps([took, str(result.total_cost_usd), [[one.error_type, str(one)] for one in items]]), flush=True)
os._exit(0)  # Ray may still be trying in its thread
"""


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where somebody listens, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


def run(address: str) -> tuple[float, str, list[list[str]]]:
    here = str(Path(__file__).parent)
    env = {**os.environ, "PYTHONPATH": here}
    command = [sys.executable, "-c", RUN, address]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=env)
    assert done.returncode == 0, done.stderr
    said: Any = json.loads(done.stdout.splitlines()[-1])
    return said[0], said[1], said[2]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nobody_listens_every_step_fails_at_once_and_costs_nothing(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:1"
    took, cost, errors = run(address)
    assert took < 10
    assert cost == "0"
    for kind, text in errors:
        assert kind == "ClusterUnreachable"
        assert f"the Ray cluster at {address!r} cannot be reached: [Errno 111] Connection refused" in text
        assert "mend address= or RAY_ADDRESS" in text


def test_where_no_cluster_answers_the_time_is_bounded_and_shared(silent: int) -> None:
    took, cost, errors = run(f"127.0.0.1:{silent}")
    assert took < 2 * 2.0 + 10
    assert cost == "0"
    assert {kind for kind, _ in errors} == {"ClusterUnreachable"}
    assert all("it let nobody in within 2 s" in text for _, text in errors)


@pytest.mark.parametrize("address", ["auto", "local", "head", "a:1,b:2", "anyscale://x:1", "[::1"])
def test_an_address_that_only_ray_understands_is_left_to_ray(address: str) -> None:
    dial(address)


def test_an_open_port_passes(silent: int) -> None:
    for address in (f"127.0.0.1:{silent}", f"ray://127.0.0.1:{silent}/?space=a"):
        dial(address)


OTHER = """
import json, os, ray
import ray_steps as steps
from flujo.backend_ray import RayBackend
from flujo.core import Flujo
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
there = ray.get_runtime_context().gcs_address
host, port = there.rsplit(":", 1)
said = []
for address in (there, f"127.0.0.1:{port}", f"{host}:1", f"no-such-host.invalid:{port}"):
    result = Flujo(steps.cost_ten_cents, backend=RayBackend(address=address, actors=1)).run(1)
    said.append([result.status, getattr(result.error, "error_type", ""), str(result.error), str(result.total_cost_usd)])
print(json.dumps([there, said]), flush=True)
"""


def test_an_address_is_refused_in_a_process_that_is_in_another_cluster() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", OTHER], capture_output=True, text=True, check=False, timeout=110, env=env
    )
    assert done.returncode == 0, done.stderr
    there, (by_name, by_loopback, by_port, by_host) = json.loads(done.stdout.splitlines()[-1])
    assert by_name[0] == by_loopback[0] == "completed", (by_name, by_loopback)
    for status, kind, text, cost in (by_port, by_host):
        assert (status, kind, cost) == ("failed", "ClusterUnreachable", "0")
        assert f"this process is connected to the cluster at {there}" in text
        assert "Leave address= out" in text
