"""The edits of one file: its constructors go to the adapter, and the adapter is imported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from crossload.engines.convert.calls import ADAPTER_MODULE, Origin
from crossload.engines.convert.edit import Edit
from crossload.engines.convert.index import File, Index
from crossload.engines.convert.scan import Scan
from crossload.engines.convert.usage import names_used
from crossload.ports.code import Reading

if TYPE_CHECKING:
    from tree_sitter import Node


def package_root(index: Index, path: str) -> str:
    """The topmost folder of the package a file is in; the file's own folder when it is in none."""
    folder = PurePosixPath(path).parent
    if not _is_package(index, folder):
        return str(folder)
    while _is_package(index, folder.parent) and folder != folder.parent:
        folder = folder.parent
    return str(folder)


def _is_package(index: Index, folder: PurePosixPath) -> bool:
    return f"{folder}/__init__.py".removeprefix("./") in index.files


def adapter_path(index: Index, path: str) -> str:
    return str(PurePosixPath(package_root(index, path)) / f"{ADAPTER_MODULE}.py")


def site_edits(found: Scan, origins: Sequence[Origin], reading: Reading) -> dict[str, list[Edit]]:
    """Path -> edits, for constructors that are not redirected yet."""
    by_file: dict[str, set[Origin]] = defaultdict(set)
    for origin in origins:
        by_file[origin.path].add(origin)
    files = found.index.files
    return {path: _file_edits(found.index, files[path], sorted(given), reading) for path, given in by_file.items()}


def _file_edits(index: Index, file: File, origins: list[Origin], reading: Reading) -> list[Edit]:
    edits: list[Edit] = []
    spans: list[tuple[int, int]] = []
    for origin in origins:
        callee = file.source[origin.start : origin.end]
        owner = file.source[origin.start : origin.object_end]
        if origin.of_session:
            text = f"{ADAPTER_MODULE}.{reading.session_dispatch}(".encode() + owner + b")" + callee[len(owner) :]
        else:
            text = f"{ADAPTER_MODULE}.{reading.dispatch}".encode()
        edit = Edit(origin.start, origin.end, text)
        if edit not in edits:
            edits.append(edit)
            spans.append((origin.start, origin.end))
    return [*edits, *_import_edits(index, file, spans)]


def _import_edits(index: Index, file: File, spans: list[tuple[int, int]]) -> list[Edit]:
    if any(binding.kind in ("import", "from") for binding in file.scope.names.get(ADAPTER_MODULE, ())):
        return []
    newline = b"\r\n" if b"\r\n" in file.source else b"\n"
    line = _import_line(index, file).encode()
    last = _last_import(file)
    dropped = _unused_import(index, file, spans)
    edits: list[Edit] = []
    if dropped is not None:
        if dropped == last or last is None:
            return [Edit(dropped.start_byte, dropped.end_byte, line)]
        edits.append(_removal(file, dropped))
    if last is None:
        at = _after_docstring(file)
        return [*edits, Edit(at, at, (newline if at else b"") + line + newline * (1 if at else 2))]
    relative = file.text(last).startswith("from .")
    gap = newline if relative or not line.startswith(b"from .") else newline * 2
    return [*edits, Edit(last.end_byte, last.end_byte, gap + line)]


def _import_line(index: Index, file: File) -> str:
    root = package_root(index, file.path)
    folder = PurePosixPath(file.path).parent
    if not _is_package(index, folder):
        return f"import {ADAPTER_MODULE}"
    depth = len(folder.parts) - len(PurePosixPath(root).parts)
    return f"from {'.' * (depth + 1)} import {ADAPTER_MODULE}"


def _last_import(file: File) -> Node | None:
    """The last import of the block at the top, before other code."""
    last: Node | None = None
    for node in file.root.named_children:
        if node.type in ("import_statement", "import_from_statement", "future_import_statement"):
            last = node
        elif node.type != "comment" and not (node.type == "expression_statement" and last is None):
            break
    return last


def _unused_import(index: Index, file: File, spans: list[tuple[int, int]]) -> Node | None:
    """The statement `import sdk` when nothing uses its name any more, here or from elsewhere."""
    for node in file.root.named_children:
        names = node.children_by_field_name("name")
        if node.type != "import_statement" or len(names) != 1 or names[0].type != "dotted_name":
            continue
        name = file.text(names[0])
        uses = names_used(file.root, file.source, name)
        inside = [use for use in uses if any(start <= use.start_byte < end for start, end in spans)]
        if not inside or len(inside) != len(uses):
            continue
        module = file.module.rpartition(".")[2]
        # A test may patch `module.sdk`, another module may import it from here: then it stays.
        reached = any(f"{module}.{name}".encode() in other.source for other in index.files.values())
        if not reached and not _imported_from(index, file, name):
            return node
    return None


def _imported_from(index: Index, file: File, name: str) -> bool:
    return any(
        binding.kind == "from" and binding.name == name and index.module(binding.module) is file
        for other in index.files.values()
        for bindings in other.scope.names.values()
        for binding in bindings
    )


def _removal(file: File, node: Node) -> Edit:
    """The whole line, with the blank line that would be left double."""
    start, end = node.start_byte, node.end_byte
    while end < len(file.source) and file.source[end : end + 1] in (b" ", b"\t", b"\r"):
        end += 1
    if file.source[end : end + 1] != b"\n":  # something else stands on this line
        return Edit(start, node.end_byte, b"pass")
    alone = start == 0 or file.source[:start].endswith((b"\n\n", b"\r\n\r\n"))
    for blank in (b"\r\n", b"\n"):
        if alone and file.source[end + 1 :].startswith(blank):
            return Edit(start, end + 1 + len(blank), b"")
    return Edit(start, end + 1, b"")


def _after_docstring(file: File) -> int:
    for node in file.root.named_children:
        if node.type == "comment":
            continue
        if node.type == "expression_statement" and node.named_children and node.named_children[0].type == "string":
            return node.end_byte + 1
        return node.start_byte
    return 0
