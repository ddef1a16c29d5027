"""Recipes: whole pipelines for what is built again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, Unpack

from pydantic import BaseModel, Field

from flujo.core import Pipeline, PipelineError, RunContext, Step, UsageLimits, run_input

from .agents import ModelAgent, of_spec
from .checks import Validator, not_callable, problems_of
from .errors import AgentFault
from .parts import own, whole
from .prompts import prompt_of
from .spec import AgentOptions, AgentSpec

if TYPE_CHECKING:
    from pydantic_ai.models import Model


__all__ = ["Review", "generate_review_validate"]

T = TypeVar("T")

REVIEWER = """You review an answer to a task. Judge it by these criteria:
{criteria}

Approve it when it meets all of them. Otherwise list what is wrong: one sentence each, saying what to change.
"""


class Review(BaseModel):
    """A reviewer's verdict.

    Attributes:
        approved: Whether the answer meets all criteria.
        problems: What to change, one sentence each; empty where it is approved.
    """

    approved: bool
    problems: list[Annotated[str, Field(max_length=300)]] = Field(max_length=8)


def generate_review_validate(
    model: str | Model,
    *,
    task: str,
    review: str,
    validate: Validator[Any] | Sequence[Validator[Any]] = (),
    output_type: Any = str,
    reviewer: str | Model | None = None,
    max_revisions: int = 2,
    max_repairs: int = 2,
    limits: UsageLimits | None = None,
    name: str = "generate-review-validate",
    **options: Unpack[AgentOptions],
) -> Pipeline:
    """A model's answer that another call of a model approved and your own functions accept.

    Four steps: `generate` an answer to the run's input, `review` it by criteria, `revise` it until the reviewer
    approves, `validate` it. A step that has nothing to do asks no model.

    Args:
        model: Generates and revises; as for `agent`.
        task: What it is to do with the run's input.
        review: The criteria of the reviewer.
        validate: Functions that say what is wrong with an answer; that goes back to the model.
        output_type: What is generated.
        reviewer: Model that reviews; left out, `model` itself.
        max_revisions: How often an answer that was not approved is made again and reviewed again.
        max_repairs: How often an answer that a validator refused is made again.
        limits: Limits of each run, under those of the Flujo.
        name: Name of the pipeline.
        **options: As for `agent`; they hold for both models, `tools` for the generating one only.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """
    validators = tuple(validate) if isinstance(validate, Sequence) else (validate,)
    maker = AgentSpec.of(model, "generate", task, output_type, options)
    others: AgentOptions = {**options, "tools": ()}
    reviewing = REVIEWER.format(criteria=review)
    judge = AgentSpec.of(model if reviewer is None else reviewer, "review", reviewing, Review, others)
    problems = [*maker.problems(), *(problem for problem in judge.problems() if problem not in maker.problems())]
    problems += not_callable(validators, "validator")
    problems += [] if task else ["task= says what the model is to do"]
    problems += [] if review else ["review= says by what criteria answers are reviewed"]
    whole(problems, 0, max_revisions=max_revisions, max_repairs=max_repairs)
    if problems:
        raise PipelineError(f"pipeline {name!r} cannot be built", problems)
    context = options.get("context_model")
    return _pipeline(
        _Parts(of_spec(maker), of_spec(judge), validators, max_revisions, max_repairs, context), limits, name
    )


@dataclass(frozen=True, slots=True)
class _Parts(Generic[T]):
    maker: ModelAgent[T]
    judge: ModelAgent[Review]
    validators: tuple[Validator[T], ...]
    max_revisions: int
    max_repairs: int
    context_model: type[BaseModel] | None

    def step(self, function: Callable[..., object], gives: object, takes: dict[str, object], **inputs: Any) -> Step:
        """A step of this recipe's own; where the agents read the context, it is given that too."""
        known = {} if self.context_model is None else {"context": self.context_model}
        facts = {"task": object, **takes, "ctx": RunContext, **known}
        return own(function, facts, gives, inputs={"task": run_input(), **inputs}, reads=self.maker.reads)

    async def judged(self, task: object, draft: T, ctx: RunContext, *context: object) -> Review:
        asked, answer = prompt_of(task, self.judge.name), prompt_of(draft, self.judge.name)
        return await self.judge.run(f"The task:\n{asked}\n\nThe answer to review:\n{answer}", ctx, *context)

    async def made_again(self, task: object, draft: T, problems: Sequence[str], ctx: RunContext, *context: object) -> T:
        asked, answer = prompt_of(task, self.maker.name), prompt_of(draft, self.maker.name)
        listed = "\n".join(f"- {problem}" for problem in problems) or "- It was not approved."
        return await self.maker.run(
            f"{asked}\n\nYour last answer:\n{answer}\n\nWhat is wrong with it:\n{listed}\n\nAnswer again, in full.",
            ctx,
            *context,
        )


def _pipeline(parts: _Parts[Any], limits: UsageLimits | None, name: str) -> Pipeline:
    async def review(task: object, draft: Any, ctx: RunContext, context: object = None) -> Review:
        return await parts.judged(task, draft, ctx, *_known(context))

    answer = parts.maker.output_type
    made = Step(parts.maker, name="generate", reads=parts.maker.reads)
    judged = parts.step(review, Review, {"draft": answer}, draft=made)
    revised = parts.step(_revise(parts), answer, {"draft": answer, "review": Review}, draft=made, review=judged)
    valid = parts.step(_validate(parts), answer, {"draft": answer}, draft=revised)
    return Pipeline(made, judged, revised, valid, name=name, limits=limits)


def _known(context: object) -> tuple[object, ...]:
    """What agents are called with beside the prompt: the context, where they read it."""
    return () if context is None else (context,)


def _revise(parts: _Parts[Any]) -> Callable[..., Awaitable[Any]]:
    async def revise(task: object, draft: Any, review: Review, ctx: RunContext, context: object = None) -> Any:
        known = _known(context)
        for _ in range(parts.max_revisions):
            if review.approved:
                break
            draft = await parts.made_again(task, draft, review.problems, ctx, *known)
            review = await parts.judged(task, draft, ctx, *known)
        if review.approved:
            return draft
        raise _given_up("the reviewer does not approve the answer", parts.max_revisions, review.problems)

    return revise


def _validate(parts: _Parts[Any]) -> Callable[..., Awaitable[Any]]:
    async def validate(task: object, draft: Any, ctx: RunContext, context: object = None) -> Any:
        problems = await problems_of(draft, parts.validators)
        for _ in range(parts.max_repairs):
            if not problems:
                break
            draft = await parts.made_again(task, draft, problems, ctx, *_known(context))
            problems = await problems_of(draft, parts.validators)
        if not problems:
            return draft
        raise _given_up("validators refuse the answer", parts.max_repairs, problems)

    return validate


def _given_up(what: str, times: int, problems: Sequence[str]) -> AgentFault:
    why = f"after {times} further attempts: {'; '.join(problems) or 'no reason was given'}"
    return AgentFault(what, why, "Change the task or the criteria, take a better model, or allow more attempts")
