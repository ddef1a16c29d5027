"""Compiling: what cannot work is refused before anything runs, with both ends named and all problems at once."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypedDict

import pytest
from pydantic import BaseModel, Field, computed_field

from flujo.core import (
    ConfigurationError,
    Flujo,
    InputError,
    Pipeline,
    PipelineError,
    Resource,
    Resources,
    RunContext,
    Step,
    Update,
    compile_plan,
    run_input,
    step,
)
from flujo.core.steps import Chain

pytestmark = pytest.mark.anyio


class Tone(BaseModel):
    label: str
    score: float = 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def loud(self) -> bool:
        return self.score > 1

    @cached_property
    def words(self) -> list[str]:
        return self.label.split()


class Notes(BaseModel, frozen=True):
    note: str = ""
    count: int = 0


class Pool:
    def query(self) -> str:
        return "rows"


class Queries(Protocol):
    def query(self) -> str: ...


class AppResources(Resources):
    pool: Pool = Resource(Pool)


@step
async def fetch(url: str) -> str:
    return f"page of {url}"


@step
async def classify(page: str) -> Tone:
    return Tone(label=page)


@step
async def count(page: str) -> int:
    return len(page)


@step
async def write(label: str, question: str) -> str:
    return f"{question}: {label}"


def problems_of(pipeline: Any, **options: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(pipeline, **options)
    return list(caught.value.problems)


# --- data flow --------------------------------------------------------------------------------------------------------


async def test_a_dag_of_declared_inputs_runs_as_drawn_in_the_readme() -> None:
    page = Step(fetch)
    tone = Step(classify, inputs={"page": page})
    size = Step(count, inputs={"page": "fetch"})
    report = Step(write, inputs={"label": tone.output.label, "question": run_input()})
    result = await Flujo(Pipeline(page, tone, size, report)).run_async("u")
    assert result.output == {"count": 9, "write": "u: page of u"}


async def test_one_step_feeds_two_chains() -> None:
    result = await Flujo(Pipeline(fetch >> classify, fetch >> count)).run_async("u")
    assert result.output == {"classify": Tone(label="page of u"), "count": 9}
    assert [record.name for record in result.step_history].count("fetch") == 1


async def test_the_same_chain_twice_is_once() -> None:
    chain = fetch >> count
    assert (await Flujo(Pipeline(chain, chain)).run_async("u")).output == 9


async def test_a_chained_step_may_have_other_inputs_declared() -> None:
    last = Step(write, inputs={"question": run_input()})
    assert (await Flujo(fetch >> last).run_async("u")).output == "u: page of u"


async def test_defaults_fill_what_nothing_else_does() -> None:
    @step
    async def many(page: str, limit: int = 3, *, mark: str = "!") -> str:
        return page[:limit] + mark

    @step
    async def only(limit: int = 7) -> int:
        return limit

    @step
    async def idle(one: int = 1, other: int = 2) -> int:
        return one + other

    assert (await Flujo(fetch >> many).run_async("u")).output == "pag!"
    assert (await Flujo(only).run_async(1)).output == 1
    assert (await Flujo(count >> only).run_async("abc")).output == 3
    assert (await Flujo(idle).run_async()).output == 3


async def test_a_pipeline_gives_what_it_says_it_gives() -> None:
    tone = Step(classify)
    for output, value in ((tone, Tone(label="x")), (tone.output.label, "x"), ("count", 1), (run_input(), "x")):
        assert (await Flujo(Pipeline(tone, count, output=output)).run_async("x")).output == value


class Pair(NamedTuple):
    left: int
    right: str

    @property
    def both(self) -> str:
        return f"{self.left}{self.right}"


class Row(TypedDict):
    id: int


@dataclass
class Box:
    inside: list[Tone]
    table: dict[str, int]
    pair: tuple[int, str]

    @property
    def first(self) -> Tone:
        return self.inside[0]


BOX = Box([Tone(label="a")], {"k": 1}, (1, "b"))


@pytest.mark.parametrize(
    ("output", "value", "path", "wanted"),
    [
        (Tone, Tone(label="a"), ("label",), str),
        (Tone, Tone(label="a"), ("loud",), bool),
        (Tone, Tone(label="a b"), ("words",), list[str]),
        (Annotated[Tone, "note"], Tone(label="a"), ("label",), str),
        (Tone | None, Tone(label="a"), ("label",), str),
        (Pair, Pair(1, "b"), ("left",), int),
        (Pair, Pair(1, "b"), (1,), str),
        (Pair, Pair(1, "b"), ("both",), str),
        (Row, {"id": 3}, ("id",), int),
        (Box, BOX, ("inside", 0, "label"), str),
        (Box, BOX, ("table", "k"), int),
        (Box, BOX, ("pair", -1), str),
        (Box, BOX, ("first",), Tone),
        (dict, {"a": {"b": 1}}, ("a", "b"), int),
        (Any, BOX, ("pair", 0), int),
        (Sequence[int], [4], (0,), int),
        (tuple[int, ...], (4, 5), (1,), int),
    ],
    ids=str,
)
async def test_a_part_of_an_output_is_an_input(output: Any, value: Any, path: tuple[Any, ...], wanted: Any) -> None:
    async def make() -> Any:
        return value

    async def take(part: Any) -> Any:
        return part

    make.__annotations__["return"], take.__annotations__["part"] = output, wanted
    source = Step(make)
    ref: Any = source.output
    for part in path:
        ref = ref[part]
    expected = value
    for part in path:
        expected = expected[part] if isinstance(part, int) or isinstance(expected, Mapping) else getattr(expected, part)
    result = await Flujo(Pipeline(source, Step(take, inputs={"part": ref}))).run_async()
    assert result.unwrap() == expected


@pytest.mark.parametrize(
    ("output", "path", "words"),
    [
        (Tone, ("lable",), "Tone has no 'lable'; it has label, score"),
        (Tone | None, ("lable",), "Tone | None has no 'lable'"),
        (Row, ("items",), "Row has no 'items'; it has id"),
        (Pair, ("middle",), "Pair has no 'middle'; it has left, right"),
        (tuple[int, str], (2,), r"tuple[int, str] has no 2; it has 0, 1"),
        (Box, ("pair", 2), "tuple[int, str] has no 2"),
    ],
    ids=str,
)
def test_a_part_that_is_not_there_is_named_with_those_that_are(output: Any, path: tuple[Any, ...], words: str) -> None:
    async def make() -> Any: ...

    make.__annotations__["return"] = output
    source = Step(make)
    ref: Any = source.output
    for part in path:
        ref = ref[part]
    [problem] = problems_of(Pipeline(source, Step(count, inputs={"page": ref})))
    assert words in problem
    assert "'page' of step 'count' cannot be read from step 'make'" in problem
    [problem] = problems_of(Pipeline(source, output=ref))
    assert "the pipeline's output cannot be read from step 'make'" in problem


def local_box() -> type:
    class Local: ...

    @dataclass
    class LocalBox:
        inside: Local

    return LocalBox


class Loose(BaseModel, extra="allow"):
    label: str


@pytest.mark.parametrize(
    ("output", "part"), [(local_box(), "inside"), (Loose, "more"), (Tone | Row, "id"), (Pair, 7)], ids=str
)
def test_a_part_that_cannot_be_known_is_let_through(output: Any, part: str | int) -> None:
    async def make() -> Any: ...

    make.__annotations__["return"] = output
    source = Step(make)
    plan = compile_plan(Pipeline(source, Step(count, inputs={"page": source.output[part]})))
    assert plan.nodes[1].sources[0].path == (part,)


# --- what cannot work -------------------------------------------------------------------------------------------------


def test_a_type_mismatch_names_both_steps_and_both_types() -> None:
    [problem] = problems_of(count >> Step(classify))
    assert problem == (
        "step 'count' gives int, but input 'page' of step 'classify' takes str; "
        "change one of the two, or put a step between"
    )
    tone = Step(classify)
    [problem] = problems_of(Pipeline(tone, Step(count, inputs={"page": tone.output.score})))
    assert "step 'classify' gives float as .score, but input 'page' of step 'count' takes str" in problem


def test_an_optional_output_does_not_fit_where_none_is_not_taken() -> None:
    @step
    async def perhaps(url: str) -> str | None:
        return None

    assert "gives str | None, but input 'page' of step 'count' takes str" in problems_of(perhaps >> count)[0]


def test_an_unknown_step_in_inputs_is_named_with_the_nearest_and_with_those_there_are() -> None:
    assert problems_of(Pipeline(fetch, Step(count, inputs={"page": "fetsh"}))) == [
        "input 'page' of step 'count' names an unknown step 'fetsh'; did you mean 'fetch'?"
    ]
    assert problems_of(Pipeline(fetch, Step(count, inputs={"page": "zzz"}))) == [
        "input 'page' of step 'count' names an unknown step 'zzz'; there are: 'fetch', 'count'"
    ]
    assert problems_of(Pipeline(Step(count, inputs={"page": fetch}))) == [
        "input 'page' of step 'count' names step 'fetch', which is not in the pipeline; add it"
    ]
    assert problems_of(Pipeline(fetch, output="fetsh")) == [
        "the pipeline's output names an unknown step 'fetsh'; did you mean 'fetch'?"
    ]


@pytest.mark.parametrize("source", [3, None, ["fetch"], fetch.function])
def test_a_source_that_is_none_says_what_may_be_one(source: Any) -> None:
    [problem] = problems_of(Pipeline(fetch, Step(count, inputs={"page": source})))
    assert re.match(
        r"input 'page' of step 'count' is a \w+; it must be a step, a part of one, .* run_input\(\)", problem
    )


def test_an_unknown_input_is_named_with_those_there_are() -> None:
    assert problems_of(Pipeline(fetch, Step(count, inputs={"pag": fetch})))[0] == (
        "step 'count' has no input 'pag'; did you mean 'page'?"
    )


def test_a_circle_is_drawn_along_the_data() -> None:
    a = Step(fetch, name="a", inputs={"url": "c"})
    b = Step(fetch, name="b", inputs={"url": a})
    c = Step(fetch, name="c", inputs={"url": b})
    [problem] = problems_of(Pipeline(fetch, a, b, c))
    assert "in a circle: 'a' -> 'b' -> 'c' -> 'a'; take one of these edges away" in problem
    [twice] = problems_of(fetch >> fetch)
    assert "'fetch' -> 'fetch'" in twice
    assert "Step(it, name=...)" in twice  # what one wants who writes this


def test_two_steps_with_one_name_are_refused_and_the_rest_is_still_checked() -> None:
    found = problems_of(Pipeline(fetch, Step(fetch), Step(count, inputs={"page": "no"})))
    assert found[0] == "two steps are called 'fetch'; give one another name: Step(..., name='...')"
    assert "unknown step 'no'" in found[1]


def test_a_missing_resource_is_refused_when_the_flujo_is_built_naming_parameter_and_type() -> None:
    @step
    async def find(question: str, pool: Pool) -> str:
        return question

    for pipeline in (find, fetch >> find):
        with pytest.raises(PipelineError, match=r"step 'find' .*'pool' \(Pool\).*give Flujo resources="):
            Flujo(pipeline)

    class Empty(Resources):
        pool: Pool

    with pytest.raises(ConfigurationError, match=r"resource 'pool' of Empty is missing.*Empty\(pool=\.\.\.\)"):
        Flujo(find, resources=Empty())


def test_a_resource_that_is_nearly_named_says_what_would_make_it_one() -> None:
    @step
    async def other_name(question: str, db: Pool) -> str:
        return question

    @step
    async def other_type(question: str, pool: int) -> str:
        return question

    @step
    async def chained(db: Pool) -> str:
        return ""

    assert "'pool' is Pool" in problems_of(other_name, resources=AppResources())[0]
    assert "'pool' is Pool" in problems_of(fetch >> other_type, resources=AppResources())[0]
    assert "'pool' is Pool" in problems_of(fetch >> chained, resources=AppResources())[0]


def test_a_chain_needs_exactly_one_free_input() -> None:
    @step
    async def none() -> str:
        return ""

    @step
    async def loose(*pages: str, **more: str) -> str:
        return ""

    assert (
        "has 2 free inputs ('label' (str), 'question' (str)); `>>` needs exactly one" in problems_of(fetch >> write)[0]
    )
    for last in (none, loose):
        [problem] = problems_of(fetch >> last)
        assert f"step {last.name!r} follows 'fetch' but has no free input (*args and **kwargs are none)" in problem
    [problem] = problems_of(Pipeline(fetch >> write, count >> write))
    assert "step 'write' follows 'fetch' and 'count'; say which input is which with inputs=" in problem


def test_a_method_that_was_marked_in_its_class_says_so() -> None:
    class Agent:
        @step
        async def ask(self, question: str) -> str:
            return question

    assert "if it is a method, use Step(object.method)" in problems_of(Agent.ask)[0]


def test_one_parameter_is_enough_of_a_kind() -> None:
    @step
    async def greedy(ctx: RunContext, other: RunContext) -> int:
        return 1

    assert "parameters 'ctx' and 'other' both take RunContext; leave one out" in problems_of(greedy)[0]


def test_steps_that_want_different_run_inputs_are_named_with_both_types() -> None:
    @step
    async def number(value: int) -> int:
        return value

    [problem] = problems_of(Pipeline(fetch, number))
    assert "steps 'fetch' and 'number' take the run input as str and as int; no value is both" in problem


def test_the_run_input_must_fit_every_step_that_takes_it() -> None:
    async def one(value: int | str) -> None: ...
    async def other(value: str | bytes) -> None: ...
    async def third(value: Annotated[str, Field(min_length=2)]) -> None: ...

    flujo = Flujo(Pipeline(Step(one), Step(other), Step(third)))
    assert flujo.plan.input_type == Annotated[str, Field(min_length=2)] or "min_length" in str(flujo.plan.input_type)
    with pytest.raises(InputError, match="at least 2"):
        flujo.run("x")


def test_every_problem_is_told_at_once() -> None:
    @step
    async def secret(pool: Pool, extra: int) -> str:
        return ""

    found = problems_of(
        Pipeline(
            fetch,
            Step(fetch),
            Step(count, inputs={"page": "fetsh"}),
            Step(classify, inputs={"pag": fetch}),
            Step(write, inputs={"label": fetch.output, "question": run_input()}, writes="note"),
            secret,
            Step(count, name="one", inputs={"page": "two"}),
            Step(fetch, name="two", inputs={"url": "one"}),
            output="nothing",
        )
    )
    text = "\n".join(found)
    for words in (
        "two steps are called 'fetch'", "unknown step 'fetsh'", "no input 'pag'", "step 'secret' gets nothing",
        "step 'one' gives int, but input 'url' of step 'two' takes str", "output names an unknown step 'nothing'",
        "declares context field 'note'; there is no context model", "in a circle: 'one' -> 'two' -> 'one'",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("source", [fetch.function, 3, None, [fetch]], ids=lambda it: type(it).__name__)
def test_what_is_no_pipeline_is_refused_with_the_way_out(source: Any) -> None:
    with pytest.raises(PipelineError, match="neither a step nor a chain"):
        compile_plan(source)
    with pytest.raises(PipelineError, match="neither a step nor a chain"):
        Pipeline(fetch, source)


def test_an_empty_pipeline_is_refused() -> None:
    assert problems_of(Pipeline()) == ["it has no steps; give at least one"]


# --- injection --------------------------------------------------------------------------------------------------------


async def test_context_resources_and_run_context_are_injected_by_annotation_even_where_optional() -> None:
    @step(writes="note")
    async def all_of_it(
        page: str,
        ctx: RunContext | None = None,
        notes: Notes | None = None,
        pool: Queries | None = None,
        *,
        everything: AppResources,
    ) -> Update[str]:
        assert ctx is not None
        assert notes is not None
        assert pool is everything.pool
        return Update(f"{page} {ctx.step_path} {notes.count} {pool.query()}", note="seen")

    flujo = Flujo(all_of_it, resources=AppResources(), context_model=Notes)
    result = await flujo.run_async("p", context=Notes(count=4))
    assert (result.output, result.context) == ("p all_of_it 4 rows", Notes(note="seen", count=4))


async def test_a_parameter_without_annotation_takes_the_resource_of_its_name() -> None:
    async def find(page, pool):  # type: ignore[no-untyped-def]
        return page + pool.query()

    assert (await Flujo(Step(find), resources=AppResources()).run_async("p")).output == "prows"


async def test_literals_flow_into_wider_literals() -> None:
    @step
    async def pick(page: str) -> Literal["good", "bad"]:
        return "good"

    @step
    async def use(verdict: Literal["good"] | Literal["bad"] | None) -> str:
        return str(verdict)

    assert (await Flujo(pick >> use).run_async("p")).output == "good"


async def test_a_typed_dict_flows_and_is_checked_when_it_is_given() -> None:
    @step
    async def make(page: str) -> Row:
        return {"id": len(page)}

    @step
    async def wrong(page: str) -> Row:
        return page  # type: ignore[return-value]

    @step
    async def use(row: Row) -> int:
        return row["id"]

    assert (await Flujo(make >> use).run_async("abc")).output == 3
    assert "it returned str, declared is Row" in str((await Flujo(wrong >> use).run_async("abc")).error)


# --- order and size ---------------------------------------------------------------------------------------------------


def test_steps_stand_in_declared_order_where_their_edges_allow() -> None:
    names = [f"s{i}" for i in range(5)]
    a, b, c, d, e = (Step(fetch, name=name) for name in names)
    late = Step(fetch, name="late", inputs={"url": "early"})
    early = Step(fetch, name="early")
    assert [node.path for node in compile_plan(Pipeline(a >> b >> c, d >> e)).nodes] == names
    assert [node.path for node in compile_plan(Pipeline(late, a, early)).nodes] == ["s0", "early", "late"]


def row(length: int, **options: Any) -> Chain:
    chain: Step | Chain = Step(fetch, name="first", **options)
    for number in range(length - 1):
        chain = chain >> Step(fetch, name=f"s{number}", **options)
    assert isinstance(chain, Chain)
    return chain


@pytest.mark.alone
@pytest.mark.parametrize("options", [{}, {"writes": "note"}], ids=["plain", "writing"])
def test_compiling_and_the_fingerprint_are_linear_in_the_number_of_steps(options: dict[str, Any]) -> None:
    def seconds(length: int) -> float:
        chain = row(length, **options)
        start = time.process_time()
        plan = compile_plan(chain, context_model=Notes)
        assert len(plan.fingerprint) == 64
        return time.process_time() - start

    seconds(100)
    small, large = min(seconds(1_000) for _ in range(3)), seconds(10_000)
    assert large < 30 * small  # ten times the steps; quadratic work would be a hundred times


@pytest.mark.alone
def test_a_wide_pipeline_compiles_as_well() -> None:
    start = time.process_time()
    heads = [Step(fetch, name=f"s{i}") for i in range(5_000)]
    plan = compile_plan(Pipeline(*heads))
    assert len(plan.output) == 5_000  # type: ignore[arg-type]
    assert time.process_time() - start < 5
