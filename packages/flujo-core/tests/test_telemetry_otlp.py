"""Spans and metrics over OTLP/HTTP, sent by real exporters of two processes and read as the protocol's messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import Receiver, receiving

WORKER = Path(__file__).with_name("telemetry_worker.py")


@pytest.fixture(scope="module")
def received() -> Iterator[Receiver]:
    with receiving() as receiver:
        command = [sys.executable, str(WORKER), receiver.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        yield receiver


def span(received: Receiver, name: str) -> Span:
    (found,) = [one for _, one in received.spans if one.name == name]
    return found


def test_spans_of_a_run_arrive_with_their_attributes(received: Receiver) -> None:
    run = span(received, "invoke_workflow far")
    attributes = {pair.key: pair.value for pair in run.attributes}
    assert attributes["gen_ai.operation.name"].string_value == "invoke_workflow"
    assert attributes["flujo.status"].string_value == "completed"
    assert attributes["governor_breached"].bool_value is False
    assert run.kind == Span.SPAN_KIND_INTERNAL


def test_what_another_process_did_of_a_step_stands_under_the_step(received: Receiver) -> None:
    step, work = span(received, "step double"), span(received, "work")
    assert [service for service, one in received.spans if one.name == "work"] == ["worker"]
    assert work.parent_span_id == step.span_id
    assert step.parent_span_id == span(received, "invoke_workflow far").span_id
    assert work.trace_id == step.trace_id


def test_metrics_arrive_with_their_units_and_labels(received: Receiver) -> None:
    runs = received.metrics["flujo.runs"]
    assert runs.unit == "{run}"
    assert runs.sum.is_monotonic
    (point,) = runs.sum.data_points
    labels = {pair.key: pair.value.string_value for pair in point.attributes}
    assert (labels, point.as_int) == ({"gen_ai.workflow.name": "far", "flujo.status": "completed"}, 1)
    duration = received.metrics["gen_ai.workflow.duration"]
    assert (duration.unit, duration.histogram.data_points[0].count) == ("s", 1)
