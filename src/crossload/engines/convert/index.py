"""Source files as scopes, bindings, classes and functions. Knows Python, no SDK and no inference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node

# Copies of other people's code: a vendored SDK would resolve to itself, and nobody wants it converted.
SKIPPED_FOLDERS = frozenset({
    "vendor", "_vendor", "vendored", "third_party", "site-packages", "node_modules", "venv", ".venv", "env", "build",
    "dist", ".git", ".tox", ".nox", "__pycache__", ".eggs", ".mypy_cache", ".pytest_cache", ".ruff_cache",
})  # fmt: skip
SIZE_LIMIT_BYTES = 2_000_000


@dataclass(frozen=True, slots=True, repr=False)
class Binding:
    """One way a name gets its value. `kind`: value, annotation, import, from, star, parameter, function, class, with,
    loop, item, unpack. `node` is the expression (or type) it comes from; `module`/`name` are for imports; `position`
    is the place in a tuple that is unpacked; `key` is the subscript of an item that is assigned."""

    kind: str
    scope: Scope
    node: Node | None = None
    module: str = ""
    name: str = ""
    position: int = -1
    key: Node | None = None
    function: Function | None = None
    class_: Class | None = None


@dataclass(slots=True, eq=False, repr=False)
class Scope:
    """`kind` is module, function or class."""

    kind: str
    file: File
    parent: Scope | None = None
    names: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    outside: dict[str, str] = field(default_factory=dict)  # name -> global | nonlocal
    function: Function | None = None
    class_: Class | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """`kind` is plain, star or double-star."""

    name: str
    kind: str = "plain"
    annotation: Node | None = None
    default: Node | None = None


@dataclass(slots=True, eq=False, repr=False)
class Function:
    name: str
    node: Node
    scope: Scope
    outer: Scope
    parameters: list[Parameter]
    decorators: list[str]
    results: list[Node] = field(default_factory=list)
    annotation: Node | None = None
    owner: Class | None = None

    def decorated(self, *names: str) -> bool:
        return any(text.split("(")[0].rpartition(".")[2] in names for text in self.decorators)


@dataclass(slots=True, eq=False, repr=False)
class Class:
    name: str
    node: Node
    scope: Scope
    outer: Scope
    bases: list[Node]
    attributes: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    fields: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class File:
    """`path` is relative to the scanned folder, with forward slashes; `module` is dotted; `package` says whether it is
    an `__init__.py`."""

    path: str
    module: str
    package: bool
    source: bytes
    root: Node
    calls: list[tuple[Node, Scope]] = field(default_factory=list)
    members: list[tuple[Node, Scope]] = field(default_factory=list)
    broken_line: int = 0
    scope: Scope = field(init=False)

    def __post_init__(self) -> None:
        self.scope = Scope("module", self)

    @property
    def is_test(self) -> bool:
        return is_test_path(self.path)

    def text(self, node: Node) -> str:
        return self.source[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def constant(self, node: Node) -> str | None:
        """The text of a string literal; None for one with code in it."""
        parts = node.named_children
        if any(part.type == "interpolation" for part in parts):
            return None
        return "".join(self.text(part) for part in parts if part.type == "string_content")


def is_test_path(path: str) -> bool:
    at = PurePosixPath(path)
    named = at.name.startswith("test_") or at.name.endswith("_test.py") or at.name == "conftest.py"
    return named or any(part in ("test", "tests") for part in at.parts[:-1])


@dataclass(slots=True, eq=False, repr=False)
class Index:
    """All files of a folder. `unread` maps a path to why it was left out."""

    root: Path
    files: dict[str, File] = field(default_factory=dict)
    modules: dict[str, File] = field(default_factory=dict)
    classes: list[Class] = field(default_factory=list)
    functions: dict[str, list[Function]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, list[tuple[Node, Scope]]] = field(default_factory=lambda: defaultdict(list))
    unread: dict[str, str] = field(default_factory=dict)
    _asked: dict[str, File | None] = field(default_factory=dict)

    def module(self, dotted: str) -> File | None:
        """The file of a dotted module, also when the scanned folder sits above or below the import root. The index
        must be complete: answers are kept."""
        if dotted not in self._asked:
            found = self.modules.get(dotted)
            if found is None and dotted:
                tail = f".{dotted}"
                found = next((file for name, file in self.modules.items() if name.endswith(tail)), None)
            self._asked[dotted] = found
        return self._asked[dotted]


def python_files(folder: Path, sdk_modules: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All .py files, sorted, without vendored folders and without copies of the SDK itself. Links are not followed."""
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink():
            continue
        if entry.is_dir():
            if _wanted(entry, sdk_modules):
                yield from python_files(entry, sdk_modules)
        elif entry.suffix == ".py":
            yield entry


def _wanted(folder: Path, sdk_modules: frozenset[str]) -> bool:
    if folder.name in SKIPPED_FOLDERS:
        return False
    return not (folder.name in sdk_modules and (folder / "__init__.py").exists())
