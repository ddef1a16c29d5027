"""What a run, and one that goes on, may be given beside its input or decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from pydantic import BaseModel

from .budgets import Limits
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
        pause: Which question, or its id; may be left out where one is open.
        limits: Limits instead of those it had, the Flujo's own included; what was spent before counts. A Budget of the
            Flujo holds on: other runs share it. A Budget that is given must stand under it.
        retry: Run what failed, was cancelled or was stopped again.
        deadline_s: Seconds from now after which the run ends `aborted`, instead of what was left of those it had.
    """

    pause: Pause | str | None
    limits: Limits
    retry: bool
    deadline_s: float | None
