"""What goes wrong between Flujo and Ray."""

from __future__ import annotations

from flujo.core import ConfigurationError

__all__ = ["ClusterUnreachable", "NeedsAsyncio"]

_DO = "Start it there (`ray start --head`), mend address= or RAY_ADDRESS, or leave both out for a local cluster"


class NeedsAsyncio(ConfigurationError):
    """A step was to run on Ray from another event loop than asyncio's."""

    def __init__(self) -> None:
        do = "Run the pipeline with Flujo.run, asyncio.run, or anyio.run(..., backend='asyncio')"
        super().__init__("RayBackend cannot be used here", "Ray needs asyncio's event loop", do)


class ClusterUnreachable(ConfigurationError):
    """No cluster answers at the address that was given, or this process is in another. Nothing was sent.

    Attributes:
        address: The address.
        reason: Why not.
    """

    def __init__(self, address: str, reason: str, do: str = _DO) -> None:
        self.address: str = address
        self.reason: str = reason
        super().__init__(f"the Ray cluster at {address!r} cannot be reached", reason, do)
