"""Errors of flujo-agent: what pydantic-ai and the providers' clients raise, as errors of Flujo.

FlujoError
├── AgentFault             an agent gave no output that can be used
├── ModelFault             a model was asked and failed: a server's error, a time-out, a broken connection
├── DatabaseFault          the database of an SQLAgent could not be asked
├── NotSent                (of flujo.core) nothing is booked for what surely did no work
│   ├── ModelUnavailable   the server could not be reached, or sent us away for now (429, 503); worth a second attempt
│   └── ModelRejected      the server refused this request for good: key, permission, name of the model
└── ConfigurationError     (of flujo.core) an agent that cannot work
    └── NeedsAsyncio       it was run on another event loop than asyncio's

A limit of pydantic-ai becomes flujo.core's UsageLimitExceeded.
"""

from __future__ import annotations

from flujo.core import ConfigurationError, FlujoError, NotSent

__all__ = ["AgentFault", "DatabaseFault", "ModelFault", "ModelRejected", "ModelUnavailable", "NeedsAsyncio"]


class AgentFault(FlujoError):
    """The model answered, but gave nothing that can be used as output, or asked for what does not exist."""


class ModelFault(FlujoError):
    """A model was asked and failed. What it did is not known, so the attempt counts its whole lease."""


class DatabaseFault(FlujoError):
    """A database could not be reached, is not what an agent was told it is, or cannot be read safely."""


class ModelUnavailable(NotSent):
    """The server could not be reached, or had no capacity; nothing was done and nothing is booked."""


class ModelRejected(NotSent):
    """The server refused the request before doing any work, and would again; nothing is booked."""


class NeedsAsyncio(ConfigurationError):
    """Models run on asyncio only: pydantic-ai does."""

    def __init__(self, agent: str) -> None:
        do = "Run the pipeline with Flujo.run, asyncio.run, or anyio.run(..., backend='asyncio')"
        super().__init__(f"agent {agent!r} cannot be run here", "pydantic-ai needs asyncio's event loop", do)
