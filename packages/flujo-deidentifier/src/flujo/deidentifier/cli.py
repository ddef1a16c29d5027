"""`flujo pii`: count identifiers in files. Imported only when called; needs the extra `[cli]`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from flujo.deidentifier.deidentifier import PROFILES, Deidentifier
from flujo.deidentifier.errors import DeidentifierError
from flujo.deidentifier.findings import Finding

__all__ = ["pii"]

CLEAN, FINDINGS, UNUSABLE = 0, 1, 2


@dataclass(slots=True)
class Scan:
    """What was found in one file; `error` says why it could not be searched."""

    path: str
    counts: dict[str, int] = field(default_factory=dict)
    error: str = ""
    shown: list[dict[str, object]] = field(default_factory=list)


@click.group()
def pii() -> None:
    """Find personal data in files."""


@pii.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object for all files.")
@click.option("--show", is_flag=True, help="Print the found text too. Without it, no found text is ever printed.")
@click.option(
    "--profile", type=click.Choice(PROFILES), default=PROFILES[0], show_default=True, help="What to look for."
)
@click.pass_context
def scan(ctx: click.Context, paths: tuple[Path, ...], as_json: bool, show: bool, profile: str) -> None:
    """Count identifiers in PATHS; folders are searched through. Exit code: 0 clean, 1 findings, 2 unusable."""
    deidentifier = Deidentifier(profile)
    scans = [_scan(path, deidentifier, show=show) for path in _files(paths)]
    if as_json:
        click.echo(json.dumps(_as_json(scans, show=show)))
    else:
        _print(scans)
    ctx.exit(_exit_code(scans))


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        else:
            yield path


def _scan(path: Path, deidentifier: Deidentifier, *, show: bool) -> Scan:
    try:
        text = path.read_bytes().decode("utf-8")
        found = deidentifier.detect(text)
    except OSError as error:
        return Scan(str(path), error=error.strerror or type(error).__name__)
    except UnicodeDecodeError:
        return Scan(str(path), error="it is not UTF-8 text")
    except DeidentifierError as error:
        return Scan(str(path), error=str(error))
    shown = [_shown(text, f) for f in found] if show else []
    return Scan(str(path), dict(Counter(f.entity for f in found).most_common()), shown=shown)


def _shown(text: str, found: Finding) -> dict[str, object]:
    line = text.count("\n", 0, found.start) + 1
    return {"line": line, "entity": found.entity, "text": text[found.start : found.end]}


def _as_json(scans: list[Scan], *, show: bool) -> dict[str, object]:
    files = []
    for s in scans:
        entry: dict[str, object] = {"path": s.path, "counts": s.counts}
        if s.error:
            entry["error"] = s.error
        if show:
            entry["findings"] = s.shown
        files.append(entry)
    return {"files": files, "counts": _total(scans)}


def _total(scans: list[Scan]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for s in scans:
        total.update(s.counts)
    return dict(total.most_common())


def _print(scans: list[Scan]) -> None:
    for s in scans:
        click.echo(f"{s.path}: {s.error or _line(s.counts)}")
        for item in s.shown:
            click.echo(f"  {item['line']}: {item['entity']} {item['text']!r}")
    if len(scans) != 1:
        click.echo(f"{len(scans)} files: {_line(_total(scans))}")


def _line(counts: dict[str, int]) -> str:
    return ", ".join(f"{entity} {number}" for entity, number in counts.items()) or "nothing found"


def _exit_code(scans: list[Scan]) -> int:
    if not scans or any(s.error for s in scans):
        return UNUSABLE
    return FINDINGS if any(s.counts for s in scans) else CLEAN
