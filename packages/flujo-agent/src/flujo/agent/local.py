"""A GGUF file as a model: llama.cpp's own server, in this process, on loopback and behind a key of this process."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from flujo.core import ConfigurationError

if TYPE_CHECKING:
    import xllamacpp

__all__ = ["LocalServer", "serve"]

CONTEXT_TOKENS = 16_384
"""Tokens that all requests at a time share; a model trained with fewer has fewer."""

PARALLEL = 4
"""Requests that are worked on at a time; further ones wait in the server."""

QUIET = 1
"""llama.cpp's verbosity: errors only."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A model that is being served. It ends with the process.

    Attributes:
        base_url: Where, on loopback.
        api_key: What it asks for, so that other users of the machine cannot use it.
        server: What keeps it running.
    """

    base_url: str
    api_key: str
    server: xllamacpp.Server


_servers: dict[Path, LocalServer] = {}
_lock = Lock()


def serve(path: Path) -> LocalServer:
    """Serve the model in `path`; the second call for a file returns the server of the first.

    Blocks until the file is loaded, so call it in a thread.

    Raises:
        ConfigurationError: The file is no model that llama.cpp can load.
    """
    path = path.resolve()
    with _lock:
        if path not in _servers:
            _servers[path] = _start(path)
        return _servers[path]


def _start(path: Path) -> LocalServer:
    import xllamacpp  # here: an optional dependency, and a large one

    key = secrets.token_urlsafe(32)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = PARALLEL
    params.verbosity = QUIET
    params.api_keys = [key]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ConfigurationError(f"model {path.name!r} cannot be loaded", str(error), "Check the file") from error
    return LocalServer(f"{server.listening_address}/v1", key, server)
