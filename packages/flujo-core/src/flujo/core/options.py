"""What a run, and one that goes on, may be given beside its input or decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from pydantic import BaseModel

from .budgets import Limits
from .errors import InputError
from .pause import Pause


class RunOptions(TypedDict, total=False):
    """What one run may be given beside its input.

    Attributes:
        context: What the run knows at its start; an empty context model when left out.
        run_id: Id of the run, used once; a new one when left out.
        actor: Who starts it, for audit and spans.
        tenant: For whom, for audit and spans.
        tags: Further words for audit and spans.
        deadline_s: Seconds after which the run ends `aborted`.
        limits: Limits of this run, beside those of the Flujo.
    """

    context: BaseModel | None
    run_id: str | None
    actor: str | None
    tenant: str | None
    tags: Mapping[str, str] | None
    deadline_s: float | None
    limits: Limits


class ResumeOptions(TypedDict, total=False):
    """What a run that goes on may be given beside its decision.

    Attributes:
        pause: Which question, or its id; may be left out where one is open. With a run's id, say it where the answer
            may be sent twice: else the second could meet the next question.
        limits: Limits instead of those it had, the Flujo's own included; what was spent before counts. A Budget of the
            Flujo holds on: other runs share it. A Budget that is given must stand under it.
        retry: Run what failed, was cancelled or was stopped again.
        deadline_s: Seconds from now after which the run ends `aborted`, instead of what was left of those it had.
    """

    pause: Pause | str | None
    limits: Limits
    retry: bool
    deadline_s: float | None


def context_of(model: type[BaseModel] | None, context: BaseModel | None) -> BaseModel | None:
    """The context that a run begins with.

    Raises:
        InputError: It does not fit the model, or is missing.
    """
    if model is None:
        if context is not None:
            raise InputError("context cannot be used", "this Flujo has no context_model", "Pass context_model=")
        return None
    if context is None:
        missing = [name for name, field in model.model_fields.items() if field.is_required()]
        if missing:
            raise InputError("context is missing", f"{model.__name__} needs {', '.join(missing)}", "Pass context=")
        return model()
    if not isinstance(context, model):
        raise InputError("context does not fit", f"{type(context).__name__} is no {model.__name__}")
    return context
