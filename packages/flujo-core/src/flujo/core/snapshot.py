"""A run as data: where it stands, what it waits for, and what it did. JSON, checked before anything of it is used."""

from __future__ import annotations

import hashlib
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from .check import reason
from .errors import SnapshotError
from .foreign import attempt
from .mutation import PipelineChange
from .pause import Pause, PauseForHumanInput, shown
from .result import RunStatus
from .usage import Usage, UsageLimits

FORMAT = "flujo-snapshot"
_DO = "Use the text that model_dump_json() gave, whole"
VERSION = 1
"""Version of the form of a snapshot; a later one is refused."""

MAX_BYTES = 64 * 2**20
"""A longer text is no snapshot of ours, and is not parsed."""


def check_form(form: object, version: object) -> None:
    """Refuse what is foreign, or of a form that this version does not read.

    Raises:
        SnapshotError: It is.
    """
    if form != FORMAT:
        raise SnapshotError("snapshot cannot be used", f"its format is {form!r}, not {FORMAT!r}", _DO)
    if version != VERSION:
        why = f"its form has version {version!r}, and this flujo-core reads version {VERSION}"
        raise SnapshotError("snapshot cannot be used", why, "Install the flujo-core that wrote it, or a later one")


_SHOWN = {"run_id", "pipeline", "status", "position", "id", "parent", "frame", "node", "slot", "place", "kind", "path"}


class _Data(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, ser_json_inf_nan="strings"
    )

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Shows where it belongs, and no payload: that may be private."""
        return [(name, value) for name, value in super().__repr_args__() if name in _SHOWN]


class LimitsData(_Data):
    """`UsageLimits` that were given to one run."""

    total_cost_usd_limit: Decimal | None
    total_tokens_limit: int | None
    requests_limit: int | None
    warn_at: float
    on_unknown_price: Literal["refuse", "warn"]

    @classmethod
    def of(cls, limits: UsageLimits | None) -> LimitsData | None:
        """Write limits."""
        return None if limits is None else cls(**{name: getattr(limits, name) for name in cls.model_fields})

    def limits(self) -> UsageLimits:
        """Read them."""
        return UsageLimits(**self.model_dump())


class PartData(_Data):
    """A combinator that has begun; see `frames.Part`."""

    place: int
    ended: int
    next: int
    asks: bool
    results: dict[int, JsonValue] = Field(default_factory=dict)
    failed: dict[int, JsonValue] = Field(default_factory=dict)
    changes: dict[int, list[dict[str, JsonValue]]] = Field(default_factory=dict)
    output: JsonValue = None
    context: JsonValue = None


class FrameData(_Data):
    """An open frame; see `frames.Frame`. `node` is its combinator's place in the frame `parent`."""

    id: int
    parent: int | None = None
    node: int = 0
    slot: int = 0
    outputs: dict[int, JsonValue] = Field(default_factory=dict)
    passed: list[int] = Field(default_factory=list)
    changes: dict[int, list[dict[str, JsonValue]]] = Field(default_factory=dict)
    parts: list[PartData] = Field(default_factory=list)
    spent: Usage | None = None
    spent_by: dict[int, Usage] = Field(default_factory=dict)


_OF_QUESTION = ("question", "payload", "expires_at", "asked", "roles", "on_expiry")


class QuestionData(_Data):
    """What a human is asked; `wanted` is the JSON schema of the decision."""

    question: str
    wanted: dict[str, JsonValue] | None = None
    payload: JsonValue = None
    expires_at: datetime | None = None
    asked: bool = False
    roles: frozenset[str] = frozenset()
    on_expiry: JsonValue = None

    @classmethod
    def of(cls, request: PauseForHumanInput, **place: int | str) -> Self:
        """Write a question."""
        facts = {name: getattr(request, name) for name in _OF_QUESTION}
        return cls.model_validate({**facts, "wanted": request.json_schema, **place})

    def request(self) -> PauseForHumanInput:
        """Read it.

        Raises:
            ConfigurationError: It cannot be asked.
        """
        request = PauseForHumanInput(
            self.question, payload=self.payload, expires_at=self.expires_at, roles=self.roles, on_expiry=self.on_expiry
        )
        request.asked, request.json_schema = self.asked, self.wanted
        return request


class PauseData(QuestionData):
    """A question that waits for a human: the `number`th of this visit of the step at `path`."""

    frame: int
    node: int
    path: str
    number: int


class KnownData(_Data):
    """What humans and tools told a step that has not ended, by a digest of what was asked."""

    frame: int
    node: int
    path: str
    told: list[tuple[str, JsonValue]]


class BegunData(_Data):
    """What may happen at most once, has begun and not ended: tools by a digest of the call, or the step itself."""

    frame: int
    node: int
    path: str
    begun: dict[str, str]


class DecidedData(_Data):
    """What a human decided for a step that has not ended with it yet."""

    frame: int
    node: int
    path: str
    output: JsonValue = None


class EntryData(_Data):
    """One entry of the journal; `unwritten` is the type of an output or error that could not be written.

    `value` is what came of the visit: an output, an error, what was told; of a pause, its QuestionData.
    """

    frame: int
    node: int
    kind: str
    path: str = ""
    value: JsonValue = None
    unwritten: str | None = None
    started_at: float = 0.0
    duration_s: float = 0.0
    changes: dict[str, JsonValue] | None = None
    attempts: int = 1
    usage: Usage | None = None
    cached: bool = False
    cancelled: bool = False
    is_void: bool = False
    mutation: PipelineChange | None = None


class Checkpoint(_Data):
    """Where a run stood when its journal had `position` entries: its live frames, whatever came before."""

    input: JsonValue = None
    context: JsonValue = None
    next_frame: int
    frames: list[FrameData]
    pauses: list[PauseData] = Field(default_factory=list)
    known: list[KnownData] = Field(default_factory=list)
    begun: list[BegunData] = Field(default_factory=list)
    decided: list[DecidedData] = Field(default_factory=list)
    usage: Usage
    left_s: float | None = None
    position: int = 0


class Snapshot(_Data):
    """A run as data, to be resumed or replayed by a Flujo of the same pipeline.

    It holds the payloads as they are: where they are private, so is the snapshot. It is not signed: who may change it
    may change what the run goes on with.

    Attributes:
        format: Always "flujo-snapshot".
        version: Version of the form.
        run_id: Id of the run.
        pipeline: Name of the pipeline.
        fingerprint: Fingerprint of its plan; another pipeline refuses it.
        status: How the run stands.
        actor: Who started it.
        tenant: For whom.
        tags: Further words of the caller.
        counts: What plugins counted.
        limits: Limits that were given to this run alone.
        trace: W3C `traceparent` of its span, to which that of a resume is linked.
        mutations: How its steps changed the pipeline that the fingerprint is of, until it stood there.
        checkpoint: Where it stands.
        journal: What it did, in order.
        digest: SHA-256 of all else, so that damage is found; empty of what never left its process.
    """

    format: str = FORMAT
    version: int = VERSION
    run_id: str
    pipeline: str
    fingerprint: str
    status: RunStatus | Literal["running"]
    actor: str | None = None
    tenant: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    limits: LimitsData | None = None
    trace: str | None = None
    mutations: list[PipelineChange] = Field(default_factory=list)
    checkpoint: Checkpoint
    journal: list[EntryData] = Field(default_factory=list)
    digest: str = ""

    @property
    def pauses(self) -> tuple[Pause, ...]:
        """The questions that wait for a human."""
        return tuple(shown(one, one.wanted, one.path, one.number) for one in self.checkpoint.pauses)

    def sealed(self) -> Self:
        """The same with its digest."""
        return self.model_copy(update={"digest": self.computed_digest()})

    def computed_digest(self) -> str:
        """SHA-256 of all but the digest."""
        left_out = {"digest"} if self.mutations else {"digest", "mutations"}  # older ones were written without
        return hashlib.sha256(self.model_dump_json(exclude=left_out).encode()).hexdigest()

    def check_digest(self) -> None:
        """Find out whether it was changed.

        Raises:
            SnapshotError: It was.
        """
        if self.digest != self.computed_digest():
            why = "its digest does not fit: something in it was changed" if self.digest else "it has no digest"
            do = "Use it as it was written" if self.digest else "Write snapshot.sealed(); a store reads it from a dict"
            raise SnapshotError(f"snapshot of run {self.run_id!r} cannot be used", why, do)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Read a snapshot.

        Raises:
            SnapshotError: It is damaged, foreign, of a later version, or far too long.
        """
        if len(json_data) > MAX_BYTES:
            why = f"it has {len(json_data)} bytes, more than the {MAX_BYTES} that are read"
            raise SnapshotError("snapshot cannot be used", why, "Keep large data outside and pass references to it")
        try:
            read = super().model_validate_json(json_data, **options)
        except ValidationError as error:
            data = attempt(from_json, json_data)[0]
            if isinstance(data, dict):  # of another form, whatever does not fit in it is no damage
                check_form(data.get("format", FORMAT), data.get("version", VERSION))
            raise SnapshotError("snapshot cannot be used", reason(error), _DO) from None
        check_form(read.format, read.version)
        read.check_digest()
        return read
