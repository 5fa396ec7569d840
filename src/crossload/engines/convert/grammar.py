"""The grammar that Python code is read with: packages of their own, which an installation may do without."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from crossload.ports.errors import Unsupported

if TYPE_CHECKING:
    from tree_sitter import Node

INSTALL = "pip install 'crossload[convert]'"


def _missing() -> str:
    for name in ("tree_sitter", "tree_sitter_python"):
        try:
            import_module(name)
        except ImportError:
            return name
    return ""


MISSING = _missing()
"""The package that is not installed here, "" when code can be read. Found out once, so that a plan may ask."""


def parse(source: bytes) -> Node:
    """The root of the syntax tree. Raises Unsupported when the grammar is not installed."""
    if MISSING:
        raise Unsupported(f"to read code takes a package that is not installed ({MISSING})", hint=INSTALL)
    import tree_sitter_python
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_python.language())).parse(source).root_node
