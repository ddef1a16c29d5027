"""The mark of a hook implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict, TypeVar, overload

import pluggy

F = TypeVar("F", bound=Callable[..., object])

_marker = pluggy.HookimplMarker("flujo")
_OPTIONS = "flujo_hook_options"


class HookOptions(TypedDict):
    """What `hookimpl` was told, beyond what pluggy keeps."""

    thread: bool


@overload
def hookimpl(function: F) -> F: ...
@overload
def hookimpl(*, tryfirst: bool = False, trylast: bool = False, thread: bool = False) -> Callable[[F], F]: ...
def hookimpl(
    function: F | None = None, *, tryfirst: bool = False, trylast: bool = False, thread: bool = False
) -> F | Callable[[F], F]:
    """Mark a function or method as the implementation of the hook it is named after.

    Args:
        function: The implementation, where the mark is used without parentheses.
        tryfirst: Run before implementations without this mark.
        trylast: Run after implementations without this mark.
        thread: Run a sync implementation in a worker thread, so that it may block and its time limit can be kept.
    """

    def mark(target: F) -> F:
        setattr(target, _OPTIONS, HookOptions(thread=thread))
        return _marker(target, tryfirst=tryfirst, trylast=trylast)

    return mark if function is None else mark(function)


def hook_options(function: object) -> HookOptions:
    """Return the options `function` was marked with; the defaults when it was marked by pluggy's own marker."""
    options: HookOptions = getattr(function, _OPTIONS, HookOptions(thread=False))
    return options
