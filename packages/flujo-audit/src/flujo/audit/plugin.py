"""The plugin: records every run, step, model call and tool call before it happens and after it ended.

[tool.flujo]
use = ["flujo-audit"]

[tool.flujo.plugins.flujo-audit]
path = "out/audit.jsonl"
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import anyio.to_thread
from pydantic import SecretStr

from flujo.core import (
    Command,
    ConfigurationError,
    OnGovernorBreach,
    OnGuardDenied,
    OnMutation,
    OnRetry,
    OnUsageWarning,
    RecordIntent,
    RecordResult,
    hookimpl,
)

from .digest import Digester
from .errors import AuditWriteError
from .keys import own_key, read_key
from .log import AuditLog
from .records import Scribe

__all__ = ["Plugin", "flujo_api", "register_commands"]

flujo_api = "1.0"

DEFAULT_PATH = "flujo-audit.jsonl"


@hookimpl
def register_commands() -> Sequence[Command]:
    """`flujo audit ...`."""
    return [Command("audit", "Check and read audit logs", "flujo.audit.cli:audit")]


class Plugin:
    """Records to one audit log. A fault in writing is raised: the engine denies what a required plugin cannot record.

    Args:
        path: The log; else the environment's FLUJO_AUDIT_PATH, else `flujo-audit.jsonl`.
        key: Key of the digests that stand for contents, and of the checkpoints' signatures: at least 16 characters.
        key_file: A file that holds it. Without both, the environment's FLUJO_AUDIT_KEY or FLUJO_AUDIT_KEY_FILE; else
            a random key in `<path>.key`, made at the first record; it keys the digests, and checkpoints stay unsigned.
        checkpoint_to: A file that gets the log's head at the end of every run.
        actor: Whether actor and tenant of a run are written `plain` or as a `digest`.

    Raises:
        ConfigurationError: A key or a setting cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        key: str | bytes | SecretStr | None = None,
        key_file: str | os.PathLike[str] | None = None,
        checkpoint_to: str | os.PathLike[str] | None = None,
        actor: Literal["plain", "digest"] = "plain",
    ) -> None:
        if actor not in ("plain", "digest"):
            raise ConfigurationError(f"actor={actor!r} cannot be used", "it is neither 'plain' nor 'digest'")
        secret = _given_key(key, key_file)
        where = path if path is not None else os.environ.get("FLUJO_AUDIT_PATH") or DEFAULT_PATH
        self.log: AuditLog = AuditLog(where, checkpoint_to=checkpoint_to, key=secret)
        self._plain_actor = actor == "plain"
        self._scribe = None if secret is None else self._new_scribe(secret)

    @hookimpl
    async def record_intent(self, payload: RecordIntent) -> None:
        """Durable before the effect."""
        scribe = await self._ready()
        await self.log.append(scribe.intent(payload))

    @hookimpl
    async def record_result(self, payload: RecordResult) -> None:
        """Durable before the engine goes on; the end of a run also exports a checkpoint where one is wanted."""
        scribe = await self._ready()
        await self.log.append(scribe.result(payload))
        if payload.kind == "run":
            await self.log.export_checkpoint()

    @hookimpl
    async def on_guard_denied(self, payload: OnGuardDenied) -> None:
        """Something was not let through."""
        scribe = await self._ready()
        await self.log.append(scribe.denied(payload))

    @hookimpl
    async def on_mutation(self, payload: OnMutation) -> None:
        """A step changed the pipeline of its run."""
        scribe = await self._ready()
        await self.log.append(scribe.mutated(payload))

    @hookimpl
    async def on_governor_breach(self, payload: OnGovernorBreach) -> None:
        """A limit stopped the run."""
        scribe = await self._ready()
        await self.log.append(scribe.breached(payload))

    @hookimpl
    async def on_usage_warning(self, payload: OnUsageWarning) -> None:
        """A limit is nearly used up."""
        scribe = await self._ready()
        await self.log.append(scribe.warned(payload))

    @hookimpl
    async def on_retry(self, payload: OnRetry) -> None:
        """An attempt failed and is made again."""
        scribe = await self._ready()
        await self.log.append(scribe.retried(payload))

    def _new_scribe(self, key: bytes) -> Scribe:
        return Scribe(Digester(key), plain_actor=self._plain_actor)

    async def _ready(self) -> Scribe:
        """Read or make the log's own key at the first record, off the event loop."""
        if self._scribe is None:
            path = self.log.path.with_name(self.log.path.name + ".key")
            try:
                key = await anyio.to_thread.run_sync(own_key, path)
            except OSError as error:
                raise AuditWriteError(path, error) from error
            self._scribe = self._new_scribe(key)
        return self._scribe


def _given_key(key: str | bytes | SecretStr | None, key_file: str | os.PathLike[str] | None) -> bytes | None:
    if key is None and key_file is None:
        key = os.environ.get("FLUJO_AUDIT_KEY") or None
        key_file = os.environ.get("FLUJO_AUDIT_KEY_FILE") or None if key is None else None
    if key is not None:
        return read_key(key.get_secret_value() if isinstance(key, SecretStr) else key)
    return None if key_file is None else read_key(Path(key_file))
