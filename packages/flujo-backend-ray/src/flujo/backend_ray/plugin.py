"""What Flujo finds in this package: the backend called `ray`."""

from __future__ import annotations

from collections.abc import Sequence

from flujo.core import BackendFactory, hookimpl

from .backend import RayBackend

__all__ = ["flujo_api", "register_backends"]

flujo_api = "1.0"


@hookimpl
def register_backends() -> Sequence[BackendFactory]:
    """`step(backend="ray")`, `Flujo(..., backend="ray")`, `flujo run --backend ray`."""
    return [BackendFactory("ray", RayBackend)]
