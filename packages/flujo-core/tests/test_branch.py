"""`Branch`: which case runs, what it is given, what it gives, and what is refused before anything runs."""

from __future__ import annotations

import enum
from typing import Any

import anyio
import pytest
from stable_ids import shown

from flujo.core import Branch, Flujo, Pipeline, PipelineError, Step, StepFailed, compile_plan, run_input, step

pytestmark = pytest.mark.anyio


class Tone(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def negate(value: int) -> int:
    return -value


@step
async def text(value: int) -> str:
    return f"<{value}>"


@step
async def upper(word: str) -> str:
    return word.upper()


@step
async def fail(value: int) -> int:
    raise ValueError(f"no good: {value}")


def sign(value: int) -> str:
    return "plus" if value >= 0 else "minus"


def by_sign(**options: Any) -> Branch:
    return Branch(on=sign, cases={"plus": double, "minus": negate}, **options)


def problems_of(make: Any, **options: Any) -> list[str]:
    """What is wrong with what `make` makes, whether it shows when it is made or when it is compiled."""
    with pytest.raises(PipelineError) as caught:
        compile_plan(make(), **options)
    return list(caught.value.problems)


# --- which case -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "output", "path"), [(3, 6, "branch[plus]/double"), (-3, 3, "branch[minus]/negate")])
async def test_only_the_case_of_the_label_runs(value: int, output: int, path: str) -> None:
    result = await Flujo(by_sign()).run_async(value)
    assert result.output == output
    assert [(r.path, r.status) for r in result.step_history] == [(path, "completed")]


@pytest.mark.parametrize("label", ["a", "", "a/b", "x]", 0, 7, -1, True, False, None, Tone.GOOD], ids=repr)
async def test_a_label_is_a_text_a_number_a_truth_nothing_or_a_member_of_an_enum(label: Any) -> None:
    branch = Branch(on=lambda value: label, cases={label: double}, otherwise=negate)
    result = await Flujo(branch).run_async(3)
    assert result.output == 6


async def test_labels_of_several_kinds_stand_side_by_side() -> None:
    labels = ["good", 2, None, Tone.GOOD, Tone.BAD]

    def case(number: int) -> Step:
        async def give(value: int) -> int:
            return number

        return Step(give)

    flujo = Flujo(Branch(on=lambda value: labels[value], cases={label: case(n) for n, label in enumerate(labels)}))
    assert [(await flujo.run_async(n)).output for n in range(len(labels))] == list(range(len(labels)))


async def test_otherwise_takes_what_no_case_takes() -> None:
    flujo = Flujo(Branch(on=lambda value: "zero" if value == 0 else "other", cases={"zero": double}, otherwise=negate))
    result = await flujo.run_async(5)
    assert result.output == -5
    assert result.step_history[0].path == "branch[otherwise]/negate"


async def test_no_case_and_no_otherwise_is_a_failure_that_names_the_label_and_the_cases() -> None:
    result = await Flujo(double >> Branch(on=lambda value: "odd", cases={"plus": double, "minus": negate})).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "NoCase"
    assert result.error.step_path == "branch"
    for word in ("str", "'plus'", "'minus'", "otherwise"):
        assert word in str(result.error)
    assert "odd" not in str(result.error), "a label may be private"
    assert result.step_history[0].output == 2, "what was done before is kept"


async def test_what_the_label_is_chosen_by_may_be_async() -> None:
    async def later(value: int) -> str:
        await anyio.lowlevel.checkpoint()
        return sign(value)

    result = await Flujo(Branch(on=later, cases={"plus": double, "minus": negate})).run_async(-4)
    assert result.output == 4


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after a wait"])
async def test_a_fault_of_on_is_a_failure_of_the_branch_and_no_case_runs(late: bool) -> None:
    ran = []

    async def note(value: int) -> int:
        ran.append(value)
        return value

    def on(value: int) -> str:
        raise KeyError(f"lost {value}")

    async def on_late(value: int) -> str:
        await anyio.lowlevel.checkpoint()
        return on(value)

    branch = Branch(on=on_late if late else on, cases={"a": Step(note)}, otherwise=Step(note, name="other"))
    result = await Flujo(double >> branch).run_async(4)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert (result.error.step_path, result.error.error_type) == ("branch", "KeyError")
    assert isinstance(result.error.__cause__, KeyError)
    assert "lost 8" in str(result.error)
    assert ran == []


@pytest.mark.parametrize("label", [["a"], {"a": 1}, {1}], ids=repr)
async def test_a_label_that_cannot_be_one_is_a_failure_and_not_a_crash(label: Any) -> None:
    result = await Flujo(Branch(on=lambda value: label, cases={"a": double})).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "branch"
    assert "on" in str(result.error)


async def test_a_case_that_fails_fails_the_branch_at_its_own_place() -> None:
    result = await Flujo(Branch(on=sign, cases={"plus": fail}) >> double).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "branch[plus]/fail"
    assert [r.name for r in result.step_history] == ["fail"]


# --- cases of every kind ----------------------------------------------------------------------------------------------


async def test_a_case_may_be_a_chain_a_pipeline_an_agent_or_another_branch() -> None:
    class Agent:
        name = "agent"

        async def run(self, value: int) -> int:
            return value + 100

    inner = Branch(on=lambda value: value > 10, cases={True: double, False: negate}, name="inner")
    sub = Pipeline(double >> Step(negate), name="sub")
    cases = {"chain": double >> negate, "pipeline": sub, "agent": Agent(), "branch": inner}
    names = list(cases)
    flujo = Flujo(Branch(on=lambda value: names[value % 4], cases=cases))
    found = {names[n % 4]: await flujo.run_async(n) for n in (4, 5, 6, 7)}
    assert {name: result.output for name, result in found.items()} == {
        "chain": -8, "pipeline": -10, "agent": 106, "branch": -7,
    }  # fmt: skip
    assert [r.path for r in found["chain"].step_history] == ["branch[chain]/double", "branch[chain]/negate"]
    assert [r.path for r in found["branch"].step_history] == ["branch[branch]/inner[False]/negate"]


async def test_run_input_inside_a_case_is_that_of_the_pipeline_around_it() -> None:
    async def both(value: int, first: int) -> tuple[int, int]:
        return value, first

    pair = Step(both, inputs={"value": double, "first": run_input()})
    own = Branch(on=sign, cases={"plus": Pipeline(double, pair, name="sub")})
    assert (await Flujo(negate >> own).run_async(-3)).output == (6, 3), "a pipeline has an input of its own"
    second = Step(both, inputs={"first": run_input()})
    chain = Branch(on=sign, cases={"plus": double >> second})
    assert (await Flujo(negate >> chain).run_async(-3)).output == (6, -3), "a chain has not"


async def test_one_step_may_serve_several_cases_and_names_repeat_between_them() -> None:
    other = Step(negate, name="double")
    flujo = Flujo(Branch(on=lambda value: str(value), cases={"1": double, "2": double, "3": other}))
    outcomes = [await flujo.run_async(n) for n in (1, 2, 3)]
    assert [o.output for o in outcomes] == [2, 4, -3]
    assert [o.step_history[0].path for o in outcomes] == [f"branch[{n}]/double" for n in (1, 2, 3)]


async def test_a_branch_passes_its_output_on_and_another_step_may_read_it() -> None:
    branch = by_sign()

    async def read(a: int, b: int) -> tuple[int, int]:
        return a, b

    reader = Step(read, inputs={"a": branch, "b": branch.output})
    assert (await Flujo(Pipeline(branch, reader)).run_async(-2)).output == (2, 2)
    assert (await Flujo(negate >> by_sign() >> text).run_async(3)).output == "<3>"


async def test_two_branches_of_one_pipeline_are_told_apart_by_their_names() -> None:
    result = await Flujo(by_sign() >> by_sign()).run_async(-1)
    assert [r.path for r in result.step_history] == ["branch[minus]/negate", "branch-2[plus]/double"]
    result = await Flujo(by_sign(name="first") >> by_sign(name="second")).run_async(-1)
    assert [r.path for r in result.step_history] == ["first[minus]/negate", "second[plus]/double"]


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on": sign, "cases": {}}, "case"),
        ({"on": "plus", "cases": {"plus": double}}, "on"),
        ({"on": None, "cases": {"plus": double}}, "on"),
        ({"on": lambda: "plus", "cases": {"plus": double}}, "on"),
        ({"on": lambda a, b, c: "plus", "cases": {"plus": double}}, "on"),
        ({"on": sign, "cases": [double]}, "cases"),
        ({"on": sign, "cases": {"plus": 3}}, "int"),
        ({"on": sign, "cases": {"plus": double.function}}, "double"),
        ({"on": sign, "cases": {1.5: double}}, "1.5"),
        ({"on": sign, "cases": {("a", 1): double}}, "('a', 1)"),
        ({"on": sign, "cases": {"plus": double}, "otherwise": 3}, "int"),
        ({"on": sign, "cases": {"plus": double}, "name": "a/b"}, "name"),
        ({"on": sign, "cases": {"plus": double}, "name": ""}, "name"),
        ({"on": sign, "cases": {"plus": double}, "inputs": 3}, "input"),
    ],
    ids=shown,
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Flujo(Branch(**options))
    assert words in str(caught.value)


def test_a_case_that_does_not_fit_the_input_names_both_sides_and_both_types() -> None:
    [problem] = problems_of(lambda: double >> Branch(on=lambda value: "a", cases={"a": upper}))
    for word in ("'double'", "int", "'branch'", "str"):
        assert word in problem
    [problem] = problems_of(lambda: double >> Branch(on=lambda value: "a", cases={"b": negate}, otherwise=upper))
    for word in ("'branch'", "int", "str"):
        assert word in problem


def test_what_any_case_gives_must_fit_the_step_after_the_branch() -> None:
    mixed = Branch(on=sign, cases={"plus": double, "minus": text})
    [problem] = problems_of(lambda: mixed >> negate)
    for word in ("branch", "str", "'value'", "'negate'", "int"):
        assert word in problem
    compile_plan(Branch(on=sign, cases={"plus": double, "minus": text}) >> Step(lambda value: value, name="any"))


def test_cases_that_want_different_run_inputs_are_refused() -> None:
    [problem] = problems_of(lambda: Branch(on=lambda value: "a", cases={"a": double, "b": upper}))
    assert "int" in problem
    assert "str" in problem


def test_every_problem_of_every_case_is_told_at_once() -> None:
    def build() -> Any:
        cases = {"a": upper, "b": Step(double, inputs={"value": "nowhere"}), "c": text >> negate}
        return double >> Branch(on=sign, cases=cases, otherwise=Pipeline(double, Step(double)))

    found = "\n".join(problems_of(build))
    for words in ("do not fit together", "unknown step 'nowhere'", "'text' gives str", "called 'double'"):
        assert words in found


def test_a_step_inside_a_case_cannot_be_read_from_outside() -> None:
    inside = Step(double, name="inside")
    branch = Branch(on=sign, cases={"plus": inside})
    [problem] = problems_of(lambda: Pipeline(branch, Step(negate, inputs={"value": inside})))
    assert "'inside'" in problem
    assert "'negate'" in problem
