"""Budgets that runs share, and the ledger of one run under every limit that holds for it."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import ConfigurationError
from .ledger import Ledger
from .usage import Usage, UsageLimits


class Budget(Ledger):
    """One ledger shared by every run that is given it: `Flujo(..., limits=Budget(UsageLimits(...)))`.

    Runs in several threads and event loops may share it.
    """

    def stands_under(self, other: Budget) -> bool:
        """Whether it is `other`, or one of its parents is."""
        return other in self._line


Limits = UsageLimits | Budget | None


def checked(limits: Limits) -> Limits:
    """Limits as they are.

    Raises:
        ConfigurationError: They are no limits.
    """
    if limits is None or isinstance(limits, (UsageLimits, Budget)):
        return limits
    why = "limits are UsageLimits, or a Budget that several runs share"
    raise ConfigurationError(f"limits={limits!r} cannot be used", why)


def ledger_under(limits: Limits, owner: Limits, pipeline: UsageLimits | None) -> Ledger | None:
    """A fresh ledger for one run; None where nothing limits it.

    Args:
        limits: Limits of this run.
        owner: Limits of its Flujo.
        pipeline: Limits of the pipeline.

    Raises:
        ConfigurationError: Two budgets are given and none stands under the other.
    """
    if limits is None and owner is None and pipeline is None:
        return None
    limits = checked(limits)
    shared = [item for item in (limits, owner) if isinstance(item, Budget)]
    if shared and not shared[0].stands_under(shared[-1]):
        why = "the Flujo has a Budget, and the run was given another that does not stand under it"
        raise ConfigurationError("limits cannot be used", why, "Give it that one as parent: Budget(limits, parent)")
    own = [item for item in (owner, limits, pipeline) if isinstance(item, UsageLimits)]
    ledger: Ledger | None = shared[0] if shared else None
    for item in own[:-1]:
        ledger = Ledger(item, ledger)
    return Ledger(own[-1] if own else None, ledger)


def carry(ledger: Ledger, spent: Iterable[Usage]) -> None:
    """Count what a run spent before it was resumed; a Budget counted it when it was spent."""
    used = list(spent)
    at: Ledger | None = ledger
    while at is not None and not isinstance(at, Budget):
        for one in used:
            at.spent.add(one)
        at = at.parent
