"""What runs of every kind tell under the real SDK: which span belongs to which, events, and metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flujo.core import signals

FLOWS = Path(__file__).with_name("telemetry_flows.py")
Told = dict[str, Any]


def told(backend: str, what: str) -> Told:
    command = [sys.executable, "-W", "error", str(FLOWS), backend, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: Told = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def both(request: pytest.FixtureRequest) -> Told:
    return told(request.param, "both")


def of(found: Told, workflow: str) -> list[Told]:
    return [span for span in found["spans"] if span["attributes"].get(signals.WORKFLOW) == workflow]


def run_spans(found: Told, workflow: str) -> list[Told]:
    return [span for span in found["spans"] if span["name"] == f"invoke_workflow {workflow}"]


def parents(found: Told) -> set[tuple[str, str | None]]:
    names = {span["id"]: span["name"] for span in found["spans"]}
    return {(span["name"], names.get(span["parent"])) for span in found["spans"]}


def points(found: Told, metric: signals.Metric) -> list[Told]:
    listed: list[Told] = found["metrics"][metric.name]["points"]
    return listed


def values(found: Told, metric: signals.Metric) -> set[tuple[object, ...]]:
    """What stands on the metric's labels, each with its value or count."""
    return {
        (*(point["labels"].get(label) for label in metric.labels), point.get("value", point.get("count")))
        for point in points(found, metric)
    }


# --- which span belongs to which ------------------------------------------------------------------------------------


def test_branches_items_and_threads_stand_under_their_run_and_what_users_trace_in_them_under_their_step(
    both: Told,
) -> None:
    assert {
        ("invoke_workflow wide", "request"),
        ("step here", "invoke_workflow wide"),
        ("in here", "step here"),
        ("step there", "invoke_workflow wide"),
        ("in there", "step there"),
        ("step item", "invoke_workflow wide"),
        ("in item 1", "step item"),
        ("in item 2", "step item"),
    } <= parents(both)
    traces = {span["trace"] for span in [*of(both, "wide"), *run_spans(both, "begun")]}
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["begun", "plain", "portal"])
def test_a_run_is_part_of_its_callers_trace_however_it_is_started(both: Told, name: str) -> None:
    caller = "request" if name == "begun" else "sync request"
    assert (f"invoke_workflow {name}", caller) in parents(both)


def test_a_resumed_run_is_linked_to_the_run_before_it(both: Told) -> None:
    first, second, third = run_spans(both, "asked")
    assert (first["links"], second["links"], third["links"]) == ([], [first["id"]], [second["id"]])


def test_a_run_of_a_store_is_linked_too_also_where_its_process_goes_away(both: Told) -> None:
    first, second, *refused = run_spans(both, "stored")
    assert second["links"] == [first["id"]]
    assert both["kept while it runs"] == both["at hand"]
    assert both["at hand"].split("-")[1:3] == [first["trace"], first["id"]]
    assert both["second"] == "RunExists"
    assert [span["attributes"]["error.type"] for span in refused] == ["RunExists"] * 2
    assert not any(signals.STATUS in span["attributes"] for span in refused)


def test_what_the_caller_says_of_a_run_is_on_its_span(both: Told) -> None:
    attributes = run_spans(both, "wide")[0]["attributes"]
    assert (attributes["flujo.actor"], attributes["flujo.tag.ticket"]) == ("ann", "T1")
    assert "flujo.tenant" not in attributes
    assert len(attributes["flujo.fingerprint"]) >= 32


# --- events ---------------------------------------------------------------------------------------------------------


def events(found: Told, workflow: str) -> list[Told]:
    return [event for span in of(found, workflow) for event in span["events"]]


def test_each_retry_is_an_event_of_the_span_around_it(both: Told) -> None:
    retry = {"name": "flujo.retry", "flujo.step.path": "flaky", "flujo.step.attempt": 1, "flujo.retry.delay": 0.0}
    retry["gen_ai.workflow.name"] = "again"
    by_span = {span["name"]: span["events"] for span in of(both, "again") if span["events"]}
    assert by_span == {
        "step flaky": [{**retry, "error.type": "TimeoutError"}],
        "invoke_workflow again": [{**retry, "error.type": "KeyError"}],
    }


def test_a_cache_hit_is_an_event_and_its_step_is_marked(both: Told) -> None:
    assert [event["name"] for event in events(both, "cached")] == ["flujo.cache.hit"]
    cached = [span["attributes"].get("flujo.step.cached") for span in of(both, "cached") if span["name"] == "step kept"]
    assert cached == [None, True]


def test_what_the_governor_decides_is_an_event(both: Told) -> None:
    warning, breach = events(both, "greedy")
    assert (warning["name"], warning["flujo.limit.name"]) == ("flujo.governor.warning", "total_cost_usd_limit")
    assert 0.5 <= warning["flujo.limit.share"] <= 1
    assert (breach["name"], breach["flujo.limit.name"]) == ("flujo.governor.breach", "total_cost_usd_limit")
    breached = {span["name"]: span["attributes"].get("governor_breached") for span in of(both, "greedy")}
    assert breached["invoke_workflow greedy"] is breached["step greedy"] is breached["chat large"] is True


def test_a_denial_names_the_plugin_and_the_hook_and_not_the_reason(both: Told) -> None:
    (denial,) = events(both, "denied")
    assert (denial["name"], denial["flujo.plugin"], denial["flujo.hook"]) == (
        "flujo.guard.denial",
        "Guard",
        "guard_step",
    )


def test_what_a_human_decided_is_an_event_of_the_resume(both: Told) -> None:
    first, second, third = run_spans(both, "asked")
    decided = [[event["flujo.hitl.pause_id"] for event in span["events"]] for span in (first, second, third)]
    assert decided == [[], ["parallel/one"], ["parallel/two"]]
    assert {event["name"] for event in events(both, "asked")} == {"flujo.hitl.decision"}
    assert [span["attributes"]["flujo.status"] for span in (first, second, third)] == ["paused", "paused", "completed"]


def test_nothing_private_is_told(both: Told) -> None:
    assert len(both["spans"]) > 50
    assert not [span["name"] for span in both["spans"] if "PRIVATE" in span["text"]]
    assert "PRIVATE" not in json.dumps(both["metrics"])


# --- metrics --------------------------------------------------------------------------------------------------------


def test_every_metric_of_the_table_is_made_with_its_labels_and_no_other(both: Told) -> None:
    assert both["metrics"].keys() == {metric.name for metric in signals.METRICS}
    for metric in signals.METRICS:
        made = both["metrics"][metric.name]
        assert (made["unit"], made["meaning"]) == (metric.unit, metric.meaning)
        labels = {label for point in made["points"] for label in point["labels"]}
        assert labels <= set(metric.labels), metric.name
        assert all(
            point.get("bounds") == (list(metric.buckets) if metric.buckets else None) for point in made["points"]
        )
        # Each label is there for something: some run above gives it.
        assert labels | {signals.ERROR_TYPE} >= set(metric.labels), metric.name


def test_runs_are_counted_by_how_they_ended(both: Told) -> None:
    assert {
        ("wide", "completed", 1),
        ("cached", "completed", 2),
        ("greedy", "stopped", 1),
        ("denied", "aborted", 1),
        ("asked", "paused", 2),
        ("asked", "completed", 1),
        ("stored", "paused", 1),
        ("stored", "completed", 1),
    } <= values(both, signals.RUNS)
    assert {("greedy", "UsageLimitExceeded", 1), ("asked", None, 3)} <= values(both, signals.RUN_S)


def test_moments_are_counted(both: Told) -> None:
    assert values(both, signals.RETRY) == {("again", "TimeoutError", 1), ("again", "KeyError", 1)}
    assert values(both, signals.CACHED) == {("cached", 1)}
    assert values(both, signals.BREACH) == {("greedy", "total_cost_usd_limit", 1)}
    assert values(both, signals.WARNING) == {("greedy", "total_cost_usd_limit", 1)}
    assert values(both, signals.DENIAL) == {("denied", "Guard", "guard_step", 1)}
    assert values(both, signals.DECISION) == {("asked", 2), ("stored", 1)}


def test_open_questions_are_those_that_were_asked_and_not_answered(both: Told) -> None:
    assert {one for one in values(both, signals.OPEN) if one[1] != 0} == {("waiting", 2)}
    assert ("asked", 0) in values(both, signals.OPEN)


def test_calls_are_measured_and_a_refused_one_is_none(both: Told) -> None:
    calls = {point["labels"].get("error.type"): point["count"] for point in points(both, signals.CALL_S)}
    sent = [span for span in both["spans"] if span["name"] == "chat large"]
    refused = [span for span in sent if span["attributes"].get("error.type") == "UsageLimitExceeded"]
    assert len(refused) == 1
    assert calls == {None: len(sent) - 2, "TimeoutError": 1}
    used = points(both, signals.TOKENS)
    assert len(used) == 2
    tokens = {point["labels"]["gen_ai.token.type"]: (point["count"], point["sum"]) for point in used}
    # What the failed call used is not known, so its tokens are no measurement.
    assert tokens == {"input": (calls[None], 3 * calls[None]), "output": (calls[None], 5 * calls[None])}


def test_what_runs_and_what_their_calls_cost_is_the_same(both: Told) -> None:
    runs, calls = points(both, signals.RUN_COST), points(both, signals.CALL_COST)
    whole = [span["attributes"] for span in both["spans"] if span["name"].startswith("invoke_workflow")]
    spans = [float(attributes.get("flujo.cost.usd", 0)) for attributes in whole]
    assert sum(point["value"] for point in runs) == pytest.approx(sum(point["value"] for point in calls))
    assert sum(point["value"] for point in runs) == pytest.approx(sum(spans))
    assert sum(spans) > 0.1


# --- one of both ----------------------------------------------------------------------------------------------------


def test_metrics_need_no_spans_and_spans_no_metrics(both: Told) -> None:
    measured, traced = told("asyncio", "metrics"), told("asyncio", "spans")
    assert measured["spans"] == []
    assert traced["metrics"] == {}
    for metric in signals.METRICS:
        assert values(measured, metric) == values(both, metric), metric.name
    assert sorted(span["name"] for span in traced["spans"]) == sorted(span["name"] for span in both["spans"])
