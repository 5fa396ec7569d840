"""The adapter: one readable module, cut from the source's front and the targets' backs, with the used pieces only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_OWN_ROOM = "crossload"  # imports from it are pieces of other parts, and come along as code


@dataclass(frozen=True, slots=True)
class Part:
    """One source text that pieces are cut from. `title` heads its section in the adapter."""

    title: str
    text: str


@dataclass(slots=True, eq=False)
class _Piece:
    """A top-level definition. `members` are the methods and class attributes of a class that is cut, each with its
    text; `head` is then the class without them."""

    part: int
    line: int
    name: str
    node: ast.stmt
    text: str
    head: str = ""
    members: dict[str, tuple[ast.stmt, str]] = field(default_factory=dict)
    kept_members: set[str] = field(default_factory=set)

    @property
    def is_protocol(self) -> bool:
        bases = self.node.bases if isinstance(self.node, ast.ClassDef) else []
        return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in bases)


@dataclass(frozen=True, slots=True)
class _Import:
    """`module` is "" for `import local`; `name` is what is imported, as written."""

    part: int
    local: str
    module: str
    name: str


def compose(
    parts: Sequence[Part], roots: Iterable[str], members: Iterable[str], cut: Iterable[str],
    replaced: Mapping[str, str], docstring: str,
) -> str:  # fmt: skip
    """The module that holds everything reachable from `roots`, in the order of `parts`.

    Of the classes named in `cut` come only the members that `members` names or that kept code uses. `replaced` gives
    whole definitions another text. A class takes the place of a protocol of the same name in another part; two other
    definitions of one name must read the same. Raises ValueError when they do not, or a root is missing."""
    composer = _Composer(parts, frozenset(cut), replaced)
    for root in roots:
        composer.want(root)
    composer.reach(set(members))
    return composer.render(docstring)


class _Composer:
    def __init__(self, parts: Sequence[Part], cut: frozenset[str], replaced: Mapping[str, str]) -> None:
        self._parts = parts
        self._cut = cut
        self._pieces: dict[str, list[_Piece]] = {}
        self._imports: list[_Import] = []
        self._shared: set[tuple[int, str]] = set()  # names that a part takes from other parts
        self._kept: list[_Piece] = []
        self._names: set[tuple[int, str]] = set()
        self._attributes: set[str] = set()
        for number, part in enumerate(parts):
            lines = part.text.splitlines(keepends=True)
            for node in ast.parse(part.text).body:
                self._read(number, node, lines, replaced)

    def _read(self, number: int, node: ast.stmt, lines: list[str], replaced: Mapping[str, str]) -> None:
        if isinstance(node, ast.Import):
            for item in node.names:
                written = item.name + (f" as {item.asname}" if item.asname else "")
                self._imports.append(_Import(number, item.asname or item.name.split(".")[0], "", written))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for item in node.names:
                if module.split(".")[0] == _OWN_ROOM:
                    self._shared.add((number, item.name))
                elif module != "__future__":
                    written = item.name + (f" as {item.asname}" if item.asname else "")
                    self._imports.append(_Import(number, item.asname or item.name, module, written))
        else:
            name = _defined(node)
            if name:
                self._pieces.setdefault(name, []).append(self._piece(number, name, node, lines, replaced))

    def _piece(self, number: int, name: str, node: ast.stmt, lines: list[str], replaced: Mapping[str, str]) -> _Piece:
        if name in replaced:
            return _Piece(number, node.lineno, name, ast.parse(replaced[name]).body[0], replaced[name].rstrip() + "\n")
        piece = _Piece(number, node.lineno, name, node, _segment(node, lines))
        if isinstance(node, ast.ClassDef) and name in self._cut:
            body = [item for item in node.body if _defined(item)]
            piece.members = {_defined(item): (item, _segment(item, lines)) for item in body}
            piece.head = "".join(lines[_start(node, lines) : _start(body[0], lines)]).rstrip() + "\n"
        return piece

    # What is needed

    def want(self, name: str) -> None:
        """Keep a definition. Raises ValueError when there is none, or when parts disagree on it."""
        found = self._pieces.get(name)
        if not found:
            raise ValueError(f"no part of the adapter defines {name}")
        real = [piece for piece in found if not piece.is_protocol] or found
        if any(piece.text != real[0].text for piece in real):
            raise ValueError(f"{name} is defined differently in two parts of the adapter")
        if real[0] in self._kept:
            return
        self._kept.append(real[0])
        if not real[0].members:
            self._use(real[0].node, real[0].part)

    def _use(self, node: ast.AST, part: int) -> None:
        for item in ast.walk(node):
            if isinstance(item, ast.Name):
                self._names.add((part, item.id))
            elif isinstance(item, ast.Attribute):
                self._attributes.add(item.attr)

    def reach(self, members: set[str]) -> None:
        """Follow names and members until nothing new is needed."""
        size = -1
        while size != len(self._kept) + sum(len(piece.kept_members) for piece in self._kept):
            size = len(self._kept) + sum(len(piece.kept_members) for piece in self._kept)
            for part, name in sorted(self._names):
                if (part, name) in self._shared or any(piece.part == part for piece in self._pieces.get(name, ())):
                    self.want(name)
            for piece in list(self._kept):
                for name, (node, _) in piece.members.items():
                    wanted = name in members or name in self._attributes or name.startswith("__")
                    if wanted and name not in piece.kept_members:
                        piece.kept_members.add(name)
                        self._use(node, piece.part)

    # What it looks like

    def render(self, docstring: str) -> str:
        blocks = [f'"""{docstring}"""\n\nfrom __future__ import annotations\n\n{self._import_lines()}']
        for number, part in enumerate(self._parts):
            pieces = sorted((piece for piece in self._kept if piece.part == number), key=lambda piece: piece.line)
            if pieces:
                blocks += [f"# {part.title}\n", *_joined(pieces)]
        return "\n\n".join(blocks).replace("\n\n\n# ", "\n\n# ", 1)

    def _import_lines(self) -> str:
        used = [item for item in self._imports if (item.part, item.local) in self._names and self._reached(item)]
        lines = {(item.name, f"import {item.name}") for item in used if not item.module}
        # What is renamed stands on a line of its own, as import sorters have it.
        lines |= {(item.module, f"from {item.module} import {item.name}") for item in used if " as " in item.name}
        grouped: dict[str, set[str]] = {}
        for item in used:
            if item.module and " as " not in item.name:
                grouped.setdefault(item.module, set()).add(item.name)
        for module, names in grouped.items():
            lines.add((module, f"from {module} import {', '.join(sorted(names, key=_name_order))}"))
        standard = sorted(line for module, line in lines if module.split(".")[0] in sys.stdlib_module_names)
        other = sorted(line for module, line in lines if module.split(".")[0] not in sys.stdlib_module_names)
        blocks = [sorted(block, key=lambda line: line.startswith("from")) for block in (standard, other) if block]
        return "\n\n".join("\n".join(block) for block in blocks) + "\n"

    def _reached(self, item: _Import) -> bool:
        """`import a.b` binds `a`, as `import a.c` does: only the module that is really named comes along."""
        if item.module or "." not in item.name or " as " in item.name:
            return True
        texts = [piece.text for piece in self._kept if piece.part == item.part]
        return any(f"{item.name}." in text for text in texts)


def _joined(pieces: list[_Piece]) -> list[str]:
    """The pieces' texts; assignments that follow each other stay together."""
    blocks: list[str] = []
    for at, piece in enumerate(pieces):
        text = piece.text
        if piece.members:
            kept = [body for name, (_, body) in piece.members.items() if name in piece.kept_members]
            text = piece.head + "".join("\n" + body for body in kept)
        follows = at > 0 and all(isinstance(item.node, ast.Assign | ast.AnnAssign) for item in pieces[at - 1 : at + 1])
        if follows:
            blocks[-1] += text
        else:
            blocks.append(text)
    return blocks


def _defined(node: ast.stmt) -> str:
    """The name that a statement defines, "" when it defines none that pieces can refer to."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return ""


def _start(node: ast.stmt, lines: list[str]) -> int:
    """Index of the first line: decorators and the comment above belong to a definition."""
    decorators = getattr(node, "decorator_list", [])
    at = min([node.lineno, *(item.lineno for item in decorators)]) - 1
    while at and lines[at - 1].lstrip().startswith("#"):
        at -= 1
    return at


def _segment(node: ast.stmt, lines: list[str]) -> str:
    return "".join(lines[_start(node, lines) : node.end_lineno]).rstrip() + "\n"


def _name_order(name: str) -> tuple[bool, str]:
    return (not name.isupper(), name)
