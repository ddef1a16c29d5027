"""The conformance suites pass what conforms and find what does not: one broken implementation for each rule."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_process
import anyio.to_thread
import pytest

from flujo.core import (
    ConfigurationError,
    ExecutionBackend,
    Failure,
    FlujoError,
    LocalBackend,
    LoopRunning,
    StepExecutionRequest,
    StepFailed,
    StepOutcome,
    Success,
)
from flujo.core.testing import FaultInjector, NotConforming, assert_conforms
from flujo.core.testing.backend_rules import BACKEND_RULES
from flujo.core.testing.trial_steps import Fatal

ALL_RULES = tuple(rule.__name__ for rule in BACKEND_RULES)


def call(request: StepExecutionRequest) -> Any:
    return request.step.function(**request.arguments)


# --- backends that keep every rule --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [LocalBackend(), LocalBackend, FaultInjector()])
def test_the_local_backend_holds_every_rule_on_both_loops(backend: object) -> None:
    assert assert_conforms(backend) == ALL_RULES


def test_a_wrapper_that_only_passes_on_conforms() -> None:
    class Wrapper:
        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            return await LocalBackend().execute_step(request)

    assert assert_conforms(Wrapper(), ExecutionBackend, loops=["asyncio"]) == ALL_RULES


class Processes:
    """Runs steps in other processes, which it kills to cancel them."""

    def __init__(self, work: Callable[..., StepOutcome]) -> None:
        self.work = work

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        what = (request.step.function.__name__, dict(request.arguments), request.ctx.step_path)
        return await anyio.to_process.run_sync(self.work, *what, cancellable=True)


@pytest.mark.soak  # starts some 40 processes
def test_a_backend_of_other_processes_can_be_held_to_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # anyio hands the path on to its workers
    work = importlib.import_module("backend_worker").work
    others = tuple(rule for rule in ALL_RULES if rule != "context_variables")
    assert assert_conforms(Processes(work), loops=["asyncio"], skip=["context_variables"]) == others


# --- broken backends ----------------------------------------------------------------------------------------------


class NoOutput(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        return StepOutcome(Success(None), done.changes) if isinstance(done.outcome, Success) else done


class NoOutcome(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        return done.outcome.output  # type: ignore[return-value]


class Raises(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        if isinstance(done.outcome, Failure) and isinstance(done.outcome.error.__cause__, ValueError):
            raise done.outcome.error.__cause__
        return done


class OtherError(LocalBackend):
    error: FlujoError = FlujoError("it failed")

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        return StepOutcome(Failure(self.error)) if isinstance(done.outcome, Failure) else done


class OtherPath(OtherError):
    error = StepFailed("elsewhere", "ValueError", "the disk is full 4 9")


class TextLost(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        if isinstance(done.outcome, Failure):
            path, number = request.ctx.step_path, next(iter(request.arguments.values()))
            done.outcome = Failure(StepFailed(path, "ValueError", str(number) if isinstance(number, int) else ""))
        return done


class Retries(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        return await super().execute_step(request) if isinstance(done.outcome, Failure) else done


class Remembers(LocalBackend):
    def __init__(self) -> None:
        self.done: dict[str, StepOutcome] = {}

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        key = f"{request.step.name} {request.arguments}"
        self.done[key] = self.done[key] if key in self.done else await super().execute_step(request)
        return self.done[key]


class ExitIsFine(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        exited = isinstance(done.outcome, Failure) and "sys.exit" in str(done.outcome.error)
        return StepOutcome(Success(0)) if exited else done


class ExitLetOut(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        if isinstance(done.outcome, Failure) and "sys.exit" in str(done.outcome.error):
            raise SystemExit(3)
        return done


class DeathIsFine(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        try:
            return await super().execute_step(request)
        except Fatal:
            return StepOutcome(Success(0))


class DiesForGood(LocalBackend):
    dead = False

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        if self.dead:
            return StepOutcome(Failure(StepFailed(request.ctx.step_path, "PoolBroken", "a worker died")))
        try:
            return await super().execute_step(request)
        except Fatal:
            self.dead = True
            raise


class ChangesLost(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        return replace(await super().execute_step(request), changes=None)


class Truncates(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        if isinstance(done.outcome, Success) and isinstance(done.outcome.output, str):
            done.outcome.output = done.outcome.output[:1_000_000]
        return done


class Mangles(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        if isinstance(done.outcome, Success) and isinstance(done.outcome.output, str):
            done.outcome.output = done.outcome.output.encode("ascii", "replace").decode()
        return done


class TooLargeToSend(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        if len(repr(done.outcome.output)) > 250_000:
            raise OSError("the payload is too large")
        return done


class Blocks(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        if not request.step.needs_thread:
            return await super().execute_step(request)
        request.step.needs_thread = False
        try:
            return await super().execute_step(request)
        finally:
            request.step.needs_thread = True


class Shares(LocalBackend):
    """Keeps the request of the moment on itself."""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        self.request = request
        await anyio.sleep(0.001)
        return await super().execute_step(self.request)


class NoContext(LocalBackend):
    """A pool of threads of its own, that does not carry over context variables."""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        if request.step.needs_thread and request.timeout_s is None and request.step.name == "read_tag_in_thread":
            return StepOutcome(Success(await anyio.to_thread.run_sync(Context().run, partial(call, request))))
        return await super().execute_step(request)


class Swallows(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        try:
            return await super().execute_step(request)
        except anyio.get_cancelled_exc_class():
            return StepOutcome(Failure(StepFailed(request.ctx.step_path, "Cancelled", "")))


class Translates(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        try:
            return await super().execute_step(request)
        except anyio.get_cancelled_exc_class() as cancel:
            raise ConnectionError("cancelled") from cancel


class Detaches(LocalBackend):
    """Works in a task that nobody cancels. asyncio only."""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        return await asyncio.shield(asyncio.ensure_future(super().execute_step(request)))


class Shields(LocalBackend):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        with anyio.CancelScope(shield=True):
            return await super().execute_step(request)


class DetachesUnderTimeout(Detaches):
    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        if request.timeout_s is None:
            return await LocalBackend.execute_step(self, request)
        return await super().execute_step(request)


class OwnThread(LocalBackend):
    """Runs steps with a timeout in threads, and does not say so."""

    wait = False

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        if not (request.step.needs_thread and request.timeout_s):
            return await super().execute_step(request)
        return StepOutcome(Success(await anyio.to_thread.run_sync(call, request, abandon_on_cancel=not self.wait)))


class OwnThreadWaits(OwnThread):
    wait = True


class OwnThreadCloses(OwnThread):
    """Says so, but does not keep what was put off until the thread returns."""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        if request.step.needs_thread and request.timeout_s:
            request.thread = self  # type: ignore[assignment]
        return await super().execute_step(request)

    def on_return(self, then: Callable[[], object]) -> bool:
        return False


SEEDS: list[tuple[type[LocalBackend], str, str]] = [
    (NoOutput, "success", "the output is None"),
    (NoOutcome, "success", "returned int, no StepOutcome"),
    (Raises, "failure_is_an_outcome", "raised [ValueError('the disk is full')]"),
    (OtherError, "failure_is_an_outcome", "no StepFailed"),
    (OtherPath, "failure_is_an_outcome", "('elsewhere', 'ValueError')"),
    (TextLost, "failure_is_an_outcome", "text is lost"),
    (Retries, "one_attempt", "called 2 times"),
    (Remembers, "one_attempt", "called 1 times after the second attempt"),
    (ExitIsFine, "base_exception", "called sys.exit, and the outcome is Success"),
    (ExitLetOut, "base_exception", "raised [RuntimeError('it called sys.exit(3)')]"),
    (DeathIsFine, "base_exception", "that was lost"),
    (DiesForGood, "base_exception", "the outcome is Failure"),
    (ChangesLost, "update_changes", "the changes of Update(9, note='ring back') are None"),
    (Truncates, "large_outputs", "became str of 1000000"),
    (Mangles, "large_outputs", "arrived changed"),
    (TooLargeToSend, "large_outputs", "the payload is too large"),
    (Blocks, "sync_steps_do_not_block", "blocked the event loop"),
    (Shares, "concurrent_steps_are_isolated", "at the same time"),
    (NoContext, "context_variables", "sees 'unset'"),
    (Swallows, "cancellation_is_raised", "execute_step returned [StepOutcome"),
    (Translates, "cancellation_is_raised", "a cancel became ConnectionError"),
    (Detaches, "cancelled_step_has_ended", "goes on"),
    (DetachesUnderTimeout, "timeout_ends_a_step", "goes on after its time was up"),
    (Shields, "timeout_ends_a_step", "its run ended with"),
    (OwnThread, "timeout_leaves_a_thread", "set request.thread"),
    (OwnThreadWaits, "timeout_leaves_a_thread", "its run ended with None"),
    (OwnThreadCloses, "timeout_leaves_a_thread", "closed while its thread still runs"),
]


@pytest.mark.parametrize(("backend", "rule", "why"), SEEDS, ids=[seed[0].__name__ for seed in SEEDS])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_each_rule_finds_a_backend_that_breaks_it(
    backend: type[LocalBackend], rule: str, why: str, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flujo.core.testing.trial_steps.PATIENCE_S", 1.0)
    if issubclass(backend, Detaches) and loop == "trio":
        return
    with pytest.raises(NotConforming) as caught:
        assert_conforms(backend, loops=[loop], skip=set(ALL_RULES) - {rule})
    assert why in caught.value.broken[rule]
    assert caught.value.broken[rule].startswith(f"{loop}: ")


def test_every_rule_has_a_broken_backend() -> None:
    assert {rule for _, rule, _ in SEEDS} == set(ALL_RULES)


def test_every_broken_rule_is_told_with_its_reason_and_the_others_are_named_as_held() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_conforms(Raises())
    assert isinstance(caught.value, NotConforming)
    broken = {"failure_is_an_outcome", "one_attempt", "concurrent_steps_are_isolated"}
    assert set(caught.value.broken) == broken
    assert caught.value.held == tuple(rule for rule in ALL_RULES if rule not in broken)
    first, second, *_ = str(caught.value).splitlines()
    assert first == "Raises breaks 3 of 13 rules of ExecutionBackend:"
    assert second.startswith("  - failure_is_an_outcome: asyncio: execute_step raised [ValueError")
    assert "; trio: " in caught.value.broken["one_attempt"]


def test_a_backend_that_does_nothing_right_breaks_everything_and_crashes_nothing() -> None:
    class Crashes:
        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            raise SystemExit("no cluster")

    class Returns:
        def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            return StepOutcome(Success(1))

    for backend in (Crashes(), Returns()):
        with pytest.raises(NotConforming) as caught:
            assert_conforms(backend, loops=["asyncio"])
        assert caught.value.held == ()


def test_a_rule_that_never_ends_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flujo.core.testing.conformance.LIMIT_S", 0.1)

    class Hangs:
        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            await anyio.sleep_forever()
            raise AssertionError

    with pytest.raises(NotConforming) as caught:
        assert_conforms(Hangs(), skip=set(ALL_RULES) - {"success"})
    assert "no end after 0.1 s" in caught.value.broken["success"]


def test_skipped_rules_are_not_among_those_that_held() -> None:
    assert "context_variables" not in assert_conforms(NoContext(), skip=["context_variables"], loops=["asyncio"])


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"object cannot be checked: there are rules for ExecutionBackend"):
        assert_conforms(object())
    with pytest.raises(ConfigurationError, match="protocol=<class 'int'> cannot be used"):
        assert_conforms(LocalBackend(), int)
    with pytest.raises(ConfigurationError, match="there is no rule sucess"):
        assert_conforms(LocalBackend(), skip=["sucess"])


@pytest.mark.anyio
async def test_inside_an_event_loop_it_says_how_to_call_it() -> None:
    with pytest.raises(LoopRunning, match="to_thread"):
        assert_conforms(LocalBackend())
    only = {"skip": set(ALL_RULES) - {"success"}}
    assert await anyio.to_thread.run_sync(lambda: assert_conforms(LocalBackend(), **only)) == ("success",)
