"""Roles: agents with a fixed kind of work and a typed output, of which recipes are made.

A review says what a good answer must be, before there is one; a validation says of an answer which of that holds; a
reflection says what to do better. Each role is an agent by itself: `Step(ReviewAgent(...))`, or `>>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict, Field

from .agents import ModelAgent, runner_maker
from .spec import AgentOptions, AgentSpec

if TYPE_CHECKING:
    from pydantic_ai.models import Model

__all__ = [
    "Checklist",
    "Criterion",
    "CriterionResult",
    "Draft",
    "Judged",
    "Reflection",
    "ReflectionAgent",
    "ReviewAgent",
    "Validation",
    "ValidatorAgent",
]

T = TypeVar("T")

Sentence = Annotated[str, Field(max_length=300)]
_FROZEN = ConfigDict(frozen=True)

REVIEWER = """You are given a task. Do not solve it. List the criteria by which an answer to it must be judged: each one
sentence that is either met or not, and a weight from 1 to 5 for how much it matters. Name no criterion twice."""

VALIDATOR = """You are given a task, an answer to it, and a checklist. For each criterion of the checklist say, by its
number, counted from 1, whether the answer meets it, and why in one sentence. Judge strictly by what the answer says."""

REFLECTOR = """You are given a task, an answer that failed, and what failed in it. Say in one sentence what caused that,
and list what is to be done otherwise in the next answer. Do not solve the task."""


class Criterion(BaseModel):
    """Something an answer must meet.

    Attributes:
        text: What, in one sentence.
        weight: How much it matters, 1 to 5.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    text: Sentence
    weight: int = Field(default=1, ge=1, le=5)


class Checklist(BaseModel):
    """By what an answer is judged.

    Attributes:
        criteria: 1 to 12 of them, known by their number from 1.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    criteria: list[Criterion] = Field(min_length=1, max_length=12)


class CriterionResult(BaseModel):
    """Whether an answer meets a criterion.

    Attributes:
        number: Number of the criterion in the checklist, from 1.
        passed: Whether it is met.
        why: The reason, in one sentence.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    number: int
    passed: bool
    why: Sentence = ""


class Validation(BaseModel):
    """What a validator says of an answer; a criterion that it does not name is not met.

    Attributes:
        results: One for each criterion.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    results: list[CriterionResult] = Field(max_length=24)

    def passed(self, number: int) -> bool:
        """Whether a criterion is met: something says so, and nothing says otherwise."""
        said = [result.passed for result in self.results if result.number == number]
        return bool(said) and all(said)

    def failed(self, checklist: Checklist) -> Iterator[str]:
        """What is not met, and why."""
        for number, criterion in enumerate(checklist.criteria, 1):
            if not self.passed(number):
                said = (result.why for result in self.results if result.number == number and not result.passed)
                why = next(said, "it was not judged") or "no reason was given"
                yield f"{criterion.text} ({why})"

    def score(self, checklist: Checklist, others: int = 0) -> float:
        """The weight of what is met as a share of all, 0 to 1; `others` is what else failed, of weight 1 each."""
        whole = sum(criterion.weight for criterion in checklist.criteria) + others
        met = sum(one.weight for number, one in enumerate(checklist.criteria, 1) if self.passed(number))
        return met / whole


class Reflection(BaseModel):
    """What is to be learnt from an answer that failed.

    Attributes:
        cause: Why it failed.
        changes: What to do otherwise.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    cause: Sentence
    changes: list[Sentence] = Field(max_length=8)


class Draft(BaseModel, Generic[T]):
    """An answer before it is judged: what a validator is given.

    Attributes:
        task: The task.
        answer: The answer.
        checklist: By what it is judged.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    task: str
    answer: T
    checklist: Checklist


class Judged(BaseModel, Generic[T]):
    """A judged answer: what a reflecting agent is given.

    Attributes:
        task: The task.
        answer: The answer.
        score: Share of the checklist that it meets, 0 to 1.
        failed: What it does not meet, and why; one sentence each.
        attempt: Number of the answer, from 1.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    task: str
    answer: T
    score: float
    failed: list[str]
    attempt: int = 1


class ReviewAgent(ModelAgent[Checklist]):
    """Makes a checklist of a task: by what an answer to it must be judged.

    Args:
        model: As for `agent`.
        instructions: What it is told beside its role, e.g. criteria that always hold.
        name: Name of the agent, and of its step.
        **options: As for `agent`.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """

    def __init__(
        self, model: str | Model, *, instructions: str = "", name: str = "review", **options: Unpack[AgentOptions]
    ) -> None:
        _become(self, _spec(model, name, (REVIEWER, instructions), Checklist, options))


class ValidatorAgent(ModelAgent[Validation]):
    """Says of an answer which criteria of a checklist it meets. It is given a `Draft`, or anything that says as much.

    Args:
        model: As for `agent`; another one than the one that answers finds more.
        instructions: What it is told beside its role.
        name: Name of the agent, and of its step.
        **options: As for `agent`.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """

    def __init__(
        self, model: str | Model, *, instructions: str = "", name: str = "validate", **options: Unpack[AgentOptions]
    ) -> None:
        _become(self, _spec(model, name, (VALIDATOR, instructions), Validation, options))


class ReflectionAgent(ModelAgent[Reflection]):
    """Says what is to be learnt from an answer that failed. It is given a `Judged`, or anything that says as much.

    Args:
        model: As for `agent`.
        instructions: What it is told beside its role.
        name: Name of the agent, and of its step.
        **options: As for `agent`.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """

    def __init__(
        self, model: str | Model, *, instructions: str = "", name: str = "reflect", **options: Unpack[AgentOptions]
    ) -> None:
        _become(self, _spec(model, name, (REFLECTOR, instructions), Reflection, options))


def _spec(
    model: str | Model, name: str, instructions: tuple[str, str], output_type: Any, options: AgentOptions
) -> AgentSpec:
    said = "\n\n".join(part for part in instructions if part)
    return AgentSpec.of(model, name, said, output_type, options).check()


def _become(agent: ModelAgent[Any], spec: AgentSpec) -> None:
    ModelAgent.__init__(
        agent, spec.name, spec.output_type, runner_maker(spec), context_model=spec.context_model, reads=spec.reads
    )
