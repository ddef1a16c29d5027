"""The user's context: declared writes, reducers, who sees what, and writes that cannot be told apart."""

from __future__ import annotations

import gc
import operator
import time
from functools import partial
from typing import Annotated, Any

import anyio
import pytest
from pydantic import AfterValidator, BaseModel, Field
from stable_ids import shown

from flujo.core import (
    ConfigurationError,
    Flujo,
    InputError,
    Pipeline,
    PipelineError,
    Step,
    StepFailed,
    Update,
    compile_plan,
    step,
)
from flujo.core.check import fitted_changes
from flujo.core.reducers import apply_changes, reducers_of

pytestmark = pytest.mark.anyio


class Opaque:
    pass


def explode(value: int) -> int:
    raise RuntimeError(f"saw {value}")


class Keep:
    """A reducer that is an object: keeps the largest."""

    def __call__(self, old: int, new: int) -> int:
        return max(old, new)


class Notes(BaseModel, frozen=True, arbitrary_types_allowed=True):
    log: Annotated[list[str], operator.add] = []
    best: Annotated[int, Field(ge=0), Keep()] = 0
    note: str = ""
    size: Annotated[int, Field(gt=0)] = 1
    thing: Opaque | None = None
    odd: Annotated[int, AfterValidator(explode)] = 0


def writer(name: str, *, wait: float = 0.0, **changes: object) -> Step:
    async def write(text: str) -> Update[str]:
        await anyio.sleep(wait)
        return Update(f"{text}{name}", **changes)

    return Step(write, name=name, writes=tuple(changes))


async def look(text: str, notes: Notes) -> Notes:
    return notes


# --- pure -------------------------------------------------------------------------------------------------------------


def test_reducers_are_read_from_annotations_and_constraints_are_none() -> None:
    assert set(reducers_of(Notes)) == {"log", "best"}
    assert reducers_of(None) == {}


def test_changes_replace_or_fold_and_leave_the_old_context_alone() -> None:
    old = Notes(log=["a"], best=3, note="x")
    new = apply_changes(old, {"log": ["b"], "best": 2, "note": "y"})
    assert (new.log, new.best, new.note) == (["a", "b"], 3, "y")  # type: ignore[attr-defined]
    assert (old.log, old.best, old.note) == (["a"], 3, "x")
    assert apply_changes(old, {"note": "z"}).log is old.log  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"note": "x", "size": 2, "best": 1, "log": ["a"], "thing": Opaque()}, None),
        ({"mood": 1}, "it wrote context field 'mood' without declaring it; writes= names 'note'"),
        ({"note": 3}, "context field 'note' does not fit: Input should be a valid string"),
        ({"size": 0}, "context field 'size' does not fit: Input should be greater than 0"),
        ({"best": -1}, "context field 'best' does not fit"),
        ({"log": "text"}, "context field 'log' does not fit"),
        ({"thing": 3}, "context field 'thing' does not fit"),
        ({"odd": 4711}, "context field 'odd' does not fit: the check of int failed with RuntimeError"),
    ],
    ids=shown,
)
def test_changes_are_checked_field_by_field(changes: dict[str, object], words: str | None) -> None:
    writes = ("note", "size", "best", "log", "thing", "odd")
    _, problem = fitted_changes(Notes, writes, changes)
    assert (problem is None) if words is None else (problem is not None and words in problem)
    assert "4711" not in str(problem)


def test_a_change_is_made_what_its_field_holds() -> None:
    class Outer(BaseModel, frozen=True):
        notes: Notes = Notes()

    changes, problem = fitted_changes(Outer, ("notes",), {"notes": {"note": "x"}})
    assert (changes, problem) == ({"notes": Notes(note="x")}, None)


def test_an_update_without_a_context_model_says_so() -> None:
    assert fitted_changes(None, (), {"note": "x"})[1] == "it returned an Update, but there is no context model"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (dict, "it is no pydantic model"),
        (Notes(), "it is no pydantic model"),
        (type("Open", (BaseModel,), {}), "frozen"),
    ],
    ids=["dict", "instance", "not frozen"],
)
def test_a_context_model_is_a_frozen_pydantic_model(model: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Flujo(Step(look), context_model=model)


# --- compiling --------------------------------------------------------------------------------------------------------


def refused(*members: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(Pipeline(*members), context_model=Notes)
    return list(caught.value.problems)


def test_two_steps_that_may_run_at_once_and_write_one_field_are_refused_by_name() -> None:
    [problem] = refused(writer("a", note="1", log=["1"]), writer("b", note="2", log=["2"]))
    assert "steps 'a' and 'b' may run at the same time and both write 'note'" in problem
    assert "give the field a reducer" in problem


def test_writers_are_told_apart_through_any_number_of_edges() -> None:
    a, b, c, d = (writer(name, note=name) for name in "abcd")
    plain = Step(writer("p"), name="p")
    compile_plan(a >> plain >> b, context_model=Notes)
    assert "'b' and 'c'" in refused(a >> b, a >> c)[0]
    assert len(refused(a, b, c, d)) == 3


def test_an_undeclared_or_misspelt_field_is_refused_with_the_nearest() -> None:
    [problem] = refused(Step(look, writes="nota"))
    assert problem.startswith("step 'look' declares context field 'nota'; Notes has no such field")
    assert problem.endswith("did you mean 'note'?")
    assert "'mood'" in refused(Step(look, reads=("mood",)))[0]
    with pytest.raises(PipelineError, match="there is no context model; pass context_model="):
        compile_plan(writer("a", note="x"))


# --- running ----------------------------------------------------------------------------------------------------------


async def test_a_step_sees_the_changes_of_all_steps_it_depends_on_and_of_no_other() -> None:
    a, b, c = writer("a", log=["a"]), writer("b", log=["b"]), writer("c", log=["c"])
    seen_b, seen_c = Step(look, name="seen_b"), Step(look, name="seen_c")

    async def join(b: str, c: str, notes: Notes) -> list[str]:
        return notes.log

    joined = Step(join, inputs={"b": b, "c": c})
    pipeline = Pipeline(a >> b >> seen_b, a >> c >> seen_c, joined)
    result = await Flujo(pipeline, context_model=Notes).run_async("")
    seen: Any = result.output
    assert (seen["seen_b"].log, seen["seen_c"].log, seen["join"]) == (["a", "b"], ["a", "c"], ["a", "b", "c"])
    assert result.context == Notes(log=["a", "b", "c"])


@pytest.mark.parametrize("waits", [(0.02, 0.0), (0.0, 0.02)])
async def test_changes_are_merged_in_declared_order_whoever_is_first(waits: tuple[float, float]) -> None:
    first, second = writer("first", wait=waits[0], log=["first"]), writer("second", wait=waits[1], log=["second"])
    head = writer("head")

    async def join(one: str, other: str, notes: Notes) -> list[str]:
        return notes.log

    joined = Step(join, inputs={"one": first, "other": second})
    # the longer chain is declared first: its writer comes first, though it stands deeper
    pipeline = Pipeline(head >> writer("between") >> first, second, joined)
    result = await Flujo(pipeline, context_model=Notes).run_async("")
    assert (result.output, result.context) == (["first", "second"], Notes(log=["first", "second"]))


async def test_the_context_a_run_is_given_is_where_it_starts_and_is_not_changed() -> None:
    given = Notes(log=["given"])
    flujo = Flujo(writer("a", log=["a"]) >> Step(look), context_model=Notes)
    result = await flujo.run_async("", context=given)
    assert result.output == Notes(log=["given", "a"])
    assert given == Notes(log=["given"])
    with pytest.raises(InputError, match="Opaque is no Notes"):
        await flujo.run_async("", context=Opaque())  # type: ignore[arg-type]


async def test_concurrent_runs_do_not_see_each_other() -> None:
    flujo = Flujo(writer("a", wait=0.01, log=["a"]) >> Step(look), context_model=Notes)
    results = []

    async def one(number: int) -> None:
        results.append((number, await flujo.run_async("", context=Notes(best=number))))

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(one, number)
    assert all(result.context == Notes(log=["a"], best=number) for number, result in results)


@pytest.mark.parametrize(
    ("changes", "words"), [({"mood": 1}, "'mood' without declaring it"), ({"size": 0}, "'size' does not fit")]
)
async def test_a_wrong_update_fails_its_step_and_changes_nothing(changes: dict[str, object], words: str) -> None:
    @step(writes="size")
    async def wrong(text: str) -> Update[str]:
        return Update(text, **changes)

    result = await Flujo(wrong >> Step(look), context_model=Notes).run_async("")
    assert (result.status, result.context) == ("failed", Notes())
    assert words in str(result.error)
    assert "wrong" in str(result.error)


async def test_a_reducer_that_fails_is_a_failed_run_and_not_an_exception() -> None:
    def refuse(old: object, new: object) -> object:
        raise ValueError("cannot fold")

    class Odd(BaseModel, frozen=True):
        field: Annotated[int, refuse] = 0

    async def see(text: str, odd: Odd) -> str:
        return text

    see.__annotations__["odd"] = Odd
    for pipeline in (writer("a", field=1) >> Step(see), writer("a", field=1)):
        result = await Flujo(pipeline, context_model=Odd).run_async("")
        assert result.status == "failed"
        assert isinstance(result.error, StepFailed)
        assert "cannot fold" in str(result.error)


async def test_a_partial_reducer_and_a_lambda_fold() -> None:
    class Other(BaseModel, frozen=True):
        total: Annotated[int, partial(operator.add)] = 1
        text: Annotated[str, lambda old, new: f"{old}{new}"] = "a"

    result = await Flujo(writer("w", total=2, text="b"), context_model=Other).run_async("")
    assert result.context == Other(total=3, text="ab")


@pytest.mark.alone
async def test_a_long_row_of_writers_and_readers_stays_linear() -> None:
    async def both(text: str, notes: Notes) -> Update[str]:
        return Update(text, best=notes.best + 1)

    async def seconds(length: int) -> float:
        chain: Any = Step(both, name="first", writes="best")
        for number in range(length - 1):
            chain = chain >> Step(both, name=f"s{number}", writes="best")
        flujo = Flujo(chain, context_model=Notes)
        gc.collect()
        gc.disable()  # what the tests before have left on the heap is no part of it
        try:
            start = time.process_time()
            result = await flujo.run_async("")
            took = time.process_time() - start
        finally:
            gc.enable()
        assert result.context == Notes(best=length)
        return took

    await seconds(50)
    small, large = min([await seconds(200) for _ in range(3)]), await seconds(2_000)
    assert large < 30 * small  # ten times the steps; folding from the start each time would be a hundred times
