"""Runs the cases of a dataset through a pipeline and scores them. Importing this imports pydantic-evals."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import to_json, to_jsonable_python
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext
from pydantic_evals.lifecycle import CaseLifecycle
from pydantic_evals.reporting import ReportCase, ReportCaseFailure

from flujo.core import Budget, ConfigurationError, Flujo, PipelineResult, Step, scrub

from .agents import ModelAgent
from .evalruns import CaseRun
from .scorers import BENCH, SCORERS, Grade

__all__ = ["Evaluated", "checked", "evaluate", "read_dataset", "scorer_of"]

AnyDataset = Dataset[Any, Any, Any]

_CASE: ContextVar[_Watched] = ContextVar("flujo_agent_case")


# --- the dataset ------------------------------------------------------------------------------------------------------


def read_dataset(path: Path, scorers: Iterable[type[Evaluator[Any, Any, Any]]] = ()) -> AnyDataset:
    """Read a dataset of pydantic-evals, YAML or JSON, and check all of it.

    Raises:
        ConfigurationError: It cannot be read, is none, or names a scorer that is unknown or cannot work.
    """
    from yaml import YAMLError  # here: pydantic-evals brings it, so it is missing where that is

    try:
        # a text first: a file that is not there must not be told in pydantic-evals' words
        text = path.read_text(encoding="utf-8")
        fmt = "json" if path.suffix == ".json" else "yaml"
        dataset = AnyDataset.from_text(text, fmt, [*SCORERS, *scorers], default_name=path.stem)  # type: ignore[arg-type]
    except OSError as error:
        raise ConfigurationError(f"dataset {str(path)!r} cannot be read", error.strerror or "") from error
    except (ValueError, TypeError, YAMLError, ExceptionGroup) as error:
        why = "\n".join(_reasons(error))
        do = "See flujo eval --help for what a dataset looks like"
        raise ConfigurationError(f"dataset {str(path)!r} cannot be used", why, do) from error
    if not dataset.cases:
        raise ConfigurationError(f"dataset {str(path)!r} cannot be used", "it has no cases", "Give it some")
    return dataset


def _reasons(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [reason for one in error.exceptions for reason in _reasons(one)]
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False)[:3]
        return [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in found]
    reasons = [str(error)]
    if error.__cause__ is not None and str(error.__cause__) not in reasons[0]:
        reasons.append(str(error.__cause__))
    return reasons


def scorer_of(named: str) -> type[Evaluator[Any, Any, Any]]:
    """A scorer of the user's: `MODULE:CLASS`.

    Raises:
        ConfigurationError: There is none of that name, or it is no Evaluator.
    """
    module, _, name = named.partition(":")
    do = "Give MODULE:CLASS, a dataclass that extends pydantic_evals.evaluators.Evaluator"
    try:
        found: object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"scorer {named!r} cannot be imported", scrub(str(error)), do) from error
    if not (isinstance(found, type) and issubclass(found, Evaluator)):
        raise ConfigurationError(f"scorer {named!r} cannot be used", "it is no Evaluator", do)
    return found


def checked(dataset: AnyDataset, flujo: Flujo) -> None:
    """Turn each case's inputs into what the pipeline takes, before anything is paid for.

    Raises:
        ConfigurationError: Some do not fit.
    """
    hint: Any = flujo.plan.input_type
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except (PydanticUserError, PydanticSchemaGenerationError):
        return  # the run will look at it
    wrong = []
    for number, case in enumerate(dataset.cases, 1):
        try:
            case.inputs = adapter.validate_json(to_json(case.inputs))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, ("inputs", *first["loc"])))
            wrong.append(f"case {case.name or number!r}: {place}: {first['msg']}")
    if wrong:
        raise ConfigurationError("the dataset does not fit the pipeline", "\n".join(wrong), "Correct the inputs")


# --- running ----------------------------------------------------------------------------------------------------------

Evaluated = Callable[[CaseRun], None]
"""Takes each case as it is done."""


async def evaluate(flujo: Flujo, dataset: AnyDataset, budget: Budget, *, concurrency: int, on_case: Evaluated) -> None:
    """Run and score all cases under one budget. One that fails does not stop the rest.

    Args:
        flujo: The pipeline, with the plugins and the policy that hold; judges run under them, too.
        dataset: The cases and their scorers.
        budget: What all of it may use.
        concurrency: Cases at a time.
        on_case: Takes each case as it is done, while others go on.
    """

    async def run_case(inputs: Any) -> object:
        case = _CASE.get()
        case.result = await flujo.run_async(inputs, limits=budget)
        # as JSON, since that is what the dataset's expectations are
        return to_jsonable_python(case.result.unwrap(), fallback=repr)

    token = BENCH.set(partial(_graded, flujo, budget))
    try:
        async with flujo:
            await dataset.evaluate(
                run_case, max_concurrency=concurrency, progress=False, lifecycle=partial(_Watched, on_case)
            )
    finally:
        BENCH.reset(token)


async def _graded(flujo: Flujo, budget: Budget, judge: ModelAgent[Grade], prompt: str) -> Grade:
    """A judge's grade. It has the plugins, policy and observers of the pipeline, and counts in the same budget."""
    ours = {**flujo.given, "pipeline": Step(judge), "context_model": None, "limits": None}
    result = await Flujo(**ours, plugins=flujo.plugins, policy=flujo.policy).run_async(prompt, limits=budget)
    grade = result.unwrap()
    assert isinstance(grade, Grade)
    return grade


class _Watched(CaseLifecycle[Any, Any, Any]):
    """One case, from its start to its scores."""

    def __init__(self, on_case: Evaluated, case: Case[Any, Any, Any]) -> None:
        super().__init__(case)
        self._on_case = on_case
        self.result: PipelineResult | None = None

    async def setup(self) -> None:
        """Let the task, which knows its inputs only, find the case."""
        _CASE.set(self)

    async def prepare_context(self, ctx: EvaluatorContext[Any, Any, Any]) -> EvaluatorContext[Any, Any, Any]:
        """Let scorers see what the pipeline cost."""
        if self.result is not None:
            ctx.metrics["cost_usd"] = float(self.result.total_cost_usd)
            ctx.metrics["tokens"] = self.result.usage.total_tokens
        return ctx

    async def teardown(self, result: ReportCase[Any, Any, Any] | ReportCaseFailure[Any, Any, Any] | None) -> None:
        """Report it; a cancelled one has no result, but may have cost something."""
        if result is not None:
            self._on_case(_case_run(result, self.result))


def _case_run(
    found: ReportCase[Any, Any, Any] | ReportCaseFailure[Any, Any, Any], run: PipelineResult | None
) -> CaseRun:
    made = CaseRun(name=found.name, status="failed" if run is None else run.status)
    if run is not None:
        made.cost_usd, made.tokens, made.duration_s = run.total_cost_usd, run.usage.total_tokens, run.duration_s
    if isinstance(found, ReportCaseFailure):
        made.error = scrub(found.error_message)
        return made
    for name, given in {**found.scores, **found.assertions}.items():
        made.scores[name] = float(given.value)
        if given.reason:
            made.reasons[name] = scrub(given.reason)
    made.unscored = {failed.name: scrub(failed.error_message) for failed in found.evaluator_failures}
    return made
