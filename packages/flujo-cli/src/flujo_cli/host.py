"""What the command line is to the commands of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .problems import State

if TYPE_CHECKING:
    from flujo.core import Flujo, PipelineLike, RunStore

__all__ = ["Host"]


class Host(State):
    """The object of every click context, to plugins a `CommandHost` of flujo.core."""

    def prepare(
        self,
        target: str | PipelineLike,
        *,
        plugins: Iterable[str] = (),
        require: Iterable[str] = (),
        policy_file: Path | None = None,
        hooks: Iterable[Callable[..., object]] = (),
        store: str | None = None,
        experimental: Iterable[str] = (),
    ) -> Flujo:
        """Load FILE[:NAME], or take a pipeline, as `flujo run` does; see flujo.core's `CommandHost`."""
        from .prepare import PolicyOptions, prepare  # imports flujo.core, which the help must not

        options = PolicyOptions(plugin=tuple(plugins), require=tuple(require), policy_file=policy_file)
        return prepare(target, options, hooks, store=store, keeps=True, experimental=tuple(experimental))[1]

    def store(self, url: str | None = None) -> RunStore:
        """The store that keeps runs; see flujo.core's `CommandHost`."""
        from .prepare import store_of  # as above

        return store_of(url)
