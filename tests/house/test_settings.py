"""Lists in pyproject.toml that must name every package, since what they leave out passes without being looked at."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOLS = SETTINGS["tool"]
PROJECTS = {path.parent.name: tomllib.loads(path.read_text()) for path in ROOT.glob("packages/*/pyproject.toml")}
MODULES = {name: project["tool"]["uv"]["build-backend"]["module-name"] for name, project in PROJECTS.items()}
LEAVES = {module for module in MODULES.values() if module}
SOURCES = {f"packages/{name}/src" for name, module in MODULES.items() if module}


@pytest.mark.parametrize("key", ["files", "mypy_path"])
def test_mypy_checks_the_sources_of_every_package(key: str) -> None:
    assert set(TOOLS["mypy"][key]) == SOURCES


def test_coverage_counts_every_leaf_by_name() -> None:
    assert set(TOOLS["coverage"]["run"]["source_pkgs"]) == LEAVES


def test_import_contracts_look_at_every_leaf() -> None:
    assert set(TOOLS["importlinter"]["root_packages"]) == LEAVES
    contracts = {contract["id"]: contract for contract in TOOLS["importlinter"]["contracts"]}
    assert set(contracts["siblings-apart"]["modules"]) == LEAVES - {"flujo.core"}
    assert LEAVES - {"flujo.core"} <= set(contracts["core-knows-nobody"]["forbidden_modules"])


def test_workspace_installs_every_package() -> None:
    always, tests = SETTINGS["project"]["dependencies"], SETTINGS["dependency-groups"]["dev"]
    backends = {line.split("[")[0] for line in tests if isinstance(line, str) and line.startswith("flujo-backend-")}
    assert set(always) | backends == set(PROJECTS)
    assert not set(always) & backends  # the main job needs neither an AWS SDK nor a cluster
    assert set(TOOLS["uv"]["sources"]) == set(PROJECTS)


@pytest.mark.parametrize("name", sorted(PROJECTS))
def test_package_has_version_readme_changelog_licence_and_marker(name: str) -> None:
    project, folder = PROJECTS[name]["project"], ROOT / "packages" / name
    assert project["name"] == name
    # A package may carry data of others under a further licence, named after an AND.
    assert project["license"].split(" AND ")[0] == "Apache-2.0"
    assert project["version"]
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (folder / "README.md").stat().st_size > 0
    assert (folder / "CHANGELOG.md").stat().st_size > 0
    if MODULES[name]:
        assert (folder / "src" / MODULES[name].replace(".", "/") / "py.typed").is_file()


def test_names_follow_the_one_rule() -> None:
    expected = {name: name.replace("-", ".", 1).replace("-", "_") for name in PROJECTS}
    expected |= {"flujo": [], "flujo-cli": "flujo_cli"}
    assert expected == MODULES


def test_root_holds_the_agreed_folders_and_no_litter() -> None:
    folders = {"packages", "benchmarks", "docs", "adr", "examples", "tests", "lts", ".github", ".ci"}
    files = {"LICENSE", "README.md", "CONTRIBUTING.md", "noxfile.py", "pyproject.toml", "uv.lock", ".gitignore"}
    files |= {"conftest.py"}
    tracked = {path.split("/")[0] for path in tracked_files()}
    assert tracked <= folders | files | {"SECURITY.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", ".gitattributes"}


def tracked_files() -> list[str]:
    """Read git's index of this checkout; a source archive without git has no litter to find."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()
