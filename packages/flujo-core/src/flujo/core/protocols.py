"""What a plugin or a user may implement besides hooks: the whole contract on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .context import RunContext
from .outcome import Outcome
from .usage import Price

if TYPE_CHECKING:
    from .engine import Flujo
    from .snapshot import EntryData, Snapshot
    from .steps import Step


@runtime_checkable
class Agent(Protocol):
    """Any object that can be a step: its `run` is called with the step's inputs."""

    @property
    def run(self) -> object:
        """An `async def` method; annotated parameters are inputs, resources, the context or a RunContext."""


class PriceBook(Protocol):
    """Knows what models cost."""

    def price(self, model: str) -> Price | None:
        """Return what `model` costs, or None when it is not known here."""


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command of `flujo`, as data.

    Attributes:
        name: Words after `flujo`, e.g. `audit verify`'s group `audit`.
        help: One line for `flujo --help`.
        target: `package.module:click_command`, imported only when the command is called.
    """

    name: str
    help: str
    target: str


@runtime_checkable
class CommandHost(Protocol):
    """What the command line is to a plugin's command, which finds it with `click_context.find_object(CommandHost)`."""

    def prepare(
        self,
        target: str,
        *,
        plugins: Iterable[str] = (),
        require: Iterable[str] = (),
        policy_file: Path | None = None,
        hooks: Iterable[Callable[..., object]] = (),
    ) -> Flujo:
        """Load FILE[:NAME] under the settings and the policy that hold here, as `flujo run` does.

        Raises:
            FlujoError: The pipeline cannot work, or a plugin that must act cannot; click's errors where the file, the
                settings or an option cannot be used.
        """


@dataclass(slots=True)
class StepExecutionRequest:
    """One attempt of a step, in this process: live objects, not to be sent anywhere.

    Attributes:
        step: The step.
        arguments: Everything the step's function is called with, by parameter name.
        timeout_s: Seconds after which the engine cancels the attempt; None is never.
        ctx: The attempt's RunContext.
        thread: Set by the backend while the attempt runs in a thread that cannot be cancelled.
    """

    step: Step
    arguments: Mapping[str, object]
    timeout_s: float | None
    ctx: RunContext
    thread: RunningThread | None = None


class RunningThread(Protocol):
    """A worker thread that may outlive its attempt. A backend sets it on the request when it starts one."""

    def on_return(self, then: Callable[[], object]) -> bool:
        """Let the thread call `then` when it returns; False when it does not run: it has returned, or never began."""


@dataclass(slots=True)
class StepOutcome:
    """What one attempt gave. `changes` are the context fields it wants to write."""

    outcome: Outcome
    changes: Mapping[str, object] | None = None


class RunStore(Protocol):
    """Keeps runs. Every method returns when what it wrote is as durable as the store promises."""

    async def create(self, snapshot: Snapshot) -> None:
        """Keep a run that is about to start; raises RunExists where its id is known."""

    async def append(self, run_id: str, row: EntryData) -> None:
        """Add one entry to the journal of a run; nothing written before is touched."""

    async def save(self, snapshot: Snapshot) -> None:
        """Keep where a run stands, without touching its journal; `snapshot.journal` is empty here."""

    async def load(self, run_id: str) -> Snapshot:
        """The run with its whole journal; raises ResumeError where the id is not known."""

    async def claim(self, run_id: str, position: int, pause_id: str, digest: str) -> None:
        """Let one of all resumes of a run from one place win; raises AlreadyResumed, ResumeConflict or ResumeError."""


class ExecutionBackend(Protocol):
    """Where steps run. One `execute_step` is one attempt; the engine retries."""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        """Run one attempt. Faults of the step are a Failure; only a cancellation is raised."""
