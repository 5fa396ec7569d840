"""The package as syntax trees, read once. What a rule looks at is found here, never listed by hand."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PACKAGE = REPOSITORY / "src" / "crossload"
DOCS = REPOSITORY / "docs"

_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")


@dataclass(frozen=True, slots=True)
class Source:
    """One module. `path` is relative to the package, `module` its dotted name."""

    path: str
    module: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The first folder, or the file itself for those at the top."""
        return self.path.partition("/")[0]


@cache
def sources(root: Path = PACKAGE) -> tuple[Source, ...]:
    found: list[Source] = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        parts = [part for part in (root.name, *relative.with_suffix("").parts) if part != "__init__"]
        text = path.read_text(encoding="utf-8")
        found.append(Source(relative.as_posix(), ".".join(parts), text, ast.parse(text)))
    return tuple(found)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported anywhere, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def docstrings(tree: ast.AST) -> set[int]:
    """ids of string constants that stand alone as statements: prose, not code."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def said(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every identifier and every string literal that is no docstring."""
    prose = docstrings(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Constant(value=str() as text) if id(node) not in prose:
                yield line, text
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text) | ast.alias(name=text):
                yield line, text
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text) | ast.ClassDef(name=text):
                yield line, text
            case ast.keyword(arg=str() as text) | ast.ImportFrom(module=str() as text):
                yield line, text


def words(text: str) -> set[str]:
    """Lower-case words of an identifier or a sentence: `open_S3Store` has open, s3, store and s3store."""
    found: set[str] = set()
    for run in re.findall(r"[A-Za-z0-9]+", text):
        found.add(run.lower())
        found |= {part.lower() for part in _WORD.findall(run)}
    return found


def name_of(node: ast.expr) -> str:
    """`a.b.c` of a call's function, "" when it is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner}.{node.attr}" if inner else node.attr
    return ""
