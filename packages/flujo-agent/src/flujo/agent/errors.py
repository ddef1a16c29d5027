"""Errors of flujo-agent: what pydantic-ai and the providers' clients raise, as errors of Flujo.

FlujoError
├── AgentFault             an agent gave no output that can be used
│   └── CodeRefused        the programs that a model wrote do not pass
├── ModelFault             a model was asked and failed: a server's error, a time-out, a broken connection
├── DatabaseFault          the database of an SQLAgent could not be asked
├── NotSent                (of flujo.core) nothing is booked for what surely did no work
│   ├── ModelUnavailable   the server could not be reached, or sent us away for now (429, 503); worth a second attempt
│   ├── ModelRejected      the server refused this request for good: key, permission, name of the model
│   └── CassetteMismatch   a replayed run asked a model for something else than was recorded
└── ConfigurationError     (of flujo.core) an agent that cannot work
    ├── NeedsAsyncio       it was run on another event loop than asyncio's
    └── SandboxMissing     there is no sandbox here in which a program that a model wrote could be run

A limit of pydantic-ai becomes flujo.core's UsageLimitExceeded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.core import ConfigurationError, FlujoError, NotSent

if TYPE_CHECKING:
    from .programs import Program, Verdict

__all__ = [
    "AgentFault",
    "CassetteMismatch",
    "CodeRefused",
    "DatabaseFault",
    "ModelFault",
    "ModelRejected",
    "ModelUnavailable",
    "NeedsAsyncio",
    "SandboxMissing",
]


class AgentFault(FlujoError):
    """The model answered, but gave nothing that can be used as output, or asked for what does not exist."""


class CodeRefused(AgentFault):
    """A model's programs do not pass, and no repair is left.

    Attributes:
        program: The last one.
        verdict: What is wrong with it.
    """

    def __init__(self, agent: str, program: Program, verdict: Verdict, repairs: int) -> None:
        self.program = program
        self.verdict = verdict
        why = f"after {repairs} repairs, {verdict.stage}: {'; '.join(verdict.problems)}"
        do = "Change the task, take a better model, or allow more repairs"
        super().__init__(f"agent {agent!r} wrote no program that passes", why, do)


class ModelFault(FlujoError):
    """A model was asked and failed. What it did is not known, so the attempt counts its whole lease."""


class DatabaseFault(FlujoError):
    """A database could not be reached, is not what an agent was told it is, or cannot be read safely."""


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


class SandboxMissing(ConfigurationError):
    """Programs that a model wrote are run in a sandbox, or not at all."""

    def __init__(self, why: str) -> None:
        do = "Install it: apt-get install bubblewrap, pip install 'flujo-agent[code]'"
        super().__init__("there is no sandbox for programs that a model writes", why, do)
