"""The file of a cassette: JSON that people read and diff."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from flujo.core import ConfigurationError


class Call(BaseModel):
    """One call in the file: what was asked, and what came back."""

    model_config = ConfigDict(extra="forbid")

    request: dict[str, JsonValue]
    response: dict[str, JsonValue] | None = None
    error: dict[str, JsonValue] | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["flujo-cassette/1"]
    calls: list[Call]


def read(path: Path) -> list[Call]:
    """The calls of a file.

    Raises:
        ConfigurationError: It cannot be read, or is no cassette.
    """
    try:
        file = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        do = 'Record it once: mode="record", or mode="auto"'
        raise ConfigurationError(f"cassette {str(path)!r} cannot be read", error.strerror or "", do) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        raise ConfigurationError(f"{str(path)!r} is no cassette", why, 'Record it: mode="record"') from error
    for call in file.calls:
        _each_text(call, lambda text: "\n".join(map(str, text)) if isinstance(text, list) else text)
    return file.calls


def write(path: Path, calls: list[Call]) -> None:
    """Write the file whole or not at all.

    Raises:
        ConfigurationError: It cannot be written.
    """
    shown = [call.model_copy(deep=True) for call in calls]
    for call in shown:
        _each_text(call, lambda text: [*text.split("\n")] if isinstance(text, str) and "\n" in text else text)
    content = {
        "format": "flujo-cassette/1",
        "calls": [call.model_dump(mode="json", exclude_none=True) for call in shown],
    }
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise ConfigurationError(f"cassette {str(path)!r} cannot be written", error.strerror or "") from error


def _each_text(call: Call, change: Callable[[JsonValue], JsonValue]) -> None:
    """Change the texts of a call in place; in the file a text of several lines is a list of them, so that it diffs."""
    messages, parts = call.request.get("messages"), (call.response or {}).get("parts")
    for items, names in ((messages, ("content",)), (parts, ("text", "thinking"))):
        for item in items if isinstance(items, list) else []:
            for name in names:
                if isinstance(item, dict) and name in item:
                    item[name] = change(item[name])
