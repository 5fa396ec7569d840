"""Write blocks as HCL, laid out as `terraform fmt` lays it out, so that the files never change under a formatter.

The same blocks always give the same bytes: that is what lets `verify` compare digests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from crossload.ports.infra import Block, Call, Expression, Template, Value

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_LINE_COLUMNS_MAX = 100


def render(blocks: Iterable[Block], header: str = "") -> str:
    """One file's text; ends with one newline. `header` becomes comment lines at the top."""
    parts = ["\n".join(f"# {line}".rstrip() for line in header.splitlines())] if header else []
    parts += ["\n".join(_block(block, 0)) for block in blocks]
    return "\n\n".join(parts) + "\n"


def quoted(text: str) -> str:
    """A literal string: nothing in it is evaluated (HCL native syntax, section Template Expressions)."""
    return _quote(text.replace("${", "$${").replace("%{", "%%{"))


def _quote(text: str) -> str:
    out = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + out.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def _template(text: str) -> str:
    """Escape only outside `${...}`: inside is code, where a quote is a quote."""
    out: list[str] = []
    depth = 0
    at = 0
    while at < len(text):
        if depth == 0 and text.startswith("${", at):
            depth, at = 1, at + 2
            out.append("${")
            continue
        mark = text[at]
        if depth:
            depth += (mark == "{") - (mark == "}")
            out.append(mark)
        else:
            out.append(_quote(mark)[1:-1])
        at += 1
    return '"' + "".join(out) + '"'


def _block(block: Block, depth: int) -> list[str]:
    pad = "  " * depth
    lines = [f"{pad}# {line}".rstrip() for line in block.note.splitlines()]
    head = " ".join([block.kind, *(quoted(label) for label in block.labels)])
    if not block.attributes and not block.blocks:
        return [*lines, f"{pad}{head} {{}}"]
    lines.append(f"{pad}{head} {{")
    lines += _attributes(block.attributes, depth + 1)
    for index, inner in enumerate(block.blocks):
        if index or block.attributes:
            lines.append("")
        lines += _block(inner, depth + 1)
    return [*lines, f"{pad}}}"]


def _attributes(attributes: Mapping[str, Value], depth: int) -> list[str]:
    """`terraform fmt` aligns the `=` of neighbouring one-line attributes; one of several lines ends the group."""
    pad = "  " * depth
    rendered = [(name, _value(value, depth)) for name, value in attributes.items()]
    lines: list[str] = []
    group: list[tuple[str, str]] = []

    def flush() -> None:
        width = max((len(name) for name, _ in group), default=0)
        lines.extend(f"{pad}{name.ljust(width)} = {text}" for name, text in group)
        group.clear()

    for name, value_lines in rendered:
        if len(value_lines) == 1:
            group.append((name, value_lines[0]))
            continue
        flush()
        lines += [f"{pad}{name} = {value_lines[0]}", *value_lines[1:]]
    flush()
    return lines


def _value(value: Value, depth: int) -> list[str]:
    """Lines of a value; the first carries no indentation, because it stands behind the `=`."""
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, int | float):
        return [repr(value)]
    if isinstance(value, str):
        return [quoted(value)]
    if isinstance(value, Expression):
        return [value.text]
    if isinstance(value, Template):
        return [_template(value.text)]
    if isinstance(value, Call):
        lines = _value(value.argument, depth)
        lines[0] = f"{value.name}({lines[0]}"
        lines[-1] += ")"
        return lines
    if isinstance(value, Mapping):
        if not value:
            return ["{}"]
        keyed: dict[str, Value] = {_key(name): item for name, item in value.items()}
        return ["{", *_attributes(keyed, depth + 1), "  " * depth + "}"]
    return _list(value, depth)


def _key(name: str | Template) -> str:
    if isinstance(name, Template):
        return _template(name.text)
    return name if _IDENTIFIER.match(name) else quoted(name)


def _list(items: tuple[Value, ...], depth: int) -> list[str]:
    rendered = [_value(item, depth + 1) for item in items]
    if all(len(lines) == 1 for lines in rendered):
        line = "[" + ", ".join(lines[0] for lines in rendered) + "]"
        if len(line) + 2 * depth <= _LINE_COLUMNS_MAX:
            return [line]
    pad = "  " * (depth + 1)
    out = ["["]
    for lines in rendered:
        out += [f"{pad}{lines[0]}", *lines[1:-1]] if len(lines) > 1 else []
        out.append(f"{lines[-1]}," if len(lines) > 1 else f"{pad}{lines[0]},")
    return [*out, "  " * depth + "]"]
