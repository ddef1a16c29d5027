"""Faults found in limits, policies, prices, telemetry and what is kept of use; each test says what was promised."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flujo.core import (
    Allow,
    Budget,
    Charge,
    Flujo,
    GuardToolCall,
    Map,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    NamedLimit,
    PluginError,
    Plugins,
    Policy,
    Price,
    PriceTable,
    RecordIntent,
    RunContext,
    Step,
    ToolCall,
    Usage,
    UsageLimits,
    gates,
    hookimpl,
    migrations,
)
from flujo.core.testing import assert_conforms

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


# --- named limits ---------------------------------------------------------------------------------------------------


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
    gate, limit, faults = gates._Gate(), NamedLimit(concurrency=5), list[Exception]()
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
    crowd, policy = Crowd(), limited("backend:LocalBackend", concurrency=2)
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
                await ctx.call_model(asked("small"), small, price=FREE)
            return await small(request)

        await ctx.call_model(asked("large"), large, price=FREE)
        return value

    with anyio.move_on_after(1):
        await Flujo(Step(work), policy=limited("model:*", requests_per_minute=3)).run_async(1)
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
        await ctx.call_model(ModelRequest(model="m", messages=()), send, price=FREE)
        return value

    policy = limited("model:m", tokens_per_minute=2000)
    with anyio.move_on_after(1):
        await Flujo(Map(Step(work), limit=50), policy=policy).run_async(list(range(50)))
    assert used <= 2000


async def test_a_place_and_a_lease_that_wait_for_each_other_do_not_hang() -> None:
    """Ledger: what only waiters could give back is refused, not waited for."""
    inside, policy, budget = anyio.Event(), limited("model:m", concurrency=1), Budget(UsageLimits(requests_limit=2))

    async def outer(value: int, ctx: RunContext) -> int:
        async def send(request: ModelRequest) -> ModelResponse:
            inside.set()
            await anyio.sleep(0.05)  # the other holds the last request by now, and waits for this one's place
            await ctx.call_model(asked("helper"), answer, price=FREE)
            return await answer(request)

        await ctx.call_model(asked(), send, price=FREE)
        return value

    async def other(value: int, ctx: RunContext) -> int:
        await inside.wait()
        await ctx.call_model(asked(), answer, price=FREE)
        return value

    with anyio.move_on_after(3) as scope:
        async with anyio.create_task_group() as group:
            for function in (outer, other):
                group.start_soon(Flujo(Step(function), policy=policy, limits=budget).run_async, 1)
    assert not scope.cancelled_caught


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
        await ctx.call_model(asked(), send, price=FREE)
        return value

    flujo, kept = Flujo(Step(work), policy=limited("model:m", concurrency=1)), list[object]()

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


TABLE = {"acme": {"input_usd_per_mtok": "2.55", "output_usd_per_mtok": "10"}}


def table() -> PriceTable:
    words = {"format": "flujo-prices", "version": 1, "name": "acme-1", "models": TABLE}
    return PriceTable(json.dumps(words).encode())


# --- prices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
def test_prices_do_not_depend_on_the_decimals_of_the_program(anyio_backend: str) -> None:
    """usage.py: sums of money must not depend on what the user's program set for its own decimals."""
    with localcontext(prec=2):
        price = table().price("acme")
    assert price is not None
    assert price.input_usd == Decimal("0.00000255")


# --- governors ------------------------------------------------------------------------------------------------------


class _Down(Budget):
    """A quota whose server fails when a call is settled."""

    def settle(self, lease: Any, used: Usage) -> None:
        raise ConnectionError("quota is down")


class _Outside:
    """The same, as it is: no Budget of ours."""

    def __init__(self) -> None:
        self._quota = _Down(UsageLimits(requests_limit=9))
        self.limits = self._quota.limits

    async def reserve(self, worst: Charge) -> Any:
        return await self._quota.reserve(worst)

    def settle(self, lease: Any, used: Usage) -> None:
        self._quota.settle(lease, used)

    def book(self, used: Usage) -> None:
        self._quota.book(used)


async def test_a_call_is_counted_though_the_governor_beyond_fails_to_settle_it() -> None:
    """A failed step is a result with everything already paid for kept in it; what ended holds nothing."""

    async def work(value: int, ctx: RunContext) -> int:
        await ctx.call_model(asked(), answer, price=DOLLAR)
        return value

    result = await Flujo(Step(work), limits=_Outside()).run_async(1)
    assert (result.usage.requests, result.total_cost_usd) == (1, Decimal(1))
    assert result.usage.reserved_usd == 0


class _Forgetful(Budget):
    """Counts only the money of what was not reserved."""

    def book(self, used: Usage, tally: Usage | None = None) -> None:
        super().book(replace(used, input_tokens=0, output_tokens=0, requests=0), tally)


class _Miser(Budget):
    """Never gives tokens back."""

    def settle(self, lease: Any, used: Usage) -> None:
        super().settle(lease, replace(used, input_tokens=0, output_tokens=lease.charge.tokens))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("wrong", [_Forgetful, _Miser])
def test_a_governor_that_counts_tokens_or_requests_wrongly_does_not_conform(
    wrong: type[Budget], anyio_backend: str
) -> None:
    with pytest.raises(AssertionError):
        assert_conforms(wrong)


# --- plugins --------------------------------------------------------------------------------------------------------


def lay(folder: Path, target: str, files: dict[str, str], version: str = "1.0") -> None:
    """Install the distribution `acme-rules` there."""
    info = folder / f"acme_rules-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-rules\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[flujo]\nacme = {target}\n")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


PLUGIN = """
from flujo.core import hookimpl
flujo_api = "1.0"
class Plugin:
    @hookimpl
    def on_run_end(self, payload): ...
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("package", "target", "module"),
    [("acme_one", "acme_one", "acme_one.impl"), ("acme_two", "acme_two.plugin", "acme_two")],
)
def test_an_object_of_a_distribution_that_is_not_allowed_does_not_act_wherever_in_its_package_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, target: str, module: str, anyio_backend: str
) -> None:
    """Policy.allow_plugins; as `test_an_object_or_a_registry_that_was_made_before_is_held_to_the_policy_too`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {f"{package}/__init__.py": "", f"{package}/plugin.py": PLUGIN, f"{package}/impl.py": PLUGIN}
    files[f"{package}/__init__.py"] = PLUGIN
    lay(tmp_path, target, files)
    made = importlib.import_module(module).Plugin()

    async def work(value: int) -> int:
        return value

    with pytest.raises(PluginError):
        Flujo(Step(work), plugins=[made], policy=Policy(allow_plugins=frozenset({"other"})))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
def test_who_narrows_an_allow_list_lets_no_pre_release_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    """Two lists allow what both allow: `>=1` alone does not allow 2.0a1."""
    monkeypatch.syspath_prepend(str(tmp_path))
    lay(tmp_path, "acme_rules", {"x/acme_rules.py": ""}, version="2.0a1")
    policy = Policy(allow_plugins=frozenset({"acme-rules>=1"}))
    alone = {one.distribution: one.state for one in Plugins(policy=policy).installed}
    assert alone["acme-rules"] == "blocked"
    both = {one.distribution: one.state for one in Plugins(allowed=["acme-rules>=2.0a1"], policy=policy).installed}
    assert both["acme-rules"] == "blocked"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
def test_a_policy_cannot_be_emptied(anyio_backend: str) -> None:
    """A policy cannot be changed afterwards."""
    policy = limited("model:m", concurrency=1)
    with suppress(TypeError, AttributeError):
        policy.named_limits.clear()
    assert policy.named_limits


# --- what was guarded is what happens -------------------------------------------------------------------------------


class _Redacts:
    """A recorder that blanks what it writes down, in the object that it was handed."""

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        if isinstance(payload.subject, ToolCall):
            payload.subject.arguments["account"] = "***"


class _Looks:
    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl
    def guard_tool_call(self, payload: GuardToolCall) -> Allow:
        self.seen.append(dict(payload.call.arguments))
        return Allow()


async def test_a_recorder_cannot_change_the_tool_call_that_guards_allowed() -> None:
    """Recorders run after all guards allowed; only transforms change anything, and before the guards."""
    guard, sent = _Looks(), list[object]()

    async def send(call: ToolCall) -> str:
        sent.append(dict(call.arguments))
        return "paid"

    async def pay(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="pay", arguments={"account": "DE1"}), send)
        return value

    await Flujo(Step(pay), plugins=[guard, _Redacts()]).run_async(1)
    assert sent == guard.seen == [{"account": "DE1"}]
