"""What a user's function, method, partial or callable object takes and gives, by its annotations."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import get_type_hints

from .errors import PipelineError


def function_of(target: object) -> Callable[..., object]:
    """The function to call for `target`: itself, its `async def run`, or its `__call__`.

    Raises:
        PipelineError: It is nothing that can be called as a step.
    """
    if isinstance(target, staticmethod):
        target = target.__func__
    if callable(target) and (inspect.isroutine(target) or isinstance(target, partial)):
        return target
    run = getattr(target, "run", None)
    if not inspect.isclass(target) and inspect.iscoroutinefunction(run):
        return run
    if callable(target) and not inspect.isclass(target):
        return target.__call__
    what = f"{getattr(target, '__name__', None) or type(target).__name__!r} cannot be a step"
    do = "make an object of the class first" if inspect.isclass(target) else "wrap what it does in a function"
    raise PipelineError(what, [f"a step is a function or an object with an `async def run`; {do}"])


def name_of(target: object) -> str:
    """The name of a function or an agent.

    Raises:
        PipelineError: It is a lambda.
    """
    target = _inner(target)
    name = str(getattr(target, "__name__", None) or getattr(target, "name", None) or type(target).__name__)
    if name == "<lambda>":
        raise PipelineError("a lambda cannot name itself", ["give it a name: Step(..., name='...')"])
    return name


# --- annotations ------------------------------------------------------------------------------------------------------


def hints_of(target: object, names: Mapping[str, object] | None = None) -> dict[str, object]:
    """Annotations of a function, partial, callable object, or class (then of its fields and its `__init__`).

    Args:
        target: What is annotated.
        names: Names that its own module does not have, see `local_names`.

    Raises:
        NameError: An annotation names what is not there.
    """
    target = _inner(target)
    if inspect.isclass(target):
        return _hints(target, names) | _hints(vars(target).get("__init__"), names)
    return _hints(target if inspect.isroutine(target) else type(target).__call__, names)


def _hints(target: object, names: Mapping[str, object] | None) -> dict[str, object]:
    try:
        return get_type_hints(target, localns=dict(names or {}), include_extras=True)
    except TypeError:  # written in C, with nothing to read
        return {}


def _inner(target: object) -> object:
    while isinstance(target, partial):
        target = target.func
    return target


def local_hints(function: Callable[..., object]) -> dict[str, object] | None:
    """Annotations of a function that is being defined in another's body and may name what is local there; else None."""
    qualname = getattr(_inner(function), "__qualname__", "")
    if "<locals>" not in qualname:
        return None
    try:
        return hints_of(function, local_names(qualname))
    except NameError:
        return None  # perhaps it is there when the pipeline is compiled; if not, that says so


def local_names(qualname: str) -> dict[str, object]:
    """Names of the functions in whose body the thing called `qualname` is being defined right now.

    Under `from __future__ import annotations` the annotations of a local function are text that may name local
    classes; these are only within reach while the enclosing function runs.
    """
    parts = qualname.split(".<locals>.")[:-1]
    enclosing = {".<locals>.".join(parts[: end + 1]) for end in range(len(parts))}
    found: dict[str, object] = {}
    frame = sys._getframe(1) if enclosing else None
    while frame is not None:
        if frame.f_code.co_qualname in enclosing:
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    return found
