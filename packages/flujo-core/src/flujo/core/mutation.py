"""Mutation, which is experimental: what a step returns to change the rest of its pipeline while that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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


def experiments(names: Iterable[str]) -> frozenset[str]:
    """The experiments that are switched on.

    Raises:
        ConfigurationError: There is no such experiment.
    """
    found = frozenset((names,) if isinstance(names, str) else names)
    if unknown := found - EXPERIMENTS:
        what = f"experimental={', '.join(sorted(map(repr, unknown)))} cannot be used"
        raise ConfigurationError(what, f"there is {', '.join(map(repr, EXPERIMENTS))}", "Leave it out")
    return found


class PipelineMutation(Update[T]):
    """What a step returns to give its output, and to change what comes after it: experimental.

    Only a step of the outermost row `a >> b >> c` can, and only what stands after it; types are checked as when a
    pipeline is compiled, before anything else runs. What does not fit fails the step, and nothing is changed. Where a
    store keeps the run, what is put in must stand at the top of a module, so that another process finds it there.

    Args:
        output: The step's output, as in `Update`.
        insert_after: What is put in behind the step of that name: this one, or one after it. What has a name that is in
            use gets a number: `review-2`.
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
class PutIn:
    """What a step put into the pipeline of its run.

    Attributes:
        name: What it is called there: its own name, with a number where that was in use.
        path: Where it stands: `package.module:name`.
    """

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class PipelineChange:
    """How a step changed the pipeline of its run, as guards and observers see it, and as the journal has it.

    The last four say what was done, so that whoever goes on with the run does it again. They are empty where something
    was put in that no module has under a name: then the run goes on with a Flujo of the changed pipeline only.

    Attributes:
        before: Fingerprint of the pipeline before.
        after: The same of what it became.
        added: Paths of the steps that it gained.
        removed: Paths of the steps that it lost. What was moved, or replaced by another of its name, is in both.
        step: Name of the step that changed it.
        insert_after: What was put in behind a step, by the name of that.
        replace: What took the place of a step, by the name of that.
        remove: Names of what was left out.
    """

    before: str
    after: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    step: str = ""
    insert_after: Mapping[str, tuple[PutIn, ...]] = field(default_factory=dict)
    replace: Mapping[str, tuple[PutIn, ...]] = field(default_factory=dict)
    remove: tuple[str, ...] = ()

    @property
    def put_in(self) -> list[PutIn]:
        """All that was put in."""
        return [one for row in (*self.insert_after.values(), *self.replace.values()) for one in row]


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
        self.changes: tuple[PipelineChange, ...] = ()  # since it was that by whose fingerprint the run is known
