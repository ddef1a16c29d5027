"""The size budget of STYLE.md as a table; exit code 1 when a hard number is broken.

Run it as ``python tests/house/size_budget.py [ROOT]``; ``nox -s budget`` does.
"""

import graphlib
import math
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from source_facts import Function, Module, read_package

CORE = "flujo.core"
GOVERNANCE = frozenset(
    f"{CORE}.{module}"
    for module in (
        *("ledger", "grants", "meter", "budgets", "carved", "usage", "policy", "allowed", "gates", "prices"),
        *("plugins", "hooks", "hookspecs", "registry", "loader", "payloads"),
        *("calls", "telemetry", "signals", "logs"),
    )
)
"""Modules of core that govern a run rather than run it; see ADR-015 and ADR-021."""


LANGUAGE = frozenset(
    f"{CORE}.{module}"
    for module in (
        *("steps", "flow", "pipeline", "signatures", "callables"),
        *("assignable", "bind", "check", "drafts", "scopes", "compile", "plan"),
    )
)
"""Modules of core that describe and compile a pipeline; see ADR-016."""


DURABILITY = frozenset(
    f"{CORE}.{module}"
    for module in (
        *("snapshot", "written", "codec", "restore", "migrations", "schemas", "journal", "replay"),
        *("kept", "store", "writer", "found", "resume", "pause", "told"),
    )
)
"""Modules of core that keep a run and let it go on; see ADR-017."""


STREAMS = frozenset(
    f"{CORE}.{module}"
    for module in (
        *("items", "folds", "reading", "streamstep", "feed", "delivery", "streams", "modelstream", "streamcalls"),
    )
)
"""Modules of core by which a run is read while it goes on; see ADR-022."""


EXPERIMENTAL = frozenset({f"{CORE}.mutation", f"{CORE}.mutating"})
"""Modules of core that may change with any release; see ADR-024."""


REMOTE = frozenset(
    f"{CORE}.{module}"
    for module in (
        *("execution", "wire", "imports", "events", "recipes", "sender", "arriving", "away", "places"),
        *("leaving", "worker"),
    )
)
"""Modules of core by which a step leaves its process and runs in another; see ADR-023."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``hard`` rows decide the exit code; ``offenders`` say where to look."""

    what: str
    measured: str
    limit: str
    ok: bool
    offenders: tuple[str, ...] = ()
    hard: bool = True


def check(root: Path) -> list[Row]:
    """Measure the packages below ``root/packages`` against the budget.

    Raises:
        FileNotFoundError: there is no source file, so every check would pass without having looked.
    """
    modules = [module for src in sorted(root.glob("packages/*/src")) for module in read_package(src)]
    if not modules:
        raise FileNotFoundError(f"no source file under {root}/packages/*/src: the budget would check nothing")
    functions = [function for module in modules for function in module.functions]
    return [*_sizes(modules, functions), *_rules(modules, functions), *_imports(modules), _tests(root, modules)]


def _sizes(modules: list[Module], functions: list[Function]) -> Iterator[Row]:
    # A tiny __init__ says nothing about how large our files are, and would flatter the median.
    lengths = [module.lines for module in modules if module.lines > 5] or [0]
    yield _at_most("module lines, median", statistics.median(lengths), 150)
    yield _at_most("module lines, max", max(lengths), 400, [f"{m.name} {m.lines}" for m in modules if m.lines > 400])
    bodies = sorted(function.lines for function in functions) or [0]
    yield _at_most("function lines, p50", _percentile(bodies, 50), 8)
    yield _at_most("function lines, p95", _percentile(bodies, 95), 40)
    yield _at_most("function lines, max", bodies[-1], 60, [f"{f.where} {f.lines}" for f in functions if f.lines > 60])
    complexity = max((function.complexity for function in functions), default=0)
    yield _at_most("complexity, max", complexity, 10, [f.where for f in functions if f.complexity > 10])
    positional = max((function.positional for function in functions), default=0)
    yield _at_most("positional arguments, max", positional, 6, [f.where for f in functions if f.positional > 6])
    core = [m for m in modules if m.leaf == CORE and not m.name.startswith(f"{CORE}.testing")]
    governance = sum(module.code_lines for module in core if module.name in GOVERNANCE)
    language = sum(module.code_lines for module in core if module.name in LANGUAGE)
    durability = sum(module.code_lines for module in core if module.name in DURABILITY)
    streams = sum(module.code_lines for module in core if module.name in STREAMS)
    remote = sum(module.code_lines for module in core if module.name in REMOTE)
    experimental = sum(module.code_lines for module in core if module.name in EXPERIMENTAL)
    apart = governance + language + durability + streams + remote + experimental
    rest = sum(module.code_lines for module in core) - apart
    yield _at_most("flujo.core, code lines of the engine", rest, 3431)
    yield _at_most("flujo.core, code lines of streams", streams, 1080)
    yield _at_most("flujo.core, code lines of durability", durability, 1745)
    yield _at_most("flujo.core, code lines of the language", language, 1618)
    yield _at_most("flujo.core, code lines of governance", governance, 2410)
    yield _at_most("flujo.core, code lines of experiments", experimental, 321)
    yield _at_most("flujo.core, code lines of what leaves the process", remote, 1320)


def _rules(modules: list[Module], functions: list[Function]) -> Iterator[Row]:
    bare = [function.where for function in functions if not function.annotated]
    yield _at_least("annotated functions, %", _percent(len(functions) - len(bare), len(functions)), 100, bare)
    undocumented = [where for module in modules for where in module.undocumented]
    public = sum(module.public for module in modules)
    yield _at_least("public docstrings, %", _percent(public - len(undocumented), public), 90, undocumented)
    broad = [where for module in modules for where in module.broad]
    # The first is always allowed: 1 in 1,000 lines of a package of 500 lines is one, not half a one.
    allowed = max(1, sum(module.lines for module in modules) // 1000)
    yield _at_most("broad excepts (1 per 1,000 lines)", len(broad), allowed, broad)
    unexplained = [where for module in modules for where in module.unexplained]
    yield _at_most("unexplained excepts and local imports", len(unexplained), 0, unexplained)


def _imports(modules: list[Module]) -> Iterator[Row]:
    cycle = find_cycle(modules)
    yield _at_most("import cycles", 1 if cycle else 0, 0, [" > ".join(cycle)] if cycle else [])
    leaves = {module.leaf for module in modules}
    private = [p for module in modules for p in module.private_imports if _foreign(p.split()[1], module.leaf, leaves)]
    yield _at_most("private imports across packages", len(private), 0, private)
    deep = [d for module in modules for d in module.deep_imports if _foreign(d.split()[1], module.leaf, leaves)]
    yield _at_most("imports past public names", len(deep), 0, deep)


def find_cycle(modules: Iterable[Module]) -> list[str]:
    """Find one import cycle, imports inside functions included (they hide a cycle, they do not remove it)."""
    known = {module.name: module for module in modules}
    graph = {name: {_module_of(i, known) for i in m.imports} - {name, None} for name, m in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def _module_of(imported: str, known: dict[str, Module]) -> str | None:
    """The module that ``import imported`` or ``from x import y`` (given as ``x.y``) really loads."""
    if imported in known:
        return imported
    parent = imported.rpartition(".")[0]
    return parent if parent in known else None


def _foreign(imported: str, leaf: str, leaves: set[str]) -> bool:
    return any(other != leaf and imported.startswith(f"{other}.") for other in leaves)


def _tests(root: Path, modules: list[Module]) -> Row:
    tests = [*root.glob("packages/*/tests/**/*.py"), *root.glob("tests/**/*.py")]
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in tests)
    ratio = lines / max(1, sum(module.lines for module in modules))
    return Row("test lines / source lines", f"{ratio:.2f}", "1 to 2", 1 <= ratio <= 2, hard=False)


def _at_most(what: str, measured: float, limit: int, offenders: Iterable[str] = ()) -> Row:
    return Row(what, f"{measured:g}", f"<= {limit}", measured <= limit, tuple(offenders))


def _at_least(what: str, measured: float, limit: int, offenders: Iterable[str] = ()) -> Row:
    return Row(what, f"{measured:g}", f">= {limit}", measured >= limit, tuple(offenders))


def _percentile(ordered: list[int], percent: int) -> int:
    """Nearest rank: the smallest value that at least ``percent`` of the values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _percent(part: int, whole: int) -> float:
    # Rounded down, so that 99.99 never reads as 100.
    return math.floor(1000 * part / whole) / 10 if whole else 100.0


def render(rows: list[Row]) -> str:
    """Lay the rows out as a table, with the offenders of broken rows below it."""
    lines = [f"{'':4} {row.what:40} {row.measured:>8}   {row.limit}" for row in rows]
    marks = ["ok" if row.ok else "FAIL" if row.hard else "warn" for row in rows]
    table = [f"{mark:4}{line[4:]}" for mark, line in zip(marks, lines, strict=True)]
    details = [
        f"  {row.what}: {where}" for row in rows if not row.ok or "docstring" in row.what for where in row.offenders
    ]
    return "\n".join([*table, *details])


def main(argv: list[str]) -> int:
    """Print the table; give 1 when a hard number is broken, else 0."""
    rows = check(Path(argv[0]) if argv else Path(__file__).parents[2])
    sys.stdout.write(render(rows) + "\n")
    return int(any(row.hard and not row.ok for row in rows))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
