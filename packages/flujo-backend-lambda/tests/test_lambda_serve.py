"""The worker over HTTP by the contract of Cloud Run: `$PORT`, POST, SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lambda_kit import HERE, Cloud, event, task
from lambda_steps import interrupted, slow_marks

from flujo.backend_lambda import LambdaWorker, claims
from flujo.backend_lambda.claims import Claim, MemoryClaims
from flujo.backend_lambda.reply import read
from flujo.backend_lambda.serve import server_for
from flujo.backend_lambda.worker import Call


@pytest.fixture
def served(cloud: Cloud) -> Iterator[tuple[Cloud, int, subprocess.Popen[bytes]]]:
    cloud.name = "service"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = {**os.environ, **cloud.env, "K_SERVICE": "service", "PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "flujo.backend_lambda.serve"], cwd=HERE, env=env)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
            break
        except urllib.error.URLError:
            assert process.poll() is None
            time.sleep(0.05)
    yield cloud, port, process
    process.kill()
    process.wait()


def post(port: int, body: bytes) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=body) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_signed_task_is_served_and_others_are_not(served: tuple[Cloud, int, subprocess.Popen[bytes]]) -> None:
    cloud, port, _ = served
    header, sent = event(cloud)
    status, reply = post(port, sent)
    body, facts = read(json.dumps(reply).encode(), header, None, "shout")
    assert (status, json.loads(body)["output"], facts.worker) == (200, "HI!", "service")
    assert post(port, sent)[1] == reply  # a replay gets the kept answer
    for bad, code in ((event(cloud, aud="others")[1], "E_AUD"), (b"{}", "E_SHAPE")):
        status, reply = post(port, bad)
        assert (status, reply["code"]) == (403, code)
    assert post(port, b"{")[0] == 400


def test_requests_are_served_side_by_side_and_sigterm_waits_for_them(
    served: tuple[Cloud, int, subprocess.Popen[bytes]], tmp_path: Any
) -> None:
    cloud, port, process = served
    path = tmp_path / "marks"
    path.with_suffix(".go").touch()
    with ThreadPoolExecutor(9) as pool:
        slow = pool.submit(post, port, event(cloud, task(slow_marks, str(path)))[1])
        for one in pool.map(lambda _: post(port, event(cloud)[1]), range(8)):
            assert one[1]["status"] == "done"
        while not path.exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert slow.result()[1]["status"] == "done"
    assert process.wait(20) == 0


def test_a_connection_that_is_only_kept_open_does_not_hold_the_end_up(
    served: tuple[Cloud, int, subprocess.Popen[bytes]],
) -> None:
    _, port, process = served
    idle, half = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
    with idle, half:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")
        half.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nfirst of it")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(("length", "status"), [("9" * 5000, b"413"), ("99999999", b"413"), ("-1", b"411")])
def test_a_length_that_is_none_is_answered(
    served: tuple[Cloud, int, subprocess.Popen[bytes]], length: str, status: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", served[1])) as asked:
        asked.sendall(f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert asked.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_a_fault_of_the_worker_is_an_answer(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def handle(self, event: object, call: Call) -> dict[str, Any]:
            raise OSError("its store is gone")

    server = server_for({"PORT": "0"}, Broken())  # type: ignore[arg-type]  # a worker, as far as a server asks for one
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert post(server.server_port, b"{}") == (500, {"why": "OSError"})
    assert "its store is gone" in caplog.text
    server.stop()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("way", ["itself", "task", "exit of a task", "stopped loop"])
def test_a_step_that_ends_the_event_loop_is_answered_and_so_is_the_next(cloud: Cloud, way: str) -> None:
    """The worker hung for ever, and with it each later request of its process."""
    cloud.name = "service"
    worker = LambdaWorker("service", {cloud.signer.keyid: cloud.signer.verifier})
    with ThreadPoolExecutor(1) as pool:
        for word, said in (
            (way, "loop" if way == "stopped loop" else "sys.exit" if "exit" in way else "Keyboard"),
            ("no", "no"),
        ):
            sent = json.loads(event(cloud, task(interrupted, word))[1])
            answer = pool.submit(worker.handle, sent, Call()).result(timeout=20)
            assert answer["status"] == "done"
            assert said in json.dumps(answer)


def test_a_task_is_claimed_for_as_long_as_another_delivery_of_it_could_come(cloud: Cloud) -> None:
    """Nothing ends a step here, so no lease may end before its task does."""
    cloud.name = "service"
    leases: list[float] = []

    class Watched(MemoryClaims):
        def begin(self, task_id: str, lease_s: float) -> Claim:
            leases.append(lease_s)
            return super().begin(task_id, lease_s)

    worker = LambdaWorker("service", {cloud.signer.keyid: cloud.signer.verifier}, claims=Watched())
    header, sent = event(cloud, exp=time.time() + 1000)
    assert worker.handle(json.loads(sent), Call())["status"] == "done"
    assert time.time() + leases[0] == pytest.approx(header.exp, abs=100)
    worker.handle(json.loads(event(cloud)[1]), Call(remaining_s=5))
    assert leases[1] == 6


def test_a_delivery_that_is_void_by_the_time_its_body_is_there_does_not_run_its_task_again(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was good when it was checked; then a large body was fetched. The first delivery still runs."""
    cloud.name, mark = "service", tmp_path / "marks"
    worker = LambdaWorker("service", {cloud.signer.keyid: cloud.signer.verifier})
    header, sent = event(cloud, task(slow_marks, str(mark)), exp=time.time() + 1000)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(worker.handle, json.loads(sent), Call())
        while not mark.exists():
            time.sleep(0.02)
        monkeypatch.setattr(claims, "time", SimpleNamespace(time=lambda: header.exp + 1))
        again = pool.submit(worker.handle, json.loads(sent), Call())
        try:
            assert again.result(60)["code"] == "E_DUPLICATE"
        finally:
            mark.with_suffix(".go").touch()
        assert first.result()["status"] == "done"
    assert mark.read_text() == "ran\n"
