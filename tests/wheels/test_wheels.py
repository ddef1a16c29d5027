"""What we ship: the content of every wheel, and that each installs and imports on its own."""

import json
import tomllib
import zipfile
from pathlib import Path

import pytest
from fresh_venv import ROOT, FreshVenv, build_wheels

PROJECTS = {path.parent.name: tomllib.loads(path.read_text()) for path in ROOT.glob("packages/*/pyproject.toml")}
LEAVES = {
    name: project["tool"]["uv"]["build-backend"]["module-name"]
    for name, project in PROJECTS.items()
    if project["tool"]["uv"]["build-backend"]["module-name"]
}

# Imports every module of a leaf and prints those that miss something, with the name of what they miss.
IMPORT_ALL = """
import importlib, json, pkgutil
leaf = importlib.import_module({leaf!r})
missing = {{}}
for found in pkgutil.walk_packages(leaf.__path__, leaf.__name__ + "."):
    if found.name == "flujo.backend_lambda.aws":  # importing it starts a worker
        continue
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        missing[found.name] = error.name
print(json.dumps(missing))
"""

FIND_PLUGIN = """
import pluggy, flujo, flujo.core, flujo.audit
assert flujo.__file__ is None, flujo.__file__
manager = pluggy.PluginManager("flujo")
assert manager.load_setuptools_entrypoints("flujo") == 1
print([name for name, _ in manager.list_name_plugin()], [d.project_name for _, d in manager.list_plugin_distinfo()])
"""


def wheel_of(wheelhouse: Path, distribution: str) -> Path:
    return next(wheelhouse.glob(f"{distribution.replace('-', '_')}-[0-9]*.whl"))


def files_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def optional_dependencies(distribution: str) -> set[str]:
    extras = PROJECTS[distribution]["project"].get("optional-dependencies", {})
    names = {requirement.split(">")[0].split("[")[0].strip() for extra in extras.values() for requirement in extra}
    return {name.replace("-", "_") for name in names}  # as modules are called


def test_every_package_gives_a_wheel_and_an_sdist(wheelhouse: Path) -> None:
    built = {path.name for path in wheelhouse.iterdir() if path.suffix in {".whl", ".gz"}}
    assert len(built) == 2 * len(PROJECTS), built
    assert all(wheel_of(wheelhouse, name).is_file() for name in PROJECTS)


@pytest.mark.parametrize("distribution", sorted(PROJECTS))
def test_wheel_holds_its_leaf_and_its_licence_and_nothing_else(wheelhouse: Path, distribution: str) -> None:
    names = files_in(wheel_of(wheelhouse, distribution))
    assert "flujo/__init__.py" not in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names), names
    modules = [name for name in names if ".dist-info/" not in name]
    leaf = LEAVES.get(distribution)
    if leaf is None:
        assert modules == []
    else:
        folder = leaf.replace(".", "/") + "/"
        assert f"{folder}py.typed" in modules
        assert all(name.startswith(folder) or (name.endswith("/") and folder.startswith(name)) for name in modules)


def test_building_again_elsewhere_gives_the_same_bytes(wheelhouse: Path, tmp_path: Path) -> None:
    # From the sources of the first build, not from the checkout, which another process may be editing.
    again = build_wheels(tmp_path, source=wheelhouse.parent / "source")
    different = [p.name for p in again.iterdir() if p.read_bytes() != (wheelhouse / p.name).read_bytes()]
    assert different == []


@pytest.mark.parametrize("distribution", sorted(LEAVES))
def test_package_alone_has_all_it_imports(wheelhouse: Path, tmp_path: Path, distribution: str) -> None:
    venv = FreshVenv.create(tmp_path / "venv", wheelhouse)
    venv.install_locked_dependencies_of(distribution)
    venv.uv_install_ours(distribution)
    missing = json.loads(venv.run_python(IMPORT_ALL.format(leaf=LEAVES[distribution])).stdout)
    undeclared = {module: name for module, name in missing.items() if name not in optional_dependencies(distribution)}
    assert undeclared == {}


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_plugin_is_found_by_its_entry_point_in_a_fresh_venv(wheelhouse: Path, tmp_path: Path, installer: str) -> None:
    venv = FreshVenv.create(tmp_path / "venv", wheelhouse, pip=installer == "pip")
    venv.install_locked_dependencies_of("flujo-core", "flujo-audit")
    install = venv.pip_install_ours if installer == "pip" else venv.uv_install_ours
    install("flujo-core", "flujo-audit")
    assert venv.run_python(FIND_PLUGIN).stdout.strip() == "['audit'] ['flujo-audit']"
