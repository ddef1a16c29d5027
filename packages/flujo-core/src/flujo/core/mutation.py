"""Mutation, which is experimental: what a step returns to change the rest of its pipeline while that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .context import Update
from .errors import ConfigurationError

if TYPE_CHECKING:
    from .pipeline import Pipeline, PipelineLike
    from .setup import Setup
    from .steps import Node

T = TypeVar("T")

MAX_MUTATIONS = 10
"""How often the pipeline of one run may be changed."""

MAX_DEPTH = 3
"""How deep: a step that was put in by one that was put in by one of the pipeline stands at depth 2."""

MAX_ADDED = 100
"""How many steps and combinators a run may gain, all that stand inside of them included."""

EXPERIMENTS = frozenset({"mutation"})
"""What `Flujo(..., experimental={...})` may switch on."""


def experiments(names: Iterable[str], store: object) -> frozenset[str]:
    """The experiments that are switched on.

    Raises:
        ConfigurationError: There is no such experiment, or it cannot be had together with a store.
    """
    found = frozenset((names,) if isinstance(names, str) else names)
    if unknown := found - EXPERIMENTS:
        what = f"experimental={', '.join(sorted(map(repr, unknown)))} cannot be used"
        raise ConfigurationError(what, f"there is {', '.join(map(repr, EXPERIMENTS))}", "Leave it out")
    if found and store is not None:
        why = "a run whose pipeline was changed could not go on after a crash, and a store promises that"
        raise ConfigurationError("experimental={'mutation'} cannot be used", why, "Leave store= out")
    return found


class PipelineMutation(Update[T]):
    """What a step returns to give its output, and to change what comes after it: experimental.

    Only a step of the outermost row `a >> b >> c` can, and only what stands after it; types are checked as when a
    pipeline is compiled, before anything else runs. What does not fit fails the step, and nothing is changed.

    Args:
        output: The step's output, as in `Update`.
        insert_after: What is put in behind the step of that name: this one, or one after it.
        replace: What takes the place of the step of that name.
        remove: Names of steps that are left out.
        **changes: New values of context fields, as in `Update`.
    """

    __slots__ = ("insert_after", "remove", "replace")

    def __init__(
        self,
        output: T,
        /,
        *,
        insert_after: Mapping[str, PipelineLike] | None = None,
        replace: Mapping[str, PipelineLike] | None = None,
        remove: Iterable[str] = (),
        **changes: object,
    ) -> None:
        super().__init__(output, **changes)
        self.insert_after: Mapping[str, PipelineLike] = insert_after or {}
        self.replace: Mapping[str, PipelineLike] = replace or {}
        self.remove: frozenset[str] = frozenset(remove)

    @property
    def names(self) -> list[str]:
        """The steps it is about, each once for each time it is named."""
        return [*self.insert_after, *self.replace, *self.remove]


@dataclass(frozen=True, slots=True)
class PipelineChange:
    """How a step changed the pipeline of its run, as guards and observers see it, and as the journal has it.

    Attributes:
        before: Fingerprint of the pipeline before.
        after: The same of what it became.
        added: Paths of the steps that it gained.
        removed: Paths of the steps that it lost. What was moved, or replaced by another of its name, is in both.
    """

    before: str
    after: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Mutations:
    """What the pipeline of a run went through.

    Args:
        pipeline: As it is now.
        nodes: How many nodes it had at first.
        change: Makes what a run of what it became has.
    """

    def __init__(self, pipeline: Pipeline, nodes: int, change: Callable[[Pipeline], Setup]) -> None:
        self.pipeline: Pipeline = pipeline
        self.nodes: int = nodes
        self.change: Callable[[Pipeline], Setup] = change
        self.count: int = 0
        self.depths: dict[Node, int] = {}  # of what was put in
        self.fresh: set[Node] = set()  # what was put in just now; it may have stood elsewhere
