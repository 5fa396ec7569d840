"""What the constructors of an SDK make, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from crossload.engines.convert.arguments import argument_at, origin_of
from crossload.engines.convert.calls import ADAPTER_MODULE
from crossload.engines.convert.index import Scope
from crossload.engines.convert.values import Frame, Partial, Sdk, Text, Value
from crossload.ports.code import Constructor

if TYPE_CHECKING:
    from tree_sitter import Node

    from crossload.engines.convert.infer import Resolver


def client_maker(resolver: Resolver, dotted: str) -> tuple[Constructor | None, bool]:
    """The constructor behind a dotted name, and whether it is the generated adapter's."""
    made = resolver.reading.constructors.get(dotted)
    if made is None and dotted == f"{ADAPTER_MODULE}.{resolver.reading.dispatch}":
        return next(item for item in resolver.reading.constructors.values() if item.kind == "client"), True
    return made, False


def sdk_value(
    resolver: Resolver, made: Constructor, parent: Sdk | None, call: Node, scope: Scope, frame: Frame | None, *,
    converted: bool = False, partial: Partial | None = None,
) -> Iterator[Value]:  # fmt: skip
    """The SDK value that a constructor makes; one for each service that may be meant."""
    named = service_values(resolver, made, call, scope, frame)
    if not named and partial is not None:
        named = service_values(resolver, made, partial.call, partial.scope, partial.frame, skip=1)
    if parent is not None and parent.kind in ("client", "resource"):
        operations = sorted(named) or [""]
        yield from (Sdk(made.kind, parent.service, parent.origin, operation) for operation in operations)
        return
    converted = converted or (parent is not None and parent.origin is not None and parent.origin.converted)
    site = (partial.call, partial.scope) if partial is not None else (call, scope)
    origin = origin_of(*site, parent, converted, partial is not None)
    yield from (Sdk(made.kind, service, origin) for service in (sorted(named) or [""]))


def service_values(
    resolver: Resolver,
    made: Constructor,
    call: Node,
    scope: Scope,
    frame: Frame | None,
    skip: int = 0,
) -> set[str]:
    """The constant strings that may stand for the service."""
    if made.service_position < 0:
        return set()
    node = argument_at(call, scope, made.service_keyword, made.service_position, skip)
    return {item.text for item in resolver.infer(node, scope, frame) if isinstance(item, Text)}
