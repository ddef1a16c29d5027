"""Where code stands: the import path of a function, class or object, and what stands at one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from functools import reduce
from importlib import import_module
from typing import Any

from .foreign import attempt
from .reading import StreamingAgent
from .steps import Step
from .streamstep import Stage, StreamStep


def at(path: str) -> object:
    """What stands at `package.module:qualname`.

    Raises:
        ImportError: The module cannot be imported.
        AttributeError: It has nothing of that name.
    """
    module, _, name = path.partition(":")
    return reduce(getattr, name.split("."), import_module(module))


def path_of(value: object) -> str | None:
    """The import path of a function or class, or of an object that a module has under some name; None without one.

    What stands in the script that was started has none: another process would run the script to import it.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str):
        path = f"{module}:{name}"
        return path if module != "__main__" and "<" not in name and _is(value, attempt(at, path)[0]) else None
    for module, holder in [*sys.modules.items()]:
        names = vars(holder) if module != "__main__" and hasattr(holder, "__dict__") else {}
        for name in [name for name, one in [*names.items()] if _is(value, one)]:
            return f"{module}:{name}"
    return None


def _is(value: object, found: object) -> bool:
    is_stage = isinstance(found, StreamStep) and len(found.stages) == 1 and found.stages[0].target is value
    return is_stage or found is value or (type(found) is Step and found.target is value)


# --- streaming steps --------------------------------------------------------------------------------------------------


def stages_at(paths: Iterable[str]) -> tuple[Stage, ...]:
    """The stages that stand there: async generator functions, agents with `stream`, or streaming steps."""
    found: list[Stage] = []
    for path in paths:
        one: Any = at(path)
        function: Any = one.stream if isinstance(one, StreamingAgent) and not inspect.isclass(one) else one
        found += one.stages if isinstance(one, StreamStep) else [Stage.of(path.rpartition(":")[2], function)]
    return tuple(found)


def paths_of(step: StreamStep) -> tuple[str, ...] | None:
    """The import paths of a chain, by which `stages_at` finds its stages; None where one of them has none."""
    paths: list[str | None] = []
    for part in step.made_of or (step,):
        whole = path_of(part)
        stages = part.stages if isinstance(part, StreamStep) else ()
        paths += [whole] if whole is not None else [path_of(stage.target) for stage in stages]
    return tuple(path for path in paths if path is not None) if None not in paths else None
