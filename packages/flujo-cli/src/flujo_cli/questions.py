"""What paused runs ask a human, and how to go on with them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from flujo.core import Pause, scrub

from .describe import printable

__all__ = ["asked", "going_on", "pause_facts", "resuming"]

_PASSWORD = re.compile(r"(?<=\w://)([^/@:]*):[^/]*(?=@)|(?<=[?&])(?:ssl)?password=[^&]*&?")


def asked(pauses: Sequence[Pause]) -> Iterator[str]:
    """Each open question for people: the step that asks, the question, what an answer must be.

    What the step shows beside the question may be private; it is in `--json` alone.
    """
    for pause in pauses:
        yield f"  {printable(pause.id)}: {scrub(pause.question)}"
        schema = "any JSON" if pause.schema is None else json.dumps(pause.schema, ensure_ascii=False)
        yield f"    answer: {schema}"
        if pause.expires_at is not None:
            yield f"    open until {pause.expires_at.isoformat()}"
        if pause.payload is not None:
            yield "    it comes with more to look at: --json shows it"


def pause_facts(pause: Pause) -> dict[str, object]:
    """A question as plain data."""
    return {
        "id": pause.id,
        "step_path": pause.step_path,
        "question": pause.question,
        "schema": pause.schema,
        "payload": pause.payload,
        "shown_digest": pause.shown_digest,
        "token": pause.token,
        "expires_at": None if pause.expires_at is None else pause.expires_at.isoformat(),
    }


def resuming(target: str, run_id: str, store: str | None, *, experimental: bool = False) -> str:
    """The command that goes on with a run which a store keeps, as it can be pasted.

    Args:
        target: FILE[:NAME], as it was given.
        run_id: The run.
        store: Its store, where that was given on the command line; its password is left out.
        experimental: Whether that was given too.
    """
    words = ["flujo", "runs", "resume", target, run_id, *(["--experimental"] if experimental else [])]
    if store is not None:
        words += ["--store", _PASSWORD.sub(r"\1", store)]
    return shlex.join(words)


def going_on(pause: Pause, kept: Path | None, command: str | None = None) -> Iterator[str]:
    """How a paused run is gone on with.

    Args:
        pause: One of its questions.
        kept: The file with the run, if it was written to one.
        command: What goes on with it, where a store keeps it.
    """
    if command is not None:
        yield "Go on with the answer, as JSON, at the end of:"
        # without one, so that what is pasted as it is answers nothing
        yield f"    {command} --pause {shlex.quote(pause.id)} --answer"
        return
    if kept is None:
        yield "The run ended with this command: only --store URL or --out DIR keep one. In code, with your `flujo`:"
        yield "    result = await flujo.run_async(...)"
        yield f"    result = await flujo.resume_async(result, decision, pause={pause.id!r})"
        return
    yield "Go on in code, with your `flujo` and the `decision`:"
    yield "    from pathlib import Path"
    yield "    from flujo.core import Snapshot"
    yield f"    snapshot = Snapshot.model_validate_json(Path({str(kept)!r}).read_bytes())"
    yield f"    result = await flujo.resume_async(snapshot, decision, pause={pause.id!r})"
