"""How tests are shared by workers: what `conftest.py` in the root promises."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SLEEPERS = """
import os, time, pytest

def sleeps(name):
    for word in ("start", "end"):
        with open("log", "a") as log:
            log.write(f"{word} {name} {os.environ.get('PYTEST_XDIST_WORKER', 'here')}\\n")
        time.sleep(0.2 if word == "start" else 0)

@pytest.mark.parametrize("number", range(6))
def test_in_company(number):
    sleeps(f"company{number}")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    sleeps(f"alone{number}")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the settings of this one and tests of its own."""
    for name in ("conftest.py", "pyproject.toml", "tests/house/locks.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "tests" / "test_it.py").write_text(SLEEPERS)
    return tmp_path


def run_pytest(checkout: Path, *arguments: str) -> tuple[int, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_XDIST_AUTO_NUM_WORKERS": "3"}
    plugins = (
        "-p",
        "xdist",
        "-p",
        "pytest_benchmark.plugin",
        "-p",
        "pytest_timeout",
    )  # all of them take seconds to import
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *arguments]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def events(checkout: Path) -> list[list[str]]:
    """Word, test and worker of what happened, in order."""
    return [line.split() for line in (checkout / "log").read_text().splitlines()]


def test_nothing_runs_beside_a_test_that_is_alone(checkout: Path) -> None:
    code, said = run_pytest(checkout, "tests")
    assert code == 0, said
    happened = events(checkout)
    beside = {}
    for at, (word, name, _) in enumerate(happened):
        if word == "start":
            beside[name] = happened[at + 1][:2] != ["end", name]
    assert len(beside) == 9
    assert not any(beside[f"alone{number}"] for number in range(3))
    assert any(beside.values()), "no test ran beside another, so this shows nothing"
    assert {worker for _, _, worker in happened} == {"gw0", "gw1", "gw2"}


@pytest.mark.parametrize("arguments", [["tests/test_it.py"], ["tests", "-s"]], ids=" ".join)
def test_what_is_looked_into_runs_in_one_process(checkout: Path, arguments: list[str]) -> None:
    code, said = run_pytest(checkout, *arguments, "-k", "company")
    assert code == 0, said
    assert {worker for _, _, worker in events(checkout)} == {"here"}


def test_an_id_that_is_another_in_each_process_is_refused_by_name(checkout: Path) -> None:
    text = "import pytest\n\n@pytest.mark.parametrize('what', [object()], ids=str)\ndef test_strange(what): ...\n"
    (checkout / "tests" / "test_it.py").write_text(text)
    code, said = run_pytest(checkout, "tests/test_it.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "test_strange[<object object at 0x" in said
    assert "ids=" in said
