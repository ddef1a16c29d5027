"""Steps that leave their process: what is checked before, what travels, and what is made of the answer."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
import remote_pipeline as flows
from pipe_backend import PipeBackend, Pool
from pydantic import BaseModel, SecretStr

from flujo.core import (
    Budget,
    Capabilities,
    Failure,
    Flujo,
    GuardDenied,
    LocalBackend,
    Map,
    OnGuardDenied,
    OnModelCall,
    Pipeline,
    PipelineError,
    PluginError,
    Policy,
    PostStepExecution,
    RetryPolicy,
    RunAborted,
    RunContext,
    Step,
    StepExecutionRequest,
    StepFailed,
    StepOutcome,
    StepTask,
    StepTimeout,
    Success,
    TaskRejected,
    Usage,
    UsageLimitExceeded,
    UsageLimits,
    Worker,
    WorkerLost,
    hookimpl,
)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool("remote_pipeline:plugins")
    yield made
    made.close()


@pytest.fixture
def backend(pool: Pool) -> PipeBackend:
    return PipeBackend(pool)


class Remote(LocalBackend):
    """Says that it is remote; for what is decided before anything runs."""

    capabilities = Capabilities(remote=True)


# --- before anything runs ---------------------------------------------------------------------------------------------


async def _unsendable(value: object) -> object:
    return value


def _local_step() -> Step:
    async def local(number: int) -> int:
        return number

    return Step(local)


class Live:
    """A type that no JSON holds."""


async def _takes_live(_: int) -> Live:
    return Live()


async def _gives_secret(_: int) -> SecretStr:
    return SecretStr("x")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Flujo(_local_step(), backend=Remote()), "nothing can import its code"),
        (lambda: Flujo(Step(lambda n: n, name="lambda"), backend=Remote()), "nothing can import its code"),
        (lambda: Flujo(Step(_takes_live), backend=Remote()), "its output, Live, cannot travel"),
        (lambda: Flujo(Step(_gives_secret), backend=Remote()), "a secret, which is never written"),
        (
            lambda: Flujo(flows.reads_nothing, backend=Remote(), context_model=flows.Facts),
            "takes the context and says not what of it travels",
        ),
        (
            lambda: Flujo(flows.with_key, backend=Remote(), resources=flows.Holding(key=SecretStr("k"))),
            "was given a secret, which never travels",
        ),
    ],
)
def test_what_cannot_travel_is_found_when_the_flujo_is_built(make: Callable[[], Flujo], said: str) -> None:
    with pytest.raises(PipelineError, match=said) as caught:
        make()
    assert "runs on Remote" in str(caught.value)


def test_a_backend_of_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(Exception, match=r"backend 'rai' cannot be used.*did you mean 'ray'"):
        Flujo(Step(flows.give, backend="rai"), backend={"ray": LocalBackend()})


def test_a_plugin_that_works_here_only_refuses_remote_steps_and_no_others() -> None:
    class Local:
        local_only = True

        @hookimpl
        def post_step_execution(self, payload: PostStepExecution) -> None:
            """Watch."""

    with pytest.raises(PluginError, match="works in the process of the run only, and step 'give' runs on Remote"):
        Flujo(flows.give, backend=Remote(), plugins=[Local()])
    assert Flujo(flows.give, plugins=[Local()]).run(1).unwrap() == 1
    assert Flujo(Step(flows.give, backend="local"), backend=Remote(), plugins=[Local()]).run(1).unwrap() == 1


def test_a_backend_that_does_not_say_that_it_is_remote_gets_no_task() -> None:
    class Sends:
        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            return request.outcome(request.task().model_dump_json())

    with pytest.raises(Exception, match="its backend does not say that it is remote"):
        Flujo(flows.give, backend=Sends()).run(1).unwrap()


# --- where steps run --------------------------------------------------------------------------------------------------


def test_each_step_runs_where_it_says(backend: PipeBackend) -> None:
    here, there = Step(flows.where, name="here"), Step(flows.where, name="there", backend="pipe")
    result = Flujo(Pipeline(here, there), backend={"pipe": backend}).run(0)
    pids = result.unwrap()
    assert isinstance(pids, dict)
    assert pids["here"] == os.getpid() != pids["there"]
    turned = {"default": backend, "pipe": LocalBackend()}
    pids = Flujo(Pipeline(here, there), backend=turned).run(0).unwrap()
    assert isinstance(pids, dict)
    assert pids["there"] == os.getpid() != pids["here"]
    assert Flujo(Step(flows.where, backend="local"), backend=backend).run(0).unwrap() == os.getpid()


def test_inputs_context_and_changes_go_and_come_back_with_their_types(backend: PipeBackend) -> None:
    assert Flujo(flows.add, backend=backend).run(flows.Pair(left=1, right=2)).unwrap() == 3
    result = Flujo(flows.count_letters, backend=backend, context_model=flows.Facts).run("")
    assert result.unwrap() == 5
    assert result.context == flows.Facts(count=5)
    assert "not for workers" not in backend.sent[-1]


def test_the_task_holds_what_the_worker_must_know_and_nothing_live(backend: PipeBackend) -> None:
    Flujo(flows.give, backend=backend, policy=Policy(guard_timeout_s=2)).run(7, run_id="r-1", actor="ann")
    task = StepTask.read(backend.sent[-1])
    assert (task.run.run_id, task.run.actor, task.path, task.attempt) == ("r-1", "ann", "give", 1)
    assert task.code.model_dump() == {"kind": "ref", "ref": "remote_pipeline:give"}
    assert task.inputs == {"number": 7}
    assert task.policy["guard_timeout_s"] == 2
    assert len(task.policy_digest) == len(task.key) == len(task.id) == 64


# --- guards, transforms, recorders and observers ----------------------------------------------------------------------


def test_transforms_and_guards_of_model_calls_act_on_the_worker_and_their_counts_come_back(
    backend: PipeBackend,
) -> None:
    seen: list[OnModelCall] = []

    def watch(event: OnModelCall) -> None:
        seen.append(event)

    limits = UsageLimits(total_cost_usd_limit=1)
    result = Flujo(flows.ask_model, backend=backend, plugins=[flows.Mask()], hooks=[watch], limits=limits).run("Ann")
    text, pid = str(result.unwrap()).split("@")
    assert (text, int(pid) != os.getpid()) == ("***", True)
    assert result.counts["masked"] == {"texts": 1}
    assert result.total_cost_usd == Decimal("0.020")
    [event] = seen
    assert event.request.messages[0].content == "***"
    assert event.usage.total_tokens == 15


def test_a_guard_that_denies_on_the_worker_ends_the_run(backend: PipeBackend) -> None:
    result = Flujo(flows.give, backend=backend, plugins=[flows.Forbid(os.getpid())]).run(1)
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert (result.error.plugin, result.error.hook) == ("Forbid", "guard_step")


def test_a_worker_whose_own_policy_is_not_met_refuses_every_task_and_observers_are_told() -> None:
    class Same:
        capabilities = Capabilities(remote=True)

        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            worker = Worker(policy=Policy(require={"flujo-audit"}))
            return request.outcome(await worker.execute(request.task().model_dump_json()))

    told: list[str] = []

    def note(event: OnGuardDenied) -> None:
        told.append(f"{event.step_path}: {event.denial.hook}")

    step = Step(flows.give, retry=RetryPolicy(max_attempts=3))
    result = Flujo(step, backend=Same(), hooks=[note]).run(1)
    assert isinstance(result.error, TaskRejected)
    assert result.error.hook == "E_POLICY"
    assert told == ["give: E_POLICY"]
    assert "flujo-audit" in str(result.error)


@pytest.mark.parametrize("why", ["a limit", "a transform"])
def test_a_step_that_swallows_why_the_run_ends_does_not_undo_it_on_the_worker_either(
    backend: PipeBackend, why: str
) -> None:
    limits = UsageLimits("0.50") if why == "a limit" else None
    plugins = [] if why == "a limit" else [flows.Quit()]
    flow = Step(flows.swallow.target) >> Step(flows.give.target)
    for here in (None, backend):
        result = Flujo(flow, backend=here, limits=limits, plugins=plugins).run(1)
        assert result.status == ("stopped" if why == "a limit" else "aborted")
        assert type(result.error) is (UsageLimitExceeded if why == "a limit" else RunAborted)
        assert [record.name for record in result.step_history] == ["swallow"]


def test_models_that_the_policy_does_not_allow_are_not_called_on_the_worker_either(backend: PipeBackend) -> None:
    policy = Policy(allow_models={"other:*"})
    result = Flujo(flows.ask_model, backend=backend, policy=policy).run("Ann")
    assert result.status == "aborted"
    assert "acme:small" in str(result.error)


def test_spans_of_the_worker_stand_in_the_trace_of_the_run_below_their_step() -> None:
    program = Path(__file__).parent / "remote_traced.py"
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=240)
    traces, *spans = zip(*(line.split("|") for line in done.stdout.splitlines()), strict=True)
    assert len(set(traces)) == 1
    assert set(zip(*spans, strict=True)) == {
        ("chat small", "<", "step ask_model"),
        ("step ask_model", "<", "invoke_workflow ask_model"),
        ("invoke_workflow ask_model", "<", "-"),
    }


# --- humans and effects -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_step_that_asks_on_a_worker_is_told_the_answer_there(backend: PipeBackend) -> None:
    flujo = Flujo(flows.confirm, backend=backend)
    paused = await flujo.run_async("pay")
    assert paused.status == "paused"
    assert paused.pauses[0].question == "pay?"
    done = await flujo.resume_async(paused, True)
    assert done.unwrap() == "pay: True"


def test_a_tool_that_may_be_called_at_most_once_is_not_called_where_nobody_could_know(backend: PipeBackend) -> None:
    result = Flujo(flows.pay, backend=backend).run(1)
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "NotRemote"
    whole = Flujo(Step(flows.pay, effect="at_most_once"), backend=backend).run(1)
    assert whole.unwrap() == "paid"


class Lost:
    """Its workers go away in the middle, until they are mended."""

    capabilities = Capabilities(remote=True)
    mended = False

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        task = request.task().model_dump_json()
        if not self.mended:
            return StepOutcome(Failure(WorkerLost(request.ctx.step_path, "it died")))
        async with Worker() as worker:
            return request.outcome(await worker.execute(task))


@pytest.mark.anyio
async def test_whether_a_step_that_may_happen_once_happened_on_a_lost_worker_is_asked_a_human() -> None:
    backend = Lost()
    flujo = Flujo(Step(flows.pay, effect="at_most_once"), backend=backend)
    failed = await flujo.run_async(1)
    assert isinstance(failed.error, WorkerLost)
    backend.mended = True
    asked = await flujo.resume_async(failed, retry=True)
    assert asked.status == "paused"
    assert "may happen at most once" in asked.pauses[0].question
    done = await flujo.resume_async(asked, {"happened": False})
    assert done.unwrap() == "paid"


@pytest.mark.anyio
async def test_a_backend_that_raises_fails_the_step_and_one_that_sent_nothing_costs_nothing() -> None:
    class Broken:
        capabilities = Capabilities(remote=True)

        def __init__(self, *, sends: bool) -> None:
            self.sends = sends

        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            if self.sends:
                request.task()
            raise ConnectionError("no way there")

    limits, lease = UsageLimits(total_cost_usd_limit=1), UsageLimits(total_cost_usd_limit="0.10")
    for sends, cost in ((False, Decimal(0)), (True, Decimal("0.10"))):
        flujo = Flujo(Step(flows.ask_model, lease=lease), backend=Broken(sends=sends), limits=limits)
        result = await flujo.run_async("x")
        assert isinstance(result.error, StepFailed)
        assert result.error.error_type == ("WorkerLost" if sends else "ConnectionError")
        assert isinstance(result.error.__cause__, ConnectionError)
        assert result.total_cost_usd == cost


def test_steps_without_a_lease_of_their_own_share_a_limit_one_after_another(backend: PipeBackend) -> None:
    limits = UsageLimits(total_cost_usd_limit="0.05")
    result = Flujo(Map(flows.ask_model), backend=backend, limits=limits, plugins=[flows.Mask()]).run(["a", "b"])
    assert result.status == "completed"
    assert result.total_cost_usd == Decimal("0.040")


@pytest.mark.parametrize("lease", [None, UsageLimits(total_cost_usd_limit="0.10")])
def test_a_call_that_bills_more_than_it_reserved_on_a_worker_ends_the_run_too(
    backend: PipeBackend, lease: UsageLimits | None
) -> None:
    flow = Step(flows.bills_more, lease=lease) >> Step(flows.ask_model)
    result = Flujo(flow, backend=backend, limits=UsageLimits(total_cost_usd_limit=100)).run("x")
    assert (result.status, [record.name for record in result.step_history]) == ("stopped", ["bills_more"])
    assert "more than it had reserved" in str(result.error)
    assert result.total_cost_usd == Decimal("1.010")
    assert result.usage.overshoot_usd == Decimal("1.010") - Decimal("0.027")


@pytest.mark.anyio
async def test_an_answer_of_a_worker_with_more_use_than_its_lease_ends_the_run() -> None:
    class Greedy(Remote):
        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            return StepOutcome(Success("paid"), usage=Usage(cost_usd=Decimal("0.11")))

    flow = Step(flows.ask_model, lease=UsageLimits(total_cost_usd_limit="0.10")) >> Step(flows.ask_model, name="more")
    result = await Flujo(flow, backend=Greedy(), limits=UsageLimits("100")).run_async("x")
    assert (result.status, result.total_cost_usd) == ("stopped", Decimal("0.11"))
    assert [(record.name, record.output) for record in result.step_history] == [("ask_model", "paid")]
    assert result.usage.overshoot_usd == Decimal("0.01")


class Unreliable:
    """Workers of which some die, some answer late, and some do the work and are not heard."""

    capabilities = Capabilities(remote=True)

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.most = Decimal(0)
        self.asked = 0

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        self.asked += 1
        number = self.asked
        used = self.budget.spent
        self.most = max(self.most, used.cost_usd + used.reserved_usd)
        task = request.task().model_dump_json()
        await anyio.sleep(0.05 if number % 20 == 1 else 0)  # late
        if number % 10 == 0:
            return StepOutcome(Failure(WorkerLost(request.ctx.step_path, "it died")))
        async with Worker() as worker:
            answers = [await worker.execute(task) for _ in range(2 if number % 20 == 3 else 1)]
        outcomes = [request.outcome(answer) for answer in answers]
        return outcomes[-1]


@pytest.mark.anyio
async def test_a_hundred_leases_of_workers_that_die_answer_late_or_twice_keep_the_limit_and_leak_nothing() -> None:
    budget = Budget(UsageLimits(total_cost_usd_limit="3.00"))
    backend = Unreliable(budget)
    step = Step(flows.ask_model, lease=UsageLimits(total_cost_usd_limit="0.10"))
    flujo = Flujo(Map(step, on_failure="collect"), backend=backend, limits=budget)
    result = await flujo.run_async([str(number) for number in range(100)])
    failed = [one for one in result.unwrap() if isinstance(one, StepFailed)]  # type: ignore[attr-defined]
    assert len(failed) == 10
    assert all(isinstance(one, WorkerLost) for one in failed)
    assert backend.most <= Decimal("3.00")
    assert result.total_cost_usd == 90 * Decimal("0.02") + 10 * Decimal("0.10")
    assert budget.spent.reserved_usd == 0


# --- answers that cannot be trusted -----------------------------------------------------------------------------------


def _with(**facts: Any) -> Callable[[str], str]:
    return lambda answer: json.dumps({**json.loads(answer), **facts})


_EVENT = {"hook": "on_tool_call", "facts": {"step_path": "another", "call": {}, "result": None, "duration_s": 0.0}}


@pytest.mark.parametrize(
    "changed",
    [
        lambda _: "\x80\x04\x95pickled",
        lambda _: "{}",
        lambda _: "[" * 100_000,
        lambda answer: answer.replace('"output":1', '"output":NaN'),
        lambda answer: answer.replace('"output":1', '"output":"\\ud800"'),
        _with(output="1"),
        _with(output=1.5),
        _with(output=True),
        _with(status="paused"),
        _with(status="failure"),
        _with(task_id="0" * 64),
        _with(extra=1),
        _with(version=2),
        _with(changes={"private": "taken"}),
        _with(usage={"cost_usd": "-1"}),
        _with(usage={"cost_usd": "NaN"}),
        _with(usage={"input_tokens": -5}),
        _with(usage={"requests": 10**30}),
        _with(events=[_EVENT]),
        _with(events=[{"hook": "guard_run", "facts": {}}]),
        _with(status="aborted", error={"kind": "StepFailed", "facts": {}}),
        _with(status="failure", error={"kind": "KeyboardInterrupt", "facts": {}}),
        _with(status="failure", error={"kind": "RunExists", "facts": {"what": "", "why": "", "do": ""}}),
        _with(counts={"x": {"y": -1}}),
    ],
)
def test_an_answer_that_does_not_fit_fails_the_step_and_costs_its_whole_lease(
    pool: Pool, changed: Callable[[str], str]
) -> None:
    backend = PipeBackend(pool, changed=changed)
    step = Step(_spends_nothing, lease=UsageLimits(total_cost_usd_limit="0.25"))
    limits = UsageLimits(total_cost_usd_limit=1)
    result = Flujo(step, backend=backend, limits=limits).run(1)
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "AnswerMismatch"
    assert result.total_cost_usd == Decimal("0.25")


class Returning(Remote):
    """A backend that makes its outcomes by itself."""

    def __init__(self, made: object) -> None:
        self.made = made

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        request.task()
        return self.made  # type: ignore[return-value]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "made",
    [
        *(StepOutcome(Success(1), usage=usage) for usage in (
            Usage(cost_usd=Decimal("-1000")), Usage(cost_usd=Decimal("NaN")), Usage(cost_usd=Decimal("Infinity")),
            Usage(cost_usd=Decimal("1E+60")), Usage(cost_usd=math.nan), Usage(input_tokens=-5),  # type: ignore[arg-type]
            Usage(output_tokens=True), Usage(requests=10**30), Usage(overshoot_usd=Decimal(-1)), "nothing",
        )),
        StepOutcome(None),  # type: ignore[arg-type]
        StepOutcome("done"),  # type: ignore[arg-type]
        None,
        "done",
    ],
)  # fmt: skip
async def test_what_a_backend_makes_by_itself_is_not_believed_blindly(made: object) -> None:
    """Less than nothing would give the run more to spend than its limit, and NaN no limit at all."""
    step = Step(_spends_nothing, lease=UsageLimits(total_cost_usd_limit="0.25"))
    budget = Budget(UsageLimits(total_cost_usd_limit=1))
    result = await Flujo(step, backend=Returning(made), limits=budget).run_async(1)
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "AnswerMismatch"
    assert (result.total_cost_usd, budget.spent.cost_usd) == (Decimal("0.25"), Decimal("0.25"))


async def _spends_nothing(number: int, ctx: RunContext) -> int:
    return number


def test_an_answer_that_is_too_long_is_not_parsed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flujo.core.wire.MAX_BYTES", 1000)
    result = Flujo(flows.give, backend=PipeBackend(pool, changed=lambda answer: answer + " " * 1000)).run(1)
    assert "more than the 1000 that are read" in str(result.error)


def test_a_value_that_json_cannot_hold_fails_the_step_before_anything_is_sent(backend: PipeBackend) -> None:
    result = Flujo(Step(flows.anything), backend=backend).run(object())
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "NotSerialisable"
    assert "input 'value'" in str(result.error)
    assert backend.sent == []


def test_a_task_above_the_limit_of_its_backend_is_refused_by_name_and_size(pool: Pool) -> None:
    class Small(PipeBackend):
        capabilities = Capabilities(remote=True, max_payload=10_000)

    backend = Small(pool)
    result = Flujo(flows.anything, backend=backend).run("x" * 20_000)
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "PayloadTooLarge"
    assert "input 'value'" in str(result.error)
    assert backend.sent == []


@pytest.mark.anyio
async def test_a_worker_says_what_is_wrong_with_a_task_that_it_cannot_read() -> None:
    async with Worker() as worker:
        for data in ("", "{}", "\x80\x04pickle", '{"format": "flujo-task"}'):
            answer = json.loads(await worker.execute(data))
            assert answer["status"] == "aborted"
            assert answer["error"]["facts"]["hook"] == "E_SHAPE"


def test_a_step_that_a_worker_does_not_have_is_refused(backend: PipeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(number: int) -> int:
        return number

    gone.__qualname__ = gone.__name__ = "gone"
    monkeypatch.setattr(flows, "gone", gone, raising=False)
    gone.__module__ = "remote_pipeline"
    result = Flujo(Step(gone), backend=backend).run(1)
    assert isinstance(result.error, TaskRejected)
    assert result.error.hook == "E_CODE"


def test_models_of_this_module_are_no_part_of_a_task() -> None:
    assert not issubclass(StepTask, flows.Pair)
    assert issubclass(StepTask, BaseModel)


class _Slow:
    """A backend that needs a while before it can do anything, as one that first starts a cluster."""

    def __init__(self, *, fails: bool = False, tries_s: float = 0) -> None:
        self.capabilities = Capabilities(remote=True, prepare=self.prepare)
        self.fails = fails
        self.tries_s = tries_s
        self.prepared = 0

    async def prepare(self) -> None:
        self.prepared += 1
        await anyio.sleep(1.2)  # the step has a second beside its own time
        if self.fails:
            raise RuntimeError("there is no cluster")

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        if self.fails:
            await anyio.sleep(self.tries_s)
            raise RuntimeError("there is no cluster")
        async with Worker() as worker:
            return request.outcome(await worker.execute(request.task().model_dump_json()))


def _no_cluster() -> Awaitable[object]:
    raise RuntimeError("there is no cluster")


@pytest.mark.anyio
async def test_a_backend_that_gets_ready_first_costs_no_step_its_time() -> None:
    backend = _Slow()
    hurried = Step(flows.give, name="hurried", timeout_s=0.1)
    assert (await Flujo(hurried >> Step(flows.give, name="again"), backend=backend).run_async(1)).unwrap() == 1
    assert backend.prepared == 2
    failed = await Flujo(hurried, backend=_Slow(fails=True)).run_async(1)
    assert "there is no cluster" in str(failed.error)
    backend.capabilities = Capabilities(remote=True, prepare=_no_cluster)  # fails before there is anything to await
    assert (await Flujo(Step(flows.give), backend=backend).run_async(1)).unwrap() == 1
    with anyio.move_on_after(0.2) as limit:
        await Flujo(hurried, backend=_Slow()).run_async(1)
    assert limit.cancelled_caught


@pytest.mark.anyio
@pytest.mark.parametrize("step", [flows.give, flows.ask_model], ids=["unmetered", "metered"])
async def test_what_kept_a_backend_from_getting_ready_is_told_with_the_timeout_of_its_step(step: Step) -> None:
    backend = _Slow(fails=True, tries_s=60)  # it tries again to get ready, and the step's time is up meanwhile
    given: object = 1 if step is flows.give else "x"
    result = await Flujo(Step(step, timeout_s=0.1), backend=backend).run_async(given)
    assert isinstance(result.error, StepTimeout)
    assert "no result after 0.1 s" in str(result.error)
    assert "its backend was not ready: RuntimeError: there is no cluster" in str(result.error)
    assert isinstance(result.error.__cause__, RuntimeError)
    backend.fails = False  # and a step that only took too long does not blame it
    late = await Flujo(Step(flows.sleeps, timeout_s=0.1), backend=backend).run_async(5)
    assert isinstance(late.error, StepTimeout)
    assert late.error.__cause__ is None
    assert "not ready" not in str(late.error)


@pytest.mark.anyio
async def test_a_step_that_runs_elsewhere_cannot_change_its_pipeline(backend: PipeBackend) -> None:
    flujo = Flujo(flows.mutates >> flows.give, backend=backend, experimental={"mutation"})
    result = await flujo.run_async(1)
    assert (result.status, len(result.step_history)) == ("failed", 1)
    assert "and not for a step that runs elsewhere" in str(result.error)
