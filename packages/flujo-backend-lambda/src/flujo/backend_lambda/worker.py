"""The worker: checks an envelope, claims its task, runs it, and answers. Nothing here knows whether AWS called it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from flujo.core import CodeBlob, ConfigurationError, TaskRejected, Verifier, Worker, WorkerFacts

from .blobs import BlobStore, S3Blobs, packed, unpacked
from .claims import Claims, DynamoClaims, MemoryClaims, S3Claims, unusable
from .clients import secrets_manager
from .envelope import Header, check, check_code, opened
from .errors import Refusal
from .keys import keys_from
from .packing import MARKER
from .reply import Reply, marked
from .unpickling import unpickled
from .versions import PYTHON, cloudpickle_version, version_of

__all__ = ["HANDLER", "Call", "LambdaWorker", "worker_from"]

HANDLER = "flujo.backend_lambda.aws.handler"
"""What a function is deployed with."""

INLINE_REPLY = 5_500_000
"""Bytes up to which a result comes back in the answer where there is no bucket; AWS refuses more than 6 MB."""

LATE_S = 60.0
"""Seconds that may lie between the check of a delivery and its claim: a large body is fetched meanwhile."""

_log = logging.getLogger("flujo.backend_lambda")


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of an invocation besides its event.

    Attributes:
        request_id: The platform's id of it.
        remaining_s: Seconds until the platform ends it; None where nothing does.
    """

    request_id: str = ""
    remaining_s: float | None = None


class LambdaWorker:
    """Serves tasks; one object per process.

    Args:
        audience: The name that tasks for it carry.
        keys: Keys it trusts, by name.
        store: Where large parts lie; None where all must fit into an invocation.
        claims: Who runs what; None keeps claims of this process only.
        allow_pickle: Whether it unpickles code of those who hold a signing key.
        artifact: Digest of the artifact it was built from.
        inline_limit: Bytes of a result from which on it goes to the store.
        plugins: Plugin objects, for those that runs are given as objects.
        secret: Finds a secret by its name; the environment's variables when left out.
    """

    def __init__(
        self,
        audience: str,
        keys: Mapping[str, Verifier],
        *,
        store: BlobStore | None = None,
        claims: Claims | None = None,
        allow_pickle: bool = False,
        artifact: str | None = None,
        inline_limit: int = 200_000,
        plugins: Iterable[object] = (),
        secret: Callable[[str], str] | None = None,
    ) -> None:
        self.audience: str = audience
        self._keys = keys
        self._store = store
        self._claims: Claims = claims or MemoryClaims()
        self._allow_pickle = allow_pickle
        self._artifact = artifact
        self._inline_limit = inline_limit
        self._served = 0
        self._worker = Worker(plugins=plugins, secret=secret, unpack=self.unpack, engine="lambda")
        self._loop = asyncio.new_event_loop()
        # A daemon, for the platform ends the process without asking; the loop stays, and with it what steps opened.
        threading.Thread(target=_turn, args=(self._loop,), name="flujo-worker", daemon=True).start()

    def handle(self, event: object, call: Call) -> dict[str, Any]:
        """Answer one invocation. A task that must not run is answered, not raised: an event would come again."""
        since, cold = time.perf_counter(), self._served == 0
        self._served += 1
        facts = WorkerFacts(
            engine="lambda", worker=self.audience, request_id=call.request_id, python=PYTHON, is_cold=cold
        )
        try:
            header = opened(event, self._keys)
            reply = self._checked(header, call, facts, since)
        except Refusal as refusal:
            _log.warning("task refused: %s", json.dumps({"code": refusal.code, "why": refusal.why}))
            status: Literal["rejected", "lost"] = "lost" if refusal.ran else "rejected"
            reply = Reply(status=status, code=refusal.code, why=refusal.why, do=refusal.do, facts=facts)
        return reply.model_dump(mode="json", exclude_none=True)

    def _checked(self, header: Header, call: Call, facts: WorkerFacts, since: float) -> Reply:
        check(header, self.audience)
        if header.artifact is not None and header.artifact != self._artifact:
            why = f"it wants artifact {header.artifact[:12]}, this is {(self._artifact or 'of no artifact')[:12]}"
            raise Refusal("E_ARTIFACT", why, "Deploy that artifact")
        if header.code is not None:
            self._may_unpickle()
            check_code(header.code)
        importable(header.modules)
        body = unpacked(header.body, self._store)
        if header.kind == "probe":
            return self._replied(header, json.dumps(_probed(body)).encode(), facts, since)
        # Where nothing ends a step, it may run for as long as another delivery of its task could be taken.
        left_s = header.exp - time.time() + LATE_S if call.remaining_s is None else call.remaining_s + 1
        claim = self._claims.begin(header.task_id, left_s)
        if claim.reply is not None:
            return _kept(header, claim.reply)
        outcome = asyncio.run_coroutine_threadsafe(self._worker.execute(body), self._loop).result()
        reply = self._replied(header, outcome.encode(), facts, since)
        try:
            self._claims.finish(claim, reply.model_dump_json(exclude_none=True))
        except Exception as error:  # of any store: the step did run, and who waits for its answer must have it
            _log.warning("answer not kept: %s", json.dumps({"task": header.task_id, "error": type(error).__name__}))
        return reply

    def unpack(self, code: CodeBlob) -> object:
        """The function that a task brought along. Its envelope was checked: a trusted key has signed the task."""
        try:
            self._may_unpickle()
            return unpickled(code, self._store)
        except Refusal as refusal:
            raise TaskRejected(refusal.code, refusal.why) from refusal

    def _may_unpickle(self) -> None:
        if not self._allow_pickle:
            do = "Put the step in a module of the artifact, or set FLUJO_LAMBDA_ALLOW_PICKLE=1"
            raise Refusal("E_PICKLE", "this worker runs no code that travels as a pickle", do)

    def _replied(self, header: Header, outcome: bytes, facts: WorkerFacts, since: float) -> Reply:
        body = packed(outcome, self._store, spill=len(outcome) > self._inline_limit)
        if body.text is not None and len(outcome) > INLINE_REPLY:
            why = f"the result has {len(outcome):,} bytes, an answer may have {INLINE_REPLY:,}"
            raise Refusal("E_SIZE", why, "Give the worker a bucket: FLUJO_LAMBDA_BUCKET", ran=True)
        facts = facts.model_copy(update={"duration_s": time.perf_counter() - since})
        return Reply(status="done", task_id=header.task_id, body=body, mac=marked(header, body), facts=facts)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop on. A task of a step's own that raises an exit ends, and asyncio's loop with it: that begins again."""
    while not loop.is_closed():
        with suppress(KeyboardInterrupt, SystemExit):
            loop.run_forever()


def importable(modules: Sequence[str]) -> None:
    """Check that modules are there, without running them; the packages that they stand in do run.

    Raises:
        Refusal: E_IMPORT.
    """
    missing = [name for name in modules if not _found(name)]
    if missing:
        why = f"the worker has no module {', '.join(map(repr, missing))}"
        do = "Build it into the artifact (flujo lambda build), or send it along: cloudpickle.register_pickle_by_value"
        raise Refusal("E_IMPORT", why, do)


def _kept(header: Header, data: str) -> Reply:
    """The answer that was kept of a task, if it is one: whoever writes the store has no mark for another."""
    try:
        reply = Reply.model_validate_json(data)
    except ValidationError as error:
        raise unusable() from error
    if reply.status != "done" or not reply.is_of(header):
        raise unusable()
    return reply


def worker_from(
    env: Mapping[str, str], *, plugins: Iterable[object] = (), secret: Callable[[str], str] | None = None
) -> LambdaWorker:
    """The worker that an environment describes; docs/reference/lambda.md lists the variables.

    Args:
        env: The environment.
        plugins: Plugin objects, for those that runs are given as objects.
        secret: Finds a secret by its name; when left out, Secrets Manager does where FLUJO_LAMBDA_SECRETS says what
            names begin with there, else the environment's variables.

    Raises:
        ConfigurationError: It cannot be one, or should not start: it holds a secret key.
    """
    audience = env.get("FLUJO_LAMBDA_AUDIENCE") or env.get("AWS_LAMBDA_FUNCTION_NAME") or env.get("K_SERVICE")
    if not audience:
        why = "it does not know its own name"
        raise ConfigurationError("the worker does not start", why, "Set FLUJO_LAMBDA_AUDIENCE")
    bucket = env.get("FLUJO_LAMBDA_BUCKET")
    prefix = env.get("FLUJO_LAMBDA_PREFIX", "flujo/")
    return LambdaWorker(
        audience,
        keys_from(env),
        store=S3Blobs(bucket, prefix=prefix) if bucket else None,
        claims=_claims(env.get("FLUJO_LAMBDA_CLAIMS", "s3" if bucket else "memory"), bucket, prefix),
        allow_pickle=env.get("FLUJO_LAMBDA_ALLOW_PICKLE") == "1",
        artifact=env.get("FLUJO_LAMBDA_ARTIFACT") or _tree(env.get("LAMBDA_TASK_ROOT")),
        inline_limit=int(env.get("FLUJO_LAMBDA_INLINE_LIMIT", "200000")),
        plugins=plugins,
        secret=secret or _secrets(env.get("FLUJO_LAMBDA_SECRETS")),
    )


def _claims(kind: str, bucket: str | None, prefix: str) -> Claims:
    name, _, table = kind.partition(":")
    makes: dict[str, Callable[[], Claims]] = {"memory": MemoryClaims}
    if bucket:
        makes["s3"] = lambda: S3Claims(bucket, prefix=f"{prefix}claims/")
    if table:
        makes["dynamodb"] = lambda: DynamoClaims(table)
    if name not in makes:
        why = "it is none of s3 (with FLUJO_LAMBDA_BUCKET), dynamodb:TABLE and memory"
        raise ConfigurationError(f"FLUJO_LAMBDA_CLAIMS={kind!r} cannot be used", why)
    return makes[name]()


def _secrets(prefix: str | None) -> Callable[[str], str] | None:
    """Reads secrets from Secrets Manager, where their names begin with `prefix`; None reads the environment."""
    if prefix is None:
        return None
    kept: dict[str, str] = {}

    def read(name: str) -> str:
        if name not in kept:
            kept[name] = str(secrets_manager().get_secret_value(SecretId=prefix + name)["SecretString"])
        return kept[name]

    return read


def _tree(root: str | None) -> str | None:
    """What the artifact that was unpacked here calls itself; None where this is none."""
    marker = Path(root or ".", MARKER)
    return str(json.loads(marker.read_text("utf-8"))["tree"]) if marker.is_file() else None


def _found(module: str) -> bool:
    """Whether a module is there; that it cannot be imported is told when it is, as that of any other code."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:  # of it or its package, if of nothing that its package imports
        return not f"{module}.".startswith(f"{error.name}.")
    except (Exception, SystemExit):  # of its package, which runs when it is looked for; or it is no name of a module
        return "." in module


def _probed(body: bytes) -> dict[str, object]:
    asked = json.loads(body)
    missing = [name for name in asked.get("modules", ()) if not _found(str(name))]
    versions = {name: version_of(name) for name in ("flujo-core", "flujo-backend-lambda", "boto3")}
    return {"python": PYTHON, "cloudpickle": cloudpickle_version(), "missing": missing, "versions": versions}
