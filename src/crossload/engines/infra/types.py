"""Does a value fit a type? Terraform's own conversions, no more: "true" is a bool, "yes" is none, 5 is a string."""

from __future__ import annotations

import re
from collections.abc import Callable

from crossload.engines.infra.syntax import Computed, Interpolated, ListNode, Literal, Node, ObjectNode, Traversal

TypeOf = Callable[[Traversal], str]
"""Type of what a reference names, "any" when it is not known."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?\Z")
_CALLS = {
    "toset": "set(any)",
    "tolist": "list(any)",
    "concat": "list(any)",
    "jsonencode": "string",
    "format": "string",
    "join": "string",
    "lower": "string",
    "upper": "string",
    "tostring": "string",
    "merge": "map(any)",
    "tomap": "map(any)",
    "length": "number",
    "tonumber": "number",
    "tobool": "bool",
    "replace": "string",
}


def mismatch(node: Node, wanted: str, type_of: TypeOf) -> str:
    """What is wrong, or "". `wanted` is a schema type."""
    if wanted == "any" or (isinstance(node, Literal) and node.value is None):
        return ""
    outer, inner = split(wanted)
    if isinstance(node, Literal):
        return _literal(node, outer, wanted)
    if isinstance(node, ListNode):
        if outer not in ("list", "set"):
            return f"a list where {wanted} is wanted"
        return next((text for item in node.items if (text := mismatch(item, inner, type_of))), "")
    if isinstance(node, ObjectNode):
        if outer != "map":
            return f"an object where {wanted} is wanted"
        return next((f"key {key}: {text}" for key, item in node.items if (text := mismatch(item, inner, type_of))), "")
    return _between(known_type(node, type_of), wanted)


def known_type(node: Node, type_of: TypeOf) -> str:
    if isinstance(node, Interpolated):
        return "string"
    if isinstance(node, Traversal):
        return type_of(node)
    if isinstance(node, Computed):
        if node.what == "?":
            return known_type(node.parts[1], type_of)
        return _CALLS.get(node.what, "any")
    return "any"


def split(kind: str) -> tuple[str, str]:
    """`list(string)` -> ("list", "string")."""
    outer, _, rest = kind.partition("(")
    return outer, rest.removesuffix(")") or "any"


def _literal(node: Literal, outer: str, wanted: str) -> str:
    value = node.value
    if outer in ("list", "set", "map"):
        return f"{_shown(value)} where {wanted} is wanted"
    if outer == "bool" and not (isinstance(value, bool) or value in ("true", "false")):
        return f"{_shown(value)} is no bool (true or false)"
    if outer == "number" and (isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.match(value))):
        return f"{_shown(value)} is no number"
    return ""


def _between(have: str, wanted: str) -> str:
    """Types of which at least one is only known by name."""
    if "any" in (have, wanted):
        return ""
    (have_outer, have_inner), (outer, inner) = split(have), split(wanted)
    plain = ("string", "number", "bool")
    if have_outer in plain and outer in plain:
        # a number or bool becomes a string without loss; the other way depends on the value, so it may fail at apply
        return "" if outer == "string" or have_outer in (outer, "string") else f"a {have} where {wanted} is wanted"
    if have_outer in ("list", "set") and outer in ("list", "set"):
        return _between(have_inner, inner)
    return "" if have_outer == outer and not _between(have_inner, inner) else f"a {have} where {wanted} is wanted"


def _shown(value: object) -> str:
    return {True: "true", False: "false"}.get(value, "") if isinstance(value, bool) else repr(value)
