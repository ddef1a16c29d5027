"""What the package says of itself: its public names, its settings, the checks of its review, its cold start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import flujo.backend_lambda as package

ROOT = Path(__file__).parents[3]
SOURCE = Path(package.__file__).parent


def test_type_checkers_see_the_same_names() -> None:
    stub = ast.parse((SOURCE / "__init__.pyi").read_text())
    [listed] = [node.value for node in stub.body if isinstance(node, ast.Assign)]
    assert sorted(ast.literal_eval(listed)) == sorted(package.__all__)
    assert all(getattr(package, name).__doc__ for name in package.__all__)


def test_every_variable_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "lambda.md").read_text()
    read = {name for file in SOURCE.rglob("*.py") for name in re.findall(r"FLUJO_LAMBDA_\w*[A-Z]", file.read_text())}
    assert {name for name in read if name not in page} == set()


def test_every_check_of_the_review_has_its_tests() -> None:
    files = [*Path(__file__).parent.glob("test_lambda_*.py"), ROOT / "tests" / "test_lambda_artifact.py"]
    numbers = {int(number) for file in files for number in re.findall(r"def test_check_(\d\d)", file.read_text())}
    assert numbers == set(range(1, 26))


def test_a_cold_start_imports_nothing_of_aws_and_nothing_of_this_side() -> None:
    code = "import sys, flujo.backend_lambda.worker; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in loaded if name.startswith("flujo.backend_lambda")}
    assert not {name for name in loaded if name.split(".")[0] in ("boto3", "botocore", "cloudpickle", "click")}
    assert not own & {
        f"flujo.backend_lambda.{name}" for name in ("backend", "scan", "pickling", "signing", "cli", "testing")
    }
    assert "cryptography.hazmat.primitives.serialization" not in loaded  # it costs as much as the rest of cryptography


def test_the_package_is_no_plugin_that_acts_but_brings_a_backend_and_a_command() -> None:
    from flujo.backend_lambda import plugin

    assert [one.name for one in plugin.register_backends()] == ["lambda"]
    assert [one.name for one in plugin.register_commands()] == ["lambda"]
