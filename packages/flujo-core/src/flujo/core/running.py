"""What a run and its attempts and calls share: who it is, what it may use, and how it is ended early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio
from pydantic import BaseModel

from . import telemetry
from .context import RunContext, RunInfo
from .errors import FlujoError, GuardDenied, RunAborted, UsageLimitExceeded
from .journal import Journal
from .ledger import Ledger
from .payloads import Event, OnGuardDenied
from .plan import Plan, PlanNode
from .plugins import Hooks
from .protocols import ExecutionBackend
from .resources import Resources, ResourceSpec
from .schedule import start
from .usage import Price

__all__ = ["Running", "Setup"]


@dataclass(slots=True)
class Setup:
    """What all runs of a Flujo share, resolved once.

    Attributes:
        plan: The plan.
        hooks: Acting hook implementations.
        backend: Where steps run.
        price_of: Asks the price books.
        specs: The resources by name.
        hook_resources: Names that hooks need.
        run_resources: Names of app and run scope that steps need.
        step_resources: For each node that needs resources of step scope, all names it needs.
        resources: The user's Resources object.
    """

    plan: Plan
    hooks: Hooks
    backend: ExecutionBackend
    price_of: Callable[[str], Price | None]
    specs: Mapping[str, ResourceSpec]
    hook_resources: frozenset[str]
    run_resources: frozenset[str]
    step_resources: Mapping[int, frozenset[str]]
    resources: Resources | None

    def resources_view(self, values: Mapping[str, object]) -> Resources:
        """The user's Resources class with the open resources as its fields."""
        return type(self.resources)(**values) if self.resources is not None else Resources()


class Running:
    """The shared part of a run.

    Attributes:
        plain: Whether nobody listens and nothing is traced, so that an attempt is only its work.
        verdict: Why the run ends early; None while it does not.
        values: Open resources that hooks may take, by name.
        step_values: Open resources that steps may take, by name.
        scope: Where the steps run, when they can be cancelled from here or have a deadline.
    """

    def __init__(
        self, setup: Setup, info: RunInfo, ledger: Ledger, run_input: object, context: BaseModel | None
    ) -> None:
        self.setup = setup
        self.info = info
        self.ledger = ledger
        self.hooks = setup.hooks
        self.tracer = telemetry.current_tracer()
        self.plain = self.tracer is None and not setup.hooks.table
        self.state, self.due = start(setup.plan, run_input, context)
        self.journal: Journal = []
        self.verdict: FlujoError | None = None
        self.values: Mapping[str, object] = {}
        self.step_values: Mapping[str, object] = {}
        self.strands: dict[anyio.CancelScope, RunContext | None] = {}
        self.scope: anyio.CancelScope | None = None
        self._ledgers: dict[int, Ledger] = {}

    def ledger_of(self, node: PlanNode) -> Ledger:
        """The ledger a step reserves from: the run's, or its own under it where it has limits."""
        limits = node.step.options.limits
        if limits is None:
            return self.ledger
        if node.index not in self._ledgers:
            self._ledgers[node.index] = Ledger(limits, self.ledger)
        return self._ledgers[node.index]

    def cancel(self, reason: str, by: str = "cancel()") -> None:
        """End the run: running steps are cancelled, the result is `aborted` with everything kept."""
        self.stop(RunAborted(reason, by))
        if self.scope is not None:
            self.scope.cancel()

    def stop(self, error: FlujoError, keep: RunContext | None = None) -> None:
        """Let nothing new start, and cancel the branches, but for the one of `keep`, which ends by itself.

        On a breach, a branch with an open lease may finish its call: it is paid for already.
        """
        if self.verdict is None:
            self.verdict = error
        spare = isinstance(error, UsageLimitExceeded)
        for scope, ctx in self.strands.items():
            if ctx is not None and ctx.metered is not None:
                ctx.metered.refuse(self.verdict)
            if ctx is None or not (ctx is keep or (spare and ctx.holds_lease)):
                scope.cancel()

    async def deny(self, step_path: str, denial: GuardDenied, keep: RunContext | None = None) -> None:
        """End the run with a denial and raise it; a step that catches it cannot undo it."""
        self.stop(denial, keep)
        await self.observe("on_guard_denied", lambda: OnGuardDenied(self.info, step_path, denial), keep)
        raise denial

    async def observe(self, hook: str, payload: Callable[[], Event], keep: RunContext | None = None) -> None:
        """Tell the observers of `hook`, if there are any; one that asks for it ends the run."""
        if self.hooks.of(hook):
            abort = await self.hooks.observe(payload(), hook, self.values)
            if abort is not None:
                self.stop(abort, keep)
