"""What a Terraform module declares, what it refers to, and whether the two meet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from crossload.engines.infra.parse import ParsedBlock
from crossload.engines.infra.schema import BlockSchema, ProviderSchema
from crossload.engines.infra.syntax import Computed, Interpolated, ListNode, Node, ObjectNode, Traversal
from crossload.engines.infra.types import split
from crossload.estate.diagnostic import Diagnostic

_BUILT_IN = frozenset({"path", "terraform", "each", "count", "self"})
_TYPE_WORDS = frozenset({"string", "number", "bool", "any", "list", "set", "map", "object", "tuple", "optional"})
_META = frozenset({"lifecycle", "ignore_changes"})


def near(name: str, known: Iterable[str]) -> str:
    """A hint: the name that was probably meant."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean `{found[0]}`?" if found else ""


@dataclass(slots=True)
class Declared:
    """Everything a reference may name."""

    variables: dict[str, str] = field(default_factory=dict)  # name -> type, as far as written
    locals: dict[str, Node] = field(default_factory=dict)
    resources: dict[tuple[str, str], ParsedBlock] = field(default_factory=dict)
    outputs: dict[str, ParsedBlock] = field(default_factory=dict)


def declared(blocks: Iterable[ParsedBlock]) -> tuple[Declared, list[Diagnostic]]:
    """Collect declarations; the same name twice is an error, because the second would win in silence nowhere."""
    out = Declared()
    problems: list[Diagnostic] = []
    for block in blocks:
        if block.kind == "resource" and len(block.labels) == 2:
            key = (block.labels[0], block.labels[1])
            if key in out.resources:
                problems.append(twice(block, out.resources[key].line))
            out.resources[key] = block
        elif block.kind == "variable" and block.labels:
            if block.labels[0] in out.variables:
                problems.append(twice(block, 0))
            out.variables[block.labels[0]] = _variable_type(block)
        elif block.kind == "output" and block.labels:
            if block.labels[0] in out.outputs:
                problems.append(twice(block, out.outputs[block.labels[0]].line))
            out.outputs[block.labels[0]] = block
        elif block.kind == "locals":
            out.locals |= block.attributes
    return out, problems


def twice(block: ParsedBlock, first_line: int) -> Diagnostic:
    where = f" (first on line {first_line})" if first_line else ""
    return Diagnostic.error(
        "XL819", f"{block.address} is declared twice{where}", subject=block.file, line=block.line, column=1,
        hint="rename one of them",
    )  # fmt: skip


def _variable_type(block: ParsedBlock) -> str:
    node = block.attributes.get("type")
    if isinstance(node, Traversal):
        return node.path[0]
    if isinstance(node, Computed) and node.what in ("list", "set", "map") and node.parts:
        inner = node.parts[0]
        return f"{node.what}({inner.path[0] if isinstance(inner, Traversal) else 'any'})"
    return "any"


def traversals(node: Node) -> Iterator[Traversal]:
    """Every reference in an expression, also those inside brackets of others."""
    if isinstance(node, Traversal):
        yield node
        for inner in node.inside:
            yield from traversals(inner)
    elif isinstance(node, Interpolated | Computed):
        for part in node.parts:
            yield from traversals(part)
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from traversals(item)
    elif isinstance(node, ObjectNode):
        for _, item in node.items:
            yield from traversals(item)


def block_traversals(block: ParsedBlock) -> Iterator[Traversal]:
    for name, node in block.attributes.items():
        if (block.kind == "variable" and name == "type") or (block.kind == "required_providers") or name in _META:
            continue
        yield from traversals(node)
    for inner in block.blocks:
        yield from block_traversals(inner)


def type_of(found: Traversal, known: Declared, schemas: dict[str, ProviderSchema]) -> str:
    """The schema type of what a reference names; "any" when it is not known."""
    root = found.path[0]
    if root == "var" and len(found.path) > 1:
        return _inside(known.variables.get(found.path[1], "any"), found.path[2:])
    if root in ("local", "each", "count"):
        return "any"
    schema = _resource_schema(root, schemas)
    if schema is None or len(found.path) < 3:
        return "any"
    at: BlockSchema = schema
    steps = found.path[2:]
    for index, step in enumerate(steps):
        argument = at.argument(step)
        if argument is not None:
            return _inside(argument.type, steps[index + 1 :])
        inner = at.block(step)
        if inner is not None:
            at = inner
    return "any"


def _inside(kind: str, rest: tuple[str, ...]) -> str:
    for _ in rest:
        kind = split(kind)[1]
    return kind


def _resource_schema(kind: str, schemas: dict[str, ProviderSchema]) -> BlockSchema | None:
    schema = schemas.get(kind.partition("_")[0])
    return None if schema is None else schema.resource(kind)


def check_reference(
    found: Traversal, known: Declared, schemas: dict[str, ProviderSchema], file: str
) -> Diagnostic | None:
    """A reference to nothing is found by Terraform only when it runs; here it is found before anything is written."""
    root, shown = found.path[0], ".".join(found.path).replace(".[]", "[..]")

    def problem(code: str, summary: str, hint: str) -> Diagnostic:
        return Diagnostic.error(code, summary, subject=file, line=found.line, column=1, hint=hint)

    if root in _BUILT_IN or (root in _TYPE_WORDS and len(found.path) == 1):
        return None
    if root in ("var", "local"):
        names = known.variables if root == "var" else known.locals
        name = found.path[1] if len(found.path) > 1 else ""
        return None if name in names else problem("XL815", f"`{shown}` is not declared", near(name, names))
    if root in ("data", "module"):
        return problem("XL815", f"`{shown}`: no {root} block is declared here", "")
    if len(found.path) < 2 or "_" not in root:
        return problem("XL815", f"`{shown}` names nothing", near(root, ("var", "local")))
    key = (root, found.path[1])
    if key not in known.resources:
        wanted = ".".join(key)
        return problem("XL815", f"resource `{wanted}` is not declared", near(wanted, map(".".join, known.resources)))
    schema = _resource_schema(root, schemas)
    if schema is None or len(found.path) == 2:
        return None
    step = next((part for part in found.path[2:] if part != "[]"), "")
    names = [*schema.arguments, *schema.blocks]
    if not step or step in names:
        return None
    return problem("XL816", f"`{root}` has no attribute `{step}` to read", near(step, names))


def cycles(known: Declared) -> list[list[str]]:
    """Resources that wait for each other; Terraform refuses the whole plan for one such ring."""
    graph = {
        ".".join(key): sorted(
            {
                ".".join(found.path[:2])
                for found in block_traversals(block)
                if len(found.path) > 1 and (found.path[0], found.path[1]) in known.resources
            }
        )
        for key, block in known.resources.items()
    }
    state: dict[str, int] = {}
    rings: list[list[str]] = []

    def visit(name: str, trail: list[str]) -> None:
        state[name] = 1
        for other in graph[name]:
            if state.get(other) == 1:
                rings.append([*trail[trail.index(other) :], other] if other in trail else [name, other])
            elif other not in state:
                visit(other, [*trail, other])
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, [name])
    return rings
