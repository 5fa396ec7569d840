"""How a call's answer is used nearby, and which keys a `**mapping` has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from crossload.engines.convert.index import Scope
from crossload.engines.convert.infer import Resolver
from crossload.engines.convert.values import Items, Literal, Value

if TYPE_CHECKING:
    from tree_sitter import Node


def keywords_of_mapping(node: Node, scope: Scope, resolver: Resolver) -> list[str] | None:
    """The keys of a mapping that is splatted into a call; None when they cannot all be known."""
    values = resolver.infer(node, scope)
    if not values and node.type != "dictionary":
        return None
    found: list[str] = []
    for value in sorted(values, key=_place):
        if isinstance(value, Literal) and value.node.type == "dictionary":
            keys = _display_keys(value.node, value.scope, resolver)
        elif isinstance(value, Items) and value.scope is not None:
            bindings = value.scope.names.get(value.name, ())
            keys = [_constant(binding.key, binding.scope) for binding in bindings if binding.kind == "item"]
        else:
            return None
        if keys is None or any(key is None for key in keys):
            return None
        found += [key for key in keys if key is not None and key not in found]
    if node.type == "identifier" and _changed_elsewhere(scope.file.text(node), scope):
        return None
    return found


def _place(value: Value) -> tuple[str, int]:
    """Sets have no order; reports must have one."""
    return ("display", value.node.start_byte) if isinstance(value, Literal) else ("other", 0)


def _display_keys(node: Node, scope: Scope, resolver: Resolver) -> list[str | None] | None:
    keys: list[str | None] = []
    for child in node.named_children:
        if child.type == "pair":
            keys.append(_constant(child.child_by_field_name("key"), scope))
        elif child.type == "dictionary_splat":
            more = keywords_of_mapping(child.named_children[0], scope, resolver)
            if more is None:
                return None
            keys += more
    return keys


def _changed_elsewhere(name: str, scope: Scope) -> bool:
    """`name.update(...)` and its like add keys that we do not follow."""
    for node in _below(_region(scope)):
        if node.type == "call":
            callee = node.child_by_field_name("function")
            if callee is not None and scope.file.text(callee) in (f"{name}.update", f"{name}.setdefault"):
                return True
    return False


def _constant(node: Node | None, scope: Scope) -> str | None:
    if node is None or node.type != "string":
        return None
    return scope.file.constant(node)


def keys_read(call: Node, scope: Scope) -> tuple[str, ...]:
    """First-level keys that are read from the call's answer: at once, or through a local name."""
    key = _key_taken(call, scope)
    if key is not None:
        return (key,)
    parent = call.parent
    while parent is not None and parent.type in ("await", "parenthesized_expression"):
        parent = parent.parent
    if parent is None or parent.type not in ("assignment", "named_expression"):
        return ()
    target = parent.child_by_field_name("left") or parent.child_by_field_name("name")
    if target is None or target.type != "identifier":
        return ()
    name = scope.file.text(target)
    if sum(binding.kind == "value" for binding in scope.names.get(name, ())) > 1:
        return ()  # the name holds several things; whose key is read cannot be said
    found: list[str] = []
    for node in _below(_region(scope)):
        if node.type == "identifier" and scope.file.text(node) == name:
            key = _key_taken(node, scope)
            if key is not None and key not in found:
                found.append(key)
    return tuple(found)


def _key_taken(node: Node, scope: Scope) -> str | None:
    """The key in `node["key"]` or `node.get("key")`, when it is a constant."""
    parent = node.parent
    if parent is None:
        return None
    if parent.type == "subscript" and parent.child_by_field_name("value") == node:
        keys = parent.children_by_field_name("subscript")
        return _constant(keys[0], scope) if keys else None
    if parent.type == "attribute" and parent.child_by_field_name("object") == node:
        member = parent.child_by_field_name("attribute")
        call = parent.parent
        if member is not None and scope.file.text(member) == "get" and call is not None and call.type == "call":
            arguments = call.child_by_field_name("arguments")
            first = arguments.named_children[0] if arguments is not None and arguments.named_children else None
            return _constant(first, scope)
    return None


def _region(scope: Scope) -> Node:
    """The part of the file in which a local name of the scope can be used."""
    return scope.function.node if scope.function is not None else scope.file.root


def _below(node: Node) -> Iterator[Node]:
    waiting = [node]
    while waiting:
        at = waiting.pop()
        yield at
        waiting.extend(reversed(at.named_children))


def names_used(root: Node, text: bytes, name: str) -> list[Node]:
    """Identifiers `name` in a tree, imports excluded."""
    found: list[Node] = []
    waiting = [root]
    while waiting:
        at = waiting.pop()
        if at.type in ("import_statement", "import_from_statement"):
            continue
        if at.type == "identifier" and text[at.start_byte : at.end_byte].decode("utf-8", "replace") == name:
            parent = at.parent
            keyword = parent is not None and parent.type == "keyword_argument"
            if not (keyword and parent is not None and parent.child_by_field_name("name") == at):
                found.append(at)
        waiting.extend(at.named_children)
    return found
