"""Secrets that are planted wherever a pipeline takes a text come out nowhere but in its payloads.

Run by `test_planted_secrets.py` in a process of its own, since the providers of a process can be set once.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from test_scrub import SECRETS

from flujo.core import (
    Deny,
    Flujo,
    FlujoError,
    GuardStep,
    Message,
    ModelRequest,
    ModelResponse,
    Parallel,
    Pipeline,
    PipelineResult,
    Price,
    RetryPolicy,
    RunContext,
    Step,
    ToolCall,
    hookimpl,
)

Place = Callable[[str], Awaitable[PipelineResult]]
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))


def exported() -> str:
    """Everything that was exported since this was last asked."""
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    exporter.clear()
    data = reader.get_metrics_data()
    return spans + ("" if data is None else data.to_json())


def shown(result: PipelineResult) -> str:
    """All that is shown of a result but its output: texts, reprs, and the journal's errors and metadata."""
    errors = [result.error, *(record.error for record in result.step_history)]
    texts = [repr(result), repr(result.step_history), repr(result.pauses), *(str(error) for error in errors)]
    texts += ["".join(traceback.format_exception_only(error)) + repr(error) for error in errors if error is not None]
    rows = [row for row in result.snapshot().journal if row.kind in ("failure", "aborted", "paused")]
    return "".join([*texts, repr(result.snapshot()), *(repr(row) + row.model_dump_json() for row in rows)])


# --- where it is planted --------------------------------------------------------------------------------------------


async def answer(request: ModelRequest) -> ModelResponse:
    return ModelResponse(content="fine", model=request.model)


def request_of(model: str = "m") -> ModelRequest:
    return ModelRequest(model=model, messages=(Message(role="user", content="x"),), max_tokens=1)


async def failing(text: str) -> PipelineResult:
    async def fail(value: str) -> str:
        raise ValueError(text)

    return await Flujo(Step(fail, retry=RetryPolicy(max_attempts=2, backoff_s=0))).run_async("x")


async def model(text: str) -> PipelineResult:
    async def send(request: ModelRequest) -> ModelResponse:
        raise ConnectionError(text)

    async def ask(ctx: RunContext, value: str) -> str:
        return (await ctx.call_model(request_of(), send, price=Price())).content

    return await Flujo(Step(ask)).run_async("x")


async def model_name(text: str) -> PipelineResult:
    async def ask(ctx: RunContext, value: str) -> str:
        return (await ctx.call_model(request_of(text or "m"), answer, price=Price())).content

    return await Flujo(Step(ask)).run_async("x")


async def tool(text: str) -> PipelineResult:
    async def use(ctx: RunContext, value: str) -> str:
        await ctx.call_tool(ToolCall(name=text, arguments={"q": text}), lambda call: anyio.sleep(0))

        async def broken(call: ToolCall) -> object:
            raise OSError(text)

        await ctx.call_tool(ToolCall(name="broken"), broken)
        return value

    return await Flujo(Step(use)).run_async("x")


async def words(text: str) -> PipelineResult:
    flujo = Flujo(Pipeline(Step(lambda value: value, name="same", inline=True), name="p"))
    return await flujo.run_async("x", actor=text, tenant=text, tags={"ticket": text})


async def guard(text: str) -> PipelineResult:
    class Strict:
        @hookimpl
        def guard_step(self, payload: GuardStep) -> Deny:
            return Deny(text)

    return await Flujo(Step(failing), plugins=[Strict()]).run_async("x")


async def validator(text: str) -> PipelineResult:
    async def same(value: str) -> str:
        return value

    return await Flujo(Step(same, validators=[lambda value: text or "no"])).run_async("x")


async def branches(text: str) -> PipelineResult:
    async def fail(value: str) -> str:
        raise KeyError(text)

    both = Parallel(Step(fail, name="a"), Step(fail, name="b"), on_failure="collect")
    return await Flujo(both).run_async("x")


async def cancelled(text: str) -> PipelineResult:
    async def wait(value: str) -> str:
        handle.cancel(text)
        await anyio.sleep(60)
        return value

    handle = Flujo(Step(wait)).start("x")
    return await handle.wait()


PLACES = [failing, model, model_name, tool, words, guard, validator, branches, cancelled]
MANY = settings(deadline=None, max_examples=25)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@MANY
@given(secret=st.sampled_from(sorted(SECRETS.values())), before=TEXTS, after=TEXTS)
def test_a_secret_of_a_known_form_comes_out_nowhere(place: Place, secret: str, before: str, after: str) -> None:
    result = anyio.run(place, f"{before} {secret} {after}")
    told = exported()
    assert '"invoke_workflow' in told
    assert secret not in shown(result) + told


@MANY
@given(secret=st.text(alphabet="abcdef0123456789-!", min_size=12, max_size=24))
def test_a_secret_that_a_step_was_given_as_one_comes_out_nowhere_whatever_its_form(secret: str) -> None:
    async def log_in(password: SecretStr) -> str:
        raise PermissionError(f"no entry with {password.get_secret_value()}")

    result = anyio.run(Flujo(Step(log_in)).run_async, SecretStr(secret))
    assert result.status == "failed"
    assert secret not in exported() + repr(result) + repr(result.step_history) + str(result.error)


@given(secret=st.sampled_from(sorted(SECRETS.values())), before=TEXTS)
@settings(deadline=None, max_examples=200)
def test_errors_of_flujo_tell_no_secret(secret: str, before: str) -> None:
    error = FlujoError(f"{before} {secret}", f"since {secret}", f"use not {secret}")
    assert secret not in f"{error} {error!r} {error.args} {error.as_data()}"
