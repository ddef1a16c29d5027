"""What JSON cannot hold exactly: it is refused by name, shows none of its data, and ends no run without need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, Field, computed_field

from flujo.core import (
    AbortPipeline,
    Deny,
    Fallback,
    Flujo,
    GuardStep,
    Loop,
    LoopLimit,
    MemoryStore,
    OnStepFailure,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PreStepExecution,
    RunAborted,
    RunContext,
    Snapshot,
    SnapshotError,
    Step,
    StepFailed,
    ToolCall,
    Update,
    hookimpl,
    step,
)
from flujo.core.check import DEPTH, no_json

pytestmark = pytest.mark.anyio


def nested(depth: int, inside: object = "Ann Smith") -> Any:
    for _ in range(depth):
        inside = [inside]
    return inside


class Tree(BaseModel):
    name: str = ""
    inner: list[Tree] = []


def tree(depth: int) -> Tree:
    made = Tree(name="Ann Smith")
    for _ in range(depth):
        made = Tree(inner=[made])
    return made


def itself() -> Any:
    made: list[object] = []
    made += [made, made]
    return made


VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "deep": (lambda: nested(500), "more than 100 levels"),
    "far too deep": (lambda: nested(100_000), "more than 100 levels"),
    "itself": (itself, "more than 100 levels"),
    "half a pair": (lambda: ["Ann Smith \ud800"], "text that is no Unicode"),
    "half a pair in a key": (lambda: {"Ann Smith \ud800": 1}, "text that is no Unicode"),
    "a key that is no text": (lambda: {1: "Ann Smith"}, "a dict whose keys are no texts"),
    "too long": (lambda: 10**5000, "a number that is too long"),
    "not a number": (lambda: [float("nan")], "a number that is not finite"),
    "a tuple": (lambda: ("Ann Smith",), "a tuple"),
    "a set": (lambda: [{"Ann Smith"}], "a set"),
    "bytes": (lambda: b"Ann Smith", "a bytes"),
}


@step(pauses=True)
async def ask(value: Any) -> int:
    raise PauseForHumanInput("How many?", schema=int)


@pytest.mark.parametrize(("make", "what"), VALUES.values(), ids=VALUES)
async def test_untyped_data_that_json_cannot_hold_is_refused_by_name(make: Callable[[], Any], what: str) -> None:
    @step
    async def give(value: int) -> Any:
        return make()

    result = await Flujo(give).run_async(1)
    assert result.status == "completed"
    with pytest.raises(SnapshotError, match="output of 'give' cannot be kept") as caught:
        result.snapshot()
    assert what in str(caught.value)
    assert "Smith" not in str(caught.value)
    kept = await Flujo(give, store=MemoryStore()).run_async(1)
    assert (kept.status, kept.step_history[0].status) == ("failed", "failed")
    assert "NotSerialisable" in str(kept.error)
    assert "Smith" not in str(kept.error)


@pytest.mark.parametrize("hint", [Tree, Any])
async def test_what_is_kept_is_not_so_deep_that_it_cannot_be_read(hint: Any) -> None:
    async def give(value):  # type: ignore[no-untyped-def]
        return tree(value) if hint is Tree else nested(2 * value)

    give.__annotations__ = {"value": int, "return": hint}
    read = 0
    for depth in (1, DEPTH // 2 - 1, DEPTH // 2, DEPTH // 2 + 1, 70, 90, 120):
        result = await Flujo(Step(give)).run_async(depth)
        try:
            text = result.snapshot().model_dump_json()
        except SnapshotError:
            continue
        Snapshot.model_validate_json(text)
        read += 1
    assert read == (2 if hint is Tree else 3)


@pytest.mark.parametrize("hint", [str, list[str]])
async def test_text_that_is_no_unicode_is_refused_where_its_type_is_declared_too(hint: Any) -> None:
    async def give(value):  # type: ignore[no-untyped-def]
        return "\ud800" if hint is str else ["\ud800"]

    give.__annotations__ = {"value": int, "return": hint}
    with pytest.raises(SnapshotError, match="output of 'give' cannot be kept"):
        (await Flujo(Step(give)).run_async(1)).snapshot()


@pytest.mark.parametrize("make", [lambda: nested(200), lambda: "\ud800", lambda: float("nan")], ids=range(3))
async def test_a_question_a_decision_and_a_tool_take_only_what_can_be_kept(make: Callable[[], Any]) -> None:
    @step
    async def asks(value: int) -> Any:
        raise PauseForHumanInput("Well?", payload=make())

    assert "ConfigurationError" in str((await Flujo(asks).run_async(1)).error)

    @step
    async def calls(value: int, ctx: RunContext) -> Any:
        async def send(call: ToolCall) -> object:
            return make()

        return (await ctx.call_tool(ToolCall(name="look"), send)).content

    result = await Flujo(calls).run_async(1)
    assert "ToolResultMismatch" in str(result.error)
    assert "Smith" not in str(result.error)


async def test_a_decision_that_cannot_be_kept_is_refused_and_the_question_stays_open() -> None:
    @step(pauses=True)
    async def asks(value: int, ctx: RunContext) -> Any:
        return await ctx.ask("Well?")

    flujo = Flujo(asks)
    paused = await flujo.run_async(1)
    for value in (nested(200), "\ud800", object()):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            await flujo.resume_async(paused, value)
    assert (await flujo.resume_async(paused, "yes")).output == "yes"


async def test_infinity_answers_a_question_for_a_number() -> None:
    @step(pauses=True)
    async def asks(value: int, ctx: RunContext) -> float:
        return float(await ctx.ask("How much?", float) - await ctx.ask("How much less?", float))

    flujo = Flujo(asks)
    again = await flujo.resume_async(await flujo.run_async(1), float("inf"))
    read = Snapshot.model_validate_json(again.snapshot().model_dump_json())
    assert (await flujo.resume_async(read, 1.0)).output == float("inf")


def test_a_question_in_no_unicode_is_refused_when_it_is_asked() -> None:
    with pytest.raises(ValueError, match="PauseForHumanInput cannot be raised"):
        PauseForHumanInput("Well \ud800?")


class Opaque:
    pass


async def test_a_question_whose_answer_has_no_json_form_fails_its_step() -> None:
    @step
    async def asks(value: int) -> Any:
        raise PauseForHumanInput("Well?", schema=Opaque)

    result = await Flujo(Fallback(asks, Step(one))).run_async(1)
    assert result.output == 1


async def one(value: int) -> int:
    return 1


async def test_an_error_text_in_no_unicode_can_be_kept() -> None:
    @step
    async def fails(value: int) -> int:
        raise ValueError("half \ud800 a pair")

    result = await Flujo(fails).run_async(1)
    again = Snapshot.model_validate_json(result.snapshot().model_dump_json())
    assert again.status == "failed"
    assert str(result.error) == "step 'fails' failed: ValueError: half \\ud800 a pair"


def test_what_holds_one_thing_often_is_looked_at_once() -> None:
    made: Any = "x"
    for _ in range(DEPTH - 1):
        made = [made, made]
    assert no_json(made) is None


# --- the last output of a loop ---------------------------------------------------------------------------------------


LAST: list[tuple[Any, Any, Any]] = [
    (list[Tree], [Tree(name="a")], None), (Any, {"a": (1, 2)}, None), (Any, {"a": [1, None]}, {"a": [1, None]}),
    (bytes, b"\xff", None), (set[int], {1}, None), (list[float], [float("nan")], None), (Any, Opaque(), None),
    (dict[str, StepFailed], {"a": StepFailed("a", "b", "c")}, None), (str, "\ud800", None), (Any, nested(150), None),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value", "kept"), LAST, ids=[str(hint) for hint, *_ in LAST])
async def test_a_collected_loop_limit_with_any_last_output_can_be_kept(hint: Any, value: Any, kept: Any) -> None:
    async def give(given):  # type: ignore[no-untyped-def]
        return value

    give.__annotations__ = {"given": Any, "return": hint}
    body = Pipeline(Loop(Step(give), lambda output: False, 2), name="body")
    flujo = Flujo(Parallel(body, Pipeline(ask, name="other"), on_failure="collect"))
    paused = await flujo.run_async(1)
    assert (paused.status, paused.error) == ("paused", None)
    result = await flujo.resume_async(Snapshot.model_validate_json(paused.snapshot().model_dump_json()), 3)
    error = result.output["body"]  # type: ignore[index]
    assert isinstance(error, LoopLimit)
    assert (error.partial, error.partial_type, error.iterations) == (kept, type(value).__name__, 2)


# --- a pause that cannot be kept --------------------------------------------------------------------------------------


async def test_a_step_whose_pause_cannot_be_kept_has_failed() -> None:
    @step
    async def give(value: int) -> Any:
        return Opaque()

    flujo = Flujo(give >> Step(ask.function, name="ask"))
    result = await flujo.run_async(1)
    assert (result.status, result.pauses) == ("failed", ())
    records = [(one.name, one.status, one.error, one.attempts) for one in result.step_history]
    assert records == [("give", "completed", None, 1), ("ask", "failed", result.error, 1)]
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "NotSerialisable"
    assert "Opaque" in str(result.error)


async def test_only_the_step_fails_whose_pause_cannot_be_kept() -> None:
    @step
    async def give(value: int) -> Any:
        return Opaque()

    @step
    async def other(value: Any) -> int:
        return 7

    seen: list[str] = []

    def watch(event: OnStepFailure) -> None:
        seen.append(event.step_path)

    asks = Step(ask.function, name="ask")
    result = await Flujo(give >> Fallback(asks, other), hooks=[watch]).run_async(1)
    assert (result.status, result.output, result.error) == ("completed", 7, None)
    assert [(one.name, one.status) for one in result.step_history if one.name == "ask"] == [("ask", "failed")]
    assert len(seen) == 1

    both = Parallel(asks, Step(ask.function, name="too"), on_failure="collect")
    result = await Flujo(give >> both).run_async(1)
    assert result.status == "completed"
    assert {type(value) for value in result.output.values()} == {StepFailed}


# --- what can be kept -------------------------------------------------------------------------------------------------


class Aliased(BaseModel):
    number: int = Field(alias="theNumber")
    inner: list[Aliased] = []


class Closed(BaseModel, extra="forbid"):
    number: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.number


KEPT: list[tuple[Any, Any]] = [
    (Aliased, Aliased(theNumber=1, inner=[Aliased(theNumber=2)])), (Closed, Closed(number=2)), (float, 1),
    (float | None, 0), (list[float], [1, 2.5]), (int | float, 1), (int | float, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value"), KEPT, ids=[str(hint) for hint, _ in KEPT])
async def test_models_with_aliases_or_computed_fields_and_whole_floats_are_kept(hint: Any, value: Any) -> None:
    async def give(given):  # type: ignore[no-untyped-def]
        return value

    async def asks(given, ctx):  # type: ignore[no-untyped-def]
        return given == value and await ctx.ask("Well?", hint) == value

    give.__annotations__ = {"given": int, "return": hint}
    asks.__annotations__ = {"given": hint, "ctx": RunContext, "return": bool}
    flujo = Flujo(Step(give) >> Step(asks, pauses=True), store=MemoryStore())
    paused = await flujo.run_async(1)
    assert (paused.status, paused.error) == ("paused", None)
    read = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    assert (await flujo.resume_async(read, value)).output is True


# --- errors and the like ----------------------------------------------------------------------------------------------


class Own(RunAborted):
    """An error of the user's that Flujo takes for one of its own."""


@pytest.mark.parametrize("store", [None, MemoryStore()])
async def test_an_error_of_the_users_own_kind_is_known_by_its_type_where_the_run_goes_on(
    store: MemoryStore | None,
) -> None:
    broken = [True]

    @step
    async def fails(value: int) -> int:
        if broken.pop():
            raise Own("enough")
        return value

    flujo = Flujo(fails, store=store)
    result = await flujo.run_async(1)
    read = Snapshot.model_validate_json(result.snapshot().model_dump_json())
    broken.append(False)
    again = await flujo.resume_async(read, retry=True)
    assert again.output == 1
    assert ["Own" in str(record.error) for record in again.step_history] == [True, False]


class Notes(BaseModel, frozen=True):
    note: Any = None


async def test_a_context_change_that_cannot_be_kept_is_not_taken_for_the_output() -> None:
    @step(writes=("note",))
    async def write(value: int) -> Update[int]:
        return Update(value, note=Opaque())

    result = await Flujo(write, context_model=Notes, store=MemoryStore()).run_async(1)
    assert "its output of type Update cannot be kept" in str(result.error)


@pytest.mark.parametrize("reason", [5, None, "half \ud800 a pair"])
async def test_a_reason_may_be_anything(reason: Any) -> None:
    class Guard:
        @hookimpl
        def guard_step(self, payload: GuardStep) -> Deny:
            payload.run.count(reason, reason)
            return Deny(reason)

    def stop(event: PreStepExecution) -> None:
        raise AbortPipeline(reason)

    handle = Flujo(Step(one)).start(1)
    handle.cancel(reason)
    results = [await handle.wait(), await Flujo(Step(one), hooks=[stop]).run_async(1)]
    results.append(await Flujo(Step(one), plugins=[Guard()]).run_async(1))
    for result in results:
        assert result.status == "aborted"
        Snapshot.model_validate_json(result.snapshot().model_dump_json())


async def test_a_deadline_that_never_comes_survives_json() -> None:
    paused = await Flujo(ask).run_async(1, deadline_s=float("inf"))
    read = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    assert read == paused.snapshot()
    assert (await Flujo(ask).resume_async(read, 2)).output == 2
