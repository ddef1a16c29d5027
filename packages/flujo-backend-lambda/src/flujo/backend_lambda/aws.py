"""The function's handler: `flujo.backend_lambda.aws.handler`. Importing it starts the worker, and refuses to where a
key in the environment is a secret one: on AWS the import is the cold start, and its fault is shown by every invocation.

A worker with plugin objects, or secrets from elsewhere, has a module of its own:

    worker = worker_from(os.environ, plugins=[Deidentify()])
    handler = handler_of(worker)
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any, Protocol

# A tenth of a cold start, or more, is the collector that looks through what is being imported, all of which stays.
_collects = gc.isenabled()
gc.disable()

from .worker import Call, LambdaWorker, worker_from  # noqa: E402

__all__ = ["handler", "handler_of"]


class LambdaContext(Protocol):
    """What awslambdaric tells of an invocation."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is ended."""


Handler = Callable[[object, LambdaContext], dict[str, Any]]


def handler_of(worker: LambdaWorker) -> Handler:
    """The handler of a worker, as awslambdaric calls it."""

    def handle(event: object, context: LambdaContext) -> dict[str, Any]:
        return worker.handle(event, Call(context.aws_request_id, context.get_remaining_time_in_millis() / 1000))

    return handle


handler: Handler = handler_of(worker_from(os.environ))

gc.freeze()
if _collects:
    gc.enable()
