"""Facts about source files, from their syntax trees and tokens: sizes, annotations, docstrings, excepts, imports."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
BROAD = {"Exception", "BaseException"}


@dataclass(frozen=True, slots=True)
class Function:
    """One function or method; ``lines`` are without its docstring, ``positional`` without ``self`` and ``cls``."""

    where: str
    lines: int
    complexity: int
    positional: int
    annotated: bool


@dataclass(slots=True)
class Module:
    """One source file. Offences are lists of ``file:line`` (with a reason where there is more than one)."""

    name: str
    leaf: str
    is_package: bool
    lines: int
    code_lines: int
    functions: list[Function] = field(default_factory=list)
    public: int = 0
    undocumented: list[str] = field(default_factory=list)
    broad: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    private_imports: list[str] = field(default_factory=list)
    deep_imports: list[str] = field(default_factory=list)


def read_package(src: Path) -> list[Module]:
    """Read every module below a ``src`` folder; the leaf of a module is its topmost folder with an ``__init__.py``."""
    files = sorted(src.rglob("*.py"))
    tops = {file.parent for file in files if file.name == "__init__.py"}
    modules = []
    for file in files:
        dotted = file.relative_to(src).with_suffix("").parts
        name = ".".join(dotted[:-1] if dotted[-1] == "__init__" else dotted)
        top = min((p for p in file.parents if p in tops), key=lambda p: len(p.parts), default=file.parent)
        modules.append(read_module(file, name, ".".join(top.relative_to(src).parts)))
    return modules


def read_module(file: Path, name: str, leaf: str) -> Module:
    """Measure one file."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(file))
    comments, code = _comments_and_code(text)
    module = Module(name, leaf, file.name == "__init__.py", len(text.splitlines()), len(code - _docstring_lines(tree)))
    where = f"{leaf}/{file.name}"
    for node, in_function in _walk(tree):
        here = f"{where}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, FunctionNode):
            module.functions.append(_measure(node, f"{here} {node.name}"))
        elif _is_broad(node):
            module.broad.append(here)
            _explain(module, node, here, comments)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            _note_import(module, node, here)
            if in_function and not comments & {node.lineno, node.lineno - 1}:
                module.unexplained.append(f"{here} import inside a function without a comment that says why")
            elif in_function:
                comments.add(node.end_lineno or node.lineno)  # one comment explains the imports that follow at once
    _count_docstrings(module, tree, where)
    return module


def _walk(node: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Walk the tree without what only a type checker sees, telling whether each node lies inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child, in_function
        yield from _walk(child, in_function or isinstance(child, FunctionNode))


def _comments_and_code(text: str) -> tuple[set[int], set[int]]:
    comments: set[int] = set()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    return comments, code


def _docstring_lines(tree: ast.AST) -> set[int]:
    """Lines of strings that stand alone: docstrings and the ones below attributes."""
    alone = [n for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    return {n for e in alone if isinstance(e.value, ast.Constant) and isinstance(e.value.value, str) for n in _lines(e)}


def _lines(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _measure(node: FunctionNode, where: str) -> Function:
    taken = node.args.posonlyargs + node.args.args
    if taken and taken[0].arg in {"self", "cls"}:
        taken = taken[1:]
    rest = [a for a in (*node.args.kwonlyargs, node.args.vararg, node.args.kwarg) if a is not None]
    annotated = node.returns is not None and all(a.annotation is not None for a in (*taken, *rest))
    docstring = len(_lines(node.body[0])) if ast.get_docstring(node) is not None else 0
    complexity = 1 + sum(isinstance(n, BRANCHES) for n in ast.walk(node))
    return Function(where, len(_lines(node)) - docstring, complexity, len(taken), annotated)


def _is_broad(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
            return False  # it cleans up and lets the error go on; nothing is swallowed
        caught = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
        return any(c is None or (isinstance(c, ast.Name) and c.id in BROAD) for c in caught)
    if isinstance(node, ast.Call):
        suppresses = ast.unparse(node.func).rpartition(".")[2] == "suppress"
        return suppresses and any(isinstance(a, ast.Name) and a.id in BROAD for a in node.args)
    return False


def _explain(module: Module, node: ast.AST, here: str, comments: set[int]) -> None:
    """A broad except needs a comment beside it and must do something."""
    first = last = getattr(node, "lineno", 0)
    if isinstance(node, ast.ExceptHandler):
        last = node.end_lineno or first
        if all(
            isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            for s in node.body
        ):
            module.unexplained.append(f"{here} broad except that passes silently")
    if not comments & set(range(first - 1, last + 1)):
        module.unexplained.append(f"{here} broad except without a comment that says why")


def _note_import(module: Module, node: ast.Import | ast.ImportFrom, here: str) -> None:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
        module.deep_imports += [f"{here} {name}" for name in names]
    elif node.level:
        parts = module.name.split(".")
        # Level 1 is the package itself, which is the module's own name in an __init__ and its parent elsewhere.
        base = parts[: len(parts) - node.level + module.is_package]
        names = [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
    else:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        module.deep_imports.append(f"{here} {node.module}")
    module.imports.update(names)
    for name in names:
        if any(part.startswith("_") and not part.endswith("__") for part in name.split(".")):
            module.private_imports.append(f"{here} {name}")


def _count_docstrings(module: Module, tree: ast.Module, where: str) -> None:
    if any(part.startswith("_") and part != "__main__" for part in module.name.split(".")):
        return
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    while scopes:
        for node in scopes.pop().body:
            if not isinstance(node, FunctionNode | ast.ClassDef) or node.name.startswith("_"):
                continue
            if any(ast.unparse(d).rpartition(".")[2] in {"overload", "override"} for d in node.decorator_list):
                continue
            module.public += 1
            if ast.get_docstring(node) is None:
                module.undocumented.append(f"{where}:{node.lineno} {node.name}")
            if isinstance(node, ast.ClassDef):
                scopes.append(node)
