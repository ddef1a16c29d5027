"""Steps: whatever can be called may be one, its options are checked at once, and `>>` joins them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import Field

from flujo.core import Flujo, NotSent, PipelineError, RetryPolicy, Step, Update, compile_plan, run_input, step
from flujo.core.steps import Chain, ref_parts

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = pytest.mark.anyio


POSITIVE = Annotated[int, Field(gt=0)]


@step
async def double(value: int) -> int:
    return 2 * value


async def shout(text: str, mark: str = "!") -> str:
    return text.upper() + mark


async def behind(text: str, mark: str = "?", *, times: int = 1) -> str:
    return text + mark * times


def positional(a: int, /, b: int = 1) -> int:
    return a - b


def plain(text: str) -> str:
    return text + "."


async def wanting(it: Decimal) -> int:
    return int(it)


class Agent:
    """An object with `async def run`."""

    name = "echo"

    async def run(self, text: str) -> str:
        return f"echo {text}"

    @staticmethod
    async def loud(text: str) -> str:
        return text.upper()

    @classmethod
    async def of_class(cls, text: str) -> str:
        return cls.name + text

    async def method(self, text: str) -> str:
        return f"method {text}"


class Callable_:
    def __call__(self, text: str) -> str:
        return f"called {text}"


class AsyncCallable:
    async def __call__(self, text: str) -> str:
        return f"awaited {text}"


def logged(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


CALLABLES: list[tuple[object, str, str]] = [
    (shout, "shout", "X!"),
    (plain, "plain", "x."),
    (behind, "behind", "x?"),
    (functools.partial(shout, mark="?"), "shout", "X?"),
    (functools.partial(functools.partial(behind, mark="#"), times=2), "behind", "x##"),
    (functools.partial(plain), "plain", "x."),
    (functools.partial(Callable_()), "Callable_", "called x"),
    (Agent(), "echo", "echo x"),
    (Agent().method, "method", "method x"),
    (Agent.loud, "loud", "X"),
    (Agent.__dict__["loud"], "loud", "X"),
    (Agent.of_class, "of_class", "echox"),
    (Callable_(), "Callable_", "called x"),
    (AsyncCallable(), "AsyncCallable", "awaited x"),
    (logged(shout), "shout", "X!"),
    (functools.lru_cache(plain), "plain", "x."),
]


@pytest.mark.parametrize(("target", "name", "output"), CALLABLES, ids=[str(n) for _, n, _ in CALLABLES])
async def test_whatever_can_be_called_is_a_step_with_a_name(target: object, name: str, output: str) -> None:
    it = Step(target)
    result = await Flujo(it).run_async("x")
    assert (it.name, str(result.unwrap())) == (name, output)


async def test_a_lambda_is_a_step_under_a_given_name() -> None:
    assert (await Flujo(Step(lambda text: text + "-", name="dash")).run_async("x")).output == "x-"
    with pytest.raises(PipelineError, match=r"name='\.\.\.'"):
        Step(lambda text: text)


@pytest.mark.parametrize(
    "target", [3, "shout", None, Agent, classmethod(shout), object(), [shout]], ids=lambda it: type(it).__name__
)
def test_what_cannot_be_called_is_refused_with_the_way_out(target: object) -> None:
    with pytest.raises(PipelineError, match=r"a step is a function or an object with an `async def run`; .+"):
        Step(target)


def test_a_message_about_an_object_does_not_print_the_object() -> None:
    with pytest.raises(PipelineError) as caught:
        Step(["sk-verysecret"])
    assert "verysecret" not in str(caught.value)


def test_generators_are_refused() -> None:
    def numbers(value: int) -> Any:
        yield value

    async def later(value: int) -> Any:
        yield value

    for target in (numbers, later, functools.partial(numbers, 1)):
        with pytest.raises(PipelineError, match="it is a generator"):
            Step(target)


def test_a_partial_takes_what_it_has_filled_away_from_the_inputs() -> None:
    assert list(Step(functools.partial(shout, mark="?")).signature().parameters) == ["text"]
    assert list(Step(functools.partial(behind, "x")).signature().parameters) == ["mark", "times"]


@pytest.mark.parametrize("target", [len, str.title, positional])
def test_a_positional_only_parameter_is_refused_with_the_way_out(target: object) -> None:
    with pytest.raises(PipelineError, match=r"'\w+' is positional-only, .*; wrap it in a function without `/`"):
        compile_plan(Step(target))
    assert Step(functools.partial(positional, 10)).signature().parameters == {"b": int}


def test_variadic_and_missing_annotations_are_read_as_they_are() -> None:
    def loose(value, *rest, flag=False, **more):  # type: ignore[no-untyped-def]
        return value

    signature = Step(loose).signature()
    assert signature.parameters == {"value": Any, "flag": Any}
    assert (signature.optional, signature.output) == ({"flag"}, Any)


async def test_annotations_of_a_local_function_may_name_local_classes() -> None:
    @dataclass
    class Local:
        size: int

    @step
    async def make(size: int) -> Local:
        return Local(size)

    def outer() -> Step:
        @step
        async def grow(it: Local) -> int:
            return it.size + 1

        return grow

    assert make.signature().output is Local
    assert (await Flujo(make >> outer()).run_async(1)).output == 2


def test_an_annotation_that_exists_only_for_type_checkers_is_named_with_the_way_out() -> None:
    with pytest.raises(PipelineError, match=r"step 'wanting' cannot be read: .*'Decimal'.*import it at run time"):
        compile_plan(Step(wanting))


def test_a_builtin_that_does_not_tell_its_parameters_is_to_be_wrapped() -> None:
    with pytest.raises(PipelineError, match=r"step 'max' cannot be read: .*wrap it in a function"):
        compile_plan(Step(max))


def test_constraints_of_annotated_inputs_are_kept() -> None:
    async def positive(value: POSITIVE) -> Annotated[Update[int], "note"]:
        return Update(value)

    signature = Step(positive).signature()
    assert signature.parameters["value"] is POSITIVE
    assert signature.output is int


def test_an_update_is_unwrapped_wherever_it_stands() -> None:
    async def one(value: int) -> Update[str] | None: ...
    async def two(value: int) -> Update[int] | Update[str]: ...
    async def bare(value: int) -> Update: ...  # type: ignore[type-arg]

    assert Step(one).signature().output == str | None
    assert Step(two).signature().output == int | str
    assert Step(bare).signature().output is Any


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout_s": 0}, "timeout_s=0 must be seconds above 0"),
        ({"timeout_s": float("nan")}, "timeout_s=nan"),
        ({"timeout_s": "3"}, "timeout_s='3'"),
        ({"timeout_s": True}, "timeout_s=True"),
        ({"retry": 3}, "RetryPolicy"),
        ({"limits": 3}, "UsageLimits"),
        ({"inputs": ["page"]}, "inputs= is a dict"),
        ({"effect": "twice"}, "effect='twice' must be one of"),
        ({"version": "2"}, "version='2'"),
        ({"writes": 3}, "names of context fields"),
        ({"reads": [3]}, "names of context fields"),
        ({"name": ""}, "not empty"),
        ({"name": "  "}, "not empty"),
        ({"name": "a/b"}, "no '/'"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "\ud800"}, "printable"),
        ({"name": 3}, "printable text"),
        ({"effect": "at_most_once", "retry": RetryPolicy()}, r"retry_on=\(NotSent,\)"),
        ({"retrys": None}, "did you mean 'retry'"),
        ({"colour": None}, "there are: 'inputs', 'retry'"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_used_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        Step(shout, **options)


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(PipelineError) as caught:
        Step(shout, name="a/b", timeout_s=-1, retry=3, version=None)
    assert len(caught.value.problems) == 4


def test_a_blocking_step_cannot_have_a_timeout_that_would_never_fire() -> None:
    with pytest.raises(PipelineError, match="inline=True blocks"):
        Step(plain, inline=True, timeout_s=1)
    assert not Step(shout, inline=True, timeout_s=1).needs_thread
    assert Step(plain, timeout_s=1).needs_thread


def test_an_at_most_once_step_may_be_tried_again_only_when_nothing_was_sent() -> None:
    for retry in (RetryPolicy(retry_on=(NotSent,)), RetryPolicy(max_attempts=1)):
        assert Step(shout, effect="at_most_once", retry=retry).options.retry is retry
    with pytest.raises(PipelineError, match="it is at_most_once and would be tried again"):
        Step(shout, effect="at_most_once", retry=RetryPolicy(retry_on=(NotSent, OSError)))


@pytest.mark.parametrize("name", ["größe 7", "a.b", "x#2", "map[3]", "日本", 'it\'s "quoted"', "<b>"])
async def test_names_may_be_odd(name: str) -> None:
    result = await Flujo(Step(shout, name=name)).run_async("x")
    assert [record.path for record in result.step_history] == [name]


def test_a_step_can_be_taken_over_under_another_name_and_with_other_options() -> None:
    first = Step(shout, timeout_s=3, writes="note")
    second = Step(first, name="again", version=2)
    assert (second.name, second.options.timeout_s, second.options.version) == ("again", 3, 2)
    assert (second.options.writes, first.options.version, Step(first).name) == (("note",), 1, "shout")
    assert Step(shout, reads=["a", "b"]).options.reads == ("a", "b")


def test_a_decorated_function_can_be_called_as_before() -> None:
    @step(version=2)
    def half(value: int, /) -> int:
        return value // 2

    assert half(4) == 2
    assert repr(half) == "Step('half')"


# --- joining ----------------------------------------------------------------------------------------------------------


def test_a_row_is_the_same_however_it_is_bracketed() -> None:
    a, b, c, d = (Step(shout, name=name) for name in "abcd")
    for row in (a >> b >> c >> d, a >> (b >> (c >> d)), (a >> b) >> (c >> d)):
        assert row.nodes == (a, b, c, d)
        assert repr(row) == "Chain('a' >> 'b' >> 'c' >> 'd')"


def test_a_join_leaves_both_its_sides_as_they_were() -> None:
    a, b, c = (Step(shout, name=name) for name in "abc")
    start = a >> b
    first, second = start >> c, start >> a
    assert (start.nodes, first.nodes, second.nodes) == ((a, b), (a, b, c), (a, b, a))


async def test_an_agent_joins_as_a_step_on_either_side() -> None:
    assert (await Flujo(Agent() >> Step(shout)).run_async("x")).output == "ECHO X!"
    assert (await Flujo(Step(shout) >> Agent()).run_async("x")).output == "echo X!"
    assert (await Flujo(Agent() >> (Step(shout) >> Step(plain))).run_async("x")).output == "ECHO X!."


@pytest.mark.parametrize("other", [shout, plain, "text", None, Agent], ids=lambda it: type(it).__name__)
def test_what_is_no_step_is_refused_on_either_side_with_the_way_out(other: Any) -> None:
    for join in (lambda: double >> other, lambda: other >> double, lambda: (double >> double) >> other):
        with pytest.raises(PipelineError, match=r"cannot be joined with >>: .*Step\(function\)"):
            join()


def test_a_very_long_row_is_built_flattened_and_dropped_without_recursion() -> None:
    row: Step | Chain = double
    for _ in range(100_000):
        row = row >> double
    nested: Step | Chain = double
    for _ in range(100_000):
        nested = double >> nested
    assert isinstance(row, Chain)
    assert isinstance(nested, Chain)
    assert len(row.nodes) == len(nested.nodes) == 100_001
    del row, nested


# --- references -------------------------------------------------------------------------------------------------------


def test_a_reference_remembers_its_path() -> None:
    ref = double.output.items[0]["a"]
    assert ref_parts(ref) == (double, ("items", 0, "a"))
    assert (repr(ref), repr(run_input().x)) == ("double.output.items[0].a", "run_input().x")
    with pytest.raises(AttributeError):
        _ = ref._private


def test_a_reference_cannot_be_walked_through_without_an_end() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(double.output)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        _ = 3 in double.output  # type: ignore[operator]
    with pytest.raises(PipelineError, match="a text or a whole number"):
        double.output[1:2]  # type: ignore[index]
