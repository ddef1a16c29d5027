"""The plugin that listens to everything."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flujo.core import (
    AbortPipeline,
    ConfigurationError,
    Flujo,
    GuardDenied,
    GuardStep,
    Message,
    ModelRequest,
    OnRunEnd,
    OnStepFailure,
    PipelineMutation,
    Plugins,
    Policy,
    PreStepExecution,
    Price,
    RunAborted,
    RunContext,
    Step,
    StepFailed,
    ToolCall,
    TransformStepInput,
    UsageLimits,
    hookimpl,
    step,
    tier_of,
)
from flujo.core.plugins import HOOK_NAMES
from flujo.core.testing import RecordingPlugin, ScriptedAgent, ScriptedModel

pytestmark = pytest.mark.anyio

GUARDS = [hook for hook in HOOK_NAMES if tier_of(hook) == "guard"]
OBSERVED = [hook for hook in HOOK_NAMES if tier_of(hook) == "observe" and hook != "on_run_end"]  # there it is too late


async def same(text: str) -> str:
    return text


async def grow(text: str) -> PipelineMutation[str]:
    return PipelineMutation(text, insert_after={"grow": Step(same)})


async def work(text: str, ctx: RunContext) -> str:
    request = ModelRequest(model="m", messages=(Message(role="user", content=text),))
    response = await ctx.call_model(request, ScriptedModel("well"), price=Price())

    async def send(call: ToolCall) -> object:
        return 1

    await ctx.call_tool(ToolCall(name="look"), send)
    return response.content


async def test_it_has_every_hook_and_nothing_else_of_that_kind() -> None:
    assert all(callable(getattr(RecordingPlugin, hook)) for hook in HOOK_NAMES)


async def test_it_notes_each_hook_in_order_and_changes_nothing() -> None:
    plugin = RecordingPlugin()
    result = await Flujo(Step(work), plugins=[plugin]).run_async("hello")
    assert result.output == "well"
    call = ["record_intent", "transform_model_response", "record_result", "on_model_call"]
    assert plugin.hooks == [
        *("guard_run", "record_intent", "on_run_start"),
        *("transform_step_input", "guard_step", "record_intent", "pre_step_execution"),
        *("transform_model_request", "guard_model_call", *call),
        *("guard_tool_call", "record_intent", "record_result", "on_tool_call"),
        *("transform_step_output", "record_result", "post_step_execution", "record_result", "on_run_end"),
    ]
    assert [payload.inputs for payload in plugin.of(GuardStep)] == [{"text": "hello"}]
    assert len(plugin.of(PreStepExecution)) == 1, "a subclass of GuardStep is another payload"
    assert plugin.of(OnRunEnd)[0].result.output == result.output


async def test_payloads_are_copies_as_of_their_moment() -> None:
    class Changes:
        @hookimpl
        def transform_step_input(self, payload: TransformStepInput) -> object:
            payload.run.count("changed", "inputs")
            return [*payload.value, "changed"]  # type: ignore[misc]

    @step(inline=True)
    def extend(items: list[str]) -> list[str]:
        items.append("more")
        return items

    plugin = RecordingPlugin()
    result = await Flujo(extend, plugins=[plugin, Changes()]).run_async(["a"])
    assert result.output == ["a", "changed", "more"]
    assert plugin.of(TransformStepInput)[0].value == ["a"]
    assert plugin.of(TransformStepInput)[0].run.counts == {}
    assert plugin.of(GuardStep)[0].inputs == {"items": ["a", "changed"]}


async def test_errors_keep_their_cause_and_what_cannot_be_copied_is_kept() -> None:
    lock = threading.Lock()

    @step
    async def fail(value: Any) -> None:
        raise OSError("gone")

    plugin = RecordingPlugin()
    result = await Flujo(fail, plugins=[plugin]).run_async(lock)
    failure = plugin.of(OnStepFailure)[0]
    assert isinstance(failure.error.__cause__, OSError)
    assert failure.error is failure.record.error is result.error
    assert plugin.of(OnRunEnd)[0].result.error is result.error
    assert plugin.of(TransformStepInput)[0].value is lock


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("how", ["deny_at", "raise_at", "hang_at"])
async def test_a_guard_that_denies_raises_or_hangs_ends_the_run(guard: str, how: str) -> None:
    plugin = RecordingPlugin(**{how: guard})  # type: ignore[arg-type]
    policy = Policy(guard_timeout_s=0.05)
    flujo = Flujo(Step(work) >> Step(grow), plugins=[plugin], policy=policy, experimental={"mutation"})
    result = await flujo.run_async("hello")
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert (result.error.plugin, result.error.hook) == ("RecordingPlugin", guard)
    assert guard in plugin.hooks


@pytest.mark.parametrize("hook", OBSERVED)
async def test_an_observer_that_raises_changes_nothing_and_one_that_aborts_does(hook: str) -> None:
    async def run(error: Exception) -> tuple[str, bool]:
        plugin = RecordingPlugin(raise_at=hook, error=error)
        flujo = Flujo(Step(work) >> Step(grow), plugins=[plugin], experimental={"mutation"})
        result = await flujo.run_async("hello")
        return result.status, hook in plugin.hooks

    status, called = await run(OSError("no"))
    assert status == "completed"
    status, _ = await run(AbortPipeline("enough"))
    assert status == ("aborted" if called else "completed")


async def test_the_error_is_the_one_that_was_given() -> None:
    plugin = RecordingPlugin(raise_at="pre_step_execution", error=AbortPipeline("enough"))
    agent = ScriptedAgent()
    result = await Flujo(agent, plugins=[plugin]).run_async("x")
    assert isinstance(result.error, RunAborted)
    assert "enough" in str(result.error)
    assert agent.calls == []


async def test_a_transform_that_raises_fails_the_step() -> None:
    plugin = RecordingPlugin(raise_at="transform_step_output")
    result = await Flujo(ScriptedAgent("x"), plugins=[plugin]).run_async("x")
    assert isinstance(result.error, StepFailed)
    assert "transform_step_output of plugin 'RecordingPlugin' failed with RuntimeError" in str(result.error)


async def test_register_hooks_are_noted_without_a_payload() -> None:
    plugin = RecordingPlugin()
    assert Plugins([plugin], allowed=frozenset()).commands() == []
    assert [(record.hook, record.payload) for record in plugin.records] == [("register_commands", None)]


async def test_breaches_and_warnings_are_noted() -> None:
    plugin = RecordingPlugin()
    limits = UsageLimits(requests_limit=0)
    result = await Flujo(Step(work), plugins=[plugin], limits=limits).run_async("hello")
    assert result.status == "stopped"
    assert "on_governor_breach" in plugin.hooks


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"deny_at": "guard_stp"}, "there is no such hook. Did you mean 'guard_step'"),
        ({"deny_at": "on_run_end"}, "only a guard can deny"),
        ({"hang_at": "register_commands"}, "before there is an event loop"),
        ({"error": ValueError("x")}, "no hook raises it"),
    ],
)
async def test_what_it_cannot_do_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        RecordingPlugin(**options)
