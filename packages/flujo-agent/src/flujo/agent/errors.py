"""Errors of flujo-agent: what pydantic-ai and the providers' clients raise, as errors of Flujo.

FlujoError
├── AgentFault             an agent gave no output that can be used
├── ModelFault             a model was asked and failed: a server's error, a time-out, a broken connection
├── NotSent                (of flujo.core) nothing is booked for what surely did no work
│   ├── ModelUnavailable   the server could not be reached, or sent us away for now (429, 503); worth a second attempt
│   ├── ModelRejected      the server refused this request for good: key, permission, name of the model
│   └── CassetteMismatch   a replayed run asked a model for something else than was recorded
└── ConfigurationError     (of flujo.core) an agent that cannot work
    └── NeedsAsyncio       it was run on another event loop than asyncio's

A limit of pydantic-ai becomes flujo.core's UsageLimitExceeded.
"""

from __future__ import annotations

from flujo.core import ConfigurationError, FlujoError, NotSent

__all__ = ["AgentFault", "CassetteMismatch", "ModelFault", "ModelRejected", "ModelUnavailable", "NeedsAsyncio"]


class AgentFault(FlujoError):
    """The model answered, but gave nothing that can be used as output, or asked for what does not exist."""


class ModelFault(FlujoError):
    """A model was asked and failed. What it did is not known, so the attempt counts its whole lease."""


class ModelUnavailable(NotSent):
    """The server could not be reached, or had no capacity; nothing was done and nothing is booked."""


class ModelRejected(NotSent):
    """The server refused the request before doing any work, and would again; nothing is booked."""


class CassetteMismatch(NotSent):
    """What a replayed run asks and what the cassette holds are not the same; no model was asked."""


class NeedsAsyncio(ConfigurationError):
    """Models run on asyncio only: pydantic-ai does."""

    def __init__(self, agent: str) -> None:
        do = "Run the pipeline with Flujo.run, asyncio.run, or anyio.run(..., backend='asyncio')"
        super().__init__(f"agent {agent!r} cannot be run here", "pydantic-ai needs asyncio's event loop", do)
