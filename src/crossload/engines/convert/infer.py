"""Demand-driven inference: what may this expression be? Lazy, memoised, and with a budget per call site.

It answers only as far as cloud clients need it, and gives up rather than guess: an unknown is the empty set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from crossload.engines.convert.arguments import argument_at, positional, split_arguments
from crossload.engines.convert.calls import ADAPTER_MODULE, Origin, is_adapter
from crossload.engines.convert.index import Binding, Class, File, Function, Index, Scope
from crossload.engines.convert.made import client_maker, sdk_value
from crossload.engines.convert.parameters import CALL_SITES, annotated, parameter_values
from crossload.engines.convert.values import (
    NOTHING,
    Foreign,
    Frame,
    Instance,
    Items,
    Literal,
    Maker,
    Module,
    Parent,
    Partial,
    Routine,
    Sdk,
    SdkMember,
    Text,
    Value,
    Values,
)
from crossload.ports.code import Reading

if TYPE_CHECKING:
    from tree_sitter import Node

STEPS_PER_SITE = 3_000
DEPTH = 24

# Calls that hand back their first argument, or a context manager that does.
_PASS_THROUGH = frozenset({"contextlib.closing", "copy.copy", "copy.deepcopy", "typing.cast", "cast"})


class BudgetSpent(Exception):
    """One site needs more steps than it is worth; it is reported, and the scan goes on."""


class Resolver:
    """`infer` an expression in a scope. One Resolver serves one scan; what it learns is kept."""

    def __init__(self, index: Index, reading: Reading, steps_per_site: int = STEPS_PER_SITE) -> None:
        self.index = index
        self.reading = reading
        self._steps_per_site = steps_per_site
        self._left = steps_per_site
        self._memo: dict[tuple[Node, Frame | None], Values] = {}
        self._active: set[tuple[Node, Frame | None]] = set()
        self._cuts = 0  # times that recursion or depth was cut: what was learned under a cut is not kept
        self.subclasses: dict[str, list[Class]] = {}
        for class_ in index.classes:
            for base in class_.bases:
                self.subclasses.setdefault(class_.scope.file.text(base).rpartition(".")[2], []).append(class_)

    def new_site(self) -> None:
        self._left = self._steps_per_site

    def infer(self, node: Node | None, scope: Scope, frame: Frame | None = None) -> Values:
        """All values that are known to reach the expression. Raises BudgetSpent."""
        if node is None:
            return NOTHING
        key = (node, frame)
        known = self._memo.get(key)
        if known is not None:
            return known
        if key in self._active or len(self._active) >= DEPTH * 8:
            self._cuts += 1
            return NOTHING
        self._left -= 1
        if self._left < 0:
            raise BudgetSpent
        before = self._cuts
        self._active.add(key)
        try:
            found = frozenset(self._expression(node, scope, frame))
        finally:
            self._active.discard(key)
        if self._cuts == before or not self._active:
            self._memo[key] = found
        return found

    # Expressions

    def _expression(self, node: Node, scope: Scope, frame: Frame | None) -> Iterator[Value]:
        kind = node.type
        if kind == "identifier":
            yield from self.name(scope.file.text(node), scope, frame)
        elif kind == "attribute":
            member = node.child_by_field_name("attribute")
            if member is not None:
                for value in self.infer(node.child_by_field_name("object"), scope, frame):
                    yield from self.member(value, scope.file.text(member))
        elif kind == "call":
            yield from self._call(node, scope, frame)
        elif kind == "string":
            text = scope.file.constant(node)
            if text is not None:
                yield Text(text)
        elif kind in (
            "dictionary",
            "list",
            "tuple",
            "expression_list",
            "dictionary_comprehension",
            "list_comprehension",
        ):
            yield Literal(node, scope, frame)
        elif kind == "subscript":
            yield from self._subscript(node, scope, frame)
        elif kind == "lambda":
            yield from (Routine(item, None, frame) for item in self.index.functions["<lambda>"] if item.node == node)
        else:
            for child in _alternatives(node):
                yield from self.infer(child, scope, frame)

    def _subscript(self, node: Node, scope: Scope, frame: Frame | None) -> Iterator[Value]:
        keys = node.children_by_field_name("subscript")
        for value in self.infer(node.child_by_field_name("value"), scope, frame):
            yield from self.element(value, keys[0] if keys else None, scope, frame)

    def element(self, value: Value, key: Node | None, scope: Scope, frame: Frame | None) -> Iterator[Value]:
        """What `value[key]` may be; an unknown key may be any."""
        wanted = {item.text for item in self.infer(key, scope, frame) if isinstance(item, Text)} if key else set[str]()
        if isinstance(value, Literal):
            for child in value.node.named_children:
                if child.type == "pair":
                    names = self.infer(child.child_by_field_name("key"), value.scope, value.frame)
                    texts = {item.text for item in names if isinstance(item, Text)}
                    if not wanted or not texts or wanted & texts:
                        yield from self.infer(child.child_by_field_name("value"), value.scope, value.frame)
                elif child.type != "for_in_clause":
                    yield from self.infer(child, value.scope, value.frame)
        elif isinstance(value, Items):
            for binding in self._item_bindings(value):
                names = self.infer(binding.key, binding.scope, value.frame)
                texts = {item.text for item in names if isinstance(item, Text)}
                if not wanted or not texts or wanted & texts:
                    yield from self.infer(binding.node, binding.scope, value.frame)

    def _item_bindings(self, value: Items) -> list[Binding]:
        table = value.class_.attributes if value.class_ is not None else value.scope.names if value.scope else {}
        return [binding for binding in table.get(value.name, ()) if binding.kind == "item"]

    # Names

    def name(self, name: str, scope: Scope, frame: Frame | None) -> Iterator[Value]:
        at: Scope | None = scope
        while at is not None:
            visible = at.kind != "class" or at is scope
            if visible and name in at.names and name not in at.outside:
                known = _frame_of(frame, at)
                for binding in at.names[name]:
                    yield from self._bound(binding, name, known)
                return
            at = at.parent
        for star in scope.file.scope.names.get("*", ()):
            file = self.index.module(star.module)
            if file is not None and file is not scope.file:
                yield from self._exported(file, name)

    def _bound(self, binding: Binding, name: str, frame: Frame | None) -> Iterator[Value]:
        kind = binding.kind
        if kind == "value":
            yield from self.infer(binding.node, binding.scope, frame)
        elif kind == "parameter" and binding.function is not None:
            yield from parameter_values(self, binding.function, name, frame)
        elif kind == "function" and binding.function is not None:
            yield Routine(binding.function, None, frame)
        elif kind == "class" and binding.class_ is not None:
            yield Maker(binding.class_)
        elif kind == "import":
            yield self._module(binding.module)
        elif kind == "from":
            yield from self._imported(binding)
        elif kind == "annotation":
            yield from annotated(self, binding.node, binding.scope)
        elif kind == "with":
            for value in self.infer(binding.node, binding.scope, frame):
                yield from self._entered(value)
        elif kind == "loop":
            yield from self._looped(binding.node, binding.scope, frame)
        elif kind == "item":
            yield Items(name, binding.scope, None, frame)
        elif kind == "unpack":
            yield from self._unpacked(binding, frame)

    def _module(self, dotted: str) -> Value:
        if dotted.split(".")[0] in self.reading.modules:  # pinned: a vendored copy must not hide the SDK
            return Foreign(dotted)
        file = self.index.module(dotted)
        return Module(file) if file is not None else Foreign(dotted)

    def _imported(self, binding: Binding) -> Iterator[Value]:
        base = self._module(binding.module)
        if isinstance(base, Foreign):
            whole = f"{binding.module}.{binding.name}" if binding.module else binding.name
            yield self._module(whole)
            return
        if isinstance(base, Module):
            found = list(self._exported(base.file, binding.name))
            if found:
                yield from found
                return
        below = self.index.module(f"{binding.module}.{binding.name}" if binding.module else binding.name)
        if below is not None:
            yield Module(below)

    def _exported(self, file: File, name: str) -> Iterator[Value]:
        if is_adapter(file.module):
            yield Foreign(f"{ADAPTER_MODULE}.{name}")
        elif name in file.scope.names or "*" in file.scope.names:
            yield from self.name(name, file.scope, None)

    def _entered(self, value: Value) -> Iterator[Value]:
        if isinstance(value, Instance):
            for entered in self.member(value, "__enter__"):
                yield from self.called(entered, None, None, None)
        yield value

    def _looped(self, node: Node | None, scope: Scope, frame: Frame | None) -> Iterator[Value]:
        for value in self.infer(node, scope, frame):
            yield from self.element(value, None, scope, frame)
        if node is not None and node.type == "call":
            callee = node.child_by_field_name("function")
            member = callee.child_by_field_name("attribute") if callee is not None else None
            if callee is not None and member is not None and scope.file.text(member) == "values":
                for value in self.infer(callee.child_by_field_name("object"), scope, frame):
                    yield from self.element(value, None, scope, frame)

    def _unpacked(self, binding: Binding, frame: Frame | None) -> Iterator[Value]:
        """`a, b = x, y`, and a function that returns several values."""
        node = binding.node
        displays: list[tuple[Node, Scope, Frame | None]] = []
        if node is not None and node.type in ("expression_list", "tuple", "list"):
            displays.append((node, binding.scope, frame))
        else:
            found = [value for value in self.infer(node, binding.scope, frame) if isinstance(value, Literal)]
            displays += [(value.node, value.scope, value.frame) for value in found]
        for display, scope, inner in displays:
            if 0 <= binding.position < len(display.named_children):
                yield from self.infer(display.named_children[binding.position], scope, inner)

    # Members

    def member(self, value: Value, name: str) -> Iterator[Value]:
        if isinstance(value, Foreign):
            yield self._module(f"{value.dotted}.{name}")
        elif isinstance(value, Module):
            found = list(self._exported(value.file, name))
            below = None if found else self.index.module(f"{value.file.module}.{name}")
            yield from found
            if below is not None:
                yield Module(below)
        elif isinstance(value, Instance):
            yield from self._attribute(value.class_, name, value)
        elif isinstance(value, Maker):
            yield from self._attribute(value.class_, name, None)
        elif isinstance(value, Parent):
            for base in self._bases(value.class_):
                yield from self._attribute(base, name, value.instance)
        elif isinstance(value, Sdk):
            yield SdkMember(value, name)

    def _attribute(self, class_: Class, name: str, instance: Instance | None) -> Iterator[Value]:
        if name == "__class__":
            yield Maker(class_)
            return
        owner = next((item for item in self._order(class_) if name in item.attributes), None)
        if owner is None:
            return
        methods = False
        for binding in owner.attributes[name]:
            if binding.kind == "function" and binding.function is not None:
                methods = True
                function = binding.function
                if function.decorated("property", "cached_property") and instance is not None:
                    yield from self.results(function, Frame(function, (), instance))
                else:
                    yield Routine(
                        function, None if function.decorated("staticmethod") else instance or Instance(class_)
                    )
            elif binding.kind == "item":
                yield Items(name, None, owner, self._frame_in(binding, instance))
            else:
                yield from self._bound(binding, name, self._frame_in(binding, instance))
        if not methods and name in owner.fields:
            yield from self._field_arguments(owner, name)

    def _frame_in(self, binding: Binding, instance: Instance | None) -> Frame | None:
        function = binding.scope.function
        return Frame(function, (), instance) if function is not None and instance is not None else None

    def _field_arguments(self, class_: Class, name: str) -> Iterator[Value]:
        """A dataclass field is what the class was called with."""
        if name in class_.attributes and any(item.kind == "function" for item in class_.attributes["__init__"]):
            return
        position = class_.fields.index(name)
        for call, scope in self.index.calls.get(class_.name, ())[:CALL_SITES]:
            yield from self.infer(argument_at(call, scope, name, position), scope)

    def class_members(self, class_: Class, name: str) -> Values:
        return frozenset(self._attribute(class_, name, Instance(class_)))

    def _bases(self, class_: Class) -> list[Class]:
        values = [value for base in class_.bases for value in self.infer(base, class_.outer)]
        return [value.class_ for value in values if isinstance(value, Maker)]

    def _order(self, class_: Class) -> list[Class]:
        """The class and its bases, nearest first (depth first is near enough to C3 for what we ask)."""
        found: list[Class] = []
        waiting = [class_]
        while waiting and len(found) < CALL_SITES:
            at = waiting.pop(0)
            if at not in found:
                found.append(at)
                waiting = self._bases(at) + waiting
        return found

    # Calls

    def _call(self, node: Node, scope: Scope, frame: Frame | None) -> Iterator[Value]:
        callee = node.child_by_field_name("function")
        if callee is None:
            return
        if callee.type == "identifier" and scope.file.text(callee) == "super":
            yield from self._super(scope, frame)
            return
        for value in self.infer(callee, scope, frame):
            yield from self.called(value, node, scope, frame)
        if callee.type == "attribute":
            member = callee.child_by_field_name("attribute")
            if member is not None and scope.file.text(member) in ("get", "setdefault", "pop"):
                plain, _ = split_arguments(node, scope)
                for value in self.infer(callee.child_by_field_name("object"), scope, frame):
                    yield from self.element(value, plain[0] if plain else None, scope, frame)
                for default in plain[1:2]:
                    yield from self.infer(default, scope, frame)
            elif member is not None and scope.file.text(member) == "enter_context":
                for argument in split_arguments(node, scope)[0]:
                    yield from self.infer(argument, scope, frame)

    def _super(self, scope: Scope, frame: Frame | None) -> Iterator[Value]:
        at: Scope | None = scope
        while at is not None and (at.function is None or at.function.owner is None):
            at = at.parent
        owner = at.function.owner if at is not None and at.function is not None else None
        if owner is not None:
            known = frame.instance if frame is not None else None
            yield Parent(owner, known or Instance(owner))

    def called(self, value: Value, call: Node | None, scope: Scope | None, frame: Frame | None) -> Iterator[Value]:
        """What calling `value` gives."""
        if isinstance(value, Routine):
            yield from self.results(value.function, self._bind(value, call, scope, frame))
        elif isinstance(value, Maker):
            yield Instance(value.class_)
        elif isinstance(value, Instance):
            for method in self.member(value, "__call__"):
                yield from self.called(method, call, scope, frame)
        elif isinstance(value, Partial):
            yield from self._called_partial(value, call, scope, frame)
        elif isinstance(value, Foreign) and call is not None and scope is not None:
            yield from self._called_foreign(value, call, scope, frame)
        elif isinstance(value, SdkMember) and call is not None and scope is not None:
            made = self.reading.members.get((value.sdk.kind, value.name))
            if made is not None:
                yield from sdk_value(self, made, value.sdk, call, scope, frame)

    def _called_foreign(self, value: Foreign, call: Node, scope: Scope, frame: Frame | None) -> Iterator[Value]:
        dotted = value.dotted
        made, converted = client_maker(self, dotted)
        plain, _ = split_arguments(call, scope)
        if made is not None:
            yield from sdk_value(self, made, None, call, scope, frame, converted=converted)
        elif dotted == f"{ADAPTER_MODULE}.{self.reading.session_dispatch}":
            yield Sdk("session", "", Origin(scope.file.path, 0, 0, 0, 0, converted=True))
        elif dotted == "functools.partial" and plain:
            yield from (Partial(item, call, scope, frame) for item in self.infer(plain[0], scope, frame))
        elif dotted in _PASS_THROUGH and plain:
            yield from self.infer(plain[-1], scope, frame)

    def _called_partial(
        self, value: Partial, call: Node | None, scope: Scope | None, frame: Frame | None
    ) -> Iterator[Value]:
        inner = value.callee
        if isinstance(inner, Foreign) and call is not None and scope is not None:
            made, converted = client_maker(self, inner.dotted)
            if made is not None:
                yield from sdk_value(self, made, None, call, scope, frame, converted=converted, partial=value)
        elif isinstance(inner, Routine):
            given = self._bind(inner, value.call, value.scope, value.frame, skip=1)
            later = self._bind(inner, call, scope, frame, filled=len(split_arguments(value.call, value.scope)[0]) - 1)
            merged = dict(given.arguments) | dict(later.arguments)
            yield from self.results(
                inner.function,
                Frame(inner.function, tuple(sorted(merged.items(), key=_first)), inner.instance, inner.frame),
            )
        else:
            yield from self.called(inner, call, scope, frame)

    def _bind(
        self,
        routine: Routine,
        call: Node | None,
        scope: Scope | None,
        frame: Frame | None,
        skip: int = 0,
        filled: int = 0,
    ) -> Frame:
        """Arguments of a call as a frame. Only what was given is there; the rest keeps its default."""
        function = routine.function
        known: dict[str, Values] = {}
        arguments = call.child_by_field_name("arguments") if call is not None else None
        if call is not None and arguments is not None and scope is not None:
            plain, named = split_arguments(call, scope)
            parameters = function.parameters[1:] if _takes_self(routine) else function.parameters
            for parameter, node in zip(positional(parameters)[filled:], plain[skip:], strict=False):
                known[parameter.name] = self.infer(node, scope, frame)
            for name, node in named.items():
                if any(parameter.name == name for parameter in parameters):
                    known[name] = self.infer(node, scope, frame)
            # With `*args` or `**kwargs` in the call a parameter may be given unseen: then its default says nothing.
            splat = any(child.type in ("list_splat", "dictionary_splat") for child in arguments.named_children)
            for parameter in () if splat else parameters:
                if parameter.name not in known and parameter.kind == "plain":
                    known[parameter.name] = self.infer(parameter.default, function.outer)
        return Frame(function, tuple(sorted(known.items(), key=_first)), routine.instance, routine.frame)

    def results(self, function: Function, frame: Frame) -> Iterator[Value]:
        depth, at = 0, frame.outer
        while at is not None:
            depth, at = depth + 1, at.outer
        if depth > DEPTH:
            self._cuts += 1
            return
        for node in function.results:
            yield from self.infer(node, function.scope, frame)
        yield from annotated(self, function.annotation, function.outer)


def _alternatives(node: Node) -> list[Node]:
    """The parts that an expression of another kind may be equal to."""
    if node.type == "conditional_expression":
        return [node.named_children[0], node.named_children[-1]]
    if node.type == "named_expression":
        return node.children_by_field_name("value")
    if node.type in ("boolean_operator", "parenthesized_expression", "await", "as_pattern", "yield"):
        return node.named_children
    return []


def _first(item: tuple[str, Values]) -> str:
    return item[0]


def _takes_self(routine: Routine) -> bool:
    return routine.instance is not None and not routine.function.decorated("staticmethod")


def _frame_of(frame: Frame | None, scope: Scope) -> Frame | None:
    """The frame that belongs to the scope a name was found in, or to a function around it."""
    at = frame
    while at is not None:
        around: Scope | None = scope
        while around is not None:
            if at.function.scope is around:
                return at
            around = around.parent
        at = at.outer
    return None
