"""`[tool.flujo]` of the nearest pyproject.toml, and FLUJO_PLUGINS of the environment. Imports nothing of flujo.core.

[tool.flujo]
use = ["flujo-deidentifier", "flujo-audit"]       # act in every run
plugins = ["flujo-deidentifier", "flujo-audit>=1,<2"]   # may be imported at all; left out: every installed one
store = "sqlite:///runs.db"                       # keeps runs; FLUJO_STORE and --store win over it
backend = "ray"                                   # where steps run that do not say it; --backend wins over it

[tool.flujo.policy]
require = ["flujo-audit"]

[tool.flujo.plugins.flujo-audit]                  # settings; then the list above is `allow` in [tool.flujo.plugins]
path = "out/audit.jsonl"
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from .problems import Problem

__all__ = ["Settings", "canonical", "read_settings", "read_toml"]

_KEYS = ("use", "plugins", "policy", "store", "backend")
VARIABLE = "FLUJO_PLUGINS"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator settled outside the command line.

    Attributes:
        source: The file it was read from; None when there is none.
        use: Distributions whose plugins act in every run.
        allowed: Distributions that may be imported, each with a version specifier; None allows every installed one.
        allowed_from: Where the allow-list stands.
        policy: The table `[tool.flujo.policy]`.
        plugins: Settings of each plugin, by distribution.
        store: URL of the store that keeps runs; empty is none.
        backend: Where steps run that do not say it themselves; empty is where the file says.
    """

    source: Path | None = None
    use: tuple[str, ...] = ()
    allowed: Mapping[str, str] | None = None
    allowed_from: str = ""
    policy: Mapping[str, object] = field(default_factory=dict)
    plugins: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    store: str = ""
    backend: str = ""


def canonical(distribution: str) -> str:
    """A distribution's name in the form of PEP 503."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def read_settings(start: Path | None = None) -> Settings:
    """Read the settings that hold in the folder `start`, the current one when left out.

    The nearest pyproject.toml with a `[tool.flujo]` counts, up to the folder that holds `.git`.

    Raises:
        Problem: The file cannot be read, or says something that means nothing.
    """
    for folder in _upwards(Path.cwd() if start is None else start):
        table = _table(folder / "pyproject.toml")
        if table is not None:
            return _settings(table, folder / "pyproject.toml")
    return _with_environment(None, "")


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Raises:
        Problem: It is missing, unreadable, or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(
            f"{str(path)!r} cannot be read", error.strerror or type(error).__name__, "Check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise Problem(f"{str(path)!r} cannot be read", "it is not UTF-8", "Save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"{str(path)!r} is no valid TOML", str(error), "Correct the line it names") from error


def _upwards(start: Path) -> list[Path]:
    folders: list[Path] = []
    for folder in (start, *start.parents):
        folders.append(folder)
        if (folder / ".git").exists():
            break
    return folders


def _table(path: Path) -> dict[str, object] | None:
    """`[tool.flujo]` of a file; None where there is none. Only a file that mentions flujo is parsed.

    A NUL byte stands in no TOML, but in UTF-16: such a file may mention flujo unseen, and is refused.
    """
    try:
        found = path.read_bytes()
        if b"flujo" not in found and b"\0" not in found:
            return None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if path.is_symlink() and isinstance(error, FileNotFoundError):
            raise Problem(f"{str(path)!r} cannot be read", "it is a link to nothing", "Repair or remove it") from error
        return None
    except OSError as error:  # it may hold a policy: what cannot be read must not be skipped
        raise Problem(
            f"{str(path)!r} cannot be read", error.strerror or type(error).__name__, "Check its rights"
        ) from error
    tool = read_toml(path).get("tool")
    table = tool.get("flujo") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise Problem(f"[tool.flujo] in {str(path)!r} cannot be used", "it is not a table")
    return table


def _settings(table: Mapping[str, object], path: Path) -> Settings:
    for key in table:
        if key not in _KEYS:
            close = get_close_matches(key, _KEYS, n=1)
            do = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(_KEYS)}"
            raise Problem(f"{key!r} in [tool.flujo] of {str(path)!r} is unknown", "it would do nothing", do)
    plugins = table.get("plugins")
    allow: object = plugins
    settings: Mapping[str, object] = {}
    if isinstance(plugins, dict):
        allow = plugins.get("allow")
        settings = {key: value for key, value in plugins.items() if key != "allow"}
    allowed = None if allow is None else _entries(_strings(allow, "plugins", path))
    effective = _with_environment(allowed, str(path))
    return Settings(
        source=path,
        use=_names(table.get("use", []), "use", path),
        allowed=effective.allowed,
        allowed_from=effective.allowed_from,
        policy=_tables(table.get("policy", {}), "policy", path),
        plugins={canonical(key): _tables(value, f"plugins.{key}", path) for key, value in settings.items()},
        store=_text(table.get("store", ""), "store", "sqlite:///runs.db", path),
        backend=_text(table.get("backend", ""), "backend", "ray", path),
    )


def _with_environment(allowed: Mapping[str, str] | None, source: str) -> Settings:
    value = os.environ.get(VARIABLE)
    if value is not None:  # a comma before an operator stands inside an entry
        return Settings(allowed=_entries(re.split(r",(?!\s*[<>=!~])", value)), allowed_from=VARIABLE)
    return Settings(allowed=allowed, allowed_from="" if allowed is None else source)


def _entries(entries: Iterable[str]) -> dict[str, str]:
    """Names and versions, of one listed twice both; whether they mean anything, flujo.core says where they are used."""
    found: dict[str, str] = {}
    for entry in filter(None, map(str.strip, entries)):
        name, *versions = re.split(r"(?=[<>=!~])", entry, maxsplit=1)
        name = canonical(name.strip())
        found[name] = "&".join(filter(None, (found.get(name, ""), *versions)))
    return found


def _names(value: object, key: str, path: Path) -> tuple[str, ...]:
    return tuple(map(canonical, _strings(value, key, path)))


def _strings(value: object, key: str, path: Path) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        do = f'Write it as {key} = ["flujo-audit"]'
        raise Problem(f"{key!r} in [tool.flujo] of {str(path)!r} cannot be used", "it is no list of names", do)
    return value


def _text(value: object, key: str, example: str, path: Path) -> str:
    if not isinstance(value, str):
        do = f'Write it as {key} = "{example}"'
        raise Problem(f"{key!r} in [tool.flujo] of {str(path)!r} cannot be used", "it is no text", do)
    return value


def _tables(value: object, key: str, path: Path) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Problem(f"[tool.flujo.{key}] in {str(path)!r} cannot be used", "it is not a table")
    return value
