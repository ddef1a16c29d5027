"""A venv that holds the old ``flujo`` 0.4.35: the meta-distribution repairs it, and without it we say what is wrong.

The old distribution is a regular package ``flujo`` with a console script of the same name, so it clashes with ours
twice. It is installed from the package index without its dependencies and never imported.
"""

import shutil
from pathlib import Path

import pytest
from fresh_venv import ROOT, FreshVenv

OLD = "flujo==0.4.35"
WHERE_IS_CORE = "import flujo, flujo.core; print(flujo.__file__, flujo.core.__name__)"


def venv_with_old_flujo(path: Path, wheels: Path, *, pip: bool = False) -> FreshVenv:
    venv = FreshVenv.create(path, wheels, pip=pip)
    venv.uv_install(OLD, "--no-deps")
    assert (venv.site_packages / "flujo" / "__init__.py").is_file()
    venv.install_locked_dependencies_of("flujo")
    return venv


def assert_repaired(venv: FreshVenv) -> None:
    assert "Usage" in venv.flujo("--help").stdout
    assert venv.run_python(WHERE_IS_CORE).stdout.split() == ["None", "flujo.core"]
    assert sorted(p.name for p in (venv.site_packages / "flujo").iterdir()) == ["core"]


def assert_explained(venv: FreshVenv, *arguments: str) -> None:
    said = venv.flujo(*arguments, ok=False)
    assert said.returncode == 2, said
    assert "flujo 0.4.35" in said.stderr
    assert "pip install -U 'flujo>=1'" in said.stderr
    assert "Traceback" not in said.stdout + said.stderr


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_upgrading_to_the_meta_distribution_removes_the_old_package(
    wheelhouse: Path, tmp_path: Path, installer: str
) -> None:
    venv = venv_with_old_flujo(tmp_path / "venv", wheelhouse, pip=installer == "pip")
    upgrade = venv.pip_install_ours if installer == "pip" else venv.uv_install_ours
    upgrade("-U", "flujo")
    assert_repaired(venv)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_beside_the_old_package_the_command_names_it_and_the_advice_works(
    wheelhouse: Path, tmp_path: Path, installer: str
) -> None:
    venv = venv_with_old_flujo(tmp_path / "venv", wheelhouse, pip=installer == "pip")
    install = venv.pip_install_ours if installer == "pip" else venv.uv_install_ours
    install("flujo-core", "flujo-cli")
    assert_explained(venv, "doctor")
    assert_explained(venv, "--help")
    install("-U", "flujo>=1")
    assert_repaired(venv)


def test_uninstalling_the_old_package_and_putting_the_command_back_works_too(wheelhouse: Path, tmp_path: Path) -> None:
    venv = venv_with_old_flujo(tmp_path / "venv", wheelhouse)
    venv.uv_install_ours("flujo-core", "flujo-cli")
    venv.uv_uninstall("flujo")
    assert not (venv.path / "bin" / "flujo").exists(), "the advice to put the command back is no longer needed"
    venv.uv_install_ours("--reinstall-package", "flujo-cli", "--no-deps", "flujo-cli")
    assert_repaired(venv)


def test_old_package_in_site_packages_hides_ours_installed_editable_elsewhere(wheelhouse: Path, tmp_path: Path) -> None:
    venv = venv_with_old_flujo(tmp_path / "venv", wheelhouse)
    elsewhere = tmp_path / "packages"
    for name in ("flujo-core", "flujo-cli"):
        shutil.copytree(ROOT / "packages" / name, elsewhere / name, ignore=shutil.ignore_patterns("__pycache__"))
        venv.uv_install("--no-deps", "--no-sources", "-e", elsewhere / name)
    assert venv.run_python("import flujo.core", ok=False).returncode != 0
    assert_explained(venv, "doctor")
