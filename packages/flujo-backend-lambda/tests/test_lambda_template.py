"""A cold start that is forked is what one from nothing is: a process with all that a process has of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flujo.backend_lambda.testing import LocalLambda

HANDLER = """
import json, os, random, sys, tempfile, threading, time
print("init of", os.getpid())
open("inits", "a").write(f"{os.getpid()}\\n")
with_modules = sorted(sys.modules)
state = []

def handler(event, context):
    print("said", event.get("n"))
    state.append(event.get("n"))
    if "exit" in event: os._exit(event["exit"])
    time.sleep(event.get("sleep", 0))
    return {"pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "state": state, "argv": sys.argv[1:],
            "tmp": tempfile.gettempdir(), "env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path,
            "stdin": os.fstat(0).st_rdev, "random": random.random(), "threads": threading.active_count(),
            "main": sys.modules["__main__"].__name__, "modules": with_modules}
"""

SIMPLEJSON = """
import json, threading
from json import loads

threading.Thread(target=threading.Event().wait, daemon=True).start()

class JSONEncoder(json.JSONEncoder):
    def __init__(self, use_decimal, **given): super().__init__(**given)
"""


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[LocalLambda]:
    (tmp_path / "one.py").write_text(HANDLER)
    with LocalLambda() as local:
        local.add("forked", handler="one.handler", task_root=tmp_path, env={"MINE": "1"})
        local.add("fresh", handler="one.handler", task_root=tmp_path, env={"MINE": "1"}, forked=False)
        yield local


@pytest.fixture
def client(aws: LocalLambda) -> Iterator[Any]:
    made = aws.client(retries={"total_max_attempts": 1}, max_pool_connections=10)
    yield made
    made.close()


def invoke(client: Any, name: str = "forked", **event: object) -> Any:
    given = client.invoke(FunctionName=name, Payload=json.dumps(event))
    return json.loads(given["Payload"].read())


def at_once(client: Any, many: int, name: str = "forked") -> list[Any]:
    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(lambda n: invoke(client, name, n=n, sleep=0.5), range(many)))


def test_each_cold_start_is_a_process_with_its_own_init_state_folder_and_log(
    aws: LocalLambda, client: Any, tmp_path: Path
) -> None:
    seen = at_once(client, 4)
    pids = [one["pid"] for one in seen]
    assert len(set(pids)) == 4
    assert len({one["parent"] for one in seen}) == 1  # the template
    assert seen[0]["parent"] not in {os.getpid(), 1}
    assert sorted(map(int, (tmp_path / "inits").read_text().split())) == sorted(pids)
    assert [one["state"] for one in seen] == [[0], [1], [2], [3]]
    assert [one["session"] for one in seen] == pids
    assert len({one["tmp"] for one in seen}) == 4
    assert len({one["random"] for one in seen}) == 4
    for record in aws.functions["forked"].records:
        said = record.result.log.decode()
        assert said.count("init of") == said.count("said") == 1


def test_a_forked_process_sees_what_one_from_nothing_sees(client: Any) -> None:
    forked, fresh = invoke(client), invoke(client, "fresh")
    of_each = {"AWS_LAMBDA_RUNTIME_API", "HOME", "TMPDIR", "AWS_LAMBDA_FUNCTION_NAME", "_X_AMZN_TRACE_ID"}
    assert set(forked["env"]) == set(fresh["env"])
    assert {k: v for k, v in forked["env"].items() if k not in of_each} == {
        k: v for k, v in fresh["env"].items() if k not in of_each
    }
    assert forked["tmp"] == forked["env"]["TMPDIR"]
    for name in ("argv", "cwd", "path", "stdin", "threads", "main"):
        assert forked[name] == fresh[name], name
    assert not [name for name in forked["modules"] if name.startswith(("flujo", "pydantic"))]  # what it did not ask for


def test_a_death_takes_one_process_and_the_template_forks_the_next(client: Any) -> None:
    first = invoke(client)
    assert invoke(client, exit=3)["errorType"] == "Runtime.ExitError"
    second = invoke(client)
    assert second["parent"] == first["parent"]
    assert second["pid"] != first["pid"]
    assert second["state"] == [None]


def test_without_its_template_a_function_starts_from_nothing(client: Any) -> None:
    first = invoke(client)
    os.kill(first["parent"], signal.SIGKILL)
    given = invoke(client)
    while given.get("pid") in {None, first["pid"]}:  # the end of both is seen a little later
        given = invoke(client)
    assert given["parent"] == os.getpid()
    assert gone(first["pid"])


def test_where_the_runtime_client_starts_a_thread_nothing_is_forked(
    aws: LocalLambda, client: Any, tmp_path: Path
) -> None:
    """The folder of a function is first on the path, as on AWS: its simplejson is what the runtime client loads."""
    (tmp_path / "thread").mkdir()
    (tmp_path / "thread" / "one.py").write_text(HANDLER)
    (tmp_path / "thread" / "simplejson.py").write_text(SIMPLEJSON)
    aws.add("thread", handler="one.handler", task_root=tmp_path / "thread")
    seen = invoke(client, "thread")
    assert (seen["parent"], seen["threads"]) == (os.getpid(), 2)


def test_a_new_deployment_and_the_end_leave_no_process(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(HANDLER)
    with LocalLambda() as aws, closing(aws.client()) as client:
        aws.add("forked", handler="one.handler", task_root=tmp_path, env={"MINE": "1"})
        before = invoke(client)
        aws.add("forked", handler="one.handler", task_root=tmp_path, env={"MINE": "2"})
        after = invoke(client)
        assert after["env"]["MINE"] == "2"
        assert gone(before["pid"])
        assert gone(before["parent"])
        aws.cool()
        assert gone(after["pid"])
        last = invoke(client)
        assert last["parent"] == after["parent"]  # what is ready for the next cold start stays
    assert gone(last["pid"])
    assert gone(last["parent"])


def gone(pid: int) -> bool:
    """Whether a process ends within a while; one that ended and waits to be looked at is gone."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
