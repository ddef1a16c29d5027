"""Lists of runs, questions and decisions: each page comes from an index and goes on from a key."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from flujo.core import ConfigurationError, Receipt

from .connection import Moments
from .errors import RunDamaged, RunSealed
from .listed import Decided, OpenPause, Page, RunRow
from .payloads import Payloads, moment, packed, stamp, unpacked
from .schema import STATUS, status_of

__all__ = ["Lists", "code_of"]

_log = logging.getLogger("flujo.hitl")

T = TypeVar("T")

_MAX_PAGE = 1000

_RUN = (
    "SELECT r.id, r.run_id, p.pipeline, p.fingerprint, r.status, r.tenant, r.actor, r.began, r.changed, r.cancel,"
    " r.target FROM runs r CROSS JOIN plans p ON p.id=r.plan"
)
_PAUSE = "SELECT r.id, r.run_id, q.pause, p.pipeline, p.fingerprint, r.tenant, q.question, q.shown, q.expires, q.roles"
_DECISION = "SELECT r.run_id, d.pause, d.digest, d.decided, d.decision, d.actor, d.reason, d.applied, d.shown"
_UNDECIDED = "NOT EXISTS (SELECT 1 FROM decisions d WHERE d.run=q.run AND d.pause=q.pause)"
_OF_PLAN = "r.plan IN (SELECT id FROM plans WHERE fingerprint=?)"
_OF_PIPELINE = "r.plan IN (SELECT id FROM plans WHERE pipeline=?)"


def code_of(status: str) -> int:
    """How a status is written."""
    if status not in STATUS:
        raise ConfigurationError(f"status={status!r} cannot be used", f"it is none of {', '.join(STATUS)}")
    return STATUS[status]


class Lists:
    """The lists of a HitlStore, without waiting.

    Args:
        readers: Where connections come from.
        payloads: How payloads are read.
    """

    def __init__(self, readers: Moments, payloads: Payloads) -> None:
        self._readers = readers
        self._payloads = payloads

    def runs(
        self, status: str | None, pipeline: str | None, tenant: str | None, after: str | None, limit: int
    ) -> Page[RunRow]:
        """See HitlStore."""
        where, facts = _filters(pipeline, tenant)
        if status is not None:
            where, facts = [*where, "r.status=?"], [*facts, code_of(status)]
        if after is not None:
            where, facts = [*where, "r.id<?"], [*facts, *_key(after, 1)]
        ask = f"{_RUN} WHERE {_all(where)} ORDER BY r.id DESC LIMIT ?"
        items, last = self._page(ask, facts, limit, _run)
        return Page(items, None if last is None else str(last[0]))

    def open_pauses(
        self, pipeline: str | None, tenant: str | None, roles: Collection[str] | None, after: str | None, limit: int
    ) -> Page[OpenPause]:
        """See HitlStore."""
        where, facts = _filters(pipeline, tenant)
        # SQLite joins in the order that is written: from the narrower side
        tables = (
            "runs r CROSS JOIN pauses q ON q.run=r.id" if where else "pauses q CROSS JOIN runs r ON r.id=q.run"
        ) + " CROSS JOIN plans p ON p.id=r.plan"
        where += [_UNDECIDED, "(q.expires IS NULL OR q.expires>=?)"]
        facts += [_now()]
        if roles is not None:
            has_one = " OR ".join(["q.roles IS NULL", *("instr(q.roles, ?)>0" for _ in roles)])
            where, facts = [*where, f"({has_one})"], [*facts, *(f",{role}," for role in roles)]
        if after is not None:
            row, pause = _key(after, 2)
            where, facts = [*where, "(q.run, q.pause)>(?, ?)"], [*facts, row, pause]
        order = "r.id, q.pause" if "runs r" in tables[:6] else "q.run, q.pause"
        ask = f"{_PAUSE} FROM {tables} WHERE {_all(where)} ORDER BY {order} LIMIT ?"
        items, last = self._page(ask, facts, limit, self._pause, tells_sealed=True)
        return Page(items, None if last is None else f"{last[0]}:{last[2]}")

    def expired(self, now: datetime, fingerprint: str | None, limit: int) -> Sequence[OpenPause]:
        """See HitlStore."""
        where, facts = ["q.expires<?", "q.stuck IS NULL", _UNDECIDED], [stamp(now)]
        of_plan, plan = _of_plan(fingerprint)
        tables = "pauses q CROSS JOIN runs r ON r.id=q.run CROSS JOIN plans p ON p.id=r.plan"
        ask = f"{_PAUSE} FROM {tables} WHERE {_all(where + of_plan)} ORDER BY q.expires LIMIT ?"
        return self._page(ask, [*facts, *plan], limit, self._pause)[0]

    def decided(self, fingerprint: str | None, limit: int) -> Sequence[Decided]:
        """See HitlStore."""
        of_plan, plan = _of_plan(fingerprint)
        tables = "decisions d CROSS JOIN pauses q ON q.run=d.run AND q.pause=d.pause CROSS JOIN runs r ON r.id=d.run"
        ask = f"{_DECISION} FROM {tables} WHERE {_all(['d.applied=0', *of_plan])} ORDER BY d.id LIMIT ?"
        return self._page(ask, plan, limit, self._decided)[0]

    def decisions(self, run_id: str) -> Sequence[Decided]:
        """See HitlStore."""
        ask = f"{_DECISION} FROM runs r CROSS JOIN decisions d ON d.run=r.id WHERE r.run_id=? ORDER BY d.id LIMIT ?"
        return self._page(ask, [run_id], _MAX_PAGE, self._decided)[0]

    def cancel_requested(self, run_ids: Collection[str] | None) -> Sequence[str]:
        """See HitlStore."""
        with self._readers.moment() as db:
            found = db.execute("SELECT run_id FROM runs WHERE cancel IS NOT NULL ORDER BY cancel").fetchall()
        return [run_id for (run_id,) in found if run_ids is None or run_id in run_ids]

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _page(
        self,
        ask: str,
        facts: Sequence[object],
        limit: int,
        read: Callable[[tuple[Any, ...]], T],
        *,
        tells_sealed: bool = False,
    ) -> tuple[list[T], tuple[Any, ...] | None]:
        """What is read of each row, and the last row where there may be more. One that is damaged hides no other.

        Where none can be read for want of a codec, `tells_sealed` raises that: else it looks as if nothing waited.
        """
        if not 1 <= limit <= _MAX_PAGE:
            raise ConfigurationError(f"limit={limit!r} cannot be used", f"it is not from 1 to {_MAX_PAGE}")
        items: list[T] = []
        with self._readers.moment() as db:
            found = db.execute(ask, (*facts, limit)).fetchall()
            for row in found:
                try:
                    items.append(read(row))
                except RunDamaged as damage:  # `load` of this run says the same to who wants it
                    if tells_sealed and isinstance(damage, RunSealed) and row is found[-1] and not items:
                        raise
                    _log.error("left out of a list: %s", damage)
        return items, found[-1] if len(found) == limit else None

    def _pause(self, row: tuple[Any, ...]) -> OpenPause:
        _, run_id, pause_id, pipeline, fingerprint, tenant, question, shown, expires, roles = row
        said = self._payloads.said(question, f"question {pause_id} of {run_id}", run_id)
        if not isinstance(said, str):
            raise RunDamaged(run_id, f"question {pause_id!r} is no text")
        due = None if expires is None else moment(expires)
        who = frozenset() if roles is None else frozenset(filter(None, roles.split(",")))
        return OpenPause(run_id, pause_id, pipeline, unpacked(fingerprint), tenant, said, unpacked(shown), due, who)

    def _decided(self, row: tuple[Any, ...]) -> Decided:
        run_id, pause_id, digest, decided, decision, actor, reason, applied, shown = row
        about = f"decision of {pause_id} of {run_id}"
        said = None if decision is None else self._payloads.said(decision, about, run_id)
        why = None if reason is None else self._payloads.said(reason, f"reason of {about}", run_id)
        receipt = Receipt(run_id, pause_id, unpacked(digest), moment(decided))
        seen = None if shown is None else unpacked(shown)
        return Decided(receipt, said, actor, why if isinstance(why, str) else None, applied > 0, seen)


def _run(row: tuple[Any, ...]) -> RunRow:
    _, run_id, pipeline, fingerprint, status, tenant, actor, began, changed, cancel, target = row
    names = (run_id, pipeline, unpacked(fingerprint), status_of(status), tenant, actor)
    return RunRow(*names, moment(began), moment(changed), cancel is not None, target)


def _filters(pipeline: str | None, tenant: str | None) -> tuple[list[str], list[object]]:
    where: list[str] = []
    facts: list[object] = []
    if pipeline is not None:
        where, facts = [*where, _OF_PIPELINE], [*facts, pipeline]
    if tenant is not None:
        where, facts = [*where, "r.tenant=?"], [*facts, tenant]
    return where, facts


def _of_plan(fingerprint: str | None) -> tuple[list[str], list[object]]:
    return ([], []) if fingerprint is None else ([_OF_PLAN], [packed(fingerprint)])


def _all(where: Sequence[str]) -> str:
    return " AND ".join(where) if where else "1=1"


def _key(after: str, parts: int) -> tuple[object, ...]:
    row, _, rest = after.partition(":")
    if not row.isdecimal():
        raise ConfigurationError(f"after={after!r} cannot be used", "it is not what a page before gave as `next`")
    return (int(row),) if parts == 1 else (int(row), rest)


def _now() -> int:
    return stamp(datetime.now(UTC))
