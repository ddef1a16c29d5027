"""Steps on the real runtime client, called by an unmodified boto3, paid for under the run's budget.

Numbers are those of the checks in docs/security/serialization-review.md.
"""

from __future__ import annotations

import base64
import importlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
from lambda_kit import BUCKET, HERE, Cloud, event, task
from lambda_steps import (
    Notes,
    asks,
    counts_note,
    dies,
    dies_metered,
    grows,
    hashed,
    marks,
    meets_model,
    metered,
    plain,
    says_report,
    shout,
    slow_marks,
    twice,
)
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flujo.backend_lambda import LambdaBackend, Rates
from flujo.backend_lambda.report import report_in
from flujo.backend_lambda.scan import _lately
from flujo.backend_lambda.testing.environment import Environment
from flujo.core import (
    ConfigurationError,
    Flujo,
    Map,
    OnGuardDenied,
    PipelineError,
    RetryPolicy,
    Step,
    UsageLimits,
    step,
)

RATES = Rates("0.0000166667", "0.0000002")
S3 = {"FLUJO_LAMBDA_BUCKET": BUCKET}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""For tests in which the loop of this side plays no part."""


@pytest.mark.anyio
async def test_steps_run_there_and_a_pipeline_mixes_both(cloud: Cloud) -> None:
    function = cloud.deploy()
    result = await Flujo(twice >> shout >> plain, backend=cloud.backend()).run_async("hi")
    assert result.unwrap() == 5
    assert len(function.records) == 3
    assert result.counts["executed_by"] == {"lambda": 3}


@pytest.mark.anyio
async def test_a_result_is_validated_a_pause_and_an_error_come_across(cloud: Cloud) -> None:
    cloud.deploy()
    backend = cloud.backend()
    made = (await Flujo(hashed, backend=backend).run_async("a")).unwrap()
    assert (type(made).__name__, made.text) == ("Digest", "a")
    paused = await Flujo(asks, backend=backend).run_async("this")
    assert paused.status == "paused"
    assert paused.pauses[0].question == "Is this right?"
    failed = await Flujo(dies, backend=backend).run_async("raise")
    assert failed.status == "failed"
    assert "ValueError: no such customer" in str(failed.error)


@asyncio_only
@pytest.mark.anyio
async def test_check_01_a_refusal_is_told_and_not_tried_again(cloud: Cloud) -> None:
    told: list[str] = []

    def note(event: OnGuardDenied) -> None:
        told.append(event.denial.hook)

    function = cloud.deploy()
    again = Step(shout.function, name="shout", retry=RetryPolicy(max_attempts=3, backoff_s=0.01))
    made = await Flujo(again, backend=cloud.backend(audience="others"), hooks=[note]).run_async("hi")
    assert made.status == "aborted"
    assert "E_AUD" in str(made.error)
    assert told == ["E_AUD"]
    assert len(function.records) == 1


HOSTILE: dict[str, dict[str, Any]] = {
    "schema": {"output": {"text": "a", "rounds": "many", "digest": "x"}},
    "nan": {"output": {"text": "a", "rounds": float("nan"), "digest": "x"}},
    "surrogate": {"output": {"text": "\ud800", "rounds": 1, "digest": "x"}},
    "another": {"task_id": "0" * 64},
    "spent less than nothing": {"usage": {"cost_usd": "-5"}},
}
"""What a worker says instead of, or beside, what it should."""


@pytest.mark.parametrize("lie", HOSTILE)
@asyncio_only
@pytest.mark.anyio
async def test_check_25_a_marked_answer_that_lies_is_a_failure_that_costs_the_whole_lease(
    cloud: Cloud, lie: str
) -> None:
    function = cloud.deploy(handler="lambda_hostile.handler", env={"LIE": json.dumps(HOSTILE[lie])})
    held = Step(metered.function, name="metered", lease=UsageLimits(total_cost_usd_limit="0.10"))
    limits = UsageLimits(total_cost_usd_limit=1)
    made = await Flujo(held, backend=cloud.backend(rates=Rates(0)), limits=limits).run_async("a")
    assert made.status == "failed"
    assert "what came back cannot be used" in str(made.error)
    assert made.usage.cost_usd == Decimal("0.10")
    assert len(function.records) == 1


@asyncio_only
@pytest.mark.anyio
async def test_check_25_the_hostile_worker_would_be_believed_if_it_told_the_truth(cloud: Cloud) -> None:
    cloud.deploy(handler="lambda_hostile.handler", env={"LIE": "{}"})
    limits = UsageLimits(total_cost_usd_limit=1)
    made = await Flujo(metered, backend=cloud.backend(rates=Rates(0)), limits=limits).run_async("a")
    assert (made.output.text, made.output.rounds) == ("a", 1)
    assert made.usage.cost_usd == 0


# --- what is delivered twice ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "s3", "dynamodb"])
def test_check_04_a_replay_gets_the_kept_answer_and_runs_nothing(
    cloud: Cloud, s3: Any, dynamodb: Any, where: str, tmp_path: Path
) -> None:
    kinds = {
        "memory": {"FLUJO_LAMBDA_CLAIMS": "memory"},
        "s3": S3,
        "dynamodb": {"FLUJO_LAMBDA_CLAIMS": "dynamodb:claims"},
    }
    cloud.deploy(env=kinds[where])
    path = tmp_path / "marks"
    _, sent = event(cloud, task(marks, str(path)))
    first = cloud.invoke(sent)
    if where != "memory":
        cloud.aws.cool()  # so that another process gets the next one
    assert cloud.invoke(sent) == first
    assert path.read_text() == "ran\n"


def test_check_05_a_replay_while_it_runs_is_refused(cloud: Cloud, s3: Any, tmp_path: Path) -> None:
    cloud.deploy(env=S3)
    path = tmp_path / "marks"
    _, sent = event(cloud, task(slow_marks, str(path)))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cloud.invoke, sent)
        while not path.exists():
            time.sleep(0.02)
        again = cloud.invoke(sent)
        assert (again["status"], again["code"]) == ("lost", "E_DUPLICATE")
        path.with_suffix(".go").touch()
        assert first.result()["status"] == "done"
    assert cloud.invoke(sent)["status"] == "done"
    assert path.read_text() == "ran\n"


def test_check_22_an_event_that_comes_twice_has_one_effect(cloud: Cloud, s3: Any, tmp_path: Path) -> None:
    function = cloud.deploy(env=S3, copies=2)
    path = tmp_path / "marks"
    _, sent = event(cloud, task(marks, str(path)))
    cloud.invoke(sent, InvocationType="Event")
    cloud.aws.settle(cloud.name)
    assert len(function.records) == 2
    assert path.read_text() == "ran\n"


def test_check_22_twenty_copies_at_once_have_one_effect_and_one_answer(cloud: Cloud, s3: Any, tmp_path: Path) -> None:
    function = cloud.deploy(env=S3)
    path = tmp_path / "marks"
    _, sent = event(cloud, task(marks, str(path)))
    with ThreadPoolExecutor(20) as pool:
        given = list(pool.map(lambda _: cloud.invoke(sent), range(20)))
    assert len(function.records) == 20
    assert path.read_text() == "ran\n"
    assert {one["status"] for one in given} <= {"done", "lost"}
    assert len({json.dumps(one) for one in given if one["status"] == "done"}) == 1
    claims = s3.list_objects_v2(Bucket=BUCKET, Prefix="flujo/claims/")["Contents"]
    assert len(claims) == 1


@pytest.mark.parametrize(
    "forged", ['{"v": "flujo.reply/1", "status": "rejected", "code": "E_SIG", "why": "no"}', "text", None]
)
def test_check_25_an_answer_that_another_put_into_the_claim_is_not_given(
    cloud: Cloud, s3: Any, forged: str | None
) -> None:
    """Such a refusal would say that nothing ran, and nothing would be paid."""
    cloud.deploy(env=S3)
    header, sent = event(cloud)
    if forged is None:  # of another task
        cloud.invoke(event(cloud, task(twice))[1])
        [other] = s3.list_objects_v2(Bucket=BUCKET, Prefix="flujo/claims/")["Contents"]
        body = s3.get_object(Bucket=BUCKET, Key=other["Key"])["Body"].read()
    else:
        body = json.dumps({"reply": forged}).encode()
    s3.put_object(Bucket=BUCKET, Key=f"flujo/claims/{header.task_id}", Body=body)
    given = cloud.invoke(sent)
    assert (given["status"], given["code"]) == ("lost", "E_BLOB")


def test_an_answer_is_given_where_it_cannot_be_kept(cloud: Cloud, s3: Any, tmp_path: Path) -> None:
    cloud.deploy(env=S3)
    path = tmp_path / "marks"
    header, sent = event(cloud, task(slow_marks, str(path)))
    with ThreadPoolExecutor(1) as pool:
        given = pool.submit(cloud.invoke, sent)
        while not path.exists():
            time.sleep(0.02)
        s3.delete_object(Bucket=BUCKET, Key=f"flujo/claims/{header.task_id}")
        path.with_suffix(".go").touch()
        assert given.result()["status"] == "done"


# --- sizes ------------------------------------------------------------------------------------------------------------


@asyncio_only
@pytest.mark.anyio
async def test_check_10_an_input_of_20_mb_goes_by_the_bucket(cloud: Cloud, s3: Any) -> None:
    function = cloud.deploy(env=S3)
    backend = cloud.backend(bucket=BUCKET)
    assert (await Flujo(plain, backend=backend).run_async("x" * 20_000_000)).unwrap() == 20_000_000
    blobs = s3.list_objects_v2(Bucket=BUCKET, Prefix="flujo/blobs/")["Contents"]
    assert [blob["Size"] > 20_000_000 for blob in blobs] == [True]
    assert (await Flujo(plain, backend=backend).run_async("x" * 100_000)).unwrap() == 100_000
    assert len(s3.list_objects_v2(Bucket=BUCKET, Prefix="flujo/blobs/")["Contents"]) == 1
    assert len(function.records) == 2
    # 140 kB are more than 200 kB as the event writes them.
    assert (await Flujo(plain, backend=backend).run_async("x" * 140_000)).unwrap() == 140_000
    assert len(s3.list_objects_v2(Bucket=BUCKET, Prefix="flujo/blobs/")["Contents"]) == 2


@asyncio_only
@pytest.mark.anyio
async def test_check_11_an_output_of_7_mb_comes_by_the_bucket(cloud: Cloud, s3: Any) -> None:
    function = cloud.deploy(env=S3)
    made = await Flujo(grows, backend=cloud.backend(bucket=BUCKET)).run_async(7_000_000)
    assert len(made.unwrap()) == 7_000_000
    assert function.records[0].result.error is None
    assert len(function.records[0].result.body) < 2000


@asyncio_only
@pytest.mark.anyio
async def test_check_11_without_a_bucket_it_is_a_failure_that_says_what_to_do(cloud: Cloud) -> None:
    cloud.deploy()
    made = await Flujo(grows, backend=cloud.backend()).run_async(7_000_000)
    assert made.status == "failed"
    assert "E_SIZE" in str(made.error)
    assert "FLUJO_LAMBDA_BUCKET" in str(made.error)


@asyncio_only
@pytest.mark.anyio
async def test_check_12_too_large_without_a_bucket_fails_here_and_names_the_input(cloud: Cloud) -> None:
    function = cloud.deploy()
    made = await Flujo(plain, backend=cloud.backend()).run_async("x" * 7_000_000)
    assert made.status == "failed"
    assert "input 'text'" in str(made.error)
    assert "6,291,456 are the most" in str(made.error)
    assert "bucket=" in str(made.error)
    assert not function.records


@asyncio_only
@pytest.mark.anyio
async def test_check_12_what_is_named_is_the_largest_part(cloud: Cloud) -> None:
    function = cloud.deploy()
    noted = Flujo(counts_note, backend=cloud.backend(), context_model=Notes)
    made = await noted.run_async("tiny", context=Notes(note="y" * 7_000_000))
    assert "context field 'note' makes the invocation" in str(made.error)
    made = await Flujo(closing("x" * 5_000_000), backend=cloud.backend(allow_pickle=True)).run_async("tiny")
    assert "its code makes the invocation" in str(made.error)
    assert not function.records


# --- code that travels ------------------------------------------------------------------------------------------------


def closing(prefix: object) -> Step[Any, Any]:
    @step
    async def closed(text: str) -> str:
        return f"{prefix} {text}"

    return closed


@asyncio_only
@pytest.mark.anyio
async def test_check_16_a_closure_travels_where_both_sides_allow_it(cloud: Cloud, s3: Any) -> None:
    cloud.deploy(env={"FLUJO_LAMBDA_ALLOW_PICKLE": "1", **S3})
    backend = cloud.backend(allow_pickle=True, bucket=BUCKET)
    assert (await Flujo(closing("dear"), backend=backend).run_async("Ada")).unwrap() == "dear Ada"
    large = closing("x" * 500_000)
    assert len((await Flujo(large, backend=backend).run_async("Ada")).unwrap()) == 500_004
    with pytest.raises(PipelineError, match="nothing can import its code"):
        Flujo(closing("dear"), backend=cloud.backend())


@asyncio_only
@pytest.mark.anyio
async def test_check_13_14_15_what_must_not_travel_fails_the_step_here(cloud: Cloud) -> None:
    function = cloud.deploy(env={"FLUJO_LAMBDA_ALLOW_PICKLE": "1"})
    backend = cloud.backend(allow_pickle=True)
    for held, code in ((anyio.Lock(), "E_LIVE"), ({"password": "x"}, "E_SECRET"), (open, None)):
        made = await Flujo(closing(held), backend=backend).run_async("Ada")
        if code is None:
            made.unwrap()
            continue
        assert made.status == "failed"
        assert code in str(made.error)
        assert "closure variable 'prefix'" in str(made.error)
    assert len(function.records) == 1


@asyncio_only
@pytest.mark.anyio
async def test_check_15_a_secret_of_the_environment_in_an_input_is_refused(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = cloud.deploy()
    monkeypatch.setenv("BILLING_TOKEN", "plain words that say nothing")
    _lately.cache_clear()  # what was read less than a second ago is not read again
    made = await Flujo(shout, backend=cloud.backend()).run_async("so: plain words that say nothing")
    assert made.status == "failed"
    assert "BILLING_TOKEN" in str(made.error)
    assert "plain words" not in str(made.error)
    assert not function.records


@asyncio_only
@pytest.mark.anyio
async def test_check_17_a_step_whose_module_the_worker_lacks_fails_with_what_helps(
    cloud: Cloud, tmp_path: Path
) -> None:
    cloud.deploy(task_root=tmp_path)
    made = await Flujo(shout, backend=cloud.backend()).run_async("hi")
    assert made.status == "aborted"
    assert "lambda_steps" in str(made.error)
    assert "flujo lambda build" in str(made.error)


@pytest.mark.parametrize("in_package", [False, True])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('os.environ["ONLY_HERE"]', "KeyError: 'ONLY_HERE'"),
        ('int(os.environ.get("ONLY_HERE", "none"))', "ValueError: invalid literal"),
        ('"ONLY_HERE" in os.environ or sys.exit(3)', "RuntimeError: it called sys.exit"),
        ('"ONLY_HERE" in os.environ or __import__("nowhere_at_all")', "No module named 'nowhere_at_all'"),
    ],
)
@asyncio_only
@pytest.mark.anyio
async def test_check_17_code_that_cannot_be_imported_there_is_a_refusal_that_says_why(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str, in_package: bool
) -> None:
    monkeypatch.setenv("ONLY_HERE", "1")
    monkeypatch.syspath_prepend(str(tmp_path))
    failing, code = (
        f"import os, sys\n{line}\n",
        "from flujo.core import step\n@step\ndef one(text: str) -> str: return text\n",
    )
    name = f"only_here_{tmp_path.name}"
    if in_package:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(failing)
        (tmp_path / name / "steps.py").write_text(code)
        name += ".steps"
    else:
        (tmp_path / f"{name}.py").write_text(failing + code)
    cloud.deploy(task_root=tmp_path)
    made = await Flujo(importlib.import_module(name).one, backend=cloud.backend()).run_async("hi")
    assert made.status == "aborted"
    assert words in str(made.error)


# --- workers that die -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["exit", "segv", "kill"])
@asyncio_only
@pytest.mark.anyio
async def test_check_18_a_crash_counts_by_its_report_and_the_next_task_gets_a_new_worker(
    cloud: Cloud, way: str
) -> None:
    function = cloud.deploy(memory_mb=512, timeout_s=10)
    flujo = Flujo(dies, backend=cloud.backend(rates=RATES))
    before = (await flujo.run_async("ok")).unwrap()
    crashed = await flujo.run_async(way)
    assert crashed.status == "failed"
    assert "WorkerLost: Runtime.ExitError" in str(crashed.error)
    report = report_in(function.records[1].result.log.decode())
    assert report is not None
    assert crashed.usage.cost_usd == RATES.cost(report)
    after = await flujo.run_async("ok")
    assert after.unwrap() != before


@asyncio_only
@pytest.mark.anyio
async def test_check_18_a_crash_counts_in_full_where_it_may_have_spent_or_aws_reports_nothing(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.deploy(memory_mb=512, timeout_s=10)
    held = Step(dies_metered.function, name="dies", lease=UsageLimits(total_cost_usd_limit="0.10"))
    limits = UsageLimits(total_cost_usd_limit=1)
    made = await Flujo(held, backend=cloud.backend(rates=RATES), limits=limits).run_async("exit")
    assert made.usage.cost_usd == Decimal("0.10")
    monkeypatch.setattr(Environment, "_framed", lambda environment, request_id, said, *rest: said)
    made = await Flujo(dies, backend=cloud.backend(rates=RATES), limits=limits).run_async("exit")
    assert made.usage.cost_usd == RATES.worst(10, 512)


@asyncio_only
@pytest.mark.anyio
async def test_check_18_a_crash_is_tried_again_where_the_step_says_so(cloud: Cloud) -> None:
    function = cloud.deploy()
    again = Step(dies.function, name="dies", retry=RetryPolicy(max_attempts=3, backoff_s=0.01))
    assert (await Flujo(again, backend=cloud.backend()).run_async("exit")).status == "failed"
    assert len(function.records) == 3


@asyncio_only
@pytest.mark.anyio
async def test_check_19_a_timeout_of_the_function_is_one_execution(cloud: Cloud) -> None:
    function = cloud.deploy(timeout_s=2)
    since = time.monotonic()
    made = await Flujo(dies, backend=cloud.backend()).run_async("sleep")
    assert type(made.error).__name__ == "StepTimeout"
    assert "no result after 2 s" in str(made.error)
    assert len(function.records) == 1
    assert function.records[0].result.status == "timeout"
    assert time.monotonic() - since < 30  # the step would sleep on for that long


@pytest.mark.anyio
async def test_check_20_a_slow_step_runs_once(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    path.with_suffix(".go").touch()
    function = cloud.deploy()
    made = await Flujo(slow_marks, backend=cloud.backend()).run_async(str(path))
    assert made.status == "completed"
    assert path.read_text() == "ran\n"
    assert len(function.records) == 1


@asyncio_only
@pytest.mark.anyio
async def test_check_20_the_client_waits_longer_than_the_function_may_take_and_sends_once(cloud: Cloud) -> None:
    cloud.deploy(timeout_s=600)
    backend = cloud.backend()
    assert (await backend.check()).timeout_s == 600
    ready = backend._ready
    assert ready is not None
    config = ready.client.meta.config
    assert config.read_timeout > 600
    assert config.retries["total_max_attempts"] == 1
    impatient = cloud.aws.client(read_timeout=5)
    with pytest.raises(ConfigurationError, match="a slow step would run several times"):
        await cloud.backend(client=impatient).check()
    impatient.close()


# --- many at a time ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_check_21_a_throttle_storm_ends_well_and_each_runs_once(cloud: Cloud, tmp_path: Path) -> None:
    function = cloud.deploy(concurrency=5)
    backend = cloud.backend(concurrency=5)
    await backend.check()
    backend._concurrency = 60  # as when others use the function too: more is sent than is let through
    made = await Flujo(Map(hashed, limit=60), backend=backend).run_async([str(n) for n in range(60)])
    assert [one.text for one in made.unwrap()] == [str(n) for n in range(60)]
    assert len(function.records) == 60
    assert function.throttled > 0


@pytest.mark.anyio
async def test_check_21_with_too_little_time_it_is_throttled_and_never_sent(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "marks.go").touch()
    function = cloud.deploy(concurrency=1)
    backend = cloud.backend(concurrency=1, patience_s=0.5)
    await backend.check()
    backend._concurrency = 5
    made = await Flujo(Map(slow_marks, limit=5, on_failure="collect"), backend=backend).run_async(
        [str(tmp_path / "marks")] * 5
    )
    kinds = [type(one).__name__ for one in made.unwrap()]
    assert kinds.count("Throttled") == 4
    assert len(function.records) == 1


@pytest.mark.parametrize("many", [10, pytest.param(100, marks=pytest.mark.soak)])
@asyncio_only
@pytest.mark.anyio
async def test_check_23_many_steps_at_once_cold_and_warm_in_order(cloud: Cloud, many: int) -> None:
    function = cloud.deploy(cold=True, timeout_s=60)
    backend = cloud.backend(concurrency=many)
    flujo = Flujo(Map(hashed, limit=many), backend=backend)
    words = [f"word {n}" for n in range(many)]
    for _ in range(2):
        made = (await flujo.run_async(words)).unwrap()
        assert [one.text for one in made] == words
        assert len({one.digest for one in made}) == many
    assert len(function.records) == 2 * many
    assert 0 < sum(record.result.init_ms is not None for record in function.records) <= many


@asyncio_only
@pytest.mark.anyio
async def test_check_23_a_task_carries_the_trace_of_its_step(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    sent: list[str] = []
    cloud.deploy()
    backend = cloud.backend()
    seal = backend._sealed

    def watched(task: Any, *rest: Any) -> Any:
        sent.append(task.trace["traceparent"])
        return seal(task, *rest)

    monkeypatch.setattr(backend, "_sealed", watched)
    await Flujo(Map(shout, limit=5), backend=backend).run_async(list("abcde"))
    spans = {f"{one.context.trace_id:032x}-{one.context.span_id:016x}" for one in exporter.get_finished_spans()
             if one.name == "step shout"}  # fmt: skip
    assert len(spans) == 5
    assert {one[3:52] for one in sent} == spans


# --- money ------------------------------------------------------------------------------------------------------------


@asyncio_only
@pytest.mark.anyio
async def test_check_24_what_aws_bills_is_what_the_run_counts(cloud: Cloud) -> None:
    function = cloud.deploy(memory_mb=1024)
    made = await Flujo(Map(shout, limit=10), backend=cloud.backend(rates=RATES)).run_async(list("abcdefghij"))
    reports = [report_in(record.result.log.decode()) for record in function.records]
    assert made.usage.cost_usd == sum((RATES.cost(one) for one in reports if one), Decimal(0))
    assert made.usage.cost_usd > 0
    assert any(one is not None and one.init_ms for one in reports)


@asyncio_only
@pytest.mark.anyio
async def test_check_24_a_budget_for_five_lets_exactly_five_through(cloud: Cloud) -> None:
    function = cloud.deploy(timeout_s=5)
    limits = UsageLimits(total_cost_usd_limit="0.50")
    paid = Step(meets_model.function, name="paid", lease=UsageLimits(total_cost_usd_limit="0.10"))
    made = await Flujo(
        Map(paid, limit=100), backend=cloud.backend(rates=Rates(0), concurrency=100), limits=limits
    ).run_async([str(n) for n in range(100)])
    assert made.status == "stopped"
    assert made.usage.cost_usd == Decimal("0.50")
    assert len(function.records) == 5


@asyncio_only
@pytest.mark.anyio
async def test_check_24_without_a_report_the_worst_case_counts(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.deploy(memory_mb=512, timeout_s=10)
    backend = cloud.backend(rates=RATES)
    monkeypatch.setattr("flujo.backend_lambda.invocation.report_in", lambda log, request_id: None)
    made = await Flujo(shout, backend=backend).run_async("a")
    assert made.status == "completed"
    assert made.usage.cost_usd == RATES.worst(10, 512)
    assert made.usage.unmeasured == 1


@asyncio_only
@pytest.mark.anyio
async def test_check_24_a_report_that_the_step_wrote_does_not_count_where_aws_writes_none(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = cloud.deploy(memory_mb=512, timeout_s=10)
    monkeypatch.setattr(Environment, "_framed", lambda environment, request_id, said, *rest: said)
    made = await Flujo(says_report, backend=cloud.backend(rates=RATES)).run_async("a")
    assert made.status == "completed"
    assert b"REPORT RequestId: x" in function.records[0].result.log
    assert made.usage.cost_usd == RATES.worst(10, 512)


@asyncio_only
@pytest.mark.anyio
async def test_a_limit_in_usd_without_rates_is_refused(cloud: Cloud) -> None:
    function = cloud.deploy()
    made = await Flujo(shout, backend=cloud.backend(), limits=UsageLimits(total_cost_usd_limit=1)).run_async("a")
    assert made.status == "failed"
    assert "rates=Rates" in str(made.error)
    assert not function.records


@asyncio_only
@pytest.mark.anyio
async def test_a_lease_that_does_not_hold_the_invocation_itself_is_refused(cloud: Cloud) -> None:
    function = cloud.deploy()
    paid = Step(meets_model.function, name="paid", lease=UsageLimits(total_cost_usd_limit="0.0000001"))
    limits = UsageLimits(total_cost_usd_limit=1)
    made = await Flujo(paid, backend=cloud.backend(rates=RATES), limits=limits).run_async("a")
    assert "LeaseTooSmall" in str(made.error)
    assert made.usage.cost_usd == 0
    assert not function.records


# --- before the run ---------------------------------------------------------------------------------------------------

Change = Callable[[Cloud], LambdaBackend]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cloud: cloud.backend("nobody"), "ResourceNotFoundException"),
        (lambda cloud: cloud.backend(concurrency=31), "may run 30 at the same time"),
        (lambda cloud: cloud.backend(signer=type(cloud.signer).generate()), "does not trust the key"),
        (lambda cloud: cloud.backend(allow_pickle=True), "its runtime is python3.8"),
    ],
    ids=["missing", "quota", "key", "python"],
)
@asyncio_only
@pytest.mark.anyio
async def test_what_could_make_a_run_fail_is_asked_before_it(cloud: Cloud, change: Change, words: str) -> None:
    cloud.deploy(concurrency=30, env={"FLUJO_SANDBOX_RUNTIME": "python3.8"})
    with pytest.raises(ConfigurationError, match=words):
        await change(cloud).check()


def test_settings_that_cannot_be_used_are_refused(cloud: Cloud) -> None:
    with pytest.raises(ConfigurationError, match="1 or more"):
        cloud.backend(concurrency=0)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        LambdaBackend("f", signer=HERE / "nothing.pem")
    assert base64.b64decode(cloud.signer.verifier.text)
