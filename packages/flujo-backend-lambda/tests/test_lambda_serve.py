"""The worker over HTTP by the contract of Cloud Run: `$PORT`, POST, SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from lambda_kit import HERE, Cloud, event, task
from lambda_steps import slow_marks

from flujo.backend_lambda.reply import read


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
    assert (status, json.loads(body)["output"], facts.function) == (200, "HI!", "service")
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
