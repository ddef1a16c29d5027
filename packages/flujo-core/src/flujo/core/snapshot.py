"""A run as data: where it stands, what it waits for, and what it did. JSON, checked before anything of it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from .codec import dump, dump_changes
from .errors import FlujoError, SnapshotError
from .flow import Map, Parallel
from .frames import UNSET, Frame, Part, Passed, RunState
from .journal import Entry
from .outcome import Answer, Called, Choice, Skipped, Success
from .pause import Pause, PauseForHumanInput, shown
from .plan import FlowNode, Plan, StepNode
from .result import RunStatus
from .usage import Usage, UsageLimits

VERSION = 1
"""Version of the form of a snapshot; a later one is refused."""

MAX_BYTES = 64 * 2**20
"""A longer text is no snapshot of ours, and is not parsed."""


class _Data(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", defer_build=True)


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
    results: dict[int, JsonValue] = {}
    failed: dict[int, JsonValue] = {}
    changes: dict[int, list[dict[str, JsonValue]]] = {}
    output: JsonValue = None
    context: JsonValue = None


class FrameData(_Data):
    """An open frame; see `frames.Frame`. `node` is its combinator's place in the frame `parent`."""

    id: int
    parent: int | None = None
    node: int = 0
    slot: int = 0
    outputs: dict[int, JsonValue] = {}
    passed: list[int] = []
    changes: dict[int, list[dict[str, JsonValue]]] = {}
    parts: list[PartData] = []
    spent: Usage | None = None


class PauseData(_Data):
    """A question that waits for a human: the `number`th of this visit of the step at `path`."""

    frame: int
    node: int
    path: str
    number: int
    question: str
    wanted: dict[str, JsonValue] | None = None
    payload: JsonValue = None
    expires_at: datetime | None = None
    asked: bool = False

    @property
    def shown(self) -> Pause:
        """What a human must be shown of it."""
        return shown(self.question, self.wanted, self.payload, self.expires_at, self.path, self.number)


class KnownData(_Data):
    """What humans and tools told a step that has not ended, by a digest of what was asked."""

    frame: int
    node: int
    told: list[tuple[str, JsonValue]]


class EntryData(_Data):
    """One entry of the journal; `unwritten` is the type of an output that could not be written."""

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


class Checkpoint(_Data):
    """Where a run stood when its journal had `position` entries: its live frames, whatever came before."""

    input: JsonValue = None
    context: JsonValue = None
    next_frame: int
    frames: list[FrameData]
    pauses: list[PauseData] = []
    known: list[KnownData] = []
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
        checkpoint: Where it stands.
        journal: What it did, in order.
        digest: SHA-256 of all else, so that damage is found; empty of what never left its process.
    """

    format: str = "flujo-snapshot"
    version: int = VERSION
    run_id: str
    pipeline: str
    fingerprint: str
    status: RunStatus | Literal["running"]
    actor: str | None = None
    tenant: str | None = None
    tags: dict[str, str] = {}
    counts: dict[str, dict[str, int]] = {}
    limits: LimitsData | None = None
    checkpoint: Checkpoint
    journal: list[EntryData] = []
    digest: str = ""

    @property
    def pauses(self) -> tuple[Pause, ...]:
        """The questions that wait for a human."""
        return tuple(one.shown for one in self.checkpoint.pauses)

    def sealed(self) -> Self:
        """The same with its digest."""
        return self.model_copy(update={"digest": self.computed_digest()})

    def computed_digest(self) -> str:
        """SHA-256 of all but the digest."""
        return hashlib.sha256(self.model_dump_json(exclude={"digest"}).encode()).hexdigest()

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
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            why = f"{place}: {first['msg']}" if place else first["msg"]
            do = "Use the text that model_dump_json() gave, whole"
            raise SnapshotError("snapshot cannot be used", why, do) from None
        if read.version == VERSION and read.digest != read.computed_digest():
            why = "its digest does not fit: something in it was changed"
            raise SnapshotError(f"snapshot of run {read.run_id!r} cannot be used", why, "Use it as it was written")
        return read


# --- writing ------------------------------------------------------------------------------------------------------


def checkpoint_of(state: RunState, usage: Usage, left_s: float | None, position: int = 0) -> Checkpoint:
    """Where a run stands. It costs what is live, not what was done.

    Raises:
        SnapshotError: A value that it needs cannot be written; it is named.
    """
    plan, root = state.plan, state.root
    frames = sorted(state.frames.values(), key=lambda frame: frame.id)
    return Checkpoint(
        input=dump(plan.input_type, root.input, "the run input"),
        context=None if root.context is None else dump(type(root.context), root.context, "the context"),
        next_frame=state.next_id,
        frames=[_frame(plan, frame) for frame in frames],
        pauses=[_pause(state, key, paused.request) for key, paused in state.pauses.items()],
        known=[KnownData(frame=f, node=n, told=told) for (f, n), told in state.known.items()],
        usage=usage,
        left_s=left_s,
        position=position,
    )


def _pause(state: RunState, key: tuple[int, int], request: PauseForHumanInput) -> PauseData:
    path, number = state.frames[key[0]].prefix + state.plan.nodes[key[1]].name, len(state.known.get(key, ()))
    return PauseData(
        frame=key[0], node=key[1], path=path, number=number, question=request.question, asked=request.asked,
        wanted=request.json_schema, payload=request.payload, expires_at=request.expires_at,
    )  # fmt: skip


def _frame(plan: Plan, frame: Frame) -> FrameData:
    outputs: dict[int, JsonValue] = {}
    passed: list[int] = []
    for node in frame.scope.nodes:
        value = frame.outputs[node.place]
        if value is UNSET:
            continue
        if isinstance(value, Passed):
            passed.append(node.place)
            outputs[node.place] = dump(passed_type(node), value.value, f"input of step {node.path!r}")
        else:
            outputs[node.place] = dump(node.output_type, value, f"output of {node.path!r}")
    return FrameData(
        id=frame.id,
        parent=None if frame.parent is None else frame.parent.id,
        node=0 if frame.node is None else frame.node.place,
        slot=frame.slot,
        outputs=outputs,
        passed=passed,
        changes=_changes(plan, frame.changes, f"{frame.prefix}*"),
        parts=[_part(plan, part) for part in frame.parts.values()],
        spent=frame.spent if frame.ledger is None else frame.ledger.spent,
    )


def _part(plan: Plan, part: Part) -> PartData:
    node = part.node
    where = f"output of a body of {node.path!r}"
    ended = {slot: value for slot, value in enumerate(part.results) if value is not UNSET}
    failed = {slot: error for slot, error in ended.items() if isinstance(error, FlujoError) and collects(node)}
    results = {slot: dump(body_type(node, slot), one, where) for slot, one in ended.items() if slot not in failed}
    loops = node.kind == "loop" and part.ended > 0
    moved = loops and part.context is not None
    return PartData(
        place=node.place,
        ended=part.ended,
        next=part.next,
        asks=part.asks,
        results=results,
        failed={slot: dump(FlujoError, error, where) for slot, error in failed.items()},
        changes=_changes(plan, part.changes, node.path),
        output=dump(body_type(node, 0), part.output, where) if loops else None,
        context=dump(type(part.context), part.context, "the context") if moved else None,
    )


def _changes(
    plan: Plan, changes: Mapping[int, tuple[Mapping[str, object], ...]], where: str
) -> dict[int, list[dict[str, JsonValue]]]:
    model = plan.context_model
    return {key: [dump_changes(model, one, where) for one in each] for key, each in changes.items()}


def collects(node: FlowNode) -> bool:
    """Whether errors of its bodies stand among what they gave."""
    return isinstance(node.flow, (Parallel, Map)) and node.flow.on_failure == "collect"


def passed_type(node: StepNode | FlowNode) -> object:
    """The type of what a skipped step hands on."""
    return node.passes if isinstance(node, StepNode) else Any


def body_type(node: FlowNode, slot: int) -> object:
    """The type of what a body gives."""
    several = isinstance(node.flow, Parallel) and not isinstance(node.flow, Map)
    return node.bodies[slot if several else 0].output_type


def entry_data(plan: Plan, entry: Entry) -> EntryData:
    """An entry of the journal as data; an output that cannot be written is left out, and its type named."""
    node, outcome = plan.nodes[entry.node], entry.outcome
    value: JsonValue = None
    unwritten = None
    try:
        if outcome.error is not None:
            value = dump(FlujoError, outcome.error, "error")
        elif isinstance(outcome, Success):
            value = dump(node.output_type, outcome.output, "output")
        elif isinstance(outcome, Skipped):
            value = dump(passed_type(node), outcome.output, "input")
        elif isinstance(outcome, Choice):
            value = outcome.value
        elif isinstance(outcome, (Answer, Called)):
            value = [outcome.key, outcome.value]
        changes = None if entry.changes is None else dump_changes(plan.context_model, entry.changes, entry.path)
    except SnapshotError:
        changes, unwritten = None, type(outcome.output if isinstance(outcome, (Success, Skipped)) else None).__name__
    return EntryData(
        frame=entry.frame, node=entry.node, kind=type(outcome).__name__.lower(), path=entry.path, value=value,
        unwritten=unwritten, started_at=entry.started_at, duration_s=entry.duration_s, changes=changes,
        attempts=entry.attempts, usage=entry.usage, cached=entry.cached, cancelled=entry.cancelled,
        is_void=entry.is_void,
    )  # fmt: skip
