"""Where the steps of a Flujo run: in this process, or on a backend that is given or has a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from .assignable import type_name
from .away import Away, Terms
from .backends import LocalBackend
from .check import fitted, fitted_changes
from .errors import ConfigurationError, GuardDenied, PipelineError, RunAborted, StepFailed
from .execution import (
    BackendFactory,
    Capabilities,
    ExecutionBackend,
    StepExecutionRequest,
    StepOutcome,
    capabilities_of,
)
from .gates import Passage
from .outcome import Aborted, Failure, Outcome, Success
from .plan import Plan, StepNode
from .policy import NamedLimit
from .resources import Resources
from .steps import suggestion
from .streamstep import StreamStep

Backends = ExecutionBackend | str | Mapping[str, ExecutionBackend | str] | None
"""A backend, the name of one, or several by the names that steps call them; `default` is for steps that name none."""

LOCAL = "local"
"""Name of the backend that is this process."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the steps of a Flujo run.

    Attributes:
        default: Where those run that say nothing.
        chosen: Where those run that name a backend, by their index.
        away: Those that run in another process, by their index.
    """

    default: ExecutionBackend
    chosen: Mapping[int, ExecutionBackend]
    away: Mapping[int, Away]


def placed(plan: Plan, given: Backends, terms: Terms) -> Places:
    """Find the backend of every step, and what stands against running it there.

    Raises:
        PipelineError: A step cannot run where it is to run; all of them are named.
        ConfigurationError: No backend of a name is known.
        PluginError: A plugin works in this process only.
    """
    find = _Finder(given, terms)
    default = find("default")
    names = {node.index: node.step.options.backend for node in plan.steps}
    if not capabilities_of(default).streams:  # a stream that says nothing stays with its reader
        streams = [node.index for node in plan.steps if isinstance(node.step, StreamStep)]
        names |= {index: names[index] or LOCAL for index in streams}
    chosen = {index: find(name) for index, name in names.items() if name is not None}
    homes = {node: chosen.get(node.index, default) for node in plan.steps}
    away = {node.index: Away(node, home, terms) for node, home in homes.items() if capabilities_of(home).remote}
    problems = [problem for one in away.values() for problem in one.problems]
    if problems:
        raise PipelineError(f"pipeline {plan.name!r} cannot work", problems)
    return Places(default, chosen, away)


class _Finder:
    """Finds backends by name, each once: what was given, this process, or what an allowed plugin registers."""

    def __init__(self, given: Backends, terms: Terms) -> None:
        is_one = given is None or isinstance(given, str) or not isinstance(given, Mapping)
        self._given: Mapping[str, ExecutionBackend | str | None] = {"default": given} if is_one else given  # type: ignore[dict-item,assignment]
        self._terms = terms
        self._made: dict[str, ExecutionBackend] = {}

    def __call__(self, name: str) -> ExecutionBackend:
        if name not in self._made:
            found = self._given.get(name, LOCAL if name == "default" else name)
            backend = LocalBackend() if found is None or found == LOCAL else found
            self._made[name] = self._gated(self._registered(backend) if isinstance(backend, str) else backend)
        return self._made[name]

    def _registered(self, name: str) -> ExecutionBackend:
        known = dict[str, Callable[[], ExecutionBackend]]()
        for _, factory in self._terms.plugins.registered("register_backends", BackendFactory):
            known.setdefault(factory.name, factory.open)
        if name not in known:
            names = [LOCAL, *known, *(one for one in self._given if one != "default")]
            what, do = f"backend {name!r} cannot be used", f"Install what has it: pip install flujo-backend-{name}"
            raise ConfigurationError(what, f"nothing of that name is known; {suggestion(name, names)}", do)
        return known[name]()

    def _gated(self, backend: ExecutionBackend) -> ExecutionBackend:
        return gated(backend, self._terms.policy.named_limits, self._terms.specs)


class _Gated:
    """A backend whose attempts pass named limits first."""

    def __init__(self, backend: ExecutionBackend, limits: Mapping[str, NamedLimit], resources: frozenset[str]) -> None:
        self._backend = backend
        self._limits = limits
        self._resources = resources
        self.capabilities: Capabilities = capabilities_of(backend)

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        """See ExecutionBackend. A thread that outlives its attempt is inside until it returns."""
        takes_all = any(isinstance(value, Resources) for value in request.arguments.values())
        used = self._resources if takes_all else self._resources & request.arguments.keys()
        subjects = [f"backend:{type(self._backend).__name__}", *(f"resource:{name}" for name in used)]
        async with Passage(self._limits, subjects) as passage:
            try:
                return await self._backend.execute_step(request)
            finally:
                if request.thread is not None:
                    passage.stay(request.thread)


def gated(backend: ExecutionBackend, limits: Mapping[str, NamedLimit], resources: Iterable[str]) -> ExecutionBackend:
    """The backend behind the named limits of backends and resources, where there are any."""
    held = {name: limit for name, limit in limits.items() if not name.startswith("model:")}
    return _Gated(backend, held, frozenset(resources)) if held else backend


# --- what a backend gave ----------------------------------------------------------------------------------------------


def settled(
    node: StepNode, path: str, done: StepOutcome, model: type[BaseModel] | None
) -> tuple[Outcome, Mapping[str, object] | None]:
    """What a backend gave, checked: its output against the step's type, its context changes against the model."""
    outcome = done.outcome
    if isinstance(outcome, Failure) and isinstance(outcome.error, (GuardDenied, RunAborted)):
        return Aborted(outcome.error), None
    if isinstance(outcome, Success) and (problem := _problem(node, outcome.output, done, model)) is not None:
        return Failure(StepFailed(path, *problem)), None
    return outcome, done.changes


def _problem(
    node: StepNode, output: object, done: StepOutcome, model: type[BaseModel] | None
) -> tuple[str, str] | None:
    """What is wrong with an output or with its context changes: a word for the kind, and the reason."""
    if not isinstance(output, node.classes):
        return "OutputMismatch", f"it returned {type(output).__name__}, declared is {type_name(node.output_type)}"
    if node.step.options.validate:
        _, problem = fitted(node.output_type)(output)
        if problem is not None:
            return "OutputMismatch", problem
    if done.changes:
        done.changes, problem = fitted_changes(model, node.step.options.writes, done.changes)
        if problem is not None:
            return "UpdateMismatch", problem
    return None
