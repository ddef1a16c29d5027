"""Budgets that runs share, and the ledger of one run under every limit that holds for it."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import ConfigurationError
from .grants import Governor, Grant
from .ledger import Ledger
from .usage import Charge, Usage, UsageLimits


class Budget(Ledger):
    """One ledger shared by every run that is given it: `Flujo(..., limits=Budget(UsageLimits(...)))`.

    Runs in several threads and event loops may share it.
    """

    is_shared = True

    async def reserve(self, worst: Charge) -> Grant:
        """See Governor: for use outside of runs, and by governors that have a Budget inside."""
        return self.take(worst, self) or await self.wait(worst, self)

    def settle(self, lease: Grant, used: Usage) -> None:
        """See Governor."""
        self.close(lease, used)

    def stands_under(self, other: Budget) -> bool:
        """Whether it is `other`, or one of its parents is."""
        return other in self._line


Limits = UsageLimits | Budget | Governor | None


def checked(
    limits: Limits, most: UsageLimits | None, others: Mapping[str, UsageLimits] | None = None
) -> UsageLimits | Budget | None:
    """Limits as they are; a Governor that is no Budget has one before it.

    Args:
        limits: The limits.
        most: What the policy allows to ask for; None is anything. A Budget asks for several runs, and may be larger.
        others: Limits of the pipeline and its parts, by whose they are, that are held to it too.

    Raises:
        ConfigurationError: They are no limits, or ask for more.
    """
    if not (limits is None or isinstance(limits, (UsageLimits, Budget))):
        if not isinstance(limits, Governor):
            why = "limits are UsageLimits, a Budget that several runs share, or a Governor"
            raise ConfigurationError(f"limits={limits!r} cannot be used", why)
        limits = Budget(limits.limits, governor=limits)
    if most is not None:
        own = {"limits": limits} if isinstance(limits, UsageLimits) else {}
        for whose, asked in {**own, **(others or {})}.items():
            for name in ("total_cost_usd_limit", "total_tokens_limit", "requests_limit"):
                wanted, allowed = getattr(asked, name), getattr(most, name)
                if wanted is not None and allowed is not None and wanted > allowed:
                    why, do = f"the policy allows at most {allowed}", "Ask for less, or have max_limits of it raised"
                    raise ConfigurationError(f"{name}={wanted} of {whose} cannot be used", why, do)
    return limits


def ledger_under(
    limits: Limits, owner: Limits, pipeline: UsageLimits | None, most: UsageLimits | None
) -> Ledger | None:
    """A fresh ledger for one run; None where nothing limits it.

    Args:
        limits: Limits of this run.
        owner: Limits of its Flujo.
        pipeline: Limits of the pipeline.
        most: What the policy allows a run to use.

    Raises:
        ConfigurationError: Two budgets are given and none stands under the other, or the run asks for too much.
    """
    if limits is None and owner is None and pipeline is None and most is None:
        return None
    limits = checked(limits, most)
    shared = [item for item in (limits, owner) if isinstance(item, Budget)]
    if shared and not shared[0].stands_under(shared[-1]):
        why = "the Flujo has a Budget, and the run was given another that does not stand under it"
        raise ConfigurationError("limits cannot be used", why, "Give it that one as parent: Budget(limits, parent)")
    own = [item for item in (most, owner, limits, pipeline) if isinstance(item, UsageLimits)]
    ledger: Ledger | None = shared[0] if shared else None
    for item in own[:-1]:
        ledger = Ledger(item, ledger)
    return Ledger(own[-1] if own else None, ledger)


def carry(ledger: Ledger, used: Usage) -> None:
    """Count what a run used before it was resumed; a Budget counted it when it was used."""
    at: Ledger | None = ledger
    while at is not None and not isinstance(at, Budget):
        at.spent.add(used)
        at = at.parent
