"""What all runs of a Flujo share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field

from opentelemetry import trace

from .backends import LocalBackend
from .cache import Cache
from .hooks import Hooks
from .places import Places
from .plan import Plan
from .protocols import TokenSigner
from .resources import Resources, ResourceSpec
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
