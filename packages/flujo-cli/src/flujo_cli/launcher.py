"""Start the ``flujo`` command, or say why it cannot start.

``flujo`` is a namespace shared by several distributions. A *regular* package of that name (one with an ``__init__.py``,
as every ``flujo`` below 1.0 ships) hides it: ``import flujo.core`` then runs foreign code or fails with a message that
helps nobody. So the command starts here, outside the namespace, and looks before it imports.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

NOTHING_RAN = 2
"""Exit code of a command that could not begin (the same as for a usage or import error)."""
INTERRUPTED = 130
"""Exit code after SIGINT, as shells have it."""


def main() -> None:
    """Run the command line, or exit with code 2 and a remedy where the namespace is hidden or empty."""
    # For a top-level name find_spec only searches: not a line of the package it finds is executed.
    problem = diagnose(find_spec("flujo"))
    if problem is not None:
        sys.stderr.write(problem)
        raise SystemExit(NOTHING_RAN)
    try:
        # Not at the top: flujo_cli.main imports flujo.core, which is what cannot work in the cases refused above.
        from flujo_cli.main import main as cli_main

        cli_main()
    except KeyboardInterrupt:
        sys.stderr.write("\nflujo: interrupted\n")
        raise SystemExit(INTERRUPTED) from None


def diagnose(spec: ModuleSpec | None) -> str | None:
    """Say what keeps ``flujo.core`` from being imported and what to do about it; None when nothing does.

    Args:
        spec: what the import system found for ``flujo``. A namespace has no ``origin``; a regular package has one.
    """
    if spec is None:
        return "flujo: the package flujo-core is not installed.\nDo: pip install flujo-core\n"
    if spec.origin is None:
        return None
    owner = _owner_version(Path(spec.origin))
    if owner is None:
        return (
            f"flujo: {spec.origin} hides the installed packages of the same name.\n"
            "Why: Flujo is a namespace of several packages, and a module or package called 'flujo' shuts it.\n"
            "Do: rename or remove that file, or take its folder off PYTHONPATH.\n"
        )
    return (
        f"flujo: the old package flujo {owner} is installed and hides the new ones.\n"
        f"Why: it brings {spec.origin}, which shuts the namespace that flujo-core and its plugins share.\n"
        "Do: pip install -U 'flujo>=1'    (with uv: uv pip install -U 'flujo>=1'); it replaces the old package.\n"
        "Or: pip uninstall flujo, then pip install --force-reinstall --no-deps flujo-cli (the old package takes the\n"
        "    flujo command with it when it goes).\n"
    )


def _owner_version(origin: Path) -> str | None:
    """Find the version of the distribution ``flujo`` that lies where the hiding package lies."""
    folder = origin.parent.parent
    for dist in distributions(name="flujo"):
        # Our own meta-distribution may be there too (an editable one, say): it owns no files, so it is not to blame.
        if Path(str(dist.locate_file(""))) == folder and any(str(f) == "flujo/__init__.py" for f in dist.files or ()):
            return dist.version
    return None


if __name__ == "__main__":
    main()
