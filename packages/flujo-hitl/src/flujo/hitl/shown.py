"""What a human is shown of a question, as text, and the digest that binds a decision to exactly that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from flujo.core import Pause, unfit

__all__ = ["MOST_SHOWN", "Shown", "misfit", "printable", "show", "verdict"]

MOST_SHOWN = 200_000
"""Characters that are shown; a longer question can be looked at, and not decided on, here."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A question as text.

    Attributes:
        question: What is asked.
        payload: What is to be decided on; empty where there is nothing.
        wanted: The JSON schema of the answer; empty where any JSON will do.
        is_whole: Whether nothing was left out.
        digest: SHA-256 of question, schema and payload as they are, and of this text.
    """

    question: str
    payload: str
    wanted: str
    is_whole: bool
    digest: str

    def lines(self) -> Iterator[str]:
        """The whole of it, for a terminal. No line of the question can pass for one that is not part of it."""
        yield from _text(self.question.split("\n"), "")
        if self.payload:
            yield ""
            yield from self.payload.splitlines()
        if self.wanted:
            yield ""
            yield f"An answer must be: {self.wanted}"


def show(pause: Pause) -> Shown:
    """A question, its payload and the schema of its answer as text that is the same wherever it is shown.

    What a terminal or a page would not show as it is, as a line break in a name or a mark that turns the direction of
    writing, is written as an escape. A text of several lines stands as such, indented, after a `|`.
    """
    question = printable(pause.question, keep="\n")
    payload = "" if pause.payload is None else "\n".join(_lines(pause.payload))
    schema: JsonValue = to_jsonable_python(pause.schema)
    wanted = "" if schema is None else printable(json.dumps(schema, ensure_ascii=False))
    is_whole = len(question) + len(payload) + len(wanted) <= MOST_SHOWN
    if not is_whole:
        question, payload, wanted = question[:1000], payload[: MOST_SHOWN // 2], wanted[:1000]
    facts = {"question": pause.question, "schema": schema, "payload": pause.payload}
    text = json.dumps({**facts, "rendered": [question, payload, wanted]}, sort_keys=True, separators=(",", ":"))
    return Shown(question, payload, wanted, is_whole, hashlib.sha256(text.encode()).hexdigest())


def verdict(schema: object, *, approved: bool, reason: str) -> JsonValue:
    """What approves or rejects, in the form a question wants: `true`, or an object with `approved`.

    Raises:
        ValueError: It wants something else than an approval.
    """
    if isinstance(schema, dict) and schema.get("type") == "boolean":
        return approved
    known = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(known, dict) or "approved" not in known:
        raise ValueError("it does not ask for an approval, but for an answer")
    return {"approved": approved, **({"reason": reason} if reason and "reason" in known else {})}


def printable(text: str, keep: str = "") -> str:
    """With escapes for what a terminal or a page would not show as it is."""
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if char.isascii() else f"\\u{{{ord(char):x}}}"


def _lines(value: JsonValue, indent: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from _named(f"{indent}{_key(name)}:", one, indent)
    elif isinstance(value, list) and value:
        for one in value:
            yield from _named(f"{indent}-", one, indent)
    elif isinstance(value, str) and "\n" in value:
        yield from _text([printable(line) for line in value.split("\n")], indent)
    else:
        yield indent + _plain(value)


def _text(lines: Sequence[str], indent: str) -> Iterator[str]:
    if len(lines) > 1:
        yield f"{indent}|"
        yield from (f"{indent}  {line}" for line in lines)
    else:
        yield indent + lines[0]


def _named(head: str, value: JsonValue, indent: str) -> Iterator[str]:
    if isinstance(value, (dict, list)) and value:
        yield head
        yield from _lines(value, f"{indent}  ")
    else:
        first, *rest = _lines(value, indent)
        yield f"{head} {first.lstrip(' ')}"
        yield from rest


def _key(name: str) -> str:
    return name if name.isidentifier() else _plain(name)


def _plain(value: JsonValue) -> str:
    return printable(json.dumps(value, ensure_ascii=False))


def misfit(pause: Pause, decision: JsonValue) -> str | None:
    """Why a decision does not fit what is asked, with the field that is wrong; None where it fits."""
    schema = to_jsonable_python(pause.schema)
    problem = None if schema is None else unfit(schema, decision, schema)
    if problem is not None and isinstance(decision, dict):
        fields, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        wrong = (name for name, one in decision.items() if unfit(fields.get(name, others), one, schema))
        return next((f"{name!r}: {problem}" for name in wrong), problem)
    return problem
