"""Where code stands: the import path of a function, class or object, and what stands at one."""

from __future__ import annotations

import sys
from functools import reduce
from importlib import import_module

from .foreign import attempt
from .steps import Step


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
    return found is value or (type(found) is Step and found.target is value)
