"""Default: a checklist, an answer, its validation, what to do better, and another answer, until it is good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict

from flujo.core import Agent, Loop, Pipeline, Step, UsageLimits, run_input

from .agents import agent
from .checks import Validator, not_callable, problems_of
from .errors import AgentFault
from .parts import Players, own, whole
from .prompts import prompt_of
from .roles import Checklist, Draft, Judged, Reflection, ReflectionAgent, ReviewAgent, Validation, ValidatorAgent
from .spec import AgentOptions

if TYPE_CHECKING:
    from pydantic_ai.models import Model

__all__ = ["Default", "Solution"]

T = TypeVar("T")


class Solution(BaseModel, Generic[T]):
    """What the recipe `Default` gives.

    Attributes:
        answer: The answer with the best score; of two, the later.
        score: Weight of what it meets as a share of the checklist, 0 to 1.
        failed: What it does not meet, one sentence each.
        checklist: By what it was judged.
        attempts: How many answers were made.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    answer: T
    score: float
    failed: list[str]
    checklist: Checklist
    attempts: int


class Work(BaseModel, Generic[T]):
    """Where the work on a task stands, between two answers."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    task: str
    checklist: Checklist
    last: Judged[T] | None = None
    best: Judged[T] | None = None
    reflection: Reflection | None = None


class Default(Pipeline):
    """Answers a task, and gives the answer with its score: review, solution, validation, reflection.

    `review` makes a checklist of the task. Then, up to `max_attempts` times: `solution` answers, `validate` says which
    criteria the answer meets, and, where these are not enough, `reflect` says what to do otherwise. The run fails where
    the best answer has less than `min_score`; its history keeps every answer.

    Args:
        model: Plays every role that nobody else is named for; as for `agent`.
        instructions: What the solving model is told beside the task.
        output_type: What the solving model gives.
        reviewer: Plays `review`: a model, or an agent, function or step of your own, which is given the task and gives
            a `Checklist`. A `Checklist` itself holds for every task, and no model is asked for one.
        solver: Plays `solution`: is given the task, the criteria and what was wrong before, as a text.
        validator: Plays `validate`: is given a `Draft` and gives a `Validation`.
        reflector: Plays `reflect`: is given a `Judged` and gives a `Reflection`.
        validate: Your own functions that say what is wrong with an answer; each finding counts as a criterion failed.
        max_attempts: Most answers.
        target_score: The score that is good enough, from 0 to 1.
        min_score: The score below which the run fails; left out, the target.
        limits: Limits of each run, under those of the Flujo.
        name: Name of the pipeline.
        **options: As for `agent`; they hold for every role that a model plays, `tools` for `solution` only.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        instructions: str = "",
        output_type: Any = str,
        reviewer: str | Model | Agent | Step | Callable[..., object] | Checklist | None = None,
        solver: str | Model | Agent | Step | Callable[..., object] | None = None,
        validator: str | Model | Agent | Step | Callable[..., object] | None = None,
        reflector: str | Model | Agent | Step | Callable[..., object] | None = None,
        validate: Validator[Any] | Sequence[Validator[Any]] = (),
        max_attempts: int = 3,
        target_score: float = 1.0,
        min_score: float | None = None,
        limits: UsageLimits | None = None,
        name: str = "default",
        **options: Unpack[AgentOptions],
    ) -> None:
        least = target_score if min_score is None else min_score
        checks = tuple(validate) if isinstance(validate, Sequence) else (validate,)
        players = Players()
        players.problems += _problems(checks, max_attempts, target_score, least)
        others: AgentOptions = {**options, "tools": ()}

        def solves(played: Any) -> Any:
            return agent(played, instructions=instructions, output_type=output_type, name="solution", **options)

        review = (
            _given(reviewer)
            if isinstance(reviewer, Checklist)
            else players.step("review", reviewer or model, lambda one: ReviewAgent(one, **others))
        )
        solution = players.step("solution", solver or model, solves)
        valid = players.step("validate", validator or model, lambda one: ValidatorAgent(one, **others))
        reflect = players.step("reflect", reflector or model, lambda one: ReflectionAgent(one, **others))
        players.check(f"recipe {name!r}", limits, options)
        goals = _Goals(checks, max_attempts, target_score, least)
        types = _Types(solution.signature().output)
        begun = _begin(types, review)
        attempts = Loop(_attempt(types, goals, solution, valid, reflect), goals.over, max_attempts, name="attempts")
        super().__init__(review, begun >> attempts >> _answer(types, goals), name=name, limits=limits)


def _problems(checks: Sequence[object], most: object, target: object, least: object) -> list[str]:
    problems = not_callable(checks, "validator")
    whole(problems, 1, max_attempts=most)
    for word, share in (("target_score", target), ("min_score", least)):
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share <= 1:
            problems.append(f"{word}={share!r} must be from 0 to 1")
    if not problems and least > target:  # type: ignore[operator]  # both are numbers here
        problems.append(f"min_score={least!r} is above target_score={target!r}, at which the work stops")
    return problems


@dataclass(frozen=True, slots=True)
class _Goals:
    checks: tuple[Validator[Any], ...]
    most: int
    target: float
    least: float

    def over(self, work: Work[Any]) -> bool:
        """Whether no further answer is wanted."""
        return work.last is not None and not self.goes_on(work.last)

    def goes_on(self, judged: Judged[Any]) -> bool:
        """Whether a further answer is wanted after this one."""
        return judged.score < self.target and judged.attempt < self.most


class _Types:
    """What is passed between the steps, by the type of the answer: known when a recipe is built, so here it is Any."""

    def __init__(self, answer: Any) -> None:
        self.answer: Any = answer
        self.work: Any = Work[answer]
        self.draft: Any = Draft[answer]
        self.judged: Any = Judged[answer]
        self.solution: Any = Solution[answer]


def _given(checklist: Checklist) -> Step:
    async def review(task: object) -> Checklist:
        return checklist

    return Step(review)


def _begin(types: _Types, review: Step) -> Step:
    async def begin(task: object, checklist: Checklist) -> object:
        return types.work(task=prompt_of(task, "solution"), checklist=checklist)

    takes: dict[str, object] = {"task": object, "checklist": Checklist}
    return own(begin, takes, types.work, inputs={"task": run_input(), "checklist": review})


def _attempt(types: _Types, goals: _Goals, solution: Step, valid: Step, reflect: Step) -> Pipeline:
    """One attempt: from where the work stands to where it stands after a further answer."""

    async def brief(work: Work[Any]) -> str:
        return _brief(work)

    async def draft(work: Work[Any], answer: object) -> object:
        return types.draft(task=work.task, answer=answer, checklist=work.checklist)

    async def score(work: Work[Any], draft: Draft[Any], validation: Validation) -> object:
        found = await problems_of(draft.answer, goals.checks)
        return types.judged(
            task=work.task,
            answer=draft.answer,
            score=validation.score(work.checklist, len(found)),
            failed=[*found, *validation.failed(work.checklist)],
            attempt=1 if work.last is None else work.last.attempt + 1,
        )

    async def compare(work: Work[Any], judged: Judged[Any], reflection: Reflection | None) -> object:
        best = judged if work.best is None or judged.score >= work.best.score else work.best
        return work.model_copy(update={"last": judged, "best": best, "reflection": reflection})

    work, takes = run_input(), {"work": types.work}
    briefed = own(brief, takes, str)
    drafted = own(draft, {**takes, "answer": types.answer}, types.draft, inputs={"work": work, "answer": solution})
    scored = own(
        score,
        {**takes, "draft": types.draft, "validation": Validation},
        types.judged,
        inputs={"work": work, "draft": drafted, "validation": valid},
    )
    reflected = Step(reflect, when=goals.goes_on)
    compared = own(
        compare,
        {**takes, "judged": types.judged, "reflection": Reflection | None},
        types.work,
        inputs={"work": work, "judged": scored, "reflection": reflected},
    )
    return Pipeline(briefed >> solution, drafted >> valid, scored >> reflected, compared, name="attempt")


def _brief(work: Work[Any]) -> str:
    """What the solver is given."""
    criteria = "\n".join(f"- {criterion.text}" for criterion in work.checklist.criteria)
    said = [work.task, f"Your answer will be judged by this:\n{criteria}"]
    if work.last is not None:
        failed = "\n".join(f"- {problem}" for problem in work.last.failed)
        said.append(f"Your last answer:\n{prompt_of(work.last.answer, 'solution')}")
        said.append(f"What is wrong with it:\n{failed}")
    if work.reflection is not None:
        changes = "\n".join(f"- {change}" for change in work.reflection.changes)
        said.append(f"Why it failed: {work.reflection.cause}\nWhat to do otherwise:\n{changes}")
    return "\n\n".join(said if work.last is None else [*said, "Answer again, in full."])


def _answer(types: _Types, goals: _Goals) -> Step:
    async def answer(work: Work[Any]) -> object:
        best, last = work.best, work.last
        assert best is not None  # the loop ends after an attempt only
        assert last is not None
        if best.score < goals.least:
            what = f"the best of {last.attempt} answers has a score of {best.score:.2f}, below {goals.least:.2f}"
            do = "Change the task, take a better model, allow more attempts, or lower min_score"
            raise AgentFault(what, "; ".join(best.failed), do)
        return types.solution(
            answer=best.answer, score=best.score, failed=best.failed, checklist=work.checklist, attempts=last.attempt
        )

    return own(answer, {"work": types.work}, types.solution)
