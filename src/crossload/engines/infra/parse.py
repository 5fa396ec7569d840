"""HCL text into blocks. The checker reads the bytes that were written, not the values they were written from."""

from __future__ import annotations

from dataclasses import dataclass, field

from crossload.engines.infra.syntax import (
    Computed,
    Interpolated,
    ListNode,
    Literal,
    Node,
    ObjectNode,
    SyntaxProblem,
    Token,
    Traversal,
    code_end,
    tokens,
    unescape,
)


@dataclass(slots=True)
class ParsedBlock:
    """One block and where it starts. `duplicates` are argument names given twice, with their lines."""

    kind: str
    labels: tuple[str, ...]
    file: str
    line: int
    attributes: dict[str, Node] = field(default_factory=dict)
    blocks: list[ParsedBlock] = field(default_factory=list)
    duplicates: list[tuple[str, int]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return ".".join(self.labels) if self.kind == "resource" else ".".join((self.kind, *self.labels))


def parse(text: str, file: str = "") -> ParsedBlock:
    """The file as one block of kind "" that holds the others. Raises SyntaxProblem."""
    return _Parser(tokens(text), file).body(ParsedBlock("", (), file, 1), closing="end")


def parse_expression(text: str, line: int) -> Node:
    parser = _Parser([Token(t.kind, t.text, line, t.column) for t in tokens(text)], "")
    node = parser.expression()
    parser.skip_newlines()
    parser.expect("end")
    return node


class _Parser:
    def __init__(self, found: list[Token], file: str) -> None:
        self._tokens = found
        self._file = file
        self._at = 0

    @property
    def here(self) -> Token:
        return self._tokens[self._at]

    def take(self) -> Token:
        token = self.here
        self._at += 1
        return token

    def is_mark(self, text: str) -> bool:
        return self.here.kind == "mark" and self.here.text == text

    def expect(self, kind: str, text: str = "") -> Token:
        token = self.here
        if token.kind != kind or (text and token.text != text):
            wanted = text or {"name": "a name", "newline": "the end of the line", "end": "the end"}.get(kind, kind)
            shown = {"newline": "the end of the line", "end": "the end of the file"}.get(token.kind, repr(token.text))
            raise SyntaxProblem(f"expected {wanted}, found {shown}", token.line, token.column)
        return self.take()

    def skip_newlines(self) -> None:
        while self.here.kind == "newline":
            self._at += 1

    def body(self, block: ParsedBlock, closing: str) -> ParsedBlock:
        while True:
            self.skip_newlines()
            if closing == "end" and self.here.kind == "end":
                return block
            if closing == "}" and self.is_mark("}"):
                self.take()
                return block
            name = self.expect("name")
            if self.is_mark("="):
                self.take()
                node = self.expression()
                if name.text in block.attributes:
                    block.duplicates.append((name.text, name.line))
                block.attributes[name.text] = node
            else:
                block.blocks.append(self._block(name))
            if not self.is_mark("}"):
                self.expect("end" if self.here.kind == "end" else "newline")

    def _block(self, name: Token) -> ParsedBlock:
        labels: list[str] = []
        while self.here.kind in ("text", "name"):
            token = self.take()
            labels.append(unescape(token.text) if token.kind == "text" else token.text)
        self.expect("mark", "{")
        return self.body(ParsedBlock(name.text, tuple(labels), self._file, name.line), closing="}")

    def expression(self) -> Node:
        first = self._unary()
        parts = [first]
        operators: list[str] = []
        while self.here.kind == "mark" and self.here.text in _OPERATORS:
            operators.append(self.take().text)
            self.skip_newlines()
            parts.append(self._unary())
        node: Node = first if not operators else Computed(operators[0], tuple(parts), first.line)
        if self.is_mark("?"):
            self.take()
            self.skip_newlines()
            yes = self.expression()
            self.skip_newlines()
            self.expect("mark", ":")
            self.skip_newlines()
            node = Computed("?", (node, yes, self.expression()), node.line)
        return node

    def _unary(self) -> Node:
        if self.is_mark("-") or self.is_mark("!"):
            sign = self.take()
            inner = self._unary()
            if sign.text == "-" and isinstance(inner, Literal) and isinstance(inner.value, int | float):
                return Literal(-inner.value, sign.line)
            return Computed(sign.text, (inner,), sign.line)
        return self._postfix(self._primary())

    def _primary(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return Literal(float(token.text) if set(".eE") & set(token.text) else int(token.text), token.line)
        if token.kind == "text":
            return _string(token)
        if token.kind == "name":
            if token.text in ("true", "false", "null"):
                return Literal({"true": True, "false": False, "null": None}[token.text], token.line)
            if self.is_mark("("):
                return Computed(token.text, tuple(self._items("(", ")")), token.line)
            return Traversal((token.text,), (), token.line)
        if token.kind == "mark" and token.text == "(":
            self.skip_newlines()
            inner = self.expression()
            self.skip_newlines()
            self.expect("mark", ")")
            return Computed("(", (inner,), token.line)
        if token.kind == "mark" and token.text in "[{":
            self._at -= 1
            return self._for() or (self._list() if token.text == "[" else self._object())
        raise SyntaxProblem(f"expected a value, found {token.text or 'the end'!r}", token.line, token.column)

    def _postfix(self, node: Node) -> Node:
        while self.is_mark(".") or self.is_mark("["):
            if self.take().text == ".":
                step = self.expect("mark", "*") if self.is_mark("*") else self.expect(
                    "number" if self.here.kind == "number" else "name"
                )  # fmt: skip
                path, inside = (step.text,), ()
            else:
                path, inside = ("[]",), (self.expression(),) if not self.is_mark("*") else ()
                if self.is_mark("*"):
                    self.take()
                self.expect("mark", "]")
            if isinstance(node, Traversal):
                node = Traversal(node.path + path, node.inside + inside, node.line)
            else:
                node = Computed(".", (node, *inside), node.line)
        return node

    def _items(self, opening: str, closing: str) -> list[Node]:
        self.expect("mark", opening)
        items: list[Node] = []
        self.skip_newlines()
        while not self.is_mark(closing):
            items.append(self.expression())
            if self.is_mark("..."):
                self.take()
            self.skip_newlines()
            if not self.is_mark(closing):
                self.expect("mark", ",")
                self.skip_newlines()
        self.take()
        return items

    def _list(self) -> Node:
        line = self.here.line
        return ListNode(tuple(self._items("[", "]")), line)

    def _object(self) -> Node:
        line = self.expect("mark", "{").line
        items: list[tuple[str, Node]] = []
        while True:
            while self.here.kind == "newline" or self.is_mark(","):
                self.take()
            if self.is_mark("}"):
                self.take()
                return ObjectNode(tuple(items), line)
            key = self.take()
            if key.kind not in ("name", "text"):
                raise SyntaxProblem(f"expected a key, found {key.text!r}", key.line, key.column)
            if not self.is_mark(":"):
                self.expect("mark", "=")
            else:
                self.take()
            self.skip_newlines()
            made = _string(key) if key.kind == "text" else None
            value = self.expression()
            if isinstance(made, Interpolated):  # a key that is computed refers to things as well
                value = Computed("key", (made, value), key.line)
            items.append((unescape(key.text), value))

    def _for(self) -> Node | None:
        """`[for x in xs : f(x)]`: the bound names are no references, so they are taken out of the parts."""
        start = self._at
        opening = self.take()
        self.skip_newlines()
        if self.here.kind != "name" or self.here.text != "for":
            self._at = start
            return None
        self.take()
        bound = {self.expect("name").text}
        if self.is_mark(","):
            self.take()
            bound.add(self.expect("name").text)
        self.expect("name", "in")
        parts = [self.expression()]
        closing = "]" if opening.text == "[" else "}"
        while not self.is_mark(closing):
            token = self.here
            if token.kind == "newline" or (token.kind == "mark" and token.text in (":", "=>", "...")):
                self.take()
            elif token.kind == "name" and token.text == "if":
                self.take()
            else:
                parts.append(self.expression())
        self.take()
        free = [part for part in parts if not (isinstance(part, Traversal) and part.path[0] in bound)]
        return Computed("for", tuple(free), opening.line)


_OPERATORS = frozenset({"==", "!=", "<=", ">=", "<", ">", "&&", "||", "+", "-", "*", "/", "%"})


def _string(token: Token) -> Node:
    raw = token.text
    parts: list[Node] = []
    at = 0
    plain: list[str] = []
    while at < len(raw):
        if raw.startswith(("$${", "%%{"), at) or raw[at] == "\\":
            size = 2 if raw[at] == "\\" else 3
            plain.append(raw[at : at + size])
            at += size
        elif raw.startswith("${", at):
            end = code_end(raw, at + 2)
            parts.append(parse_expression(raw[at + 2 : end], token.line))
            at = end + 1
        else:
            plain.append(raw[at])
            at += 1
    if not parts:
        return Literal(unescape("".join(plain)), token.line)
    return Interpolated(tuple(parts), token.line)
