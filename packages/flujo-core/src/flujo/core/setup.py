"""What all runs of a Flujo share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field

from opentelemetry import trace

from .away import Terms
from .backends import LocalBackend
from .cache import Cache
from .hooks import Hooks
from .mutation import Mutations
from .places import Backends, Places, placed
from .plan import Plan
from .protocols import TokenSigner
from .resources import Resources, ResourceSpec, widened
from .usage import Price


@dataclass(slots=True)
class Setup:
    """What all runs of a Flujo share, resolved once.

    Attributes:
        plan: The plan.
        hooks: Acting hook implementations.
        places: Where steps run.
        price_of: Asks the price books.
        specs: The resources by name.
        hook_resources: Names that hooks need.
        run_resources: Names of app and run scope that steps need.
        step_resources: For each node that needs resources of step scope, all names it needs.
        resources: The user's Resources object.
        is_kept: Whether a store keeps runs.
        is_here: Whether a bare step may be called by the engine itself: nothing else runs it, and nothing is kept.
        signer: Signs the tokens of their pauses.
        cache: Outputs of steps that are to be kept.
        row: The pipeline, where a step may change it, and what it went through.
    """

    plan: Plan
    hooks: Hooks
    places: Places
    price_of: Callable[[str], Price | None]
    specs: Mapping[str, ResourceSpec]
    hook_resources: frozenset[str]
    run_resources: frozenset[str]
    step_resources: Mapping[int, frozenset[str]]
    resources: Resources | None
    is_kept: bool = False
    signer: TokenSigner | None = None
    cache: Cache = field(default_factory=Cache)
    row: Mutations | None = None
    is_here: bool = field(init=False)

    def __post_init__(self) -> None:
        trace.get_tracer_provider()  # makes the one that the environment names: no run looks there again
        self.is_here = type(self.places.default) is LocalBackend and not self.is_kept

    def resources_view(self, values: Mapping[str, object]) -> Resources:
        """The user's Resources class with the open resources as its fields."""
        view = copy(self.resources or Resources())
        for name, value in values.items():
            setattr(view, name, value)
        return view


def equipped(backend: Backends, terms: Terms, is_kept: bool, signer: TokenSigner | None, plan: Plan) -> Setup:
    """Make what all runs of a plan share.

    Args:
        backend: Where steps run.
        terms: What acts around them.
        is_kept: Whether a store keeps its runs.
        signer: Signs the tokens of their pauses.
        plan: The plan.
    """
    places, specs = placed(plan, backend, terms), terms.specs
    needed = {n.index: widened(n.needs(specs), specs) for n in plan.steps if n.index not in places.away}
    by_hooks = {name for found in terms.hooks.table.values() for one in found for _, name in one.resources}
    by_steps = {at: names for at, names in needed.items() if any(specs[name].scope == "step" for name in names)}
    scopes = (specs, widened(by_hooks, specs), frozenset().union(*needed.values()), by_steps, terms.resources)
    return Setup(plan, terms.hooks, places, terms.plugins.price_of, *scopes, is_kept, signer)
