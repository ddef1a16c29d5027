"""What goes wrong between Flujo and Ray."""

from __future__ import annotations

from flujo.core import ConfigurationError

__all__ = ["NeedsAsyncio"]


class NeedsAsyncio(ConfigurationError):
    """A step was to run on Ray from another event loop than asyncio's."""

    def __init__(self) -> None:
        do = "Run the pipeline with Flujo.run, asyncio.run, or anyio.run(..., backend='asyncio')"
        super().__init__("RayBackend cannot be used here", "Ray needs asyncio's event loop", do)
