"""The items of a stream as JSON, the same for server-sent events, WebSockets and the command line."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_jsonable_python

from flujo.core import Chunk, PausedItem, PipelineResult, StepEnded, StepStarted, StreamItem, UsageUpdate, scrub

__all__ = ["as_data", "as_json"]


def as_data(item: StreamItem) -> dict[str, Any]:
    """An item as plain data, `type` first. Outputs of steps are left out: the chunks and the result hold them.

    What JSON has no number for (NaN, the infinities) is None, or no browser could read it.
    """
    if isinstance(item, Chunk):
        return {"type": "chunk", "step": item.step_path, "choice": item.choice, "value": _json(item.value)}
    if isinstance(item, StepStarted):
        return {"type": "step_started", "step": item.step_path, "name": item.name, "attempt": item.attempt}
    if isinstance(item, StepEnded):
        error = item.record.error
        told = None if error is None else scrub(str(error))
        return {"type": "step_ended", "step": item.step_path, "status": item.record.status, "error": told}
    if isinstance(item, UsageUpdate):
        usage = item.usage
        tokens = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        return {"type": "usage", "step": item.step_path, **tokens, "cost_usd": str(usage.cost_usd)}
    if isinstance(item, PausedItem):
        pause = item.pause
        return {"type": "paused", "id": pause.id, "step": pause.step_path, "question": pause.question}
    return {"type": "result", **_result(item.result)}


def as_json(data: dict[str, Any]) -> str:
    """Plain data as JSON that is valid Unicode: half a pair, as models send it where they cut one, is escaped."""
    return json.dumps(data, ensure_ascii=False).encode(errors="backslashreplace").decode()


def _result(result: PipelineResult) -> dict[str, Any]:
    output = _json(result.output) if result.status == "completed" else None
    return {
        "run_id": result.run_id, "status": result.status, "output": output,
        "error": None if result.error is None else scrub(str(result.error)),
        "total_tokens": result.usage.total_tokens, "cost_usd": str(result.total_cost_usd),
    }  # fmt: skip


def _json(value: object) -> Any:
    return to_jsonable_python(value, fallback=repr, bytes_mode="base64", inf_nan_mode="null")
