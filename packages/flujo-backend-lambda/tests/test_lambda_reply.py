"""What comes back is data: hostile answers of a worker, and what AWS bills."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from lambda_kit import BUCKET, Canary

from flujo.backend_lambda import BadReply, LambdaFault, Rates, Report, S3Blobs
from flujo.backend_lambda.blobs import Blob, packed
from flujo.backend_lambda.envelope import Header
from flujo.backend_lambda.invocation import Answer, fault_of
from flujo.backend_lambda.reply import Reply, marked, read
from flujo.backend_lambda.report import report_in
from flujo.core import ConfigurationError, StepTimeout, TaskRejected

HEADER = Header.make("f", packed(b"{}", None, spill=False), lifetime_s=60)


def reply(body: Blob, **changes: Any) -> bytes:
    made = Reply(status="done", task_id=HEADER.task_id, body=body, mac=marked(HEADER, body))
    return made.model_copy(update=changes).model_dump_json().encode()


def test_a_good_answer_is_read() -> None:
    body, facts = read(reply(packed(b'{"a": 1}', None, spill=False)), HEADER, None, "step")
    assert (body, facts.is_cold) == (b'{"a": 1}', False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'{"ok": true}',
        b"\xff\xfe",
        b"NaN",
        b'{"v": "flujo.reply/1", "status": "done"',
        b"9" * 9999,
    ],
)
def test_check_25_what_is_no_answer_is_not_used(data: bytes) -> None:
    with pytest.raises(BadReply):
        read(data, HEADER, None, "step")


def test_check_25_a_pickle_is_not_unpickled(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for data in (pickle.dumps(Canary(canary)), json.dumps(pickle.dumps(Canary(canary)).decode("latin-1")).encode()):
        with pytest.raises(BadReply):
            read(data, HEADER, None, "step")
    assert not canary.exists()


def test_check_25_an_answer_to_another_task_and_a_changed_one_are_not_used() -> None:
    good = packed(b'{"a": 1}', None, spill=False)
    other = Header.make("f", good, lifetime_s=60)
    changed = good.model_copy(update={"text": '{"a": 2}'})
    for body, header in ((good, other), (changed, HEADER)):
        with pytest.raises(BadReply):
            read(reply(body), header, None, "step")
    for mac in ("", "0" * 64, "é"):
        with pytest.raises(BadReply):
            read(reply(good, mac=mac), HEADER, None, "step")


@pytest.mark.parametrize(
    "lie",
    [
        {"facts": {"engine": "x", "duration_s": -1}},
        {"facts": {"engine": "x", "duration_s": float("nan")}},
        {"facts": {"engine": 3}},
        {"why": "x" * 5000},
    ],
    ids=["negative", "nan", "kind", "why"],
)
def test_check_25_what_a_worker_says_of_itself_has_its_bounds(lie: dict[str, Any]) -> None:
    good = json.loads(reply(packed(b"{}", None, spill=False)))
    with pytest.raises(BadReply):
        read(json.dumps({**good, **lie}).encode(), HEADER, None, "step")


def test_check_25_a_result_in_the_bucket_is_checked_by_size_digest_and_key(s3: Any) -> None:
    store = S3Blobs(BUCKET, client=s3)
    body = packed(b"x" * 1000, store, spill=True)
    assert read(reply(body), HEADER, store, "step")[0] == b"x" * 1000
    with pytest.raises(BadReply, match=r"E_SIZE.*999 are the most"):
        read(reply(body), HEADER, store, "step", 999)
    huge = body.model_copy(update={"size": 2**30})
    with pytest.raises(BadReply, match="E_SIZE"):
        read(reply(huge), HEADER, store, "step")
    for key in ("../x", "blobs/sha256/" + "0" * 64):
        with pytest.raises(BadReply, match="E_BLOB"):
            read(reply(body.model_copy(update={"key": key})), HEADER, store, "step")
    s3.put_object(Bucket=BUCKET, Key=f"flujo/{body.key}", Body=b"y" * 5_000_000)
    with pytest.raises(BadReply, match="E_DIGEST"):
        read(reply(body), HEADER, store, "step")


def test_a_refusal_is_told_apart_from_a_task_that_may_have_run() -> None:
    refused = Reply(status="rejected", code="E_SIG", why="no", do="Look").model_dump_json().encode()
    with pytest.raises(TaskRejected, match=r"no\. Look") as rejected:
        read(refused, HEADER, None, "step")
    assert rejected.value.hook == "E_SIG"
    lost = Reply(status="lost", code="E_DUPLICATE", why="runs elsewhere").model_dump_json().encode()
    with pytest.raises(LambdaFault, match="E_DUPLICATE"):
        read(lost, HEADER, None, "step")


LINE = (
    "END RequestId: 8f5\nREPORT RequestId: 8f507cfc-xmpl-4697-b07a-ac58fc914c95\tDuration: 1003.19 ms\t"
    "Billed Duration: 1144 ms\tMemory Size: 512 MB\tMax Memory Used: 98 MB\tInit Duration: 139.59 ms\t\n"
    "XRAY TraceId: 1-5e34a614\tSegmentId: 07f\tSampled: true\t\n"
)
JSON = json.dumps({
    "time": "2026-11-28T00:00:00Z", "type": "platform.report",
    "record": {"requestId": "r-1", "status": "success", "metrics": {
        "durationMs": 1003.19, "billedDurationMs": 1144, "memorySizeMB": 512, "maxMemoryUsedMB": 98,
        "initDurationMs": 139.59,
    }},
})  # fmt: skip


def test_check_24_a_report_is_read_in_both_log_formats() -> None:
    text, record = report_in("START\nsaid REPORT\n" + LINE), report_in(f"said\n{JSON}\n")
    assert text == Report("8f507cfc-xmpl-4697-b07a-ac58fc914c95", 1003.19, 1144, 512, 98, 139.59)
    assert record == Report("r-1", 1003.19, 1144, 512, 98, 139.59)
    assert report_in("REPORT RequestId: x\tDuration: soon") is None
    assert report_in('{"type": "platform.report"}') is None
    assert report_in("") is None


def test_check_24_what_a_function_says_that_looks_like_a_report_does_not_count() -> None:
    cheap = "REPORT RequestId: x\tDuration: 1 ms\tBilled Duration: 0 ms\tMemory Size: 1 MB\tMax Memory Used: 1 MB\n"
    for log in (cheap + LINE, cheap + JSON, JSON.replace("1144", "0") + "\n" + LINE):
        report = report_in(log)
        assert report is not None
        assert report.billed_ms == 1144
    assert report_in(cheap.replace("Duration: 1 ms", "Duration: 1.1.1 ms")) is None


@pytest.mark.parametrize("log", [LINE, JSON])
def test_check_24_a_report_of_another_invocation_does_not_count(log: str) -> None:
    own = report_in(log)
    assert own is not None
    assert report_in(log, own.request_id) == own
    assert report_in(log, "another") is None


def test_check_24_cost_is_billed_time_by_memory_and_the_cold_start_is_in_it() -> None:
    report = report_in(LINE)
    assert report is not None
    assert report.gb_s == Decimal("0.572")
    rates = Rates("0.0000166667", "0.0000002")
    assert rates.cost(report) == Decimal("0.572") * Decimal("0.0000166667") + Decimal("0.0000002")
    assert rates.worst(30, 512) > rates.cost(report)
    for wrong in ("-1", "NaN", "cheap"):
        with pytest.raises(ConfigurationError, match="0 or more USD"):
            Rates(wrong)


def test_faults_of_an_invocation_are_told_apart() -> None:
    def fault(kind: str, text: str) -> object:
        data = json.dumps({"errorType": kind, "errorMessage": text}).encode()
        return fault_of(Answer(data, "Unhandled", None), "step", 3.0)

    assert isinstance(fault("Sandbox.Timedout", "x Task timed out after 3.00 seconds"), StepTimeout)
    assert isinstance(fault("", "2026 x Task timed out after 3.00 seconds"), StepTimeout)
    assert type(fault("Runtime.ExitError", "exit status 3")).__name__ == "WorkerCrash"
    assert type(fault("Runtime.OutOfMemory", "killed")).__name__ == "WorkerCrash"
    assert "incomplete" in str(fault("Runtime.ImportModuleError", "no module"))
    assert type(fault_of(Answer(b"\xff", "Unhandled", None), "step", 3.0)).__name__ == "LambdaFault"
    assert len(str(fault("ValueError", "x" * 6_000_000))) < 5000
