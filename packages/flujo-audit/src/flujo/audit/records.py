"""From the engine's moments to audit records. Nothing personal enters: contents become digests, errors their type."""

from __future__ import annotations

from collections.abc import Mapping

from flujo.core import (
    ModelRequest,
    ModelResponse,
    OnGovernorBreach,
    OnGuardDenied,
    OnMutation,
    OnRetry,
    OnUsageWarning,
    RecordIntent,
    RecordResult,
    RunInfo,
    ToolCall,
    ToolResult,
    Usage,
)

from .digest import Digester

__all__ = ["Record", "Scribe"]

Record = dict[str, object]

_BEGIN = {"run": "run.start", "step": "step.start", "model_call": "llm.call", "tool_call": "tool.call"}
_END = {"run": "run.end", "step": "step.end", "model_call": "llm.result", "tool_call": "tool.result"}


class Scribe:
    """Writes records as data.

    Args:
        digester: Turns contents into digests.
        plain_actor: Whether actor and tenant are written as the caller gave them, or as digests.
    """

    def __init__(self, digester: Digester, *, plain_actor: bool = True) -> None:
        self._digest = digester
        self._plain_actor = plain_actor

    def intent(self, payload: RecordIntent) -> Record:
        """What is about to happen."""
        record = self._moment(_BEGIN[payload.kind], payload.run, payload.step_path, payload.attempt)
        record["record_id"] = self._digest.title(payload.record_id)
        if payload.kind == "run":
            record |= {"pipeline": self._digest.title(payload.run.pipeline), "fingerprint": payload.run.fingerprint}
        return record | self._subject(payload.subject, payload.kind)

    def result(self, payload: RecordResult) -> Record:
        """How it ended and what it cost."""
        record = self._moment(_END[payload.kind], payload.run, payload.step_path, payload.attempt)
        record |= {
            "record_id": self._digest.title(payload.record_id),
            "outcome": payload.status,
            "latency_ms": round(payload.duration_s * 1000, 3),
        }
        priced_by = payload.run.counts.get("priced_by")
        if payload.kind == "run" and priced_by:
            record["priced_by"] = {self._digest.title(source): calls for source, calls in priced_by.items()}
        if payload.error_type:
            record["error_type"] = self._digest.name(payload.error_type)
        return record | _usage(payload.usage) | self._value(payload.value)

    def denied(self, payload: OnGuardDenied) -> Record:
        """A guard, or a required recorder, said no. The reason is the plugin's text and may quote what it saw."""
        denial = payload.denial
        record = self._moment("guard.denied", payload.run, payload.step_path)
        record |= {"plugin": self._digest.name(denial.plugin), "hook": self._digest.name(denial.hook)}
        return record | {"reason": self._digest.text(denial.reason)}

    def mutated(self, payload: OnMutation) -> Record:
        """A step changed what comes after it in the pipeline of its run."""
        change, title = payload.change, self._digest.title
        record = self._moment("pipeline.changed", payload.run, payload.step_path)
        record |= {"fingerprint_before": change.before, "fingerprint": change.after}
        return record | {"added": [*map(title, change.added)], "removed": [*map(title, change.removed)]}

    def breached(self, payload: OnGovernorBreach) -> Record:
        """A limit refused work."""
        record = self._moment("limit.reached", payload.run, payload.step_path)
        return record | {"limit": payload.error.limit, "value": payload.error.value}

    def warned(self, payload: OnUsageWarning) -> Record:
        """A limit is nearly used up."""
        return self._moment("limit.warning", payload.run) | {"limit": payload.limit, "share": payload.share}

    def retried(self, payload: OnRetry) -> Record:
        """An attempt failed and is made again."""
        record = self._moment("step.retry", payload.run, payload.step_path, payload.attempt)
        return record | {"error_type": self._digest.name(payload.error_type), "delay_s": payload.delay_s}

    def _moment(self, event: str, run: RunInfo, step_path: str = "", attempt: int = 0) -> Record:
        record: Record = {"event": event, "run_id": self._digest.title(run.run_id)}
        for name, text in (("actor", run.actor), ("tenant", run.tenant)):
            if text is not None:
                record[name] = self._digest.title(text) if self._plain_actor else self._digest.text(text)
        if step_path:
            record["step"] = self._digest.title(step_path)
        if attempt:
            record["attempt"] = attempt
        redactions = run.counts.get("redactions")
        if redactions:
            # Of the whole run up to now: steps that run at the same time share the tally.
            record["redactions"] = {self._digest.label(kind): number for kind, number in redactions.items()}
        return record

    def _subject(self, subject: object, kind: str) -> Record:
        if isinstance(subject, ModelRequest):
            return self._request(subject)
        if isinstance(subject, ToolCall):
            call: Record = {"tool": self._digest.name(subject.name), "arguments": self._digest.value(subject.arguments)}
            return call | {"call_id": self._digest.name(subject.id)} if subject.id else call
        if kind == "step" and isinstance(subject, Mapping):
            return {"inputs": self._digest.values({str(name): value for name, value in subject.items()})}
        return {"input": self._digest.value(subject)}

    def _request(self, request: ModelRequest) -> Record:
        record: Record = {
            "model": self._digest.name(request.model),
            "prompt": self._digest.value(request.messages),
            "messages": len(request.messages),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        if request.tools:
            record["tools"] = [self._digest.name(tool.name) for tool in request.tools]
        return record

    def _value(self, value: object) -> Record:
        if value is None:
            return {}
        if isinstance(value, ModelResponse):
            record: Record = {"model": self._digest.name(value.model), "response": self._digest.text(value.content)}
            record["finish_reason"] = self._digest.name(value.finish_reason)
            if value.tool_calls:
                record["tool_calls"] = [self._digest.name(call.name) for call in value.tool_calls]
            return record
        if isinstance(value, ToolResult):
            return {"output": self._digest.value(value.content), "is_error": value.is_error}
        return {"output": self._digest.value(value)}


def _usage(usage: Usage) -> Record:
    """Tokens and money; nothing where nothing was metered."""
    record: Record = {}
    if usage.requests or usage.total_tokens or usage.cost_usd:
        record |= {"tokens_in": usage.input_tokens, "tokens_out": usage.output_tokens, "requests": usage.requests}
        record["cost_usd"] = format(usage.cost_usd, "f")
    counted = {"unmeasured": usage.unmeasured, "unpriced": usage.unpriced}
    record |= {name: number for name, number in counted.items() if number}
    if usage.overshoot_usd:
        record["overshoot_usd"] = format(usage.overshoot_usd, "f")
    return record
