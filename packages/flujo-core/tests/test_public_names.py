"""The names flujo.core promises: loaded on first use, and the same for people, programs and type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flujo.core

STUB = ast.parse(Path(flujo.core.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))


def imported_by_the_stub() -> dict[str, str]:
    imports = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def listed_by_the_stub() -> list[str]:
    return next(ast.literal_eval(node.value) for node in STUB.body if isinstance(node, ast.Assign))  # type: ignore[no-any-return]


def test_the_stub_lists_the_same_names_from_the_same_modules() -> None:
    assert imported_by_the_stub() == flujo.core._MODULE_OF_NAME  # type: ignore[attr-defined]
    assert sorted(listed_by_the_stub()) == sorted(flujo.core.__all__)


@pytest.mark.parametrize("name", flujo.core.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(flujo.core, name)
    assert value is not None
    assert type(value).__name__ != "module", "a module of the same name would hide it"


def test_a_name_that_is_not_there_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Fluo'"):
        flujo.core.Fluo  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_loads_none_of_its_dependencies() -> None:
    code = (
        "import sys, flujo.core; from flujo.core import Command, hookimpl; "
        "print([name for name in ('pydantic.main', 'anyio.from_thread', 'flujo.core.engine') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "flujo.core.engine" not in done.stdout


def test_no_module_has_the_name_of_a_public_name() -> None:
    modules = {file.stem for file in Path(flujo.core.__file__).parent.glob("*.py")}
    assert modules.isdisjoint(flujo.core.__all__)
