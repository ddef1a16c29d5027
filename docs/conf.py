"""Sphinx settings. The documentation builds and reads offline: no intersphinx, no font or script from elsewhere.

A page is a Markdown file below ``docs/``; ``index.md`` lists the folders with a glob, so a new page appears by being
there (``tour.md`` at the top included). The decisions in ``adr/`` are copied in before each build.
"""

import re
import shutil
from importlib.metadata import version as version_of
from pathlib import Path

from docutils.nodes import TextElement
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import flujo.core

HERE = Path(__file__).parent

project = "Flujo"
author = "the Flujo contributors"
project_copyright = "the Flujo contributors, Apache-2.0"
version = release = version_of("flujo-core")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "Flujo"
html_theme_options = {"navigation_with_keys": True}

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}

# Bases that have no page here: private ones, type variables, and those of other projects (no intersphinx offline).
nitpick_ignore_regex = [
    (r"py:.*", r"flujo\.core\.(testing\.)?\w+\.(_\w+|[A-Z])"),
    (r"py:.*", r"flujo\.core\.(wire\.Wire|messages\.Frozen|reading\.StreamingContext)"),  # bases that are not public
    (r"py:.*", r"(pydantic|pluggy|anyio|opentelemetry|logging)\..*"),
]

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def copy_decisions() -> None:
    """Copy adr/ to docs/decisions/, which git ignores: Sphinx reads only what lies below this folder."""
    shutil.rmtree(HERE / "decisions", ignore_errors=True)
    shutil.copytree(HERE.parent / "adr", HERE / "decisions", ignore=shutil.ignore_patterns("README.md"))
    index = (HERE.parent / "adr" / "README.md").read_text(encoding="utf-8")
    toctree = "\n```{toctree}\n:glob:\n:maxdepth: 1\n\n[0-9]*\n```\n"
    (HERE / "decisions" / "index.md").write_text(index + toctree, encoding="utf-8")


def resolve_annotation(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: TextElement
) -> TextElement | None:
    """Link a type in a signature to its public name; leave types that have none as text.

    Signatures name a type by its defining module and its users by ``flujo.core``. What somebody wrote by hand (it has
    ``refwarn``) is left to fail when it is dead.
    """
    if node.get("refdomain") != "py" or "refwarn" in node:
        return None
    name = node["reftarget"].rpartition(".")[2]
    if not hasattr(flujo.core, name):
        return contnode
    domain = env.get_domain("py")
    found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"flujo.core.{name}", node, contnode)
    return found if isinstance(found, TextElement) else contnode


def read_markdown(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Read the Markdown of our docstrings as what Sphinx expects: `code` and blocks indented after a colon."""
    for number, line in enumerate(lines):
        line = re.sub(r"(?<![`:\w])`([^`]+)`(?![`_])", r"``\1``", line)
        block = lines[number + 2 : number + 3]
        opens = line.endswith(":") and not line.endswith("::") and lines[number + 1 : number + 2] == [""]
        lines[number] = f"{line}:" if opens and block and block[0].startswith("    ") else line


def setup(app: Sphinx) -> None:
    """Prepare the sources and register the hooks; Sphinx calls this once per build."""
    copy_decisions()
    # Before napoleon (priority 500), whose output is reStructuredText already.
    app.connect("autodoc-process-docstring", read_markdown, priority=400)
    app.connect("missing-reference", resolve_annotation)
