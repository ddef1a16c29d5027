"""A plan: the frozen, checked form of a pipeline that an engine runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pydantic import BaseModel, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from .assignable import plain, type_name
from .check import adapter_of
from .steps import Step
from .usage import UsageLimits

__all__ = ["FIRST_VIEW", "RUN_INPUT", "Plan", "PlanNode", "Source", "View", "Views"]

RUN_INPUT = -1
"""Index that stands for the run input where a node's index is expected."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one input of a node comes from: a node's output or the run input, or a part of it."""

    parameter: str
    node: int
    path: tuple[str | int, ...]
    type: object


@dataclass(frozen=True, slots=True)
class View:
    """The context as it stands after the changes of some steps: those of another view, then those of one more step.

    Steps that follow each other share views, so that the context of each is the one before it plus one change.
    """

    base: int
    writer: int


FIRST_VIEW = 0
"""Index of the view before any change."""


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One step in a plan, with everything resolved that does not change from run to run.

    Attributes:
        index: Place in `Plan.nodes`; a node stands after all it depends on.
        step: The step.
        sources: Where its inputs come from.
        predecessors: Nodes it waits for.
        successors: Nodes that wait for it.
        view: Index in `Plan.views` of the context it sees: that of all nodes it depends on.
        ctx_parameter: Parameter that receives the RunContext, if there is one.
        context_parameter: Parameter that receives the user's context, if there is one.
        all_resources_parameter: Parameter that receives the Resources object itself, if there is one.
        resources: Parameter and resource name of each injected resource.
        output_type: Annotated type of the output.
        output_classes: Classes for the shallow check of an output; None accepts anything.
    """

    index: int
    step: Step
    sources: tuple[Source, ...]
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]
    view: int
    ctx_parameter: str | None
    context_parameter: str | None
    all_resources_parameter: str | None
    resources: tuple[tuple[str, str], ...]
    output_type: object
    output_classes: tuple[type, ...] | None

    def needs(self, resources: Iterable[str]) -> set[str]:
        """Which of the `resources` the step takes, by name."""
        return set(resources) if self.all_resources_parameter is not None else {name for _, name in self.resources}

    @property
    def path(self) -> str:
        """Where the step stands, for people."""
        return self.step.name


@dataclass(frozen=True)
class Plan:
    """A pipeline that is known to work.

    Attributes:
        name: Name of the pipeline.
        nodes: The steps, each after all it depends on.
        output: Which node's output, or which part of it, the run gives; by name where there are several.
        input_type: Type of the run input; `Any` where no step takes it or none says.
        context_model: The context model, if there is one.
        limits: Limits of every run of the pipeline.
        views: The contexts that nodes see, each after the one it is based on; the first is the run's own.
    """

    name: str
    nodes: tuple[PlanNode, ...]
    output: Source | Mapping[str, Source]
    input_type: object
    context_model: type[BaseModel] | None
    limits: UsageLimits | None
    views: tuple[View, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths, edges, schemas, effects and versions of the steps; never over source text."""
        schemas = _Schemas()
        nodes = [
            [
                node.path,
                "step",
                [[s.parameter, s.node, list(s.path), schemas.of(s.type)] for s in node.sources],
                schemas.of(node.output_type),
                node.step.options.effect,
                node.step.options.version,
            ]
            for node in self.nodes
        ]
        context = None if self.context_model is None else _context_schema(self.context_model)
        outputs = {"": self.output} if isinstance(self.output, Source) else self.output
        given = {name: [source.node, list(source.path)] for name, source in outputs.items()}
        text = json.dumps([nodes, context, given], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Views:
    """Which changes of the context each step sees, as one bit per step that writes.

    Args:
        before: For each step, the steps it depends on directly; steps are numbered so that these are smaller.
        writes: Whether each step writes.

    Attributes:
        made: All views; see `Plan.views`.
        of: For each step, the index of its view.
    """

    def __init__(self, before: Sequence[Sequence[int]], writes: Sequence[bool]) -> None:
        self.made = [View(-1, -1)]
        self.of: list[int] = []
        self._writers = [place for place, does in enumerate(writes) if does]
        self._bit = {place: 1 << number for number, place in enumerate(self._writers)}
        self._seen: list[int] = []
        self._by_changes = {0: 0}
        for direct in before:
            left, seen = [], 0
            for one in direct:
                changes = self._seen[one] | self._bit.get(one, 0)
                self._view(changes, [self._seen[one]])
                left.append(changes)
                seen |= changes
            self._seen.append(seen)
            self.of.append(self._view(seen, left))

    def sees(self, place: int, writer: int) -> bool:
        """Whether the step at `place` comes after `writer`."""
        return bool(self._seen[place] & self._bit[writer])

    def _view(self, seen: int, left: Sequence[int]) -> int:
        """The view of exactly these changes, built on the longest one that is their beginning."""
        if seen in self._by_changes:
            return self._by_changes[seen]
        begun = max((changes for changes in left if seen & ((1 << changes.bit_length()) - 1) == changes), default=0)
        rest = seen ^ begun
        while rest:
            bit = rest & -rest
            rest ^= bit
            base = self._by_changes[begun]
            begun |= bit
            if begun not in self._by_changes:
                self._by_changes[begun] = len(self.made)
                self.made.append(View(base, self._writers[bit.bit_length() - 1]))
        return self._by_changes[begun]


class _Schemas:
    """JSON schemas of types, each made once: a long pipeline has few types."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[object, object]] = {}

    def of(self, hint: object) -> object:
        """The schema of a type; its name where it has none."""
        if id(hint) not in self._made:  # by identity, which needs no hash; the type is kept, so its id is not reused
            self._made[id(hint)] = (hint, _schema(hint))
        return self._made[id(hint)][1]


def _schema(hint: object) -> object:
    adapter = adapter_of(hint)
    try:
        return type_name(hint) if adapter is None else _bare(adapter.json_schema(schema_generator=_Quiet))
    except PydanticUserError:  # pydantic can check the type, but JSON cannot hold it
        return type_name(plain(hint))


def _context_schema(model: type[BaseModel]) -> object:
    try:
        return _bare(model.model_json_schema(schema_generator=_Quiet))
    except PydanticUserError:  # one field that JSON cannot hold must not hide the others
        return {name: [_schema(field.annotation), field.is_required()] for name, field in model.model_fields.items()}


class _Quiet(GenerateJsonSchema):
    """Makes schemas without a warning about defaults that JSON cannot hold: they are left out anyway."""

    ignored_warning_kinds: ClassVar[set[JsonSchemaWarningKind]] = {"non-serializable-default", "skipped-choice"}  # type: ignore[misc]


_TEXTS = frozenset({"title", "description", "examples", "default"})
"""Words of a schema that change nothing about which values fit: a docstring may be edited without a new fingerprint."""


def _bare(schema: Any) -> object:
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _bare(part) for name, part in value.items()} if key in ("properties", "$defs") else _bare(value)
        for key, value in schema.items()
        if key not in _TEXTS
    }
