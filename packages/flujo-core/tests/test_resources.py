"""Resources: every kind of factory, every scope, and that whatever was opened is closed, in order, however it ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import anyio
import pytest

from flujo.core import (
    ConfigurationError,
    Flujo,
    OnRunEnd,
    OnRunStart,
    Pipeline,
    PluginError,
    Resource,
    ResourceError,
    Resources,
    RetryPolicy,
    Step,
    StepFailed,
    StepTimeout,
    backends,
    step,
)
from flujo.core.keeper import Keeper
from flujo.core.resources import ResourceScope, specs_of

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = pytest.mark.anyio


@dataclass
class Thing:
    """Something a factory opens."""

    name: str = "thing"
    seen: list[str] = field(default_factory=list)


class AsyncThing(Thing):
    async def __aenter__(self) -> AsyncThing:
        return self

    async def __aexit__(self, *_: object) -> None:
        await anyio.sleep(0)
        self.seen.append("closed")


class SyncThing(Thing):
    def __enter__(self) -> SyncThing:
        return self

    def __exit__(self, *_: object) -> None:
        self.seen.append("closed")


class Log:
    """What happened to the resources of a test, and factories that tell it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def opens(
        self, name: str, *, fail: str = "", hang: float = 0.0, error: Exception | None = None
    ) -> Callable[[], contextlib.AbstractAsyncContextManager[str]]:
        @contextlib.asynccontextmanager
        async def manage() -> AsyncIterator[str]:
            if fail == "open":
                raise error or ValueError("cannot open")
            self.lines.append(f"+{name}")
            try:
                yield name
            except BaseException as reason:
                self.lines.append(f"!{name} {type(reason).__name__}")
                raise
            finally:
                await anyio.sleep(hang)
                self.lines.append(f"-{name}")
                if fail == "close":
                    raise error or ValueError("cannot close")

        return manage

    def holds(self, name: str, *, wait: float = 0.0) -> Callable[[], contextlib.AbstractContextManager[str]]:
        """One with a sync exit, which takes `wait` seconds to open."""

        @contextlib.contextmanager
        def manage() -> Iterator[str]:
            time.sleep(wait)
            try:
                yield name
            except BaseException as reason:
                self.lines.append(f"!{name} {type(reason).__name__}")
                raise
            finally:
                self.lines.append(f"-{name}")

        return manage


def of(**recipes: Any) -> Resources:
    """An object of a Resources class with these fields, all of them `str`."""
    return type("App", (Resources,), {"__annotations__": dict.fromkeys(recipes, str), **recipes})()


async def use(text: str, a: str) -> str:
    return f"{text}{a}"


# --- factories --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def async_manager() -> AsyncIterator[Thing]:
    yield Thing()


@contextlib.contextmanager
def sync_manager() -> Iterator[Thing]:
    yield Thing()


async def async_generator() -> AsyncIterator[Thing]:
    yield Thing()


def generator() -> Iterator[Thing]:
    yield Thing()


async def async_function() -> Thing:
    return Thing()


async def async_function_to_manager() -> Thing:
    return AsyncThing()


def function_to_coroutine() -> Any:
    return async_function()


class Maker:
    async def __call__(self) -> Thing:
        return Thing()

    def method(self) -> Thing:
        return Thing()


FACTORIES: list[Callable[..., object]] = [
    Thing, AsyncThing, SyncThing, async_manager, sync_manager, async_generator, generator, async_function,
    async_function_to_manager, function_to_coroutine, Maker(), Maker().method, lambda: Thing(), partial(Thing, "thing"),
]  # fmt: skip


@pytest.mark.parametrize("scope", ["app", "run", "step"])
@pytest.mark.parametrize("factory", FACTORIES, ids=lambda it: getattr(it, "__name__", type(it).__name__))
async def test_every_kind_of_factory_gives_the_thing_it_opens(factory: Any, scope: Any) -> None:
    class App(Resources):
        thing: Thing = Resource(factory, scope=scope)

    async def take(thing: Thing) -> Thing:
        return thing

    thing = (await Flujo(Step(take), resources=App()).run_async()).unwrap()
    assert isinstance(thing, Thing)
    assert thing.seen == (["closed"] if isinstance(thing, (AsyncThing, SyncThing)) else [])


@pytest.mark.parametrize("manage", [async_generator, generator], ids=["async", "sync"])
async def test_a_generator_closes_after_its_yield(manage: Any) -> None:
    lines: list[str] = []

    async def opened() -> AsyncIterator[str]:
        yield "x"
        lines.append("closed")

    def plainly() -> Iterator[str]:
        yield "x"
        lines.append("closed")

    await Flujo(Step(use), resources=of(a=Resource(opened if manage is async_generator else plainly))).run_async("")
    assert lines == ["closed"]


async def test_a_value_is_given_as_it_is_and_is_neither_opened_nor_closed() -> None:
    class App(Resources):
        thing: Thing = Resource(AsyncThing)
        limit: int = 7
        perhaps: Thing | None = None
        shared: ClassVar[int] = 3
        _hidden: int = 4

    async def take(thing: Thing, limit: int, perhaps: Thing | None) -> list[object]:
        return [thing, limit, perhaps]

    fake = AsyncThing("fake")
    assert (await Flujo(Step(take), resources=App(thing=fake)).run_async()).output == [fake, 7, None]
    assert fake.seen == []
    assert set(specs_of(App())) == {"thing", "limit", "perhaps"}


async def test_two_objects_of_one_class_do_not_share_what_they_were_given() -> None:
    class App(Resources):
        a: str = Resource(lambda: "opened")

    assert (await Flujo(Step(use), resources=App(a="fake")).run_async("")).output == "fake"
    assert (await Flujo(Step(use), resources=App()).run_async("")).output == "opened"


async def test_a_subclass_adds_and_replaces() -> None:
    class Base(Resources):
        a: str = Resource(lambda: "base")
        b: str = Resource(lambda: "b")

    class Child(Base):
        a: str = Resource(lambda: "child")
        c: str = Resource(lambda: "c")

    async def take(a: str, b: str, c: str, all_of_it: Base) -> list[str]:
        return [a, b, c, all_of_it.b]

    assert list(specs_of(Child())) == ["a", "b", "c"]
    assert (await Flujo(Step(take), resources=Child()).run_async()).output == ["child", "b", "c", "b"]


# --- dependencies -----------------------------------------------------------------------------------------------------


class Clock(Protocol):
    def now(self) -> int: ...


class Fixed:
    def now(self) -> int:
        return 3


@dataclass
class Holder:
    clock: Fixed
    name: str = "holder"


async def test_factories_take_other_resources_by_type_or_name_in_any_order_of_declaration() -> None:
    async def by_type(it: Holder) -> str:
        return f"{it.name} {it.clock.now()}"

    def by_name(text, *, mark: str = "!") -> str:  # type: ignore[no-untyped-def]
        return f"<{text}{mark}>"

    class App(Resources):
        shown: str = Resource(by_name, scope="step")
        text: str = Resource(by_type)
        holder: Holder = Resource(partial(Holder, name="h"))
        clock: Fixed = Resource(Fixed, scope="app")

    async def take(shown: str) -> str:
        return shown

    assert (await Flujo(Step(take), resources=App()).run_async()).output == "<h 3!>"


def test_a_factory_that_cannot_be_called_is_refused_when_the_flujo_is_built() -> None:
    def needs(missing: Thing) -> str:
        return ""

    def itself(a: str) -> str:
        return a

    def wider(b: str) -> str:
        return b

    def unreadable(b: Decimal) -> str:
        return ""

    for resources, words in (
        (of(a=Resource(needs)), r"factory of resource 'a' of App .*no resource fits its parameter 'missing'.*lambda"),
        (of(a=Resource(itself)), "no resource fits its parameter 'a'"),
        (of(a=Resource(unreadable)), "no resource fits its parameter 'b'"),
        (of(a=Resource(wider, scope="app"), b=Resource(str)), "'b' lives for a run, 'a' for a app"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            Flujo(Step(use), resources=resources)


def test_factories_that_need_each_other_are_refused_when_the_flujo_is_built() -> None:
    def one(b: str) -> str:
        return b

    def two(c: str) -> str:
        return c

    def three(a: str) -> str:
        return a

    with pytest.raises(ConfigurationError, match="factories need each other: a -> b -> c -> a"):
        Flujo(Step(use), resources=of(a=Resource(one), b=Resource(two), c=Resource(three)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Resource(Thing, scope="request"), "scope='request'"),
        (lambda: Resource("postgres://me:secret@host"), "str cannot be called"),
        (lambda: of(a=Resource(str))(), "not callable"),
        (lambda: type(of(a="x"))(b="y"), r"App has no resource 'b': it declares: a"),
    ],
    ids=["scope", "value", "call", "unknown"],
)
def test_a_declaration_that_cannot_be_used_is_refused(make: Any, words: str) -> None:
    with pytest.raises((ConfigurationError, TypeError), match=words) as caught:
        make()
    assert "secret" not in str(caught.value)


def test_a_class_whose_annotations_cannot_be_read_names_what_is_missing() -> None:
    class Later(Resources):
        price: Decimal = Resource(int)

    with pytest.raises(ConfigurationError, match="Later cannot be read: its annotations name 'Decimal'"):
        Flujo(Step(use), resources=Later())


# --- scopes -----------------------------------------------------------------------------------------------------------


async def test_each_scope_lives_as_long_as_it_says() -> None:
    log = Log()
    resources = of(
        a=Resource(log.opens("app"), scope="app"),
        b=Resource(log.opens("run")),
        c=Resource(log.opens("step"), scope="step"),
    )
    attempts = []

    async def work(text: str, a: str, b: str, c: str) -> str:
        attempts.append(text)
        if len(attempts) == 1:
            raise ValueError("once")
        return text

    again = Step(work, retry=RetryPolicy(backoff_s=0.0))
    async with Flujo(again >> Step(work, name="more"), resources=resources) as flujo:
        assert (await flujo.run_async("x")).status == "completed"
        assert log.lines == ["+app", "+run", "+step", "!step ValueError", "-step", *["+step", "-step"] * 2, "-run"]
        log.lines.clear()
        await flujo.run_async("x")
        assert log.lines == ["+run", *["+step", "-step"] * 2, "-run"]
    assert log.lines[-1] == "-app"


async def test_without_a_block_the_app_scope_is_opened_for_each_run() -> None:
    log = Log()
    flujo = Flujo(Step(use), resources=of(a=Resource(log.opens("app"), scope="app")))
    await flujo.run_async("")
    await flujo.run_async("")
    assert log.lines == ["+app", "-app"] * 2


def test_a_sync_block_opens_the_app_scope_once_for_several_runs() -> None:
    log = Log()
    with Flujo(Step(use), resources=of(a=Resource(log.opens("app"), scope="app"))) as flujo:
        assert [flujo.run(text).output for text in "xy"] == ["xapp", "yapp"]
    assert log.lines == ["+app", "-app"]
    assert flujo.run("z").output == "zapp"


async def test_aclose_closes_and_may_be_called_from_another_task_and_twice() -> None:
    log = Log()
    flujo = Flujo(Step(use), resources=of(a=Resource(log.opens("app"), scope="app")))
    await flujo.__aenter__()
    async with anyio.create_task_group() as group:
        group.start_soon(flujo.aclose)
    await flujo.aclose()
    assert log.lines == ["+app", "-app"]


async def test_only_what_is_needed_is_opened() -> None:
    log = Log()

    def needing(c: str) -> str:
        return c

    resources = of(
        a=Resource(log.opens("a")),
        b=Resource(log.opens("b"), scope="app"),
        c=Resource(log.opens("c")),
        d=Resource(needing),
    )

    async def take(d: str) -> str:
        return d

    async with Flujo(Step(take), resources=resources) as flujo:
        await flujo.run_async()
    assert log.lines == ["+c", "-c"]


async def test_parallel_steps_share_what_lives_for_the_run_and_not_what_lives_for_a_step() -> None:
    class App(Resources):
        shared: Thing = Resource(Thing)
        own: Thing = Resource(Thing, scope="step")

    async def take(shared: Thing, own: Thing) -> tuple[int, int]:
        await anyio.sleep(0)
        return id(shared), id(own)

    out: Any = (await Flujo(Pipeline(Step(take), Step(take, name="other")), resources=App()).run_async()).output
    assert out["take"][0] == out["other"][0]
    assert out["take"][1] != out["other"][1]


# --- the order of closing, however it ends ----------------------------------------------------------------------------


def three(log: Log, **options: Any) -> Resources:
    return of(
        a=Resource(log.opens("a"), scope="app"),
        b=Resource(log.opens("b", **options)),
        c=Resource(log.opens("c"), scope="step"),
    )


def worker(body: Callable[[], Any]) -> Step:
    async def work(a: str, b: str, c: str) -> Any:
        return await body()

    return Step(work)


async def test_success_closes_in_reverse_order() -> None:
    log = Log()
    assert (await Flujo(worker(lambda: anyio.sleep(0)), resources=three(log)).run_async()).status == "completed"
    assert log.lines == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_failure_closes_in_reverse_order_and_lets_each_know() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    log = Log()
    result = await Flujo(worker(fail), resources=three(log)).run_async()
    assert (result.status, type(result.error)) == ("failed", StepFailed)
    assert log.lines[:4] == ["+a", "+b", "+c", "!c ValueError"]
    assert [line for line in log.lines if line[0] == "-"] == ["-c", "-b", "-a"]
    assert "!b StepFailed" in log.lines


async def test_a_timeout_closes_in_reverse_order() -> None:
    log = Log()
    slow = Step(worker(anyio.sleep_forever), timeout_s=0.02)
    result = await Flujo(slow, resources=three(log)).run_async()
    assert isinstance(result.error, StepTimeout)
    assert [line for line in log.lines if line[0] == "-"] == ["-c", "-b", "-a"]


@pytest.mark.parametrize("hang", [0.0, 0.03])
async def test_a_cancel_from_outside_closes_in_reverse_order_and_is_raised(hang: float) -> None:
    log = Log()
    flujo = Flujo(worker(anyio.sleep_forever), resources=three(log, hang=hang))
    with anyio.move_on_after(0.02) as scope:
        await flujo.run_async()
    assert scope.cancelled_caught
    assert [line for line in log.lines if line[0] == "-"] == ["-c", "-b", "-a"]


async def test_a_cancel_of_the_run_closes_in_reverse_order_and_gives_a_result() -> None:
    log = Log()
    handle = Flujo(worker(anyio.sleep_forever), resources=three(log, hang=0.01)).start()
    await anyio.sleep(0.03)
    handle.cancel()
    assert (await handle.wait()).status == "aborted"
    assert [line for line in log.lines if line[0] == "-"] == ["-c", "-b", "-a"]


async def test_a_deadline_closes_in_reverse_order_and_gives_a_result() -> None:
    log = Log()
    result = await Flujo(worker(anyio.sleep_forever), resources=three(log)).run_async(deadline_s=0.03)
    assert result.status == "aborted"
    assert [line for line in log.lines if line[0] == "-"] == ["-c", "-b", "-a"]


async def test_an_open_that_fails_half_way_closes_what_is_open_and_names_the_resource() -> None:
    log = Log()
    secret = ValueError("cannot reach postgres://me:hunter2@host/db")
    resources = of(
        a=Resource(log.opens("a"), scope="app"),
        b=Resource(log.opens("b")),
        c=Resource(log.opens("c", fail="open", error=secret)),
    )
    result = await Flujo(worker(anyio.sleep_forever), resources=resources).run_async()
    assert (result.status, result.step_history) == ("failed", [])
    assert isinstance(result.error, ResourceError)
    assert str(result.error).startswith("resource 'c' failed to open: ValueError: cannot reach")
    assert "hunter2" not in str(result.error)
    assert result.error.__cause__ is secret
    assert [line for line in log.lines if line[0] in "+-"] == ["+a", "+b", "-b", "-a"]


async def test_a_step_resource_that_fails_to_open_fails_its_step() -> None:
    log = Log()
    resources = of(a="x", b=Resource(log.opens("b")), c=Resource(log.opens("c", fail="open"), scope="step"))
    result = await Flujo(worker(anyio.sleep_forever), resources=resources).run_async()
    assert (result.status, [r.status for r in result.step_history]) == ("failed", ["failed"])
    assert "resource 'c' failed to open" in str(result.error)
    assert log.lines[-1] == "-b"


async def test_a_close_that_fails_fails_the_run_keeps_its_steps_and_closes_the_others() -> None:
    log = Log()
    result = await Flujo(worker(lambda: anyio.sleep(0)), resources=three(log, fail="close")).run_async()
    assert (result.status, [r.status for r in result.step_history]) == ("failed", ["completed"])
    assert str(result.error) == "resource 'b' of scope 'run' failed to close: ValueError: cannot close"
    assert log.lines[-3:] == ["-c", "-b", "-a"] or log.lines[-1] == "-a"


async def test_a_close_that_fails_after_a_failed_step_does_not_hide_why_the_run_failed() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    log = Log()
    result = await Flujo(worker(fail), resources=three(log, fail="close")).run_async()
    assert "broken" in str(result.error)


async def test_each_resource_has_its_own_time_to_close() -> None:
    log = Log()
    specs = specs_of(
        of(
            a=Resource(log.opens("a", hang=0.01)),
            b=Resource(log.opens("b", hang=60)),
            c=Resource(log.opens("c", hang=60)),
        )
    )
    with pytest.raises(ResourceError, match=r"resource 'c' of scope 'run' .* longer than 0.05 s; so did 'b'"):
        async with ResourceScope(specs, "run", "abc", {}, close_timeout_s=0.05):
            pass
    assert log.lines[-1] == "-a"


async def test_closing_is_shielded_from_a_cancel_in_another_task_too() -> None:
    log = Log()
    scope = ResourceScope(specs_of(of(a=Resource(log.opens("a", hang=0.02)))), "step", "a", {})
    await scope.__aenter__()

    async def close() -> None:
        with anyio.CancelScope() as cancelled:
            cancelled.cancel()
            await scope.close(None)

    async with anyio.create_task_group() as group:
        group.start_soon(close)
    assert log.lines == ["+a", "-a"]


# --- resources that hold a task group ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def background() -> AsyncIterator[str]:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        yield "bg"
        group.cancel_scope.cancel()


@pytest.mark.parametrize("scope", ["app", "run"])
@pytest.mark.parametrize("body", ["ends", "fails", "is cancelled"])
async def test_a_resource_may_hold_a_task_group_beside_others(scope: Any, body: str) -> None:
    log = Log()
    resources = of(
        a=Resource(background, scope=scope),
        b=Resource(background, scope=scope),
        c=Resource(log.opens("c"), scope=scope),
    )

    async def work(a: str, b: str, c: str) -> str:
        if body == "fails":
            raise ValueError("broken")
        await anyio.sleep(0 if body == "ends" else 60)
        return a

    flujo = Flujo(Step(work), resources=resources)
    with anyio.move_on_after(0.05 if body == "is cancelled" else 60) as outer:
        async with flujo if scope == "app" else contextlib.nullcontext():
            result = await flujo.run_async()
            assert result.status == ("failed" if body == "fails" else "completed")
    assert outer.cancelled_caught == (body == "is cancelled")
    assert log.lines[-1] == "-c"


async def test_a_step_resource_that_holds_a_task_group_closes_where_it_is_told_that_nobody_else_will() -> None:
    specs = specs_of(of(a=Resource(background, scope="step"), b=Resource(background, scope="step")))
    async with ResourceScope(specs, "step", "ab", {}) as scope:
        assert scope.values == {"a": "bg", "b": "bg"}


# --- threads ----------------------------------------------------------------------------------------------------------


async def test_an_abandoned_thread_closes_its_resource_when_it_returns() -> None:
    log = Log()
    go_on = threading.Event()

    def block(c: str) -> None:
        go_on.wait(5)
        log.lines.append("returned")

    async with Flujo(Step(block, timeout_s=0.5), resources=of(c=Resource(log.opens("c"), scope="step"))) as flujo:
        result = await flujo.run_async()
        assert isinstance(result.error, StepTimeout)
        assert result.error.abandoned
        assert log.lines == ["+c"]
        go_on.set()
        end = time.monotonic() + 5
        while "-c" not in log.lines and time.monotonic() < end:
            await anyio.sleep(0.01)
    assert [line for line in log.lines if not line.startswith("!")] == ["+c", "returned", "-c"]


@contextlib.asynccontextmanager
async def reader(log: Log, name: str) -> AsyncIterator[str]:
    """Holds a task group, as clients do that read in the background."""
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            yield name
    finally:
        log.lines.append(f"-{name}")


async def test_an_abandoned_thread_may_have_a_resource_that_holds_a_task_group() -> None:
    log, go_on = Log(), threading.Event()

    def block(c: str, d: str) -> None:
        go_on.wait(5)
        log.lines.append("returned")

    resources = of(**{name: Resource(partial(reader, log, name), scope="step") for name in "cd"})
    result = await Flujo(Step(block, timeout_s=0.5), resources=resources).run_async()
    assert isinstance(result.error, StepTimeout)
    assert result.error.abandoned
    await anyio.sleep(0.05)
    assert log.lines == []
    go_on.set()
    with anyio.fail_after(5):
        while len(log.lines) < 3:
            await anyio.sleep(0.01)
    assert log.lines == ["returned", "-d", "-c"]
    assert (await Flujo(Step(lambda text: text, name="id")).run_async("goes on")).output == "goes on"


def test_where_the_loop_ends_first_the_thread_runs_sync_exits_and_the_loop_async_ones() -> None:
    log, go_on = Log(), threading.Event()

    def block(c: str) -> None:
        go_on.wait(5)
        log.lines.append("returned")

    def run(factory: Any) -> None:
        resources = of(c=Resource(factory, scope="step"))
        assert isinstance(Flujo(Step(block, timeout_s=0.5), resources=resources).run().error, StepTimeout)

    run(log.holds("held"))
    assert log.lines == []
    run(log.opens("c"))
    assert log.lines == ["+c", "!c TimeoutError", "-c"]
    log.lines.clear()
    go_on.set()
    end = time.monotonic() + 5
    while len(log.lines) < 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert sorted(log.lines) == ["!held TimeoutError", "-held", "returned", "returned"]


async def test_a_sync_step_whose_time_is_up_before_its_thread_starts_never_starts_and_closes_what_it_has() -> None:
    log = Log()

    def work(c: str, d: str) -> None:
        log.lines.append("work")

    resources = of(c=Resource(log.holds("c"), scope="step"), d=Resource(log.holds("d", wait=0.1), scope="step"))
    result = await Flujo(Step(work, timeout_s=0.05), resources=resources).run_async()
    assert isinstance(result.error, StepTimeout)
    assert not result.error.abandoned
    await anyio.sleep(0.05)
    assert log.lines == ["!d TimeoutError", "-d", "!c TimeoutError", "-c"]


async def test_a_sync_step_that_gets_no_thread_in_its_time_never_starts() -> None:
    log, limiter = Log(), anyio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("another step")
    all_threads = backends._limiter.set(limiter)

    def work(c: str) -> None:
        log.lines.append("work")

    flujo = Flujo(Step(work, timeout_s=0.05), resources=of(c=Resource(log.holds("c"), scope="step")))
    try:
        result = await flujo.run_async()
    finally:
        backends._limiter.reset(all_threads)
    limiter.release_on_behalf_of("another step")
    assert isinstance(result.error, StepTimeout)
    assert not result.error.abandoned
    await anyio.sleep(0.05)
    assert log.lines == ["!c TimeoutError", "-c"]


async def test_a_resource_that_cancels_its_own_task_fails_the_sync_step_and_nothing_else() -> None:
    @contextlib.asynccontextmanager
    async def short() -> AsyncIterator[str]:
        with anyio.move_on_after(0.05):
            yield "short"

    def work(c: str) -> None:
        time.sleep(0.2)

    flujo = Flujo(Step(work), resources=of(c=Resource(short, scope="step")))
    other = flujo.start()
    result = await flujo.run_async()
    assert "resources of a step were closed while it ran" in str(result.error)
    assert (await other.wait()).status == "failed"
    assert (await Flujo(Step(lambda text: text, name="id")).run_async("goes on")).output == "goes on"


async def test_who_is_cancelled_when_all_has_just_opened_leaves_nothing_open() -> None:
    log = Log()

    keeper = Keeper(ResourceScope(specs_of(of(c=Resource(log.holds("c"), scope="step"))), "step", "c", {}))
    await anyio.sleep(0.02)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await keeper.__aenter__()
    assert scope.cancelled_caught
    assert log.lines[-1] == "-c"


@pytest.mark.parametrize("sync", [True, False])
async def test_a_timeout_holds_while_resources_of_step_scope_open(sync: bool) -> None:
    log = Log()

    @contextlib.asynccontextmanager
    async def slow(c: str) -> AsyncIterator[int]:
        await anyio.sleep(30)
        yield 1

    class App(Resources):
        c: str = Resource(log.opens("c"), scope="step")
        d: int = Resource(slow, scope="step")

    def takes(c: str, d: int) -> None:
        raise AssertionError

    async def takes_async(c: str, d: int) -> None:
        raise AssertionError

    work = Step(takes if sync else takes_async, timeout_s=0.05)
    result = await Flujo(work, resources=App()).run_async()
    assert isinstance(result.error, StepTimeout)
    assert not result.error.abandoned
    assert [line for line in log.lines if not line.startswith("!")] == ["+c", "-c"]


@pytest.mark.parametrize("sync", [True, False])
async def test_a_resource_of_step_scope_that_fails_to_open_or_close_fails_the_step(sync: bool) -> None:
    def takes(c: str) -> str:
        return c

    async def takes_async(c: str) -> str:
        return c

    for fail in ("open", "close"):
        resources = of(c=Resource(Log().opens("c", fail=fail), scope="step"))
        result = await Flujo(Step(takes if sync else takes_async), resources=resources).run_async()
        assert "resource 'c'" in str(result.error)
        assert f"failed to {fail}" in str(result.error)


async def test_a_thread_that_ends_in_time_has_its_resource_closed_at_once() -> None:
    log = Log()

    def work(c: str) -> str:
        return c

    resources = of(c=Resource(log.opens("c"), scope="step"))
    assert (await Flujo(Step(work, timeout_s=5), resources=resources).run_async()).output == "c"
    assert log.lines == ["+c", "-c"]


# --- hooks ------------------------------------------------------------------------------------------------------------


async def test_hooks_receive_resources_that_are_open_from_the_first_to_the_last_of_them() -> None:
    log = Log()

    class App(Resources):
        lines: Log = Resource(lambda: log, scope="app")
        text: str = Resource(log.opens("text"))

    def at_start(event: OnRunStart, text: str) -> None:
        log.lines.append(f"start {text}")

    async def at_end(event: OnRunEnd, it: Log, text: str) -> None:
        it.lines.append(f"end {text}")

    @step
    async def work(value: str) -> str:
        return value

    await Flujo(work, resources=App(), hooks=[at_start, at_end]).run_async("x")
    assert log.lines == ["+text", "start text", "end text", "-text"]


def test_a_hook_cannot_have_what_lives_for_a_step_or_is_not_there() -> None:
    def watch(event: OnRunStart, c: str) -> None: ...

    class Other(Resources):
        c: int = 3
        d: Thing = Resource(Thing)

    for resources in (of(c=Resource(str, scope="step")), Other(), None):
        with pytest.raises(PluginError, match="no resource of scope app or run fits its parameter 'c'"):
            Flujo(Step(lambda text: text, name="id"), resources=resources, hooks=[watch])
