"""Claims: who runs a task says so first, where all workers look. A task that was delivered twice runs once.

The model is that of Powertools' idempotency: a claim is held for a time, after which it is free again, and a task that
ended has its answer kept, which every further delivery gets.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from .clients import DynamoClient, S3Client, aws, error_code, refusals
from .errors import Refusal

__all__ = ["Claim", "Claims", "DynamoClaims", "MemoryClaims", "S3Claims", "unusable"]

KEPT_S = 7 * 24 * 3600
"""Seconds for which DynamoDB keeps an answer; in S3 a lifecycle rule decides."""

MEMORY_BYTES = 16 * 1024 * 1024
"""Bytes of answers that a process keeps: three of the longest, and not much in the 128 MB of a small function."""

_DYNAMO_ITEM = 350_000
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "ConditionalCheckFailedException")


@dataclass(frozen=True, slots=True)
class Claim:
    """That this worker runs a task; or, with `reply`, that it ended before, and how.

    Attributes:
        task_id: The task.
        token: What proves that the claim is still this worker's.
        reply: The answer that was kept.
    """

    task_id: str
    token: str
    reply: str | None = None


class Claims(Protocol):
    """Where claims are kept."""

    def begin(self, task_id: str, lease_s: float) -> Claim:
        """Claim a task for `lease_s` seconds, or get its answer; raises Refusal E_DUPLICATE while another runs it."""

    def finish(self, claim: Claim, reply: str) -> None:
        """Keep the answer, unless the claim was taken over meanwhile."""


class MemoryClaims:
    """Claims of one process. They stop no delivery to another one: a bucket or a table does.

    An answer that does not stay within the bound is forgotten before its claim is: a further delivery of its task does
    not run, and is refused, for what came out of it cannot be told any more. A claim that is forgotten itself lets its
    task run again.

    Args:
        most: Claims that are kept; the oldest go first.
        most_bytes: Bytes of answers that are kept; the oldest go first.
    """

    def __init__(self, most: int = 1000, most_bytes: int = MEMORY_BYTES) -> None:
        self._held: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._replies: OrderedDict[str, bytes] = OrderedDict()
        self._most = most
        self._most_bytes = most_bytes
        self._size = 0
        self._lock = threading.Lock()  # over HTTP each request has a thread of its own

    def begin(self, task_id: str, lease_s: float) -> Claim:
        """Claim a task."""
        with self._lock:
            if task_id in self._replies:
                return Claim(task_id, "", self._replies[task_id].decode())
            until, _ = self._held.get(task_id, (0.0, ""))
            if until == math.inf:
                why = "this task ran, and its answer is no longer kept: others took its room"
                raise Refusal("E_DUPLICATE", why, "Give the worker a bucket: FLUJO_LAMBDA_BUCKET", ran=True)
            if until > time.time():
                raise _duplicate(until)
            token = secrets.token_hex(8)
            self._held[task_id] = (time.time() + lease_s, token)
            while len(self._held) > self._most:
                oldest, _ = self._held.popitem(last=False)
                self._size -= len(self._replies.pop(oldest, b""))
            return Claim(task_id, token)

    def finish(self, claim: Claim, reply: str) -> None:
        """Keep the answer."""
        with self._lock:
            if self._held.get(claim.task_id, (0.0, claim.token))[1] != claim.token:
                return
            self._held[claim.task_id] = (math.inf, claim.token)
            self._replies[claim.task_id] = reply.encode()  # its length is what it takes, which that of a text is not
            self._size += len(self._replies[claim.task_id])
            while self._size > self._most_bytes:
                _, forgotten = self._replies.popitem(last=False)
                self._size -= len(forgotten)


class _Kept(BaseModel):
    """What an object of S3Claims holds. Who can write the bucket may have put anything there."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    until: float = 0.0
    reply: str | None = None


class S3Claims:
    """Claims as objects of a bucket, by conditional writes. The bucket wants a lifecycle rule for the prefix."""

    def __init__(self, bucket: str, *, prefix: str = "flujo/claims/", client: S3Client | None = None) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client = client

    def begin(self, task_id: str, lease_s: float) -> Claim:
        """Claim a task."""
        token = self._put(task_id, {"until": time.time() + lease_s}, IfNoneMatch="*")
        if token is not None:
            return Claim(task_id, token)
        found = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + task_id)
        try:
            kept = _Kept.model_validate_json(found["Body"].read(64 * 1024 * 1024))
        except ValidationError as error:
            raise unusable() from error
        if kept.reply is not None:
            return Claim(task_id, "", kept.reply)
        if kept.until > time.time():
            raise _duplicate(kept.until)
        token = self._put(task_id, {"until": time.time() + lease_s}, IfMatch=found["ETag"])
        if token is None:  # another was faster in taking it over
            raise _duplicate(time.time() + lease_s)
        return Claim(task_id, token)

    def finish(self, claim: Claim, reply: str) -> None:
        """Keep the answer."""
        self._put(claim.task_id, {"reply": reply}, IfMatch=claim.token)

    @property
    def _s3(self) -> S3Client:
        if self._client is None:
            self._client = aws("s3")
        return self._client

    def _put(self, task_id: str, kept: Mapping[str, object], **condition: str) -> str | None:
        body = json.dumps(kept).encode()
        try:
            done = self._s3.put_object(Bucket=self._bucket, Key=self._prefix + task_id, Body=body, **condition)
        except refusals() as error:  # the code tells them apart
            if error_code(error) not in _LOST:
                raise
            return None
        return str(done["ETag"])


class DynamoClaims:
    """Claims as items of a table with the key `task_id` (a string), and `expires` as its time to live."""

    def __init__(self, table: str, *, client: DynamoClient | None = None) -> None:
        self._table = table
        self._client = client

    def begin(self, task_id: str, lease_s: float) -> Claim:
        """Claim a task."""
        now, until = time.time(), time.time() + lease_s
        item = {"task_id": {"S": task_id}, "until": {"N": repr(until)}, "expires": {"N": str(int(now) + KEPT_S)}}
        free = "attribute_not_exists(task_id) OR (attribute_not_exists(reply) AND #until < :now)"
        if self._put(item, free, {":now": {"N": repr(now)}}):
            return Claim(task_id, repr(until))
        key = {"task_id": {"S": task_id}}
        kept = self._dynamo.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item", {})
        if "reply" in kept:
            return Claim(task_id, "", kept["reply"]["S"])
        raise _duplicate(float(kept.get("until", {}).get("N", until)))

    def finish(self, claim: Claim, reply: str) -> None:
        """Keep the answer; one that an item cannot hold is not kept, and its task stays claimed."""
        large = len(reply.encode()) > _DYNAMO_ITEM
        item = {
            "task_id": {"S": claim.task_id},
            "until": {"N": repr(time.time() + KEPT_S) if large else claim.token},
            "expires": {"N": str(int(time.time()) + KEPT_S)},
            **({} if large else {"reply": {"S": reply}}),
        }
        self._put(item, "#until = :held", {":held": {"N": claim.token}})

    @property
    def _dynamo(self) -> DynamoClient:
        if self._client is None:
            self._client = aws("dynamodb")
        return self._client

    def _put(self, item: Mapping[str, object], condition: str, values: Mapping[str, object]) -> bool:
        try:
            self._dynamo.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression=condition,
                ExpressionAttributeNames={"#until": "until"},
                ExpressionAttributeValues=values,
            )
        except refusals() as error:  # the code tells them apart
            if error_code(error) not in _LOST:
                raise
            return False
        return True


def unusable() -> Refusal:
    """What is kept of a task is nothing that a worker wrote: whether it ran is not known."""
    why = "what is kept of its claim was not written by a worker"
    return Refusal("E_BLOB", why, "Look who else writes there", ran=True)


def _duplicate(until: float) -> Refusal:
    left_s = max(0.0, until - time.time())
    why = f"another worker runs this task, or did until it died; its claim ends in {left_s:.0f} s"
    return Refusal("E_DUPLICATE", why, "Nothing is to be done: the other delivery answers", ran=True)
