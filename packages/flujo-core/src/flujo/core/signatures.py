"""What a step's function takes and gives, and how a predicate of the user's is called."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin

from .callables import hints_of
from .context import Update
from .errors import PipelineError
from .mutation import PipelineMutation

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a step's function takes and gives, by its annotations; what is not annotated is `Any`.

    Attributes:
        parameters: Annotation of each parameter, in order.
        optional: Names of parameters with a default.
        output: Type of the output, an `Update[T]` unwrapped.
    """

    parameters: Mapping[str, object]
    optional: frozenset[str]
    output: object


def signature_of(name: str, function: Callable[..., object], known: Mapping[str, object] | None) -> Signature:
    """Read the annotations of the function of the step called `name`.

    Args:
        name: Name of the step.
        function: Its function.
        known: Its annotations, where they had to be read earlier.

    Raises:
        PipelineError: An annotation names something that does not exist.
    """
    try:
        hints = hints_of(function) if known is None else known
        parameters = inspect.signature(function).parameters
    except NameError as error:
        why = f"its annotations name {error.name or str(error)!r}, which is not there when the pipeline is compiled"
        do = "import it at run time (not only under TYPE_CHECKING), or define it before the step"
        raise PipelineError(f"step {name!r} cannot be read", [f"{why}; {do}"]) from error
    except (TypeError, ValueError) as error:
        why = f"{error}; wrap it in a function with annotations"
        raise PipelineError(f"step {name!r} cannot be read", [why]) from error
    first = next(iter(parameters.values()), None)
    if first is not None and first.kind is inspect.Parameter.POSITIONAL_ONLY:
        why = f"parameter {first.name!r} is positional-only, and inputs are given by name"
        raise PipelineError(f"step {name!r} cannot be called", [f"{why}; wrap it in a function without `/`"])
    bound = function.keywords if isinstance(function, partial) else ()
    named = {name: p for name, p in parameters.items() if p.kind not in _VARIADIC and name not in bound}
    return Signature(
        {name: hints.get(name, Any) for name in named},
        frozenset(name for name, p in named.items() if p.default is not inspect.Parameter.empty),
        _unwrap_update(hints.get("return", Any)),
    )


def _unwrap_update(hint: object) -> object:
    """The output type of a step that may return `Update[T]`, alone or in a union."""
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if inner in (Update, PipelineMutation):
        return Any
    if get_origin(inner) in (Update, PipelineMutation):
        return get_args(inner)[0]
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(_unwrap_update(part) for part in get_args(hint))]  # noqa: UP007 - built at run time
    return hint


@dataclass(frozen=True, slots=True)
class Question:
    """A function of the user's that is asked about a value: `on`, `until`, `when`, a validator.

    Attributes:
        function: Takes the value, or the value and the context; sync or async.
        with_context: Whether it takes the context.
    """

    function: Callable[..., object]
    with_context: bool

    @property
    def name(self) -> str:
        """What it is called, for people."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def call(self, value: object, context: object) -> object:
        """Call it; the answer may have to be awaited. Whatever it raises is raised."""
        return self.function(value, context) if self.with_context else self.function(value)

    async def ask(self, value: object, context: object) -> object:
        """Call it and await its answer; whatever it raises is raised."""
        answer = self.call(value, context)
        return await answer if inspect.isawaitable(answer) else answer


def question(function: object, where: str) -> Question:
    """Make a Question of `function`.

    Raises:
        PipelineError: It cannot be called with a value, or a value and the context.
    """
    if isinstance(function, Question):
        return function
    if not callable(function):
        raise PipelineError(f"{where} cannot be used", [f"{function!r} is no function; give one: lambda value: ..."])
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C, with nothing to read: `bool`, `str.isdigit`
        return Question(function, False)
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if (
        len(needed) > 2
        or not (placed or many)
        or any(p.kind is p.KEYWORD_ONLY and p.name in needed for p in parameters)
    ):
        why = f"it is called with (value) or (value, context), but takes {', '.join(needed) or 'nothing'}"
        raise PipelineError(f"{where} cannot be used", [why])
    return Question(function, len(needed) == 2)
