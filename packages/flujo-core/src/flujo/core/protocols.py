"""What a plugin or a user may implement besides hooks: the whole contract on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .usage import Price

if TYPE_CHECKING:
    from .engine import Flujo
    from .kept import Hold, KeptRun, Receipt, TokenFacts
    from .pipeline import PipelineLike
    from .snapshot import EntryData, Snapshot


@runtime_checkable
class Agent(Protocol):
    """Any object that can be a step: its `run` is called with the step's inputs."""

    @property
    def run(self) -> object:
        """An `async def` method; annotated parameters are inputs, resources, the context or a RunContext."""


class PriceBook(Protocol):
    """Knows what models cost."""

    def price(self, model: str) -> Price | None:
        """Return what a model costs, or None when it is not known here."""


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
        target: str | PipelineLike,
        *,
        plugins: Iterable[str] = (),
        require: Iterable[str] = (),
        policy_file: Path | None = None,
        hooks: Iterable[Callable[..., object]] = (),
        store: str | None = None,
        experimental: Iterable[str] = (),
    ) -> Flujo:
        """Load FILE[:NAME], or take a pipeline, under the settings and the policy that hold here, as `flujo run` does.

        `store` is the URL of a store; None takes `FLUJO_STORE`, or that of the settings. `experimental` is that of
        `Flujo`.

        Raises:
            FlujoError: The pipeline cannot work, or a plugin that must act cannot; click's errors where the file, the
                settings or an option cannot be used.
        """

    def store(self, url: str | None = None) -> RunStore:
        """The store of a URL; None takes `FLUJO_STORE`, or that of the settings.

        Raises:
            FlujoError: There is none, or it cannot be opened; click's errors where the settings cannot be used.
        """


class TokenSigner(Protocol):
    """Makes the tokens by which a pause can be answered without knowing anything else of its run."""

    def sign(self, facts: TokenFacts) -> str:
        """A token for these facts, which nobody else can make."""

    def open(self, token: str) -> TokenFacts | None:
        """The facts of a token; None where the text is none of its tokens at all, as the id of a run.

        Raises:
            ResumeError: It is one, and was changed, has expired, or its key is not known any more.
        """


class Verifier(Protocol):
    """Says whether a signature is that of its key."""

    @property
    def keyid(self) -> str:
        """Name of the key in an envelope."""

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` was made for `data` with this key."""


class Signer(Protocol):
    """Signs with its key."""

    @property
    def keyid(self) -> str:
        """Name of the key in an envelope."""

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`."""


class PayloadCodec(Protocol):
    """Through it goes every payload that a store writes and reads: it may encrypt it."""

    def encode(self, data: bytes, about: str) -> bytes:
        """What is written for `data`; `about` names the run and the place, and must be the same when it is read."""

    def decode(self, data: bytes, about: str) -> bytes:
        """What `encode` was given; raises SnapshotError where it was changed, moved, or its key is not known."""


class RunStore(Protocol):
    """Keeps runs. Every method returns when what it wrote is as durable as the store promises.

    Who writes a run holds it: `create` and `claim` give a hold, `save` and `release` give it back. It is lost when its
    process is gone, as far as the store can tell, and another claims the run; what comes with a lost one is refused.
    A store that can be asked to have a run ended tells the one who holds it: `hold.cancel()`.
    """

    @property
    def signer(self) -> TokenSigner | None:
        """Signs the tokens of pauses; None where they have none."""

    async def create(self, snapshot: Snapshot) -> Hold:
        """Keep a run that is about to start, and hold it; raises RunExists where its id is known."""

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        """Add to the journal of a run, all rows or none; nothing written before is touched. Raises HoldLost."""

    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        """Keep where a run stands and give the hold back; `snapshot.journal` is empty here. Raises HoldLost."""

    async def release(self, hold: Hold) -> None:
        """Give the hold back; the run is as one whose process went away. Raises HoldLost."""

    async def load(self, run_id: str) -> KeptRun:
        """What is kept of a run; raises ResumeError where the id is not known."""

    async def receipt(self, run_id: str, pause_id: str | None = None) -> Receipt | None:
        """How a question was answered, or the one that was answered last; raises ResumeError for an unknown id."""

    async def orphans(self, fingerprint: str) -> Sequence[str]:
        """Ids of the runs of a plan that neither ended nor stand still, and that nobody holds any more."""

    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        """Let one of all resumes of `receipt.run_id` win, and hold it: its journal goes on with `rows`, all at once.

        Args:
            position: Length of its journal where the resume wants to go on.
            stood: How the run stood there, when it was loaded: one that failed since must not be tried again unseen.
            receipt: The decision; its `pause_id` is empty where the run goes on without one.
            rows: The decision as it is journaled; none without one.

        Raises:
            AlreadyResumed: The question was answered before, with this decision.
            ResumeConflict: ... with another.
            StillRunning: Somebody holds the run.
            ResumeError: Its journal is longer by now, it stands in another way, or the id is not known.
        """


@dataclass(frozen=True, slots=True)
class StoreFactory:
    """Opens stores by their URL.

    Attributes:
        scheme: How such a URL begins, e.g. `sqlite` for `sqlite:///runs.db`.
        open: Makes the store of a URL; nothing is opened before it is used.
    """

    scheme: str
    open: Callable[[str], RunStore]
