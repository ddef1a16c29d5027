"""A step that gives chunks: one async generator, or a chain of them that pull from each other."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast, get_origin

from .assignable import assignable, type_names
from .callables import hints_of, local_hints
from .context import RunContext
from .errors import PipelineError
from .folds import WORDS, Chunks, Fold, chunk_type, fold_maker, folded_type
from .foreign import attempt
from .signatures import Signature, signature_of
from .steps import Node, Step, StepOptions

_STREAM = re.compile(r"\bAsync(Iterator|Iterable|Generator)\b")
CTX = "flujo_ctx"
"""What a chain takes its RunContext as where none of its stages asks for it, so that it can use nothing metered."""

_REFUSED = {
    "writes": "its output is what its chunks make; let the step after it write",
    "cache": "what was given once is not given again; cache a step before or after it",
    "inline": "it waits for its reader",
}
_OF_A_CHAIN = tuple(name for name in StepOptions.__dataclass_fields__ if name not in (*_REFUSED, "version"))


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One async generator of a chain.

    Attributes:
        name: Its name, for people.
        open: Makes the async iterator; it is called by name.
        hints: Its annotations, where they had to be read early.
        target: What it was made of: the function, or the agent whose `stream` that is.
    """

    name: str
    open: Callable[..., AsyncIterator[Any]]
    hints: Mapping[str, object] | None
    target: object

    @classmethod
    def of(cls, name: str, function: Callable[..., AsyncIterator[Any]], target: object = None) -> Stage:
        """The stage of an async generator function, which `target` has where it is an agent's."""
        return cls(name, function, local_hints(function), function if target is None else target)

    @property
    def upstream(self) -> str | None:
        """The parameter that takes the chunks of the stage before; None where it takes a value.

        It is the first one annotated as an async iterator; where nothing is annotated, the first.
        """
        hints = self.hints or attempt(hints_of, self.open)[0] or getattr(self.open, "__annotations__", {})
        names = [name for name in inspect.signature(self.open).parameters if name not in ("self", "ctx")]
        for name in names:
            hint = hints.get(name)
            kind = get_origin(hint) or hint
            if (isinstance(hint, str) and _STREAM.search(hint)) or (
                inspect.isclass(kind) and issubclass(kind, AsyncIterable)
            ):
                return name
        return names[0] if names and hints.get(names[0], Any) is Any else None


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a chain takes and gives.

    Attributes:
        signature: As that of one step.
        upstream: For each stage, what takes the chunks of the one before.
        names: For each stage, the other parameters it takes.
        ctx: The parameter that takes the RunContext.
        chunk: Type of the chunks of the last.
    """

    signature: Signature
    upstream: list[str | None]
    names: list[list[str]]
    ctx: str
    chunk: object


class StreamStep(Step):
    """A step whose work is an async generator, or a chain of them; its output is what its chunks make.

    Args:
        stages: The generators, first to last.
        name: Name in the pipeline.
        collect: What the chunks make: None (text joined where they are text, else a list), "text", "list", "last",
            "none", or a function of the list of them.
        **options: See StepOptions. What failed before its reader was given a chunk is tried again as `retry` says. A
            stream is not cached, and does not write the context. It runs where `backend` says; without that where the
            Flujo says, if chunks come back from there (`Capabilities.streams`), else in the process of its reader.
    """

    def __init__(self, stages: tuple[Stage, ...], *, name: str, collect: object = None, **options: Any) -> None:
        if problems := _problems(collect, options):
            raise PipelineError(f"step {name!r} cannot be used", problems)
        self.stages: tuple[Stage, ...] = stages
        self.collect: object = collect
        self._next: dict[Node, Node] = {}
        super().__init__(self._work, name=name, **options)

    async def _work(self, **arguments: Any) -> object:
        shape, opened = self._shape, list[Chunks]()
        for stage, upstream, names in zip(self.stages, shape.upstream, shape.names, strict=True):
            given = {name: arguments[name] for name in names if name in arguments}
            if upstream is not None and opened:
                given[upstream] = opened[-1]
            opened.append(_closable(stage.open(**given)))
        return await arguments[shape.ctx].deliver(self, tuple(opened), self.fold())

    @property
    def fold(self) -> Callable[[], Fold]:
        """Makes what takes the chunks."""
        return fold_maker(self.collect, self._shape.chunk)

    def signature(self) -> Signature:
        """What the chain takes and gives as one step.

        Raises:
            PipelineError: An annotation cannot be read, or two stages do not fit together.
        """
        return self._shape.signature

    @cached_property
    def _shape(self) -> _Shape:
        parameters: dict[str, object] = {}
        optional: set[str] = set()
        upstreams, names, chunk = list[str | None](), list[list[str]](), cast("object", Any)
        for stage in self.stages:
            signature = signature_of(stage.name, stage.open, stage.hints)
            own = dict(signature.parameters)
            upstream = stage.upstream if names else None
            if upstream is not None:
                self._check_joint(stage, chunk, own.pop(upstream))
            for name, hint in own.items():
                if parameters.setdefault(name, hint) != hint:
                    why = f"two of its stages take {name!r}, and not as the same type; rename one"
                    raise PipelineError(f"step {self.name!r} cannot be used", [why])
            optional |= signature.optional
            upstreams.append(upstream)
            names.append(list(own))
            chunk = chunk_type(signature.output)
        ctx = next((name for name, hint in parameters.items() if hint is RunContext), CTX)
        parameters[ctx] = RunContext
        made = (attempt(hints_of, self.collect)[0] or {}).get("return", Any)
        whole = Signature(parameters, frozenset(optional), folded_type(self.collect, chunk, made))
        return _Shape(whole, upstreams, names, ctx, chunk)

    def _check_joint(self, stage: Stage, gives: object, takes: object) -> None:
        wanted = chunk_type(takes)
        if not assignable(gives, wanted):
            one, other = type_names(gives, wanted)
            why = f"stage {stage.name!r} takes chunks of type {other}, but the one before gives {one}; change one"
            raise PipelineError(f"step {self.name!r} cannot be used", [why])

    def fused(self, other: Node) -> Node | None:
        """One node of this one and a streaming step that pulls from it; None where the other takes a value."""
        if not isinstance(other, StreamStep) or other.stages[0].upstream is None:
            return None
        if other not in self._next:
            plain = StepOptions()
            if odd := [name for name in _OF_A_CHAIN if getattr(other.options, name) != getattr(plain, name)]:
                why = f"it pulls from {self.name!r}, so its options are those of that step; move {', '.join(odd)} there"
                raise PipelineError(f"step {other.name!r} cannot be used", [why])
            kept = {name: getattr(self.options, name) for name in _OF_A_CHAIN}
            kept["version"] = self.options.version + other.options.version - 1
            stages, name = (*self.stages, *other.stages), f"{self.name}>>{other.name}"
            one = self._next[other] = StreamStep(stages, name=name, collect=other.collect, **kept)
            one.made_of = (*(self.made_of or (self,)), other)
        return self._next[other]

    @property
    def chunk(self) -> object:
        """Type of the chunks that it gives."""
        return self._shape.chunk

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its stages."""
        return tuple(stage.name for stage in self.stages)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the first generator, outside any run: handy in unit tests."""
        return self.stages[0].open(*args, **kwargs)


def _problems(collect: object, options: Mapping[str, object]) -> list[str]:
    problems = [f"{name}= cannot be used: {why}" for name, why in _REFUSED.items() if options.get(name)]
    if not (collect is None or collect in WORDS or callable(collect)):
        problems.append(f"collect={collect!r} must be one of {WORDS}, or a function of the list of chunks")
    return problems


def _closable(chunks: AsyncIterator[Any]) -> Chunks:
    """The chunks with an `aclose`, by which whoever pulls them tells that it has enough."""
    return chunks if isinstance(chunks, AsyncGenerator) else _wrapped(chunks)


async def _wrapped(chunks: AsyncIterator[Any]) -> Chunks:
    async for chunk in chunks:
        yield chunk
