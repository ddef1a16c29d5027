"""FILE[:NAME]: import a user's file or module and find the pipeline in it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from flujo.core import Chain, Flujo, FlujoError, Node, Pipeline, PipelineLike, scrub

from .logs import clean_logs
from .problems import Problem

__all__ = ["DEFAULT_NAME", "Target", "load_target"]

DEFAULT_NAME = "pipeline"


_KINDS = (Flujo, Node, Chain)
Found = PipelineLike | Flujo


@dataclass(frozen=True, slots=True)
class Target:
    """What was found in a user's file.

    Attributes:
        name: Its name there.
        where: The file or module, as the user wrote it.
        found: The pipeline, or a whole Flujo.
    """

    name: str
    where: str
    found: Found


def load_target(spec: str) -> Target:
    """Import FILE and pick NAME out of it.

    Left out, NAME is the only Pipeline, step, combinator, chain or Flujo there; else the one called `pipeline`; else
    the only Flujo, or the only Pipeline, since steps, combinators and chains beside it are its parts.

    Args:
        spec: `FILE`, `FILE:NAME`, `package.module` or `package.module:NAME`.

    Raises:
        Problem: It does not exist, does not import, or does not say which pipeline is meant.
    """
    where, name = _split(spec)
    clean_logs()
    module = _import(where)
    clean_logs()  # of the handlers that it set up too
    found = _candidates(module)
    if name:
        return Target(name, where, _named(module, where, name, found))
    if not found:
        do = "Define one there: pipeline = Pipeline(...)"
        raise Problem(
            f"{where!r} holds no pipeline", "no Pipeline, step, combinator, chain or Flujo is defined in it", do
        )
    chosen = _chosen(found)
    if chosen is None:
        why = f"it holds several: {', '.join(found)}"
        raise Problem(f"{where!r} does not say which pipeline is meant", why, f"Name one: {where}:{next(iter(found))}")
    return Target(chosen, where, found[chosen])


def _split(spec: str) -> tuple[str, str]:
    where, colon, name = spec.rpartition(":")
    # A colon that belongs to the path, as in C:\flows\a.py, is followed by something that is no name.
    if not colon or not where or os.sep in name or (os.path.exists(spec) and not os.path.exists(where)):
        return spec, ""
    if not name:
        raise Problem(f"{spec!r} names no pipeline", "nothing follows the colon", f"Write {where} or {where}:NAME")
    return where, name


def _candidates(module: ModuleType) -> dict[str, Found]:
    """Pipelines of a module by name, each object once: as `pipeline` if that is one of its names, else by its first."""
    found: dict[str, Found] = {name: value for name, value in vars(module).items() if isinstance(value, _KINDS)}
    names = {id(value): name for name, value in reversed(found.items())}
    if DEFAULT_NAME in found:
        names[id(found[DEFAULT_NAME])] = DEFAULT_NAME
    return {name: value for name, value in found.items() if names[id(value)] == name}


def _chosen(found: dict[str, Found]) -> str | None:
    if len(found) == 1:
        return next(iter(found))
    if DEFAULT_NAME in found:
        return DEFAULT_NAME
    for kind in (Flujo, Pipeline):
        names = [name for name, value in found.items() if isinstance(value, kind)]
        if names:
            return names[0] if len(names) == 1 else None
    return None


def _named(module: ModuleType, where: str, name: str, found: dict[str, Found]) -> Found:
    value: object = module
    for part in name.split("."):
        value = getattr(value, part, None)
    if isinstance(value, _KINDS):
        return value
    close = get_close_matches(name, found, n=1)
    there = f"Did you mean {where}:{close[0]}?" if close else f"There are: {', '.join(found) or 'none'}"
    if value is None:
        raise Problem(f"{where!r} has no {name!r}", "no such name is defined in it", there)
    why = f"it is a {type(value).__name__}, neither a Pipeline, step, combinator, chain nor Flujo"
    if callable(value):
        there += f"; or wrap the function: Step({name})"
    raise Problem(f"{name!r} in {where!r} cannot be run", why, there)


# --- import ---------------------------------------------------------------------------------------------------------


def _import(where: str) -> ModuleType:
    path = Path(where)
    is_package = (path / "__init__.py").is_file() and where.isidentifier()
    if where.endswith(".py") or os.sep in where or (path.exists() and not is_package):
        _must_be_python(path)
        root, dotted = _dotted(path.resolve())
    else:
        root, dotted = Path.cwd(), where
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    with _explained(where, None if path.is_file() else dotted):
        return _from_file(path.resolve(), dotted) if path.is_file() else importlib.import_module(dotted)


def _must_be_python(path: Path) -> None:
    if path.is_dir():
        names = ", ".join(sorted(file.name for file in path.glob("*.py"))[:5]) or "none"
        raise Problem(f"{str(path)!r} is a folder", "a Python file is needed", f"Its Python files: {names}")
    if not path.exists():
        near = [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        close = get_close_matches(path.name, near, n=1)
        do = f"Did you mean {str(path.parent / close[0])!r}?" if close else "Check the path"
        raise Problem(f"pipeline file {str(path)!r} does not exist", f"the folder is {str(Path.cwd())!r}", do)
    if path.suffix != ".py":
        raise Problem(
            f"{str(path)!r} is no Python file", "its name does not end in .py", "Give FILE.py or a module name"
        )


def _dotted(path: Path) -> tuple[Path, str]:
    """The folder to import a file from and its dotted name there; inside a package, the package's own."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def _from_file(path: Path, dotted: str) -> ModuleType:
    """Import a file by its name, or by another name where a module of that name is there already (`json.py`, say)."""
    if "." in dotted:
        return importlib.import_module(dotted)
    taken = not dotted.isidentifier() or dotted in sys.modules or dotted in sys.stdlib_module_names
    name = f"flujo_file_{path.stem}" if taken else dotted
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Problem(f"{str(path)!r} cannot be imported", "Python knows no way to load it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: pydantic and type hints look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _explained(where: str, dotted: str | None) -> Iterator[None]:
    """Turn whatever a user's file raises into one line that says where; its prints do not mix with our results."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except ModuleNotFoundError as error:
        if dotted is not None and error.name is not None and f"{dotted}.".startswith(f"{error.name}."):
            do = "Give a path that ends in .py, or a module that can be imported from this folder"
            raise Problem(f"module {where!r} does not exist", f"there is no {error.name!r} to import", do) from error
        do = f"Install what provides {error.name!r}, or correct the import"
        raise Problem(f"{where!r} cannot be imported", _place(error), do) from error
    except FlujoError as error:
        raise Problem(f"{where!r} cannot be imported", _place(error), error.do) from error
    except (Exception, SystemExit) as error:  # a user's file may raise anything, or call sys.exit
        raise Problem(
            f"{where!r} cannot be imported", _place(error), "Correct it, or see the traceback with --debug"
        ) from error


def _place(error: BaseException) -> str:
    """`file:line: Type: message`, for the deepest place outside the import machinery and this package."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    text = str(error.what) + (f": {error.why}" if error.why else "") if isinstance(error, FlujoError) else str(error)
    message = f"{type(error).__name__}: {scrub(text)}"
    ours = (os.path.dirname(__file__), os.path.dirname(sys.modules["flujo.core"].__file__ or ""))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen", *ours)) and "importlib" not in frame.filename
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {message}" if frames else message
