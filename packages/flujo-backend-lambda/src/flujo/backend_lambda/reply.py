"""What a worker answers: plain JSON. Nothing that comes back is ever unpickled."""

from __future__ import annotations

import hmac
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flujo.core import TaskRejected, WorkerFacts

from .blobs import Blob, BlobStore, unpacked
from .envelope import Header
from .errors import BadReply, LambdaFault, Refusal

__all__ = ["MAX_RESULT", "Reply", "marked", "read"]

MAX_RESULT = 64 * 1024 * 1024
"""Bytes of the largest result that is fetched; what announces more is refused unread."""

Short = Annotated[str, Field(max_length=4000)]
"""A text that ends in an error or among the facts: a worker's word, of which there is not to be more."""


class Reply(BaseModel):
    """The answer to one task.

    Attributes:
        v: Version of this format.
        status: `done` with an outcome; `rejected` before anything ran; `lost` where it ran, and has no outcome to give.
        task_id: Which it was; empty where that could not be known.
        body: The outcome, as JSON.
        mac: That the body was made for this task, by who knew its reply key.
        code: Why it was refused.
        why: The same in words.
        do: The next act.
        facts: What the worker says of itself.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    v: Literal["flujo.reply/1"] = "flujo.reply/1"
    status: Literal["done", "rejected", "lost"]
    task_id: Short = ""
    body: Blob | None = None
    mac: Short = ""
    code: Short = ""
    why: Short = ""
    do: Short = ""
    facts: WorkerFacts = WorkerFacts(engine="lambda")

    def is_of(self, header: Header) -> bool:
        """Whether its body bears the mark of the task of `header`."""
        return self.body is not None and hmac.compare_digest(self.mac.encode(), marked(header, self.body).encode())


def marked(header: Header, body: Blob) -> str:
    """The mark of an answer. It proves nothing of the worker, only that no third party with the bucket wrote it."""
    text = f"{header.task_id}\n{body.sha256}\n{body.size}"
    return hmac.new(bytes.fromhex(header.reply_key), text.encode(), "sha256").hexdigest()


def read(data: bytes, header: Header, store: BlobStore | None, step_path: str, most: int = MAX_RESULT) -> Read:
    """The outcome in an answer to `header`'s task, as JSON, once it is known to be one.

    Raises:
        TaskRejected: The worker refused the task.
        LambdaFault: It ran, or runs elsewhere, and how that ended is not told.
        BadReply: It is none, was changed, or announces more than `most` bytes.
    """
    try:
        reply = Reply.model_validate_json(data)
    except ValidationError as error:
        why = "the function answered with something else than an outcome"
        do = "Deploy it with the handler flujo.backend_lambda.aws.handler"
        raise BadReply(step_path, "BadReply", why, do) from error
    if reply.status == "rejected":
        raise TaskRejected(reply.code or "E_SHAPE", f"{reply.why}. {reply.do}" if reply.do else reply.why)
    if reply.status == "lost":
        raise LambdaFault(step_path, f"{reply.code}: {reply.why}", reply.do)
    if reply.body is None or not reply.is_of(header):
        raise BadReply(step_path, "BadReply", "the answer is not marked as made for this task")
    try:
        return unpacked(reply.body, store, most), reply.facts
    except Refusal as error:
        raise BadReply(step_path, "BadReply", f"{error.code}: {error.why}", error.do) from error


Read = tuple[bytes, WorkerFacts]
