"""LocalLambda against what AWS documents, seen by an unmodified boto3."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flujo.backend_lambda.report import report_in
from flujo.backend_lambda.testing import Function, LocalLambda

HANDLER = """
import os, signal, time

def handler(event, context):
    print("said", event)
    if "exit" in event: os._exit(event["exit"])
    if "signal" in event: os.kill(os.getpid(), event["signal"])
    if "raise" in event: raise ValueError(event["raise"])
    time.sleep(event.get("sleep", 0))
    if "mark" in event: open(event["mark"], "a").write("x")
    return {"pid": os.getpid(), "left_ms": context.get_remaining_time_in_millis(), "env": sorted(os.environ),
            "x": "x" * event.get("size", 0)}
"""


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[LocalLambda]:
    (tmp_path / "one.py").write_text(HANDLER)
    with LocalLambda(account_concurrency=7) as local:
        local.add("one", handler="one.handler", task_root=tmp_path, timeout_s=1.0, memory_mb=128, concurrency=5)
        local.add("bad", handler="nowhere.handler", task_root=tmp_path)
        yield local


@pytest.fixture
def client(aws: LocalLambda) -> Iterator[Any]:
    made = aws.client(retries={"total_max_attempts": 1}, max_pool_connections=70)
    yield made
    made.close()


def invoke(client: Any, event: object, name: str = "one") -> tuple[Any, str | None, str]:
    given = client.invoke(FunctionName=name, Payload=json.dumps(event), LogType="Tail")
    log = base64.b64decode(given["LogResult"]).decode()
    return json.loads(given["Payload"].read()), given.get("FunctionError"), log


def test_the_first_call_is_cold_the_next_is_warm_and_the_report_says_so(client: Any) -> None:
    first, error, log = invoke(client, {"n": 1})
    second, _, later = invoke(client, {"n": 2})
    assert error is None
    assert first["pid"] == second["pid"]
    cold, warm = report_in(log), report_in(later)
    assert cold is not None
    assert warm is not None
    assert cold.init_ms is not None
    assert warm.init_ms is None
    assert cold.billed_ms > cold.init_ms
    assert "said {'n': 1}" in log
    assert "said" not in later.split("said {'n': 2}")[0]


def test_the_id_of_the_call_is_that_of_the_report(client: Any) -> None:
    given = client.invoke(FunctionName="one", Payload=b"{}", LogType="Tail")
    report = report_in(base64.b64decode(given["LogResult"]).decode())
    assert report is not None
    assert report.request_id == given["ResponseMetadata"]["RequestId"]


def test_a_function_sees_nothing_of_this_environment(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    seen, _, _ = invoke(client, {})
    assert "SECRET_OF_THE_CALLER" not in seen["env"]
    assert "AWS_LAMBDA_FUNCTION_NAME" in seen["env"]
    assert 0 < seen["left_ms"] <= 1000


def test_an_exception_keeps_the_process_a_death_does_not(client: Any) -> None:
    first, _, _ = invoke(client, {})
    raised, kind, _ = invoke(client, {"raise": "no"})
    assert (kind, raised["errorType"], raised["errorMessage"]) == ("Unhandled", "ValueError", "no")
    assert invoke(client, {})[0]["pid"] == first["pid"]
    for event, words in (
        ({"exit": 3}, "exit status 3"),
        ({"signal": 11}, "segmentation fault"),
        ({"signal": 9}, "killed"),
    ):
        died, kind, _ = invoke(client, event)
        assert (kind, died["errorType"]) == ("Unhandled", "Runtime.ExitError")
        assert words in died["errorMessage"]
    assert invoke(client, {})[0]["pid"] != first["pid"]


def test_time_is_up_and_the_process_is_killed(client: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    given, kind, log = invoke(client, {"sleep": 1.5, "mark": str(mark)})
    assert (kind, given["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    assert "Task timed out after 1.00 seconds" in given["errorMessage"]
    assert "Status: timeout" in log
    time.sleep(1)
    assert not mark.exists()


def test_a_handler_that_cannot_be_imported_says_so(client: Any) -> None:
    given, kind, _ = invoke(client, {}, "bad")
    assert (kind, given["errorType"]) == ("Unhandled", "Runtime.ImportModuleError")


def test_payloads_have_their_limits(client: Any) -> None:
    with pytest.raises(client.exceptions.RequestTooLargeException):
        client.invoke(FunctionName="one", Payload=json.dumps({"x": "x" * 7_000_000}))
    with pytest.raises(client.exceptions.RequestTooLargeException):
        client.invoke(FunctionName="one", Payload=json.dumps({"x": "x" * 2_000_000}), InvocationType="Event")
    given, kind, _ = invoke(client, {"size": 7_000_000})
    assert (kind, given["errorType"]) == ("Unhandled", "Function.ResponseSizeTooLarge")


def test_requests_that_are_none_are_refused_as_aws_does(client: Any) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nobody", Payload=b"{}")
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="one", Payload=b"{")
    assert client.invoke(FunctionName="one", Payload=b"{}", InvocationType="DryRun")["StatusCode"] == 204


def test_what_is_too_much_at_once_is_throttled(client: Any) -> None:
    def one(_: int) -> str:
        try:
            invoke(client, {"sleep": 0.4})
        except client.exceptions.TooManyRequestsException as error:
            return str(error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"])
        return "ok"

    with ThreadPoolExecutor(20) as pool:
        given = list(pool.map(one, range(20)))
    assert given.count("ok") == 5
    assert given.count("1") == 15


def test_an_event_is_made_again_and_then_dead_and_may_come_twice(aws: LocalLambda, client: Any, tmp_path: Path) -> None:
    function: Function = aws.add("twice", handler="one.handler", task_root=tmp_path, copies=2, retries=1)
    mark = tmp_path / "mark"
    good = client.invoke(FunctionName="twice", Payload=json.dumps({"mark": str(mark)}), InvocationType="Event")
    client.invoke(FunctionName="twice", Payload=json.dumps({"raise": "no"}), InvocationType="Event")
    aws.settle("twice")
    assert good["StatusCode"] == 202
    assert mark.read_text() == "xx"
    assert len(function.dead) == 2
    assert len(function.records) == 2 + 2 * 2


def test_what_is_asked_before_a_run_is_answered(client: Any) -> None:
    assert client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"] == 7
    assert client.get_function_concurrency(FunctionName="one")["ReservedConcurrentExecutions"] == 5
    told = client.get_function_configuration(FunctionName="arn:aws:lambda:eu-central-1:123456789012:function:one")
    assert (told["FunctionName"], told["MemorySize"], told["Timeout"]) == ("one", 128, 1)
