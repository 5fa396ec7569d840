"""Reading the arguments of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossload.engines.convert.calls import Origin
from crossload.engines.convert.index import Function, Parameter, Scope
from crossload.engines.convert.values import Sdk

if TYPE_CHECKING:
    from tree_sitter import Node


def split_arguments(call: Node, scope: Scope) -> tuple[list[Node], dict[str, Node]]:
    """Positional arguments and keywords of a call; splats are left out."""
    plain: list[Node] = []
    named: dict[str, Node] = {}
    arguments = call.child_by_field_name("arguments")
    if arguments is None or arguments.type != "argument_list":
        return plain, named
    for child in arguments.named_children:
        if child.type == "keyword_argument":
            name, value = child.child_by_field_name("name"), child.child_by_field_name("value")
            if name is not None and value is not None:
                named[scope.file.text(name)] = value
        elif child.type not in ("list_splat", "dictionary_splat", "comment"):
            plain.append(child)
    return plain, named


def positional(parameters: list[Parameter]) -> list[Parameter]:
    return [parameter for parameter in parameters if parameter.kind == "plain"]


def argument_node(function: Function, call: Node, scope: Scope, bound: bool, name: str) -> Node | None:
    parameters = positional(function.parameters[1:] if bound else function.parameters)
    position = next((at for at, parameter in enumerate(parameters) if parameter.name == name), -1)
    return argument_at(call, scope, name, position)


def argument_at(call: Node, scope: Scope, name: str, position: int, skip: int = 0) -> Node | None:
    """What a call gives by keyword, else by position (-1: by keyword only) behind the first `skip` arguments."""
    plain, named = split_arguments(call, scope)
    return named.get(name) or (plain[skip + position] if 0 <= position < len(plain) - skip else None)


def origin_of(call: Node, scope: Scope, parent: Sdk | None, converted: bool, partial: bool) -> Origin | None:
    """Where the client is made. For `partial(sdk.client, ...)` that is its first argument."""
    plain, options = split_arguments(call, scope)
    callee = plain[0] if partial else call.child_by_field_name("function")
    if callee is None:
        return None
    owner = callee.child_by_field_name("object") if callee.type == "attribute" else callee
    return Origin(
        scope.file.path,
        call.start_point.row + 1,
        callee.start_byte,
        callee.end_byte,
        owner.end_byte if owner is not None else callee.end_byte,
        parent is not None and parent.kind == "session",
        converted,
        tuple(options),
    )
