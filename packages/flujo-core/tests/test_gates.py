"""Named limits: shared by all runs of a process, first come first served, safe to cancel, over threads and loops."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from trio.testing import MockClock

from flujo.core import (
    Budget,
    Flujo,
    Map,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    NamedLimit,
    NotSent,
    Parallel,
    Policy,
    Price,
    Resource,
    Resources,
    RunContext,
    Step,
    UsageLimits,
)
from flujo.core import gates as module
from flujo.core.gates import Passage

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nobody_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GATES", {})


def limited(**limits: NamedLimit) -> Policy:
    return Policy(named_limits={name.replace("_", ":", 1): limit for name, limit in limits.items()})


def asked(model: str = "m", tokens: int = 10) -> ModelRequest:
    return ModelRequest(model=model, messages=(Message(role="user", content="hi"),), max_tokens=tokens)


class Provider:
    """Says how many calls it had at a time."""

    def __init__(self, pause_s: float = 0.001) -> None:
        self.now = self.most = self.calls = 0
        self.pause_s = pause_s
        self.lock = threading.Lock()

    async def send(self, request: ModelRequest) -> ModelResponse:
        with self.lock:
            self.now += 1
            self.calls += 1
            self.most = max(self.most, self.now)
        try:
            await anyio.sleep(self.pause_s)
        finally:
            with self.lock:
                self.now -= 1
        return ModelResponse(content="ok", usage=ModelUsage(output_tokens=1))

    def step(self, model: str = "m", name: str = "ask") -> Step:
        async def ask(value: int, ctx: RunContext) -> int:
            await ctx.call_model(asked(model), self.send, price=Price())
            return value

        return Step(ask, name=name)


# --- what the operator writes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m", "model:", "tool:x", "Model:x", ""])
def test_a_name_says_whose_limit_it_is(name: str) -> None:
    with pytest.raises(ValidationError):
        Policy(named_limits={name: NamedLimit(concurrency=1)})


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "many", float("inf")])
@pytest.mark.parametrize("field", list(NamedLimit.model_fields))
def test_a_limit_is_a_whole_number_above_zero(field: str, wrong: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        NamedLimit(**{field: wrong})


def test_of_two_policies_the_lower_limit_holds() -> None:
    one = limited(model_a=NamedLimit(concurrency=3, requests_per_minute=5), model_b=NamedLimit(concurrency=1))
    other = limited(model_a=NamedLimit(requests_per_minute=9, tokens_per_minute=7))
    assert one.joined(other) == other.joined(one)
    assert one.joined(other).named_limits == {
        "model:a": NamedLimit(concurrency=3, requests_per_minute=5, tokens_per_minute=7),
        "model:b": NamedLimit(concurrency=1),
    }


# --- models, resources, backends --------------------------------------------------------------------------------------


async def test_calls_of_many_runs_and_flujos_share_the_places_of_a_model() -> None:
    provider = Provider()
    flujos = [
        Flujo(Map(provider.step()), policy=Policy(named_limits={pattern: NamedLimit(concurrency=3)}))
        for pattern in ("model:m", "model:m")
    ]
    async with anyio.create_task_group() as group:
        for flujo in flujos * 3:
            group.start_soon(flujo.run_async, list(range(5)))
    assert provider.calls == 30
    assert 1 < provider.most <= 3
    free = Provider(pause_s=0.1)
    await Flujo(Map(free.step("other")), policy=limited(model_m=NamedLimit(concurrency=1))).run_async(list(range(5)))
    assert free.most > 1, "a name holds for whom it fits only"


async def test_attempts_that_use_a_resource_or_run_on_a_backend_share_its_places() -> None:
    class Pool:
        pass

    class App(Resources):
        db: Pool = Resource(Pool)
        other: int = 3

    seen = Counter[str]()
    most = Counter[str]()

    @asynccontextmanager
    async def busy(name: str) -> Any:
        seen[name] += 1
        most[name] = max(most[name], seen[name])
        await anyio.sleep(0.02)
        yield
        seen[name] -= 1

    async def uses(value: int, db: Pool) -> int:
        async with busy("db"):
            return value

    async def all_of_it(value: int, app: App) -> int:
        async with busy("db"):
            return value

    async def plain(value: int) -> int:
        async with busy("plain"):
            return value

    steps = [Step(fn, name=f"{fn.__name__}{n}") for fn in (uses, all_of_it, plain) for n in range(4)]
    policy = limited(resource_db=NamedLimit(concurrency=2))
    result = await Flujo(Parallel(*steps), resources=App(), policy=policy).run_async(1)
    assert result.status == "completed"
    assert most["db"] <= 2 < most["plain"]
    most.clear()
    policy = limited(backend_LocalBackend=NamedLimit(concurrency=1))
    await Flujo(Parallel(*steps), resources=App(), policy=policy).run_async(1)
    assert (most["db"], most["plain"]) == (1, 1)


async def test_a_thread_that_outlives_its_attempt_keeps_its_place_until_it_returns() -> None:
    gone, started = threading.Event(), threading.Event()

    def slow(value: int) -> int:
        if value == 1:
            started.set()
            gone.wait(10)
        return value

    policy = limited(backend_LocalBackend=NamedLimit(concurrency=1))
    flujo = Flujo(Step(slow, timeout_s=0.2), policy=policy)
    assert (await flujo.run_async(1)).status == "failed"
    assert started.is_set()
    assert (await flujo.run_async(2)).status == "failed", "the place is not free yet"
    gone.set()
    with anyio.fail_after(5):
        while (await flujo.run_async(3)).status != "completed":
            await anyio.sleep(0.01)


def test_runs_in_threads_and_event_loops_of_their_own_share_the_places() -> None:
    provider = Provider(pause_s=0.005)
    flujo = Flujo(Map(provider.step()), policy=limited(model_m=NamedLimit(concurrency=2)))
    results: list[str] = []

    def work(backend: str) -> None:
        with start_blocking_portal(backend) as portal:
            results.append(portal.call(flujo.run_async, list(range(6))).status)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("asyncio", "trio", "asyncio", "trio")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == ["completed"] * 4
    assert provider.calls == 24
    assert provider.most <= 2


async def test_a_call_inside_a_call_of_the_same_name_does_not_wait_for_itself() -> None:
    provider = Provider()

    async def outer(value: int, ctx: RunContext) -> int:
        async def send(request: ModelRequest) -> ModelResponse:
            return await ctx.call_model(request, provider.send, price=Price())

        await ctx.call_model(asked(), send, price=Price())
        return value

    policy = limited(model_m=NamedLimit(concurrency=1))
    with anyio.fail_after(5):
        assert (await Flujo(Step(outer), policy=policy).run_async(1)).status == "completed"


# --- cancels, stops, refusals -----------------------------------------------------------------------------------------


async def test_who_is_cancelled_in_the_queue_leaves_it_and_holds_nothing() -> None:
    limits = {"model:m": NamedLimit(concurrency=1)}
    order: list[str] = []

    async def pass_through(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            async with Passage(limits, ["model:m"]):
                order.append(name)
                await anyio.sleep(30 if name == "0" else 0.02)  # it is cancelled, however late that comes

    scopes = [anyio.CancelScope() for _ in range(5)]
    async with anyio.create_task_group() as group:
        for number, scope in enumerate(scopes):
            group.start_soon(pass_through, str(number), scope)
            await anyio.sleep(0.001)
        scopes[1].cancel()
        scopes[2].cancel()
        scopes[0].cancel()
    assert order == ["0", "3", "4"]
    gate = module._GATES["model:m"]
    assert (gate._inside, any(gate._rows)) == (0, False)


@pytest.mark.parametrize("seed", range(20))
async def test_cancels_at_any_instant_leave_every_place_free(seed: int) -> None:
    import random

    chance = random.Random(seed)
    limits = {"model:m": NamedLimit(concurrency=2), "model:*": NamedLimit(concurrency=3)}

    async def work(life: float) -> None:
        with anyio.move_on_after(life):
            async with Passage(limits, ["model:m"]):
                await anyio.sleep(0.001)

    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(work, chance.random() * 0.02)
    for gate in module._GATES.values():
        assert (gate._inside, any(gate._rows)) == (0, False)


async def test_a_run_that_is_stopped_by_a_limit_does_not_wait_for_a_place() -> None:
    provider = Provider(pause_s=0.01)
    began = anyio.Event()

    async def holds() -> None:
        async with Passage({"model:m": NamedLimit(concurrency=1)}, ["model:m"]):
            began.set()
            await anyio.sleep_forever()

    async def waits(value: int, ctx: RunContext) -> int:
        await ctx.call_model(asked(), provider.send, price=Price(request_usd=1))  # type: ignore[arg-type]
        return value

    async def breaks(value: int, ctx: RunContext) -> int:
        await anyio.sleep(0.02)
        async with ctx.usage.reserve(cost_usd=50):
            return value

    policy = limited(model_m=NamedLimit(concurrency=1))
    flujo = Flujo(Parallel(Step(waits), Step(breaks)), policy=policy, limits=UsageLimits(2))
    async with anyio.create_task_group() as group:
        group.start_soon(holds)
        await began.wait()
        with anyio.fail_after(5):
            result = await flujo.run_async(1)
        group.cancel_scope.cancel()
    assert result.status == "stopped"
    assert (provider.calls, result.total_cost_usd, result.usage.reserved_usd) == (0, 0, 0)


async def test_a_call_counts_what_it_reserved_until_it_is_known_what_it_used() -> None:
    policy = limited(model_m=NamedLimit(tokens_per_minute=1000))
    provider = Provider()

    async def refuses(request: ModelRequest) -> ModelResponse:
        raise NotSent("no connection")

    async def ask(value: int, ctx: RunContext) -> int:
        send = provider.send if value else refuses
        await ctx.call_model(asked(tokens=900), send, price=Price())
        return value

    flujo = Flujo(Map(Step(ask), on_failure="collect"), policy=policy)
    with anyio.fail_after(5):  # 900 each: one at a time, but each really uses one token, and what never left none
        await flujo.run_async([1, 0, 1, 1])
    assert (provider.calls, provider.most) == (3, 1)
    assert [one.tokens for one in module._GATES["model:m"]._recent] == [1, 0, 1, 1]


# --- the sliding minute, on a clock of its own ------------------------------------------------------------------------

WORK = st.lists(
    st.tuples(st.floats(0, 200), st.integers(0, 50), st.floats(0, 40), st.integers(0, 50), st.floats(1, 300)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(WORK, st.none() | st.integers(1, 4), st.none() | st.integers(1, 5), st.none() | st.integers(50, 120))
def test_no_minute_has_more_than_the_limit_and_who_comes_first_is_served_first(
    work: Any, concurrency: int | None, requests: int | None, tokens: int | None
) -> None:
    """Each item: when it comes, tokens it reserves, seconds it takes, tokens it uses, after how long it gives up."""
    limits = {"model:m": NamedLimit(concurrency=concurrency, requests_per_minute=requests, tokens_per_minute=tokens)}
    came: list[int] = []
    passed: list[tuple[float, int, int]] = []
    inside = [0, 0]

    async def one(number: int, at: float, worst: int, takes: float, really: int, patience: float) -> None:
        await trio.sleep(at)
        came.append(number)
        with trio.move_on_after(patience):
            async with Passage(limits, ["model:m"], worst) as passage:
                passed.append((trio.current_time(), number, max(worst, really)))
                inside[0] += 1
                inside[1] = max(inside)
                try:
                    await trio.sleep(takes)
                finally:
                    inside[0] -= 1
                passage.used = min(really, worst)

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            for number, item in enumerate(work):
                nursery.start_soon(one, number, *item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_GATES", {})
        patch.setattr(module, "monotonic", trio.current_time)
        trio.run(all_of_them, clock=MockClock(autojump_threshold=0))
        gate = module._GATES["model:m"]
        assert (gate._inside, any(gate._rows)) == (0, False)
        settled = {one.at: one.tokens for one in gate._recent}
        assert len(settled) <= len(passed)
    times = [at for at, _, _ in passed]
    for first, at in enumerate(times):
        within = [n for n, other in enumerate(times) if first <= n and other < at + module.WINDOW_S]
        if requests is not None:
            assert len(within) <= requests
    assert concurrency is None or inside[1] <= concurrency
    order = [number for _, number, _ in passed]
    assert order == sorted(order, key=came.index)


async def test_tokens_of_a_minute_are_waited_for_until_they_are_a_minute_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_S", 0.3)
    limits = {"model:m": NamedLimit(tokens_per_minute=100)}
    times: list[float] = []

    async def use(tokens: int) -> None:
        async with Passage(limits, ["model:m"], tokens):
            times.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        for tokens in (60, 40, 30, 500):
            group.start_soon(use, tokens)
            await anyio.sleep(0)
    assert times[1] - times[0] < 0.3, "both fit"
    assert times[2] - times[0] >= 0.3, "the third waits for the first to be a minute old"
    assert times[3] - times[2] >= 0.3, "more than a minute has passes when it is empty"


def test_threads_that_come_and_go_at_any_instant_never_disturb_each_other() -> None:
    limits = {"model:m": NamedLimit(concurrency=3), "model:*": NamedLimit(concurrency=4)}
    most, now, lock = [0], [0], threading.Lock()
    faults: list[BaseException] = []

    async def come_and_go() -> None:
        for _ in range(200):
            async with Passage(limits, ["model:m"]):
                with lock:
                    now[0] += 1
                    most[0] = max(most[0], now[0])
                with lock:
                    now[0] -= 1

    def work() -> None:
        try:
            anyio.run(come_and_go)
        except BaseException as error:  # whatever ends a thread
            faults.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert faults == []
    assert most[0] <= 3
    assert all((gate._inside, any(gate._rows)) == (0, False) for gate in module._GATES.values())


# --- found by a review ------------------------------------------------------------------------------------------------


async def answer(request: ModelRequest) -> ModelResponse:
    return ModelResponse(content="yes", usage=ModelUsage(input_tokens=1, output_tokens=1))


class Crowd:
    """How many are at it at a time, and how often."""

    def __init__(self) -> None:
        self.now = self.most = self.times = 0

    async def work(self, value: int) -> int:
        self.times += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await anyio.sleep(0.01)
        self.now -= 1
        return value


class _Interrupted:
    """A lock after whose first release another thread has its turn, as the system may give it one."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._turns = [turn]

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self._turns:
            other = threading.Thread(target=self._turns.pop())
            other.start()
            other.join()


async def test_who_leaves_while_another_thread_enters_does_not_fail() -> None:
    """Named limits are shared by all runs of a process, over threads."""
    gate, limit, faults = module._Gate(), NamedLimit(concurrency=5), list[Exception]()
    inside = await gate.enter(limit, 1)

    def leave() -> None:
        try:
            gate.leave(inside, None)
        except Exception as error:  # whatever it is
            faults.append(error)

    gate._lock = _Interrupted(leave)  # type: ignore[assignment]
    gate.leave(await gate.enter(limit, 1), None)
    assert not faults
    assert gate._inside == 0


async def test_a_run_that_a_step_started_is_held_to_the_limit_once_the_step_is_over() -> None:
    """Most attempts of steps at a time."""
    crowd, policy = Crowd(), Policy(named_limits={"backend:LocalBackend": NamedLimit(concurrency=2)})
    inner = Flujo(Map(Step(crowd.work), limit=50), policy=policy)
    async with inner:
        begun: list[Any] = []

        async def start(value: int) -> int:
            begun.append(inner.start(list(range(20))))
            return value

        assert (await Flujo(Step(start), policy=policy).run_async(1)).status == "completed"
        assert (await begun[0].wait()).status == "completed"
    assert crowd.most <= 2


async def test_calls_within_a_call_count_in_the_minute() -> None:
    """Most calls in any 60 seconds; only a place must not be waited for inside of itself."""
    sent = 0

    async def work(value: int, ctx: RunContext) -> int:
        async def small(request: ModelRequest) -> ModelResponse:
            nonlocal sent
            sent += 1
            return await answer(request)

        async def large(request: ModelRequest) -> ModelResponse:
            for _ in range(10):
                await ctx.call_model(asked("small"), small, price=Price())
            return await small(request)

        await ctx.call_model(asked("large"), large, price=Price())
        return value

    with anyio.move_on_after(1):
        await Flujo(Step(work), policy=Policy(named_limits={"model:*": NamedLimit(requests_per_minute=3)})).run_async(1)
    assert sent <= 3


async def test_calls_without_a_bound_for_their_answer_keep_to_the_tokens_of_a_minute() -> None:
    """Most tokens in any 60 seconds."""
    used = 0

    async def send(request: ModelRequest) -> ModelResponse:
        nonlocal used
        await anyio.sleep(0.01)
        used += 1000 if request.max_tokens is None else min(1000, request.max_tokens)
        return ModelResponse(usage=ModelUsage(input_tokens=0, output_tokens=1000))

    async def work(value: int, ctx: RunContext) -> int:
        await ctx.call_model(ModelRequest(model="m", messages=()), send, price=Price())
        return value

    policy = Policy(named_limits={"model:m": NamedLimit(tokens_per_minute=2000)})
    with anyio.move_on_after(1):
        await Flujo(Map(Step(work), limit=50), policy=policy).run_async(list(range(50)))
    assert used <= 2000


async def test_a_place_and_a_lease_that_wait_for_each_other_do_not_hang() -> None:
    """Ledger: what only waiters could give back is refused, not waited for."""
    inside, policy, budget = (
        anyio.Event(),
        Policy(named_limits={"model:m": NamedLimit(concurrency=1)}),
        Budget(UsageLimits(requests_limit=2)),
    )

    async def outer(value: int, ctx: RunContext) -> int:
        async def send(request: ModelRequest) -> ModelResponse:
            inside.set()
            await anyio.sleep(0.05)  # the other holds the last request by now, and waits for this one's place
            await ctx.call_model(asked("helper"), answer, price=Price())
            return await answer(request)

        await ctx.call_model(asked(), send, price=Price())
        return value

    async def other(value: int, ctx: RunContext) -> int:
        await inside.wait()
        await ctx.call_model(asked(), answer, price=Price())
        return value

    with anyio.move_on_after(3) as scope:
        async with anyio.create_task_group() as group:
            for function in (outer, other):
                group.start_soon(Flujo(Step(function), policy=policy, limits=budget).run_async, 1)
    assert not scope.cancelled_caught


@pytest.mark.parametrize("nested", [True, False])
async def test_a_lease_that_is_taken_while_a_nested_demand_waits_and_waits_for_its_place_does_not_hang(
    nested: bool,
) -> None:
    """Whoever holds the place waits for room, and whoever holds the room came later and waits for the place."""
    inside, asks = anyio.Event(), anyio.Event()
    policy = Policy(named_limits={"model:m": NamedLimit(concurrency=1)})
    budget, results = Budget(UsageLimits("1")), dict[str, Any]()

    async def holder(value: int, ctx: RunContext) -> int:
        async def send(request: ModelRequest) -> ModelResponse:
            inside.set()
            await anyio.sleep(0.02)
            asks.set()
            async with ctx.usage.reserve(cost_usd="0.8") as lease:
                lease.settle()
            return await answer(request)

        async with ctx.usage.reserve(cost_usd="0.1") as lease:
            await ctx.call_model(asked(), send, price=Price())
            lease.settle()
        return value

    async def slow(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.15") as lease:
            await asks.wait()
            await anyio.sleep(0.06)
            lease.settle(cost_usd="0.15")
        return value

    async def late(value: int, ctx: RunContext) -> int:
        async def call() -> None:
            await asks.wait()
            await anyio.sleep(0.02)
            await ctx.call_model(asked(), answer, price=Price())

        if not nested:
            await call()
            return value
        async with ctx.usage.reserve(cost_usd="0.1") as lease:
            await call()
            lease.settle()
        return value

    async def run(function: Callable[..., Any]) -> None:
        results[function.__name__] = await Flujo(Step(function), policy=policy, limits=budget).run_async(1)

    with anyio.move_on_after(3) as scope:
        async with anyio.create_task_group() as group:
            for function in (slow, holder, late):
                group.start_soon(run, function)
    assert not scope.cancelled_caught
    assert {name: result.status for name, result in results.items()} == {
        "slow": "completed", "holder": "stopped", "late": "completed"
    }  # fmt: skip
    assert budget.spent.reserved_usd == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.filterwarnings("ignore")  # a loop that is closed with work in it
async def test_a_loop_that_was_closed_with_a_run_in_the_queue_stops_nobody_else(anyio_backend: str) -> None:
    inside, go_on = threading.Event(), threading.Event()

    async def send(request: ModelRequest) -> ModelResponse:
        inside.set()
        while not go_on.is_set():
            await anyio.sleep(0.001)
        return await answer(request)

    async def work(value: int, ctx: RunContext) -> int:
        await ctx.call_model(asked(), send, price=Price())
        return value

    flujo, kept = Flujo(Step(work), policy=Policy(named_limits={"model:m": NamedLimit(concurrency=1)})), list[object]()

    def other_thread() -> None:
        async def main() -> None:
            kept.append(flujo.start(1))
            await asyncio.sleep(0.05)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()

    async with anyio.create_task_group() as group:
        group.start_soon(flujo.run_async, 1)
        await anyio.to_thread.run_sync(inside.wait)
        await anyio.to_thread.run_sync(other_thread)
        go_on.set()
    with anyio.move_on_after(2) as scope:
        await flujo.run_async(1)
    assert not scope.cancelled_caught
