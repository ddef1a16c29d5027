"""What hostile readers tried: plugins that are none, odd cancels, secrets in texts, values of unknown type."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from pydantic import BaseModel, SecretStr
from stable_ids import shown

from flujo.core import (
    AbortPipeline,
    Allow,
    Budget,
    ConfigurationError,
    Deny,
    Event,
    Flujo,
    GuardDenied,
    GuardRun,
    GuardStep,
    Hooks,
    ModelRequest,
    ModelResponse,
    Pipeline,
    PipelineError,
    PluginError,
    Plugins,
    Policy,
    PostStepExecution,
    PreStepExecution,
    RecordIntent,
    RecordResult,
    Resource,
    ResourceError,
    Resources,
    RetryPolicy,
    RunContext,
    RunInfo,
    Step,
    StepTimeout,
    ToolCall,
    UsageLimits,
    hookimpl,
    run_input,
    step,
)
from flujo.core.plugins import resolve

pytestmark = pytest.mark.anyio


@step
async def echo(text: str) -> str:
    return text


@step
async def waits(text: str) -> str:
    await anyio.sleep_forever()
    return text


@step
async def spend(ctx: RunContext, text: str) -> str:
    ctx.usage.record(cost_usd="0.25")
    return text


# --- plugins ----------------------------------------------------------------------------------------------------------


class Unmarked:
    def guard_step(self, payload: GuardStep) -> Deny:
        return Deny("never asked")


class Misspelt:
    @hookimpl
    def guard_stepp(self, payload: GuardStep) -> Deny:
        return Deny("never asked")


class Registers:
    @hookimpl
    def register_commands(self) -> list[object]:
        return []


@pytest.mark.parametrize("plugin", [None, 42, lambda payload: Deny("x"), Unmarked(), Registers()], ids=shown)
def test_what_has_no_hook_that_acts_is_no_plugin(plugin: object) -> None:
    with pytest.raises(PluginError, match="cannot act: it has no method marked with @hookimpl that acts in a run"):
        Flujo(echo, plugins=[plugin])


def test_a_plugin_class_and_a_misspelt_hook_are_named() -> None:
    class Strict:
        @hookimpl
        def guard_step(self, payload: GuardStep) -> Allow:
            return Allow()

    with pytest.raises(PluginError, match="plugin 'Strict' cannot act: it is a class"):
        Flujo(echo, plugins=[Strict])
    with pytest.raises(
        PluginError, match=r"plugin 'Misspelt' cannot act: there is no hook 'guard_stepp'.*'guard_step'"
    ):
        Flujo(echo, plugins=[Misspelt()])


def test_a_policy_is_held_to_whatever_the_plugins_come_as() -> None:
    with pytest.raises(PluginError, match="plugin 'flujo-nowhere' is missing: the policy requires it"):
        Flujo(echo, plugins=Plugins(), policy=Policy(require={"flujo-nowhere"}))


def test_one_name_as_a_text_is_one_plugin() -> None:
    with pytest.raises(PluginError, match="plugin 'flujo-nowhere' is missing"):
        Flujo(echo, plugins="flujo-nowhere")


async def test_a_required_plugin_is_known_in_every_spelling(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "spelt_plugin-1.0.dist-info").mkdir(parents=True)
    (site / "spelt_plugin-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: Spelt_Plugin\nVersion: 1\n")
    (site / "spelt_plugin-1.0.dist-info/entry_points.txt").write_text("[flujo]\nspelt = spelt_plugin_module\n")
    (site / "spelt_plugin_module.py").write_text(
        "from flujo.core import hookimpl\nflujo_api = '1.0'\n"
        "class Plugin:\n"
        "    @hookimpl\n"
        "    def record_intent(self, payload):\n"
        "        raise OSError('disk full')\n"
    )
    monkeypatch.syspath_prepend(str(site))
    try:
        for spelling in ("spelt-plugin", "Spelt_Plugin"):
            result = await Flujo(echo, policy=Policy(require={spelling})).run_async("x")
            assert result.status == "aborted"
            assert isinstance(result.error, GuardDenied)
    finally:
        sys.modules.pop("spelt_plugin_module", None)


async def test_who_looks_on_cannot_change_what_a_step_is_given() -> None:
    recorded: list[object] = []

    class Meddler:
        @hookimpl
        def guard_step(self, payload: GuardStep) -> Allow:
            payload.inputs["text"] = "guard"  # type: ignore[index]
            return Allow()

        @hookimpl
        def record_intent(self, payload: RecordIntent) -> None:
            if payload.kind == "step":
                recorded.append(dict(payload.subject))  # type: ignore[call-overload]
                payload.subject.clear()  # type: ignore[attr-defined]

        @hookimpl
        def pre_step_execution(self, payload: PreStepExecution) -> None:
            payload.inputs.clear()  # type: ignore[attr-defined]

        @hookimpl
        def post_step_execution(self, payload: PostStepExecution) -> None:
            payload.record.status = "failed"

    result = await Flujo(echo, plugins=[Meddler()]).run_async("mine")
    assert result.unwrap() == "mine"
    assert recorded == [{"text": "mine"}]
    assert result.step_history[0].status == "completed"


async def test_a_recorder_that_hangs_is_given_up_and_counted() -> None:
    class Hangs:
        @hookimpl
        async def record_result(self, payload: RecordResult) -> None:
            await anyio.sleep_forever()

    with anyio.fail_after(5):
        flujo = Flujo(echo, plugins=[Hangs()], policy=Policy(recorder_timeout_s=0.05))
        result = await flujo.run_async("x")
    assert result.unwrap() == "x"
    assert result.counts["plugin_faults"] == {"Hangs": 2}


@pytest.mark.parametrize(
    ("flujo_limits", "pipeline_limits", "told"),
    [
        (None, None, None),
        (Budget(UsageLimits("0.25")), None, UsageLimits("0.25")),
        (UsageLimits("0.1"), UsageLimits(total_tokens_limit=5), UsageLimits("0.1", 5)),
        (UsageLimits("0.1", requests_limit=9), UsageLimits("0.2", requests_limit=3), UsageLimits("0.1", None, 3)),
    ],
)
async def test_a_guard_sees_every_limit_that_holds(flujo_limits: Any, pipeline_limits: Any, told: Any) -> None:
    seen: list[UsageLimits | None] = []

    class Looks:
        @hookimpl
        def guard_run(self, payload: GuardRun) -> Allow:
            seen.append(payload.limits)
            return Allow()

    await Flujo(Pipeline(echo, limits=pipeline_limits), limits=flujo_limits, plugins=[Looks()]).run_async("x")
    assert seen == [told]


# --- ends -------------------------------------------------------------------------------------------------------------


def resources_with(factory: Callable[..., object], scope: Any) -> Resources:
    class Own(Resources):
        db: dict[str, int] = Resource(factory, scope=scope)

    return Own()


@step
async def uses(ctx: RunContext, text: str, db: dict[str, int]) -> str:
    ctx.usage.record(cost_usd="0.25")
    return text


@pytest.mark.parametrize("scope", ["app", "run", "step"])
async def test_a_resource_that_fails_to_close_loses_nothing(scope: str) -> None:
    @asynccontextmanager
    async def bad() -> AsyncIterator[dict[str, int]]:
        yield {}
        raise ValueError("still busy")

    result = await Flujo(uses, resources=resources_with(bad, scope)).run_async("x")
    assert result.status == "failed"
    assert isinstance(result.error, ResourceError)
    assert f"resource 'db' of scope {scope!r} failed to close: ValueError: still busy" in str(result.error)
    assert str(result.total_cost_usd) == "0.25"


@pytest.mark.parametrize("scope", ["app", "run", "step"])
async def test_cancel_and_deadline_reach_resources_that_hang_while_they_open(scope: str) -> None:
    flujo = Flujo(uses, resources=resources_with(anyio.sleep_forever, scope))
    with anyio.fail_after(5):
        late = await flujo.run_async("x", deadline_s=0.05)
        handle = flujo.start("x")
        await anyio.sleep(0.05)
        handle.cancel("enough")
        cancelled = await handle.wait()
    assert (late.status, cancelled.status) == ("aborted", "aborted")
    assert "its deadline of 0.05 s passed" in str(late.error)
    assert "enough" in str(cancelled.error)


async def test_a_deadline_reaches_a_guard_that_hangs_and_the_end_is_told_all_the_same() -> None:
    told: list[str] = []

    class Hangs:
        @hookimpl
        async def guard_run(self, payload: GuardRun) -> Allow:
            await anyio.sleep_forever()
            return Allow()

        @hookimpl
        async def on_run_end(self, payload: Any) -> None:
            await anyio.sleep(0.01)
            told.append(payload.result.status)

    with anyio.fail_after(3):
        result = await Flujo(echo, plugins=[Hangs()]).run_async("x", deadline_s=0.05)
    assert result.status == "aborted"
    assert told == ["aborted"]


async def test_observers_learn_of_the_end_after_a_cancel_from_outside() -> None:
    told: list[str] = []

    async def every(event: Event) -> None:
        await anyio.sleep(0)
        told.append(type(event).__name__)

    with anyio.CancelScope() as scope:

        async def stops(text: str) -> str:
            scope.cancel()
            await anyio.sleep_forever()
            return text

        await Flujo(Step(stops), hooks=[every]).run_async("x")
    assert scope.cancelled_caught
    assert told == ["OnRunStart", "PreStepExecution", "OnRunEnd"]


@pytest.mark.parametrize("wrong", ["5", True, 0, -1, float("nan")])
async def test_a_deadline_is_a_number_of_seconds(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"deadline_s=.* cannot be used"):
        await Flujo(echo).run_async("x", deadline_s=wrong)


@pytest.mark.parametrize("failing", [False, True])
async def test_an_app_closes_after_the_runs_that_were_started_in_it(failing: bool) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[dict[str, int]]:
        events.append("open")
        try:
            yield {}
        finally:
            events.append("close")

    @step
    async def works(text: str, db: dict[str, int]) -> str:
        await anyio.sleep(60 if failing else 0.1)
        events.append("worked")
        return text

    flujo = Flujo(works, resources=resources_with(opened, "app"))
    with anyio.fail_after(5):
        try:
            async with flujo:
                handle = flujo.start("x")
                await anyio.sleep(0.02)
                if failing:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        result = await handle.wait()
    assert result.status == ("aborted" if failing else "completed")
    assert events == (["open", "close"] if failing else ["open", "worked", "close"])


class Evil(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_an_exception_without_a_text_is_a_failure_like_others() -> None:
    @step
    async def breaks(text: str) -> str:
        raise Evil

    result = await Flujo(spend >> breaks).run_async("x")
    assert result.status == "failed"
    assert "Evil: its text cannot be read (RuntimeError)" in str(result.error)
    assert str(result.total_cost_usd) == "0.25"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_step_awaits_may_be_cancelled_without_cancelling_the_run(anyio_backend: str) -> None:
    @step
    async def waits_for(text: str) -> str:
        task = asyncio.create_task(asyncio.sleep(5))
        task.cancel()
        await task
        return text

    class Guard:
        @hookimpl
        async def guard_step(self, payload: GuardStep) -> Allow:
            if payload.name == "echo":
                raise asyncio.CancelledError
            return Allow()

    result = await Flujo(spend >> waits_for).run_async("x")
    assert result.status == "failed"
    assert "what it waited for was cancelled" in str(result.error)
    assert str(result.total_cost_usd) == "0.25"
    denied = await Flujo(echo, plugins=[Guard()]).run_async("x")
    assert denied.status == "aborted"
    assert isinstance(denied.error, GuardDenied)


async def test_a_timeout_and_a_resource_that_does_not_open_can_be_tried_again() -> None:
    opened: list[int] = []

    def flaky() -> dict[str, int]:
        opened.append(1)
        if len(opened) < 3:
            raise OSError("not yet")
        return {}

    @step(timeout_s=0.02, retry=RetryPolicy(max_attempts=3, backoff_s=0, retry_on=(StepTimeout,)))
    async def slow(text: str) -> str:
        await anyio.sleep(5)
        return text

    late = await Flujo(slow).run_async("x")
    assert isinstance(late.error, StepTimeout)
    assert late.step_history[0].attempts == 3
    again = Step(uses, retry=RetryPolicy(max_attempts=3, backoff_s=0, retry_on=(ResourceError,)))
    assert (await Flujo(again, resources=resources_with(flaky, "step")).run_async("x")).unwrap() == "x"


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRET = "correct-horse-battery"


class Keys(Resources):
    key: SecretStr = Resource(lambda: SecretStr(SECRET))


@step
async def one_key(text: str, key: SecretStr) -> str:
    raise ValueError(f"refused {key.get_secret_value()}")


@step
async def all_keys(text: str, keys: Keys) -> str:
    raise ValueError(f"refused {keys.key.get_secret_value()}")


@pytest.mark.parametrize("leaks", [one_key, all_keys], ids=lambda one: one.name)
async def test_a_secret_resource_does_not_reach_an_error(leaks: Step) -> None:
    result = await Flujo(leaks, resources=Keys()).run_async("x")
    assert str(result.error).endswith("ValueError: refused [SECRET]")
    assert SECRET not in repr(result.step_history)


async def test_a_secret_resource_does_not_reach_the_error_of_another() -> None:
    class Both(Resources):
        key: SecretStr = Resource(lambda: SecretStr(SECRET))
        db: dict[str, int] = Resource(lambda key: {}[f"no {key.get_secret_value()}"], scope="run")

    result = await Flujo(uses, resources=Both()).run_async("x")
    assert "KeyError: 'no [SECRET]'" in str(result.error)


async def test_words_of_plugins_and_callers_are_scrubbed_too() -> None:
    key = "sk-abcdefghijklmnopqrstuvwx1234"

    class Denies:
        @hookimpl
        def guard_step(self, payload: GuardStep) -> Deny:
            return Deny(f"not with {key}")

    def aborts(event: PreStepExecution) -> None:
        raise AbortPipeline(f"password={key}")

    denied = await Flujo(echo, plugins=[Denies()]).run_async("x")
    assert str(denied.error).endswith("denied: not with [SECRET]")
    assert isinstance(denied.error, GuardDenied)
    assert key not in denied.error.reason
    aborted = await Flujo(echo, hooks=[aborts]).run_async("x")
    assert key not in str(aborted.error)
    handle = Flujo(waits).start("x")
    await anyio.sleep(0)
    handle.cancel(f"password={key}")
    assert key not in str((await handle.wait()).error)


# --- values of unknown type -------------------------------------------------------------------------------------------


class Row(BaseModel):
    n: int


async def unsaid(text: str):  # type: ignore[no-untyped-def]
    return 42


async def rows(text: str) -> list[Row]:
    return [Row(n=1)]


async def table(text: str) -> dict[str, int]:
    return {"k": 1}


async def takes_row(row: Row) -> str:
    return f"row {row.n}"


async def takes_number(n: int) -> str:
    return f"number {n}"


async def test_a_part_of_the_run_input_is_checked_when_it_enters() -> None:
    flujo = Flujo(Pipeline(Step(takes_number, inputs={"n": run_input()["n"]})))
    assert (await flujo.run_async({"n": 3})).unwrap() == "number 3"
    result = await flujo.run_async({"n": "three"})
    assert result.status == "failed"
    assert "input 'n', taken from run_input().n, does not fit: " in str(result.error)


def test_a_part_of_the_run_input_is_compared_where_its_type_is_known() -> None:
    for part, words in ((run_input().nope, "Row has no 'nope'"), (run_input().n, ".n is int, but it takes str")):
        with pytest.raises(
            PipelineError, match="input 'text' of step 'echo' cannot be read from the run input"
        ) as said:
            Flujo(Pipeline(Step(takes_row), Step(echo, inputs={"text": part})))
        assert words in str(said.value)


async def test_what_an_unannotated_step_gives_is_looked_at_where_it_is_taken() -> None:
    result = await Flujo(Step(unsaid) >> echo).run_async("x")
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.what == "step 'unsaid' failed"
    assert "input 'text' of step 'echo' takes unsaid.output, which does not fit: int is no str" in str(result.error)
    assert (await Flujo(Step(unsaid) >> Step(takes_number)).run_async("x")).unwrap() == "number 42"


def bare(text: Any) -> Any:
    return {"there": text}


async def test_what_a_step_gives_without_the_part_another_takes_is_its_own_failure() -> None:
    source = Step(bare)
    for hooks in ((), (watch,)):
        for part, why in (("gone", "KeyError: 'gone'"), ("there", "int is no str")):
            taken = Step(echo, inputs={"text": getattr(source.output, part)})
            flujo = Flujo(Pipeline(source, taken), hooks=hooks)
            result = await flujo.run_async("x" if part == "gone" else 5)
            assert [record.name for record in result.step_history] == ["bare"]
            assert result.step_history[0].status == "failed"
            assert f"input 'text' of step 'echo' takes bare.output.{part}, which does not fit: {why}" in str(
                result.error
            )


async def test_an_output_without_the_part_the_pipeline_gives_is_the_failure_of_its_step() -> None:
    source = Step(bare)
    result = await Flujo(Pipeline(source, output=source.output.gone)).run_async("x")
    assert [record.status for record in result.step_history] == ["failed"]
    assert "the pipeline's output takes bare.output.gone, which does not fit: KeyError" in str(result.error)


def watch(event: PreStepExecution) -> None:
    """Makes the run one that is watched."""


def test_parts_of_lists_and_dicts_have_types() -> None:
    many, pairs = Step(rows), Step(table)
    with pytest.raises(PipelineError) as said:
        Flujo(
            Pipeline(
                many,
                pairs,
                Step(echo, name="one", inputs={"text": many.output[0].n}),
                Step(echo, name="two", inputs={"text": pairs.output["k"]}),
            )
        )
    assert "step 'rows' gives int as [0].n, but input 'text' of step 'one' takes str" in str(said.value)
    assert "step 'table' gives int as .k, but input 'text' of step 'two' takes str" in str(said.value)


# --- what is handed in ------------------------------------------------------------------------------------------------


class Greeter:
    name = "greeter"

    async def run(self, text: str) -> str:
        return f"hello {text}"


async def test_an_agent_is_a_pipeline_wherever_a_step_is() -> None:
    assert (await Flujo(Greeter()).run_async("you")).unwrap() == "hello you"
    assert (await Flujo(Pipeline(Greeter())).run_async("you")).unwrap() == "hello you"


@pytest.mark.parametrize("wrong", [Keys, {"key": 1}])
def test_resources_are_an_object_of_their_class(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="resources= cannot be used: it must be an object of a class"):
        Flujo(echo, resources=wrong)


# --- later readers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", ["0.50", Budget(UsageLimits("1")), 3], ids=["text", "budget", "number"])
def test_a_pipelines_limits_are_never_dropped_in_silence(limits: Any) -> None:
    with pytest.raises(PipelineError, match=r"limits= is a UsageLimits\(\.\.\.\)"):
        Pipeline(spend, limits=limits)


def quits_in_a_thread(text: str) -> str:
    sys.exit(0)


@step
async def quits(text: str) -> str:
    sys.exit(7)


@pytest.mark.parametrize("leaves", [quits, Step(quits_in_a_thread)], ids=["async", "sync"])
async def test_a_step_that_calls_sys_exit_has_failed_and_ends_nothing_else(leaves: Step) -> None:
    result = await Flujo(spend >> leaves).run_async("x")
    assert result.status == "failed"
    assert "it called sys.exit(" in str(result.error)
    assert str(result.total_cost_usd) == "0.25"


@step
async def interrupts(text: str) -> str:
    raise KeyboardInterrupt


def test_a_step_that_raises_keyboard_interrupt_has_failed_where_no_ctrl_c_comes() -> None:
    """In a worker's thread it ended the event loop, and with it all tasks of that worker, without a word."""
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(Flujo(spend >> interrupts).run, "x").result()
    assert (result.status, str(result.total_cost_usd)) == ("failed", "0.25")
    assert "it raised KeyboardInterrupt" in str(result.error)
    with pytest.raises(KeyboardInterrupt):  # in the main thread it is the user who wants to go
        Flujo(spend >> interrupts).run("x")


def test_a_plugin_that_ends_the_program_on_import_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "quitter-1.0.dist-info").mkdir(parents=True)
    (site / "quitter-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: quitter\nVersion: 1\n")
    (site / "quitter-1.0.dist-info/entry_points.txt").write_text("[flujo]\nq = quitter_module\n")
    (site / "quitter_module.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(str(site))
    with pytest.raises(PluginError, match=r"plugin 'quitter' cannot be used: RuntimeError: it called sys\.exit\(0\)"):
        Flujo(echo, policy=Policy(require={"quitter"}))


async def test_a_context_that_was_kept_reaches_no_tool_and_no_model_after_its_attempt() -> None:
    kept: list[RunContext] = []
    done: list[str] = []

    @step
    async def keeps(text: str, ctx: RunContext) -> str:
        kept.append(ctx)
        return text

    async def tool(call: ToolCall) -> str:
        done.append(call.name)
        return "paid"

    async def send(request: ModelRequest) -> ModelResponse:
        done.append(request.model)
        return ModelResponse(content="")

    await Flujo(keeps).run_async("x")
    with pytest.raises(
        ConfigurationError, match="ctx of step 'keeps' cannot be used: this attempt of the step is over"
    ):
        await kept[0].call_tool(ToolCall(name="pay", arguments={}), tool)
    with pytest.raises(ConfigurationError, match="this attempt of the step is over"):
        await kept[0].call_model(ModelRequest(model="m", messages=()), send)
    assert done == []


@pytest.mark.parametrize(
    ("timeout_s", "deadline_s", "left"), [(None, None, None), (60, 5, 5), (5, 60, 5), (None, 9, 9)]
)
async def test_a_step_knows_when_it_must_end(timeout_s: Any, deadline_s: Any, left: Any) -> None:
    @step(timeout_s=timeout_s)
    async def asks(text: str, ctx: RunContext) -> float | None:
        return None if ctx.deadline is None else ctx.deadline - anyio.current_time()

    found: Any = (await Flujo(asks).run_async("x", deadline_s=deadline_s)).unwrap()
    assert found is None if left is None else left - 2 < found <= left


@pytest.mark.parametrize("scope", ["app", "run", "step"])
async def test_a_resource_that_fails_to_close_does_not_hide_why_the_step_failed(scope: str) -> None:
    async def bad() -> AsyncIterator[dict[str, int]]:
        try:
            yield {}
        finally:
            raise ValueError("and it does not close")

    @step
    async def breaks(text: str, db: dict[str, int]) -> str:
        raise KeyError("the reason")

    result = await Flujo(breaks, resources=resources_with(bad, scope)).run_async("x")
    assert "KeyError: 'the reason'" in str(result.error)


async def test_a_hook_may_take_all_resources_by_name() -> None:
    seen: list[dict[str, object]] = []

    class Takes:
        @hookimpl
        def guard_step(self, payload: GuardStep, **resources: object) -> Allow:
            seen.append(resources)
            return Allow()

    database = {"rows": 3}
    assert (await Flujo(echo, plugins=[Takes()]).run_async("x")).status == "completed"
    await Flujo(echo, resources=resources_with(lambda: database, "run"), plugins=[Takes()]).run_async("x")
    assert seen == [{}, {"db": database}]


async def test_a_recorder_that_cannot_write_says_why_in_words_of_ours_only() -> None:
    class Full:
        def __init__(self, error: Exception) -> None:
            self.error = error

        @hookimpl
        def record_intent(self, payload: RecordIntent) -> None:
            raise self.error

    known = ConfigurationError("log '/var/log/x' cannot be written", "No space left on device")
    reasons = []
    for error in (known, OSError("the patient is Jane Doe")):
        hooks = Hooks(Policy(), resolve([("full", Full(error))], (), frozenset({"full"}), {}))
        payload = RecordIntent(RunInfo("r", "p", "f"), "tool_call", "1", "pay", 1, None)
        denial = await hooks.record(payload, "record_intent", {})
        assert isinstance(denial, GuardDenied)
        reasons.append(denial.reason)
    assert reasons == [
        "the start of this tool call cannot be recorded: ConfigurationError: "
        "log '/var/log/x' cannot be written: No space left on device",
        "the start of this tool call cannot be recorded: OSError",
    ]
