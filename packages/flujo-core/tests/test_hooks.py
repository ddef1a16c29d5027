"""The hook tiers: guards cannot be skipped, transforms are checked, recorders decide, observers change nothing."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from flujo.core import (
    UNCHANGED,
    AbortPipeline,
    Allow,
    Deny,
    Event,
    Flujo,
    GuardDenied,
    GuardRun,
    GuardStep,
    OnGuardDenied,
    OnRunEnd,
    OnRunStart,
    OnStepFailure,
    Pipeline,
    PluginError,
    Policy,
    PostStepExecution,
    PreStepExecution,
    RecordIntent,
    RecordResult,
    Resource,
    Resources,
    RetryPolicy,
    Step,
    TransformStepInput,
    TransformStepOutput,
    hookimpl,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def increase(value: int) -> int:
    return value + 1


class Trace:
    """Notes every hook it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def guard_run(self, payload: GuardRun) -> Allow:
        self.seen.append("guard_run")
        return Allow()

    @hookimpl
    async def guard_step(self, payload: GuardStep) -> Allow:
        self.seen.append(f"guard_step {payload.name} {dict(payload.inputs)}")
        return Allow()

    @hookimpl
    def transform_step_input(self, payload: TransformStepInput) -> object:
        self.seen.append(f"transform_step_input {payload.parameter} {payload.from_run_input}")
        return UNCHANGED

    @hookimpl
    def transform_step_output(self, payload: TransformStepOutput) -> object:
        self.seen.append("transform_step_output")
        return UNCHANGED

    @hookimpl
    async def record_intent(self, payload: RecordIntent) -> None:
        self.seen.append(f"record_intent {payload.kind}")

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        self.seen.append(f"record_result {payload.kind} {payload.status}")

    @hookimpl
    def on_run_start(self, payload: OnRunStart) -> None:
        self.seen.append("on_run_start")

    @hookimpl
    def pre_step_execution(self, payload: PreStepExecution) -> None:
        self.seen.append("pre_step_execution")

    @hookimpl
    def post_step_execution(self, payload: PostStepExecution) -> None:
        self.seen.append("post_step_execution")

    @hookimpl
    def on_run_end(self, payload: OnRunEnd) -> None:
        self.seen.append(f"on_run_end {payload.result.status}")


async def test_hooks_are_called_in_the_documented_order() -> None:
    trace = Trace()
    await Flujo(double, plugins=[trace]).run_async(2)
    assert trace.seen == [
        "guard_run",
        "record_intent run",
        "on_run_start",
        "transform_step_input value True",
        "guard_step double {'value': 2}",
        "record_intent step",
        "pre_step_execution",
        "transform_step_output",
        "record_result step completed",
        "post_step_execution",
        "record_result run completed",
        "on_run_end completed",
    ]


class Guard:
    """A guard whose answer is given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls = 0

    @hookimpl
    def guard_step(self, payload: GuardStep) -> Allow | Deny:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Deny("not today"), "not today"),
        (None, "answered NoneType"),
        (True, "answered bool"),
        ("Allow", "answered str"),
        (Allow, "answered type"),
        (ValueError("private text"), "failed with ValueError"),
    ],
)
async def test_anything_but_allow_is_a_denial_that_names_the_plugin(answer: object, reason: str) -> None:
    ran = []

    async def work(value: int) -> int:
        ran.append(value)
        return value

    result = await Flujo(Step(work), plugins=[Guard(answer)]).run_async(1)
    assert ran == []
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert result.error.plugin == "Guard"
    assert result.error.hook == "guard_step"
    assert reason in result.error.reason
    assert "private" not in str(result.error)
    assert [(r.name, r.status) for r in result.step_history] == [("work", "aborted")]


async def test_all_guards_are_asked_even_after_a_denial() -> None:
    guards = [Guard(Allow()), Guard(Deny("no")), Guard(Allow())]
    await Flujo(double, plugins=guards).run_async(1)
    assert [guard.calls for guard in guards] == [1, 1, 1]


async def test_a_guard_that_hangs_denies_in_its_time() -> None:
    class Hanging:
        @hookimpl
        async def guard_step(self, payload: GuardStep) -> Allow:
            await anyio.sleep(30)
            return Allow()

    started = time.perf_counter()
    result = await Flujo(double, plugins=[Hanging()], policy=Policy(guard_timeout_s=0.05)).run_async(1)
    assert time.perf_counter() - started < 5
    assert isinstance(result.error, GuardDenied)
    assert "no answer in 0.05 s" in result.error.reason


async def test_a_blocking_guard_in_a_thread_denies_in_its_time_and_an_inline_one_when_it_returns() -> None:
    class InThread:
        @hookimpl(thread=True)
        def guard_step(self, payload: GuardStep) -> Allow:
            time.sleep(0.2)
            return Allow()

    class Inline:
        @hookimpl
        def guard_step(self, payload: GuardStep) -> Allow:
            time.sleep(0.05)
            return Allow()

    for plugin in (InThread(), Inline()):
        result = await Flujo(double, plugins=[plugin], policy=Policy(guard_timeout_s=0.02)).run_async(1)
        assert isinstance(result.error, GuardDenied)
        assert "no answer" in result.error.reason


async def test_guard_run_denies_before_any_step() -> None:
    class Closed:
        @hookimpl
        def guard_run(self, payload: GuardRun) -> Deny:
            return Deny(f"no run with {payload.input}")

    told: list[OnGuardDenied] = []

    def on_denied(event: OnGuardDenied) -> None:
        told.append(event)

    result = await Flujo(double, plugins=[Closed()], hooks=[on_denied]).run_async(3)
    assert result.status == "aborted"
    assert result.step_history == []
    assert [event.denial.reason for event in told] == ["no run with 3"]


async def test_guards_see_every_attempt() -> None:
    guard = Guard(Allow())

    async def flaky(value: int) -> int:
        raise OSError

    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    await Flujo(Step(flaky, retry=retry), plugins=[guard]).run_async(1)
    assert guard.calls == 3


async def test_a_denial_is_not_tried_again() -> None:
    guard = Guard(Deny("no"))
    await Flujo(Step(double, retry=RetryPolicy(max_attempts=5, backoff_s=0)), plugins=[guard]).run_async(1)
    assert guard.calls == 1


async def test_a_wrapper_is_refused_since_it_could_skip_a_guard() -> None:
    import pluggy

    class Wrapping:
        @pluggy.HookimplMarker("flujo")(wrapper=True)
        def guard_step(self, payload: GuardStep) -> Any:
            yield
            return [Allow()]

    with pytest.raises(PluginError, match="could skip a guard"):
        Flujo(double, plugins=[Wrapping()])


async def test_transforms_change_inputs_and_outputs_in_plugin_order() -> None:
    class Add:
        def __init__(self, number: int) -> None:
            self.number = number

        @hookimpl
        def transform_step_input(self, payload: TransformStepInput) -> object:
            return payload.value * 10 + self.number  # type: ignore[operator]

        @hookimpl
        async def transform_step_output(self, payload: TransformStepOutput) -> object:
            return payload.value + 1 if isinstance(payload.value, int) else UNCHANGED

    result = await Flujo(double, plugins=[Add(1), Add(2)]).run_async(3)
    assert result.output == 2 * ((3 * 10 + 1) * 10 + 2) + 2


async def test_a_transform_that_gives_a_wrong_type_fails_the_step_and_names_the_plugin() -> None:
    class Wrong:
        @hookimpl
        def transform_step_input(self, payload: TransformStepInput) -> object:
            return "secret text"

    result = await Flujo(double, plugins=[Wrong()]).run_async(3)
    assert result.status == "failed"
    assert "plugin 'Wrong'" in str(result.error)
    assert "secret text" not in str(result.error)


async def test_a_transform_that_raises_fails_the_step() -> None:
    class Broken:
        @hookimpl
        def transform_step_output(self, payload: TransformStepOutput) -> object:
            raise KeyError("private")

    result = await Flujo(double, plugins=[Broken()]).run_async(3)
    assert result.status == "failed"
    assert "failed with KeyError" in str(result.error)
    assert "private" not in str(result.error)


async def test_only_what_comes_from_the_run_input_is_marked_so() -> None:
    seen = {}

    class Look:
        @hookimpl
        def transform_step_input(self, payload: TransformStepInput) -> object:
            seen[payload.step_path, payload.parameter] = payload.from_run_input
            return UNCHANGED

    async def add(a: int, b: int) -> int:
        return a + b

    end = Step(add, inputs={"a": double, "b": run_input()})
    await Flujo(Pipeline(double, end), plugins=[Look()]).run_async(1)
    assert seen == {("double", "value"): True, ("add", "a"): False, ("add", "b"): True}


class Recorder:
    """Fails at the given moment."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.seen: list[tuple[str, str, str]] = []

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        self.seen.append(("intent", payload.kind, payload.record_id))
        if self.fails == f"intent {payload.kind}":
            raise OSError("disk full")

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        self.seen.append(("result", payload.kind, payload.record_id))
        if self.fails == f"result {payload.kind}":
            raise OSError("disk full")


async def test_each_intent_has_exactly_one_result() -> None:
    async def broken(value: int) -> int:
        raise ValueError

    recorder = Recorder()
    retry = RetryPolicy(max_attempts=2, backoff_s=0)
    await Flujo(double >> Step(broken, retry=retry), plugins=[recorder]).run_async(1, run_id="r")
    intents = [key for what, *key in recorder.seen if what == "intent"]
    results = [key for what, *key in recorder.seen if what == "result"]
    assert sorted(intents) == sorted(results)
    assert len({tuple(key) for key in intents}) == len(intents) == 4


async def test_a_fault_of_a_recorder_that_is_not_required_is_counted_only() -> None:
    result = await Flujo(double, plugins=[Recorder("intent step")]).run_async(1)
    assert result.output == 2
    assert result.counts["plugin_faults"] == {"Recorder": 1}


class RecordsForAudit(Recorder):
    """Takes the name of a distribution, as the audit plugin has."""


@pytest.mark.parametrize(
    ("fails", "ran", "reason"),
    [
        ("intent run", [], "the start of this run cannot be recorded"),
        ("intent step", [], "the start of this step cannot be recorded"),
        ("result step", [1], "the end of this step cannot be recorded"),
        ("result run", [1], "the end of this run cannot be recorded"),
    ],
)
async def test_a_fault_of_a_required_recorder_denies_the_work_or_aborts_the_run(
    fails: str, ran: list[int], reason: str
) -> None:
    did = []

    async def work(value: int) -> int:
        did.append(value)
        return value

    flujo = Flujo(Step(work), plugins=[RecordsForAudit(fails)])
    make_required(flujo, "RecordsForAudit")
    result = await flujo.run_async(1)
    assert did == ran
    assert result.status == "aborted"
    assert reason in str(result.error)


def make_required(flujo: Flujo, plugin: str) -> None:
    """Policy.require names installed distributions; a test's own plugin is none, so its mark is set here."""
    from dataclasses import replace

    table = flujo._setup.hooks.table
    for hook, found in table.items():
        table[hook] = tuple(replace(one, required=one.plugin == plugin) for one in found)


async def test_a_faulty_observer_changes_nothing_and_the_others_are_told() -> None:
    told = []

    def broken(event: PostStepExecution) -> None:
        raise RuntimeError("boom")

    async def hanging(event: PostStepExecution) -> None:
        await anyio.sleep(30)

    def good(event: PostStepExecution) -> None:
        told.append(event.record.output)

    policy = Policy(observer_timeout_s=0.02)
    result = await Flujo(double, hooks=[broken, hanging, good], policy=policy).run_async(4)
    assert result.output == 8
    assert told == [8]
    assert result.counts["plugin_faults"] == {"broken": 1, "hanging": 1}


async def test_abort_before_a_step_keeps_it_from_running_and_after_it_keeps_its_outcome() -> None:
    def before(event: PreStepExecution) -> None:
        if event.name == "increase":
            raise AbortPipeline("seen enough")

    def after(event: PostStepExecution) -> None:
        if event.record.name == "double":
            raise AbortPipeline("seen enough")

    early = await Flujo(double >> increase, hooks=[before]).run_async(1)
    assert early.status == "aborted"
    assert [(r.name, r.status) for r in early.step_history] == [("double", "completed"), ("increase", "aborted")]
    late = await Flujo(double >> increase, hooks=[after]).run_async(1)
    assert late.status == "aborted"
    assert [(r.name, r.status, r.output) for r in late.step_history] == [("double", "completed", 2)]
    assert "seen enough" in str(late.error)
    assert "after" in str(late.error)


async def test_a_failure_is_told_once_with_its_record() -> None:
    told: list[OnStepFailure] = []

    async def broken(value: int) -> int:
        raise ValueError("x")

    def on_failure(event: OnStepFailure) -> None:
        told.append(event)

    result = await Flujo(Step(broken), hooks=[on_failure]).run_async(1)
    assert [(e.step_path, e.record.status) for e in told] == [("broken", "failed")]
    assert told[0].error is result.error


async def test_a_callable_annotated_with_event_sees_every_observed_moment() -> None:
    seen = []

    def everything(event: Event) -> None:
        seen.append(type(event).__name__)

    await Flujo(double, hooks=[everything]).run_async(1)
    assert seen == ["OnRunStart", "PreStepExecution", "PostStepExecution", "OnRunEnd"]


async def test_a_callable_cannot_guard() -> None:
    def sly(payload: GuardStep) -> Allow:
        return Allow()

    with pytest.raises(PluginError, match="only a plugin may guard"):
        Flujo(double, hooks=[sly])

    def vague(payload) -> None:  # type: ignore[no-untyped-def]
        return None

    with pytest.raises(PluginError, match="not annotated"):
        Flujo(double, hooks=[vague])


class Patterns:
    """A resource."""

    words = ("x",)


class App(Resources):
    """What hooks and steps are given."""

    patterns: Patterns = Resource(Patterns, scope="app")


async def test_hooks_receive_resources_by_type() -> None:
    seen = []

    class Uses:
        @hookimpl
        def on_run_start(self, payload: OnRunStart, patterns: Patterns) -> None:
            seen.append(patterns.words)

    await Flujo(double, resources=App(), plugins=[Uses()]).run_async(1)
    assert seen == [("x",)]
    with pytest.raises(PluginError, match="no resource"):
        Flujo(double, plugins=[Uses()])


async def test_an_unknown_hook_is_refused() -> None:
    class Misspelt:
        @hookimpl
        def gaurd_step(self, payload: GuardStep) -> Allow:
            return Allow()

    with pytest.raises(PluginError, match="gaurd_step"):
        Flujo(double, plugins=[Misspelt()])


async def test_tryfirst_and_trylast_order_the_plugins() -> None:
    order = []

    def make(name: str, **options: bool) -> object:
        class Ordered:
            @hookimpl(**options)
            def on_run_start(self, payload: OnRunStart) -> None:
                order.append(name)

        return Ordered()

    plugins = [make("last", trylast=True), make("middle"), make("first", tryfirst=True)]
    await Flujo(double, plugins=plugins).run_async(1)
    assert order == ["first", "middle", "last"]


async def test_a_plugin_counts_in_the_run_and_the_result_shows_it() -> None:
    class Counts:
        @hookimpl
        def on_run_start(self, payload: OnRunStart) -> None:
            payload.run.count("redactions", "PERSON", 2)
            payload.run.count("redactions", "PERSON")

    result = await Flujo(double, plugins=[Counts()]).run_async(1)
    assert result.counts == {"redactions": {"PERSON": 3}}


async def test_a_cancelled_run_still_records_its_end() -> None:
    recorder = Recorder()

    async def slow(value: int) -> int:
        await anyio.sleep(30)
        return value

    with anyio.move_on_after(0.02):
        await Flujo(Step(slow), plugins=[recorder]).run_async(1)
    assert [what for what, *_ in recorder.seen] == ["intent", "intent", "result", "result"]
