"""What the house checks, one session each: ``nox -l`` lists them, ``nox`` runs the quick ones.

Every session installs exactly what ``uv.lock`` records. ``.ci/run`` names the sessions that must pass before a merge.
"""

import os
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13"]
CORE_COVERAGE = 90

# uv would try to download a Python that it does not find; a missing one should be a clear message instead.
os.environ["UV_PYTHON_DOWNLOADS"] = "never"
# pyenv puts only its default version on PATH; the others lie beside it.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
BESIDE = [str(folder) for version in PYTHONS for folder in sorted(PYENV.glob(f"{version}.*/bin"))]
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *BESIDE])

nox.needs_version = ">=2025.10"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "imports", "budget", "tests"]


def install(session: nox.Session, *groups: str) -> None:
    """Install the workspace, editable, and the named dependency groups (``dev`` where none is named)."""
    chosen = [part for group in groups or ("dev",) for part in ("--group", group)]
    where = {"UV_PROJECT_ENVIRONMENT": session.virtualenv.location}
    session.run_install("uv", "sync", "-q", "--frozen", "--no-default-groups", *chosen, env=where, external=True)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests on each supported Python that is found on this machine."""
    install(session)
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff; ``nox -s lint -- --fix`` repairs what can be repaired."""
    install(session)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]))


@nox.session
def types(session: nox.Session) -> None:
    """Check every source file with mypy --strict, and the interface of the built wheels with pyright."""
    install(session, "dev", "types")
    session.run("mypy")
    dist = session.create_tmp()
    session.run("uv", "build", "-q", "--all-packages", "--no-sources", "--clear", "--out-dir", dist, external=True)
    session.run("python", "tests/house/public_types.py", dist)


@nox.session
def imports(session: nox.Session) -> None:
    """Check the layers of flujo.core and that packages know only its public names."""
    install(session)
    session.run("lint-imports", "--no-cache", env={"COLUMNS": "200"})


@nox.session
def budget(session: nox.Session) -> None:
    """Print the size budget of STYLE.md as a table and fail on its hard numbers."""
    session.run("python", "tests/house/size_budget.py")


@nox.session
def canaries(session: nox.Session) -> None:
    """Prove that each gate trips: run it on a planted fault."""
    install(session, "dev", "types")
    session.run("pytest", "-q", "tests/house", "tests/house/canary_types.py")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure branch coverage of flujo.core by its own tests; below 90 % fails.

    Without the fuzz, which takes minutes under coverage: so no line counts that nothing but chance reaches. And without
    tests that measure time, for it is another one here.
    """
    install(session)
    fuzz = [f"--ignore-glob=*/{files}*" for files in ("test_engine_fuzz", "test_engine_mutants", "test_fuzz_")]
    chosen = ["-m", "not soak and not sandbox and not ministack and not alone", *fuzz]
    session.run("pytest", "-q", "--cov", "--cov-report=", *chosen, "packages/flujo-core/tests")
    session.run("coverage", "report", "--include", "*/flujo/core/*", "--fail-under", str(CORE_COVERAGE))


@nox.session
def soak(session: nox.Session) -> None:
    """Run the tests with heavy counts, which the default run leaves out."""
    install(session)
    session.run("pytest", "-q", "-m", "soak", *session.posargs)


@nox.session
def ray(session: nox.Session) -> None:
    """Run the tests that need a Ray cluster, which they start on this machine."""
    install(session)
    session.run("pytest", "-q", "-n", "0", "-m", "cluster", *session.posargs)


@nox.session
def sandbox(session: nox.Session) -> None:
    """Run the tests of the sandbox, which need bubblewrap (apt-get install bubblewrap; as root they install it)."""
    install(session)
    session.run("pytest", "-q", "-m", "sandbox", *session.posargs)


@nox.session
def ministack(session: nox.Session) -> None:
    """Build, publish, deploy and invoke the example of Lambda on MiniStack, another project's AWS; check templates."""
    install(session)
    session.run("pytest", "-q", "-m", "ministack", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation offline; a warning or a dead reference fails."""
    install(session, "docs")
    session.run("sphinx-build", "-q", "-W", "-n", "-E", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def build(session: nox.Session) -> None:
    """Build all wheels and sdists into dist/ and check their content in fresh venvs."""
    install(session)
    session.run("uv", "build", "-q", "--all-packages", "--no-sources", "--clear", "--out-dir", "dist", external=True)
    session.run("pytest", "-q", "tests/wheels")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks and print their table."""
    install(session)
    session.run("pytest", "-q", "-n", "0", "benchmarks", "-o", "python_files=bench_*.py", *session.posargs)


@nox.session(name="bench-guard")
def bench_guard(session: nox.Session) -> None:
    """Fail when a chain of steps or the import of flujo.core got more than its allowance slower."""
    install(session)
    session.run("python", "-m", "benchmarks.guard", *session.posargs)
    session.run("python", "-m", "benchmarks.import_time")
