"""HCL text into tokens (HashiCorp's native syntax specification, the part that Terraform files written here use)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias


class SyntaxProblem(Exception):
    """What is wrong and where; lines and columns count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is name | number | text | mark | newline | end. The text of a string token is what stands between the
    quotes, still escaped, because `${` and `$${` differ only there."""

    kind: str
    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Literal:
    value: str | int | float | bool | None
    line: int


@dataclass(frozen=True, slots=True)
class Interpolated:
    """A string with code in it; only the code is kept."""

    parts: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class ListNode:
    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class ObjectNode:
    items: tuple[tuple[str, Node], ...]
    line: int


@dataclass(frozen=True, slots=True)
class Traversal:
    """`a.b[0].c` is ("a", "b", "[]", "c"); what stood inside brackets is in `inside`."""

    path: tuple[str, ...]
    inside: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Computed:
    """A call, an operator, a condition or a `for`: no value is known, only what it is made of."""

    what: str
    parts: tuple[Node, ...]
    line: int


Node: TypeAlias = "Literal | Interpolated | ListNode | ObjectNode | Traversal | Computed"

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*|//[^\n]*|/\*.*?\*/)
      |(?P<newline>\n)
      |(?P<name>[A-Za-z_][A-Za-z0-9_-]*)
      |(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
      |(?P<mark>=>|==|!=|<=|>=|&&|\|\||\.\.\.|[{}\[\]()=,.:?+*/%<>!-])""",
    re.X | re.S,
)


def tokens(text: str) -> list[Token]:
    """Raises SyntaxProblem at the first byte that is no HCL."""
    found: list[Token] = []
    at, line, start = 0, 1, 0
    while at < len(text):
        if text[at] == '"':
            end = _string_end(text, at, line, at - start + 1)
            found.append(Token("text", text[at + 1 : end], line, at - start + 1))
            at = end + 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise SyntaxProblem(f"{text[at]!r} is not understood here", line, at - start + 1)
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(Token(kind, match.group(), line, at - start + 1))
        line += match.group().count("\n")
        if "\n" in match.group():
            start = at + match.group().rindex("\n") + 1
        at = match.end()
    found.append(Token("end", "", line, 1))
    return found


def _string_end(text: str, at: int, line: int, column: int) -> int:
    """Index of the closing quote; a quote inside `${ }` belongs to the code there."""
    index = at + 1
    while index < len(text):
        mark = text[index]
        if mark == "\\":
            index += 2
        elif mark == '"':
            return index
        elif mark == "\n":
            break
        elif text.startswith(("$${", "%%{"), index):
            index += 3
        elif text.startswith(("${", "%{"), index):
            index = code_end(text, index + 2) + 1
        else:
            index += 1
    raise SyntaxProblem("a string does not end on its line", line, column)


def code_end(text: str, at: int) -> int:
    """Index of the `}` that closes code beginning at `at`."""
    depth = 1
    quoted = False
    index = at
    while index < len(text):
        mark = text[index]
        if quoted:
            if mark == "\\":
                index += 1
            elif mark == '"':
                quoted = False
        elif mark == '"':
            quoted = True
        else:
            depth += (mark == "{") - (mark == "}")
            if depth == 0:
                return index
        index += 1
    return len(text)


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


def unescape(raw: str) -> str:
    """The text of a string without code."""
    out = re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(0)), raw)
    return out.replace("$${", "${").replace("%%{", "%{")
