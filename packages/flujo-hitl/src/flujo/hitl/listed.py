"""What lists of a store hold, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import JsonValue

from flujo.core import Receipt

__all__ = ["TARGET", "Decided", "OpenPause", "Page", "RunRow"]

TARGET = "target"
"""The tag by which the command line says from which FILE:NAME a run was begun."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list.

    Attributes:
        items: The part.
        next: What to pass as `after` for the part that follows; None at the end.
    """

    items: Sequence[T]
    next: str | None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run, without its payloads.

    Attributes:
        run_id: The run.
        pipeline: Name of its pipeline.
        fingerprint: Of its plan.
        status: How it stands; `running` also of one whose process went away.
        tenant: For whom it is.
        actor: Who started it.
        began_at: When, in UTC.
        changed_at: When it was last created, claimed or saved.
        is_cancel_requested: Whether somebody wants it to end.
        target: The FILE:NAME that the command line began it from; None where something else did.
    """

    run_id: str
    pipeline: str
    fingerprint: str
    status: str
    tenant: str | None
    actor: str | None
    began_at: datetime
    changed_at: datetime
    is_cancel_requested: bool
    target: str | None = None


@dataclass(frozen=True, slots=True)
class OpenPause:
    """A question that waits for a human; what it shows beside the question stands in the snapshot of its run.

    Attributes:
        run_id: The run.
        pause_id: The question, in it.
        pipeline: Name of the pipeline.
        fingerprint: Of its plan.
        tenant: For whom the run is.
        question: What is asked.
        shown_digest: SHA-256 of what the human must be shown.
        expires_at: When it is no longer open; None is never.
        roles: Who may answer; empty is anybody.
    """

    run_id: str
    pause_id: str
    pipeline: str
    fingerprint: str
    tenant: str | None
    question: str
    shown_digest: str
    expires_at: datetime | None
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision.

    Attributes:
        receipt: Of which question, and when.
        decision: What a resume is given; None, too, where a resume was given it at once: then the journal has it.
        actor: Who decided.
        reason: Why, in their words.
        is_applied: Whether its run went on with it.
        shown_digest: SHA-256 of what was shown to who decided; None where that is not known.
    """

    receipt: Receipt
    decision: JsonValue
    actor: str | None
    reason: str | None
    is_applied: bool = False
    shown_digest: str | None = None
