"""What a parameter may be: by its type, its default, its callers, or a test fixture of its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from crossload.engines.convert.arguments import argument_node
from crossload.engines.convert.index import Class, Function, Scope
from crossload.engines.convert.values import Frame, Instance, Maker, Routine, Sdk, Value

if TYPE_CHECKING:
    from tree_sitter import Node

    from crossload.engines.convert.infer import Resolver

CALL_SITES = 25  # callers asked for one parameter; more make a scan slow and rarely say anything new


def parameter_values(resolver: Resolver, function: Function, name: str, frame: Frame | None) -> Iterator[Value]:
    first = function.parameters[0].name if function.parameters else ""
    if function.owner is not None and name == first and not function.decorated("staticmethod"):
        if frame is not None and frame.instance is not None:
            yield Maker(frame.instance.class_) if function.decorated("classmethod") else frame.instance
            return
        for class_ in with_subclasses(resolver, function.owner):
            yield Maker(class_) if function.decorated("classmethod") else Instance(class_)
        return
    if frame is not None:
        given = frame.argument(name)
        if given is not None:
            yield from given
            return
    parameter = next((item for item in function.parameters if item.name == name), None)
    if parameter is None or parameter.kind != "plain":
        return
    yield from annotated(resolver, parameter.annotation, function.outer)
    yield from resolver.infer(parameter.default, function.outer)
    yield from from_callers(resolver, function, name)
    yield from from_fixture(resolver, function, name)


def with_subclasses(resolver: Resolver, class_: Class) -> list[Class]:
    found, waiting = [class_], [class_]
    while waiting and len(found) < CALL_SITES:
        for below in resolver.subclasses.get(waiting.pop().name, ()):
            if below not in found:
                found.append(below)
                waiting.append(below)
    return found


def from_callers(resolver: Resolver, function: Function, name: str) -> Iterator[Value]:
    names = [function.name]
    if function.name == "__init__" and function.owner is not None:
        names += [class_.name for class_ in with_subclasses(resolver, function.owner)]
    sites = [site for item in names for site in resolver.index.calls.get(item, ())]
    for call, scope in sites[:CALL_SITES]:
        for value in resolver.infer(call.child_by_field_name("function"), scope):
            if isinstance(value, Maker):
                reached = next(iter(resolver.class_members(value.class_, "__init__")), None)
                routine = reached if isinstance(reached, Routine) else None
            else:
                routine = value if isinstance(value, Routine) else None
            if routine is not None and routine.function is function:
                bound = routine.instance is not None or isinstance(value, Maker)
                yield from resolver.infer(argument_node(function, call, scope, bound, name), scope)


def from_fixture(resolver: Resolver, function: Function, name: str) -> Iterator[Value]:
    if function.scope.file.is_test:
        for fixture in resolver.index.functions.get(name, ()):
            if fixture.decorated("fixture") and fixture is not function:
                yield from resolver.results(fixture, Frame(fixture))


def annotated(resolver: Resolver, node: Node | None, scope: Scope) -> Iterator[Value]:
    """Clients named by a type (`Client | None`, `Optional["Client"]`), and our own classes."""
    if node is None:
        return
    if node.type in ("identifier", "attribute", "string"):
        text = scope.file.text(node).strip("'\"")
        service = resolver.reading.annotations.get(text.rpartition(".")[2])
        if service is not None:
            yield Sdk("client", service)
            return
        quoted = node.type == "string"
        found = resolver.infer(node, scope) if not quoted else resolver.name(text, scope, None)
        if not quoted or text.isidentifier():
            yield from (Instance(item.class_) for item in found if isinstance(item, Maker))
    else:
        for child in node.named_children:
            yield from annotated(resolver, child, scope)
