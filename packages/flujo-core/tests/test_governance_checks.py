"""Checks 10, 11, 13, 17, 18 and 19 that our study of other engines asks for; the number is in each name.

12 and 15 are in `test_orchestration_checks.py`. 14 (a stream that reaches its limit) waits for streams.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from flujo.core import (
    Allow,
    Budget,
    Deny,
    Fallback,
    Flujo,
    GuardDenied,
    Loop,
    Map,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    OnGovernorBreach,
    OnGuardDenied,
    OnModelCall,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PluginError,
    Plugins,
    Policy,
    PostStepExecution,
    Price,
    RecordResult,
    RetryPolicy,
    RunContext,
    Step,
    ToolCall,
    TransformModelRequest,
    UsageLimitExceeded,
    UsageLimits,
    hookimpl,
)
from flujo.core.calls import input_bound
from flujo.core.testing import RecordingPlugin

pytestmark = pytest.mark.anyio

PRICE = Price(Decimal("0.001"), Decimal("0.01"))


def ask(text: str = "12345678", **more: Any) -> ModelRequest:
    """A request whose input counts 24 tokens at most: 8 bytes and 16 for the message."""
    return ModelRequest(model="acme:m", messages=(Message(role="user", content=text),), **more)


# --- 10: a hundred branches -------------------------------------------------------------------------------------------


class Bank:
    """A provider with books of its own: slow, of random size, sometimes broken; bills what it was allowed at most."""

    def __init__(self, chance: random.Random, budget: Budget) -> None:
        self.chance, self.budget = chance, budget
        self.billed = self.may_bill = self.most = Decimal(0)
        self.calls = 0

    async def send(self, request: ModelRequest) -> ModelResponse:
        inputs, most = input_bound(request), request.max_tokens
        assert most is not None, "under a money limit each call must be bounded"
        worst = PRICE.cost(inputs, most)
        self.calls += 1
        self.note(worst)
        billed = worst  # an answer that is lost on the way, or cancelled, may be billed in full
        try:
            await anyio.sleep(self.chance.expovariate(5))
            luck = self.chance.random()
            if luck < 0.1:
                raise OSError("the line broke")
            if luck < 0.2:
                return ModelResponse()
            usage = ModelUsage(input_tokens=self.chance.randint(1, inputs), output_tokens=self.chance.randint(0, most))
            billed = PRICE.cost(usage.input_tokens, usage.output_tokens)
            return ModelResponse(usage=usage)
        finally:
            self.may_bill -= worst
            self.billed += billed
            self.note(Decimal(0))

    def note(self, worst: Decimal) -> None:
        self.may_bill += worst
        self.most = max(self.most, self.billed + self.may_bill)
        spent = self.budget.spent
        assert spent.cost_usd + spent.reserved_usd <= (self.budget.limits.cost or 0)


def caller(bank: Bank, name: str) -> Step:
    """A step of random size and patience that calls, sometimes twice, and sometimes swallows what goes wrong."""
    chance = bank.chance
    request = ask("x" * chance.randint(1, 60), max_tokens=chance.choice([None, 5, 20, 50]))
    retry = RetryPolicy(max_attempts=chance.randint(1, 3), backoff_s=0.1)
    patience, swallow, pause = chance.choice([0.05, 9, 9, 9]), chance.random() < 0.5, chance.random()

    async def talk(value: object, ctx: RunContext) -> int:
        await anyio.sleep(pause)
        with anyio.move_on_after(patience):
            try:
                await ctx.call_model(request, bank.send, price=PRICE, retry=retry)
            except (OSError, UsageLimitExceeded):
                if not swallow:
                    raise
        return 1

    return Step(talk, name=name, timeout_s=chance.choice([None, 0.2, 5.0]))


def hundred(bank: Bank) -> Any:
    """A hundred branches at once: bare, with a fallback, in a loop, in a map."""

    def branch(number: int) -> Any:
        step = caller(bank, f"b{number}")
        if number % 5 == 1:
            return Fallback(step, caller(bank, f"f{number}"), name=f"or{number}")
        if number % 5 == 2:
            return Loop(step, until=None, max_iterations=2, on_limit="return", name=f"l{number}")
        if number % 5 == 3:
            return Pipeline(step, name=f"p{number}", limits=UsageLimits("0.5"))
        return step

    return Parallel(*map(branch, range(100)), on_failure=bank.chance.choice(["collect", "cancel"]))


def hold_to_the_limit(seed: int) -> None:
    chance = random.Random(seed)
    budget = Budget(UsageLimits(chance.choice(["0.5", "3", "40"])))
    bank = Bank(chance, budget)
    flujo = Flujo(hundred(bank), limits=budget)
    results: list[Any] = []

    async def main() -> None:
        for _ in range(2):
            with anyio.move_on_after(chance.choice([0.3, 1, 100, 100])):
                results.append(await flujo.run_async(1))

    trio.run(main, clock=MockClock(autojump_threshold=0))
    limit = budget.limits.cost or 0
    assert bank.most <= limit
    assert bank.billed <= budget.spent.cost_usd <= limit
    assert budget.spent.reserved_usd == 0
    assert bank.calls > 0
    for result in results:
        assert sum(record.usage.cost_usd for record in result.step_history) == result.total_cost_usd


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_check_10_the_providers_own_count_of_a_hundred_branches_never_passes_the_limit(seed: int) -> None:
    hold_to_the_limit(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seeds", [range(start, start + 50) for start in range(0, 200, 50)], ids=str)
def test_check_10_the_same_two_hundred_times(seeds: range) -> None:
    for seed in seeds:
        hold_to_the_limit(seed)


@pytest.mark.parametrize("shape", ["parallel", "map", "task group", "loop", "fallback", "retry"])
async def test_check_10_a_budget_for_five_calls_makes_five(shape: str) -> None:
    made = [0]

    async def send(request: ModelRequest) -> ModelResponse:
        made[0] += 1
        await anyio.sleep(0.001)
        if shape in ("retry", "fallback"):
            raise OSError("billed, and lost")
        return ModelResponse(usage=ModelUsage(input_tokens=24, output_tokens=10))

    async def talk(value: Any, ctx: RunContext) -> Any:
        async def call() -> None:
            retry = RetryPolicy(max_attempts=10, backoff_s=0) if shape == "retry" else None
            await ctx.call_model(ask(max_tokens=10, min_tokens=10), send, price=PRICE, retry=retry)

        async with anyio.create_task_group() as group:
            for _ in range(100 if shape == "task group" else 1):
                group.start_soon(call)
        return value

    steps = [Step(talk, name=f"t{n}") for n in range(100)]
    nested: Any = steps[0]
    for number, step in enumerate(steps[1:9]):
        nested = Fallback(nested, step, name=f"or{number}")
    shapes: dict[str, Any] = {
        "parallel": Parallel(*steps),
        "map": Map(steps[0]),
        "task group": steps[0],
        "loop": Loop(steps[0], until=None, max_iterations=50, on_limit="return"),
        "fallback": nested,
        "retry": steps[0],
    }
    result = await Flujo(shapes[shape], limits=UsageLimits(5 * PRICE.cost(24, 10))).run_async([1] * 100)
    assert result.status == "stopped"
    assert made[0] == 5
    assert result.total_cost_usd == 5 * PRICE.cost(24, 10)


async def test_check_10_a_call_whose_real_cost_is_a_tenth_of_its_worst_case_does_not_starve_the_others() -> None:
    """All leases together are ten times the limit, the real costs fit: who does not fit at once waits for its turn."""

    async def talk(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="1.00") as lease:
            await anyio.sleep(0.001)
            lease.settle(cost_usd="0.10")
        return value

    result = await Flujo(Map(Step(talk)), limits=UsageLimits("10.90")).run_async(list(range(100)))
    assert result.status == "completed"
    assert result.total_cost_usd == 10


# --- limits: None, 0, free steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [UsageLimits(0), UsageLimits(0, 0, 0), UsageLimits(total_tokens_limit=0)])
async def test_no_limit_is_unlimited_and_a_limit_of_zero_lets_only_free_steps_pass(limits: UsageLimits) -> None:
    async def free(value: int) -> int:
        return value + 1

    async def paid(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.01", tokens=1) as lease:
            lease.settle(cost_usd="0.01", tokens=1)
        return value

    unlimited = await Flujo(Step(free) >> Step(paid), limits=UsageLimits()).run_async(1)
    assert (unlimited.status, unlimited.total_cost_usd) == ("completed", Decimal("0.01"))
    assert (await Flujo(Step(free) >> Step(paid)).run_async(1)).status == "completed"
    assert (await Flujo(Step(free) >> Step(free, name="more"), limits=limits).run_async(1)).output == 3
    stopped = await Flujo(Step(free) >> Step(paid), limits=limits).run_async(1)
    assert (stopped.status, stopped.total_cost_usd) == ("stopped", 0)
    assert [record.output for record in stopped.step_history if record.status == "completed"] == [2]


# --- 11: overshoot ----------------------------------------------------------------------------------------------------


async def test_check_11_a_bill_above_the_worst_case_is_recorded_told_and_the_last() -> None:
    told: list[str] = []
    made = [0]

    def breached(event: OnGovernorBreach) -> None:
        told.append(event.error.limit)

    async def send(request: ModelRequest) -> ModelResponse:
        made[0] += 1
        return ModelResponse(usage=ModelUsage(output_tokens=1, cost_usd=Decimal("1.50")))

    async def talk(value: int, ctx: RunContext) -> int:
        await ctx.call_model(ask(max_tokens=10, min_tokens=10), send, price=Price(request_usd=Decimal("0.9")))
        return value

    pipeline = Step(talk, name="a") >> Step(talk, name="b")
    result = await Flujo(pipeline, limits=UsageLimits("1"), hooks=[breached]).run_async(1)
    assert (result.status, made, told) == ("stopped", [1], ["total_cost_usd_limit"])
    assert (result.total_cost_usd, result.usage.overshoot_usd) == (Decimal("1.50"), Decimal("0.60"))
    assert result.step_history[0].usage.cost_usd == Decimal("1.50"), "what was paid for is kept"


# --- 13: unknown price, unknown use -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["refuse", "warn", "given"])
async def test_check_13_an_unknown_price_is_refused_before_the_call_warned_of_or_configured(way: str) -> None:
    made = [0]

    async def send(request: ModelRequest) -> ModelResponse:
        made[0] += 1
        return ModelResponse(usage=ModelUsage(output_tokens=5))

    async def talk(value: int, ctx: RunContext) -> int:
        price = Price(output_usd=Decimal("0.01")) if way == "given" else None
        await ctx.call_model(ask(max_tokens=10), send, price=price)
        return value

    limits = UsageLimits("1", on_unknown_price="warn" if way == "warn" else "refuse")
    result = await Flujo(Step(talk), limits=limits, plugins=Plugins(allowed=[])).run_async(1)
    assert result.status == ("stopped" if way == "refuse" else "completed")
    assert made[0] == (0 if way == "refuse" else 1)
    assert result.usage.unpriced == (1 if way == "warn" else 0)
    assert str(result.total_cost_usd) == ("0.05" if way == "given" else "0")


async def test_check_13_unknown_use_counts_its_whole_lease_and_shows() -> None:
    async def send(request: ModelRequest) -> ModelResponse:
        return ModelResponse(content="no usage")

    async def talk(value: int, ctx: RunContext) -> int:
        await ctx.call_model(ask(max_tokens=10), send, price=PRICE)
        return value

    result = await Flujo(Step(talk), limits=UsageLimits("1")).run_async(1)
    assert (result.usage.unmeasured, result.total_cost_usd) == (1, PRICE.cost(24, 10))


async def test_a_transform_chooses_a_cheaper_model_by_what_is_left() -> None:
    class Thrifty:
        @hookimpl
        def transform_model_request(self, payload: TransformModelRequest) -> ModelRequest:
            dear = payload.cost_left_usd is None or payload.cost_left_usd >= Decimal("0.5")
            return payload.value.model_copy(update={"model": "dear" if dear else "cheap"})

        @hookimpl
        def register_price_books(self) -> list[Any]:
            return [self]

        def price(self, model: str) -> Price | None:
            return {"dear": Price(request_usd=Decimal("0.3")), "cheap": Price(request_usd=Decimal("0.1"))}.get(model)

    called: list[str] = []

    def watch(event: OnModelCall) -> None:
        called.append(event.request.model)

    async def talk(value: int, ctx: RunContext) -> int:
        async def send(request: ModelRequest) -> ModelResponse:
            return ModelResponse(usage=ModelUsage(output_tokens=1))

        for _ in range(5):
            await ctx.call_model(ask(), send)
        return value

    result = await Flujo(Step(talk), limits=UsageLimits("1"), plugins=[Thrifty()], hooks=[watch]).run_async(1)
    assert called == ["dear", "dear", "cheap", "cheap", "cheap"]
    assert str(result.total_cost_usd) == "0.9"


# --- 17: guards and observers at fault --------------------------------------------------------------------------------

GUARDS = ("guard_run", "guard_step", "guard_model_call", "guard_tool_call")
FAULTS = ("raises", "hangs", "garbage", "exits")


def faulty(hook: str, fault: str) -> Any:
    """A plugin whose guard does that."""

    async def guard(self: object, payload: object) -> object:
        if fault == "raises":
            raise ValueError("private words")
        if fault == "exits":
            sys.exit(3)
        if fault == "hangs":
            await anyio.sleep_forever()
        return "yes"

    return type("Faulty", (), {hook: hookimpl(guard)})()


class Effects:
    """Counts what really happened."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()

    def pipeline(self) -> Step:
        async def send(request: ModelRequest) -> ModelResponse:
            self.done["model"] += 1
            return ModelResponse(content="ok", usage=ModelUsage(output_tokens=1))

        async def tool(call: ToolCall) -> object:
            self.done["tool"] += 1
            return 1

        async def work(value: int, ctx: RunContext) -> int:
            self.done["step"] += 1
            await ctx.call_model(ask(max_tokens=5), send, price=Price())
            await ctx.call_tool(ToolCall(name="t", arguments={"secret": value}), tool)
            return value

        return Step(work)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hook", GUARDS)
async def test_check_17_a_guard_that_raises_hangs_exits_or_answers_garbage_denies_in_its_time(
    hook: str, fault: str
) -> None:
    effects, told, plugin = Effects(), [], RecordingPlugin()

    def denied(event: OnGuardDenied) -> None:
        told.append((event.denial.plugin, event.denial.hook))

    flujo = Flujo(effects.pipeline(), plugins=[faulty(hook, fault), plugin], hooks=[denied],
                  policy=Policy(guard_timeout_s=0.05))  # fmt: skip
    with anyio.fail_after(5):
        result = await flujo.run_async(1)
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert (result.error.plugin, result.error.hook, told) == ("Faulty", hook, [("Faulty", hook)])
    assert "private" not in str(result.error)
    effect = {"guard_run": "step", "guard_step": "step", "guard_model_call": "model", "guard_tool_call": "tool"}[hook]
    assert effects.done[effect] == 0
    if hook != "guard_run":
        (record,) = result.step_history
        assert record.status == "aborted"
        rows = [row for row in result.snapshot().journal if "GuardDenied" in row.model_dump_json()]
        assert rows, "the denial stands in the journal"
        ends = {(r.kind, r.status, r.error_type) for r in plugin.of(RecordResult)}
        assert ("run", "aborted", "GuardDenied") in ends


@pytest.mark.parametrize("fault", FAULTS)
async def test_check_17_an_observer_that_raises_hangs_or_exits_changes_nothing_and_the_others_are_told(
    fault: str,
) -> None:
    told = []

    class Others:
        @hookimpl
        def post_step_execution(self, payload: PostStepExecution) -> None:
            told.append(payload.record.status)

    effects = Effects()
    flujo = Flujo(effects.pipeline(), plugins=[faulty("post_step_execution", fault), Others()],
                  policy=Policy(observer_timeout_s=0.05))  # fmt: skip
    with anyio.fail_after(5):
        result = await flujo.run_async(1)
    assert (result.status, result.output, told) == ("completed", 1, ["completed"])
    faults = result.counts.get("plugin_faults", {})
    assert faults == ({} if fault == "garbage" else {"Faulty": 1})


# --- 18: nothing gets past the guards ---------------------------------------------------------------------------------


class Sees:
    """A guard that notes each thing it is asked about."""

    def __init__(self, first: bool, last: bool) -> None:
        self.seen: Counter[str] = Counter()
        for hook in GUARDS:
            setattr(self, hook, self._made(hook, first, last))

    def _made(self, hook: str, first: bool, last: bool) -> Any:
        def guard(payload: Any) -> Allow | Deny:
            self.seen[f"{hook} {getattr(payload, 'step_path', '')}"] += 1
            return Allow()

        return hookimpl(tryfirst=first, trylast=last)(guard)


async def test_check_18_in_every_order_of_five_plugins_all_guards_see_every_way_to_a_model_or_tool(
    anyio_backend_name: str,
) -> None:
    async def send(request: ModelRequest) -> ModelResponse:
        return ModelResponse(content="ok", usage=ModelUsage(output_tokens=1))

    async def tool(call: ToolCall) -> object:
        return 1

    broken = [0]

    async def flaky(value: int, ctx: RunContext) -> int:
        await ctx.call_model(ask(max_tokens=5), send, price=Price())
        broken[0] += 1
        if broken[0] % 2:
            raise OSError("again")
        return value

    async def fails(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="t"), tool)
        raise OSError("never")

    async def helps(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="t"), tool)
        return value

    async def asks(value: int) -> int:
        raise PauseForHumanInput("go on?", schema=int)

    async def after(value: int, ctx: RunContext) -> int:
        await ctx.call_model(ask(max_tokens=5), send, price=Price())
        return value

    retried = Step(flaky, retry=RetryPolicy(max_attempts=2, backoff_s=0))
    pipeline = retried >> Fallback(Step(fails), Step(helps), name="or") >> Step(asks) >> Step(after)
    seen: set[tuple[tuple[str, int], ...]] = set()
    every = list(itertools.permutations(range(5)))
    for order in every if anyio_backend_name == "asyncio" else every[::12]:
        guards = [Sees(number == 0, number == 1) for number in range(5)]
        flujo = Flujo(pipeline, plugins=[guards[number] for number in order])
        paused = await flujo.run_async(1)
        assert paused.status == "paused"
        assert (await flujo.resume_async(paused, 2)).status == "completed"
        seen |= {tuple(sorted(guard.seen.items())) for guard in guards}
    (what,) = seen
    assert dict(what) == {
        "guard_run ": 2,  # the resume is guarded too
        "guard_step flaky": 2,
        "guard_model_call flaky": 2,
        "guard_step or/fails": 1,
        "guard_tool_call or/fails": 1,
        "guard_step or/helps": 1,
        "guard_tool_call or/helps": 1,
        "guard_step asks": 1,
        "guard_step after": 1,
        "guard_model_call after": 1,
    }


# --- 19: what is not allowed is never imported ------------------------------------------------------------------------


def test_check_19_a_blocked_plugin_is_never_imported_whatever_its_entry_point_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    sentinel = tmp_path / "imported"
    (info := tmp_path / "imposter-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: imposter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flujo]\nflujo-audit = imposter_module\n")
    (tmp_path / "imposter_module.py").write_text(f"open({str(sentinel)!r}, 'w').close()\nflujo_api = '1.0'\n")
    policy = Policy(allow_plugins=frozenset({"flujo-audit>=0", "flujo-hitl"}))
    step = Step(lambda value: value, name="x")
    for named in ("imposter", "flujo-audit-imposter"):
        with pytest.raises(PluginError):
            Flujo(step, plugins=[named], policy=policy)
    flujo = Flujo(step, policy=policy)
    flujo.plugins.load()
    states = {plugin.distribution: plugin.state for plugin in flujo.plugins.installed}
    assert states["imposter"] == "blocked"
    assert not sentinel.exists()
    assert "imposter_module" not in sys.modules
