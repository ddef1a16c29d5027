"""Faults found in limits, policies, prices, telemetry and what is kept of use; each test says what was promised."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from flujo.core import (
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    NamedLimit,
    Policy,
    Price,
    PriceTable,
    SecretsFilter,
    gates,
    migrations,
)

pytestmark = pytest.mark.anyio

FREE, DOLLAR = Price(), Price(request_usd=Decimal(1))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_GATES", {})
    monkeypatch.setattr(migrations, "_migrations", {})
    monkeypatch.delenv("FLUJO_PLUGINS", raising=False)


def asked(model: str = "m") -> ModelRequest:
    return ModelRequest(model=model, messages=(Message(role="user", content="?"),), max_tokens=5)


async def answer(request: ModelRequest) -> ModelResponse:
    return ModelResponse(content="yes", usage=ModelUsage(input_tokens=1, output_tokens=1))


def limited(name: str, **amounts: int) -> Policy:
    return Policy(named_limits={name: NamedLimit(**amounts)})


TABLE = {"acme": {"input_usd_per_mtok": "2.55", "output_usd_per_mtok": "10"}}


def table() -> PriceTable:
    words = {"format": "flujo-prices", "version": 1, "name": "acme-1", "models": TABLE}
    return PriceTable(json.dumps(words).encode())


# --- logs and telemetry ---------------------------------------------------------------------------------------------

KEY = "sk-abcdefghijklmnopqrstuvwx"
BASIC = "dXNlcjpwYXNzd29yZA=="


def logged(message: object, *args: object, **extra: object) -> str:
    """What a handler with the filter is handed, as text."""
    record = logging.makeLogRecord({"msg": message, "args": args or None, **extra})
    assert SecretsFilter().filter(record)
    return f"{record.getMessage()} {record.exc_text} { ({name: vars(record)[name] for name in extra}) }"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("told", "secret"),
    [
        (lambda: logged("a", seen={KEY: 1}), KEY),
        (lambda: logged("a", headers=[("Authorization", f"Basic {BASIC}")]), BASIC),
        (lambda: logged("postgres://u:p@ssw0rd@host/db"), "ssw0rd"),
        (lambda: logged(f'Authorization: Digest username="bob", response="{"0f" * 16}"'), "0f0f0f"),
        (lambda: logged("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOY\n-----END PGP PRIVATE KEY BLOCK-----"), "lQOY"),
    ],
    ids=["key of a dict", "pairs of headers", "URL", "digest", "PGP"],
)
def test_no_secret_of_a_known_form_is_left_in_a_record(
    told: Callable[[], str], secret: str, anyio_backend: str
) -> None:
    assert secret not in told()


class _Silent:
    def __repr__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", ["circle", "repr"])
def test_a_filter_of_logs_does_not_end_the_program(kind: str, anyio_backend: str) -> None:
    """A record is always let through; `logging` itself survives both."""
    circle: dict[str, object] = {}
    circle["self"] = circle
    said = ("%s", _Silent()) if kind == "repr" else ("a",)
    record = logging.makeLogRecord({"msg": said[0], "args": said[1:] or None, "circle": circle})
    if kind == "repr":
        del vars(record)["circle"]
    assert SecretsFilter().filter(record)


TELEMETRY = """
import sys, anyio
from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from flujo.core import *

what, name = sys.argv[1:]
kept = InMemorySpanExporter()

class Broken(SpanProcessor):
    def on_start(self, span, parent_context=None):
        self.fail("start", span)
    def on_end(self, span):
        self.fail("end", span)
    def fail(self, when, span):
        if what == when and span.name.startswith(name):
            raise OSError("telemetry is down")

class Instrument:
    def add(self, *args, **options):
        raise OSError("telemetry is down")
    record = add

class Meter:
    def __getattr__(self, name):
        return lambda *args, **options: Instrument()

class Meters(MeterProvider):
    def get_meter(self, *args, **options):
        return Meter()

if what == "meter":
    metrics.set_meter_provider(Meters())
else:
    tracers = TracerProvider()
    tracers.add_span_processor(Broken() if what != "tags" else SimpleSpanProcessor(kept))
    trace.set_tracer_provider(tracers)

async def send(request):
    return ModelResponse(content="yes", usage=ModelUsage(input_tokens=1, output_tokens=1))

async def tool(call):
    return 1

async def work(value: int, ctx: RunContext) -> int:
    request = ModelRequest(model="m", messages=(Message(role="user", content="?"),), max_tokens=5)
    await ctx.call_model(request, send, price=Price(request_usd="1"))
    await ctx.call_tool(ToolCall(name="t"), tool)
    return value

tags = {"password": "hunter2hunter2", "authorization": "Basic dXNlcjpwYXNzd29yZA=="}
result = Flujo(Step(work)).run(1, tags=tags)
print(result.status, result.error)
print([dict(span.attributes) for span in kept.get_finished_spans()])
"""


def traced(tmp_path: Path, *words: str) -> str:
    script = tmp_path / "traced.py"
    script.write_text(TELEMETRY)
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("what", "name"),
    [("meter", "-"), *((what, name) for what in ("start", "end") for name in ("invoke", "step", "chat", "execute"))],
)
def test_telemetry_that_is_broken_changes_no_run(tmp_path: Path, what: str, name: str, anyio_backend: str) -> None:
    """An observer that raises changes nothing; and what was paid for is in a result, not lost."""
    assert traced(tmp_path, what, name).startswith("completed None")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
def test_a_tag_that_says_it_is_a_password_is_in_no_span(tmp_path: Path, anyio_backend: str) -> None:
    told = traced(tmp_path, "tags", "-")
    assert told.startswith("completed None")
    assert "hunter2" not in told
    assert BASIC not in told
