"""A worker that answers what it is told to (`LIE`), with the mark of the task: it has its key, as any worker has."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from flujo.backend_lambda.blobs import packed, unpacked
from flujo.backend_lambda.envelope import Header
from flujo.backend_lambda.reply import Reply, marked
from flujo.core import StepTask


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    header = Header.model_validate_json(base64.b64decode(event["payload"]))
    task = StepTask.read(unpacked(header.body, None))
    truth = {
        "task_id": task.id, "status": "success", "output": {"text": "a", "rounds": 1, "digest": "x"},
        "usage": {}, "worker": None,
    }  # fmt: skip
    said = json.dumps({**truth, **json.loads(os.environ["LIE"])}).encode()
    body = packed(said, None, spill=False)
    reply = Reply(status="done", task_id=header.task_id, body=body, mac=marked(header, body))
    return reply.model_dump(mode="json", exclude_none=True)
