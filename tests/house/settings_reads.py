"""Which connection settings a provider's source reads, by module: found in the syntax tree, never listed by hand.

It follows what is annotated `Settings` (parameters, what is assigned from them, attributes of self, `replace(...)`) to
every `get`, `require`, `written` and look into `connection`. What it cannot follow is reported, not skipped: a setting
read in a way that nobody can see would be refused in everybody's migration file."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from source_tree import Source, functions, name_of

HARMLESS = {"place", "identity", "environment"}  # attributes of Settings that are no connection setting
GETTERS = {"get", "require", "written"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Reads:
    """`names` are read for sure, `unclear` is what could not be followed, `handing` functions read the setting that one
    of their parameters names: function -> that parameter's position."""

    names: set[str] = field(default_factory=set)
    unclear: list[str] = field(default_factory=list)
    handing: dict[str, int] = field(default_factory=dict)


def handing_functions(sources: Sequence[Source]) -> dict[str, int]:
    """Functions anywhere in these modules that read whatever setting they are told to."""
    found: dict[str, int] = {}
    while True:  # one may hand on to another
        more = {name: position for source in sources for name, position in reads(source, found).handing.items()}
        if more == found:
            return found
        found = more


def reads(source: Source, handing: dict[str, int]) -> Reads:
    """What one module reads. `handing` are functions of any module that read the setting named in an argument."""
    found = Reads()
    _Walk(source, handing, found).module()
    return found


class _Walk:
    def __init__(self, source: Source, handing: dict[str, int], found: Reads) -> None:
        self.source, self.handing, self.found = source, handing, found
        self.parents = {child: node for node in ast.walk(source.tree) for child in ast.iter_child_nodes(node)}
        self.names: set[tuple[ast.AST, str]] = set()  # (function, local name)
        self.attributes: set[str] = set()
        self._learn()

    def module(self) -> None:
        for node in ast.walk(self.source.tree):
            if isinstance(node, ast.Attribute) and node.attr == "connection":
                self._connection(node)  # of whatever: a place has one too
            elif isinstance(node, ast.Attribute) and self._is_settings(node.value):
                self._use(node)
            elif isinstance(node, ast.Call) and name_of(node.func).rpartition(".")[2] in self.handing:
                self._handed(node)

    # -- what is a Settings

    def _learn(self) -> None:
        """Which names, and which attributes of `self`, hold Settings: repeated until nothing new is learnt."""
        for function in functions(self.source.tree):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            self.names |= {
                (function, argument.arg)
                for argument in arguments
                if argument.annotation and "Settings" in _words(argument.annotation)
            }
        before = -1
        while before != len(self.names) + len(self.attributes):
            before = len(self.names) + len(self.attributes)
            for node in ast.walk(self.source.tree):
                if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
                    continue
                if node.value is None or not self._is_settings(node.value):
                    continue
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Attribute):
                        self.attributes.add(target.attr)
                    elif isinstance(target, ast.Name):
                        self.names.add((next(self._around(node), self.source.tree), target.id))

    def _is_settings(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return any((scope, name) in self.names for scope in [*self._around(node), self.source.tree])
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return name in self.attributes
            case ast.Call(func=function, args=[first, *_]) if name_of(function).rpartition(".")[2] == "replace":
                return self._is_settings(first)
            case ast.Call(func=ast.Name(id="Settings")):
                return True
            case ast.IfExp(body=body, orelse=other):
                return self._is_settings(body) or self._is_settings(other)
            case ast.BoolOp(values=values):
                return any(self._is_settings(value) for value in values)
            case ast.NamedExpr(value=value):
                return self._is_settings(value)
            case _:
                return False

    def _around(self, node: ast.AST) -> Iterator[Function]:
        at: ast.AST | None = node
        while at is not None:
            if isinstance(at, Function):
                yield at
            at = self.parents.get(at)

    # -- what is done with it

    def _use(self, node: ast.Attribute) -> None:
        parent = self.parents[node]
        if node.attr in HARMLESS:
            return
        if node.attr in GETTERS and isinstance(parent, ast.Call) and parent.func is node and parent.args:
            self._named(parent.args[0])
        elif node.attr in GETTERS and isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name):
            for call in self._calls_of(parent.targets[0]):
                self._named(call.args[0])
        else:
            self._lost(node)

    def _connection(self, node: ast.expr) -> None:
        """`x.connection`, or a local name for it: every way to look into it names a setting."""
        parent = self.parents[node]
        match parent:
            case ast.Attribute(attr="get") if isinstance(self.parents[parent], ast.Call):
                call = self.parents[parent]
                assert isinstance(call, ast.Call)
                self._named(call.args[0])
            case ast.Subscript(value=value, slice=key) if value is node:
                self._named(key)
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn()]):
                self._named(left)
            case ast.comprehension(target=ast.Name(id=name)) | ast.For(target=ast.Name(id=name)):
                self._looked_over(parent, name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                for use in self._uses_of(parent.targets[0], name):
                    self._connection(use)
            case ast.Call(func=ast.Name(id="Settings")):
                return  # handed on to what is followed anyway
            case _:
                self._lost(node)

    def _looked_over(self, loop: ast.AST, name: str) -> None:
        """A loop over all keys: each must be asked what it begins with, or what it is."""
        around = self.parents[loop] if isinstance(loop, ast.comprehension) else loop
        asked = 0
        for node in ast.walk(around):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=one), attr="startswith"), args=[start]) if (
                    one == name
                ):
                    self._named(start)
                    asked += 1
                case ast.Compare(left=ast.Name(id=one), ops=[ast.Eq()], comparators=[other]) if one == name:
                    self._named(other)
                    asked += 1
                case _:
                    pass
        if not asked:
            self._lost(around)

    def _handed(self, call: ast.Call) -> None:
        position = self.handing[name_of(call.func).rpartition(".")[2]]
        if len(call.args) > position:
            self._named(call.args[position])
        else:
            self._lost(call)

    # -- names

    def _named(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=str() as text):
                self.found.names.add(text.partition("@")[0])
            case ast.JoinedStr(values=[ast.Constant(value=str() as text), *_]) if "@" in text:
                self.found.names.add(text.partition("@")[0])
            case ast.JoinedStr(values=[ast.FormattedValue(value=first), ast.Constant(value=str() as text), *_]) if (
                text.startswith("@")
            ):
                self._named(first)
            case ast.Name(id=name):
                self._from_name(node, name)
            case _:
                self._lost(node)

    def _from_name(self, node: ast.Name, name: str) -> None:
        """A loop's variable over constants, a constant, or a parameter, which the callers then name."""
        values = self._looped(node, name)
        for function in () if values else self._around(node):
            arguments = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
            if name in arguments:
                method = arguments[0] == "self"
                self.found.handing[function.name] = arguments.index(name) - (1 if method else 0)
                return
        values = values or self._assigned(node, name)
        self.found.names.update(value.partition("@")[0] for value in values)
        if not values:
            self._lost(node)

    def _looped(self, node: ast.AST, name: str) -> list[str]:
        at: ast.AST | None = node
        while at is not None:
            loops = [at] if isinstance(at, ast.For) else list(getattr(at, "generators", ()))
            for loop in loops:
                if isinstance(loop.target, ast.Name) and loop.target.id == name:
                    source = loop.iter
                    return self._assigned(node, source.id) if isinstance(source, ast.Name) else _constants(source)
            at = self.parents.get(at)
        return []

    def _assigned(self, node: ast.AST, name: str) -> list[str]:
        """What a name may hold, when it only ever holds constants; from the nearest scope that gives it something."""
        for scope in [*self._around(node), self.source.tree]:
            held = [
                _constants(item.value)
                for item in ast.walk(scope)
                if isinstance(item, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in item.targets)
            ]
            if held:
                return [text for one in held for text in one] if all(held) else []
        return []

    def _uses_of(self, target: ast.expr, name: str) -> Iterator[ast.Name]:
        scope: ast.AST = next(self._around(target), self.source.tree)
        for item in ast.walk(scope):
            if isinstance(item, ast.Name) and item.id == name and isinstance(item.ctx, ast.Load):
                yield item

    def _calls_of(self, target: ast.Name) -> Iterator[ast.Call]:
        for use in self._uses_of(target, target.id):
            parent = self.parents[use]
            if isinstance(parent, ast.Call) and parent.func is use and parent.args:
                yield parent
            else:
                self._lost(use)

    def _lost(self, node: ast.AST) -> None:
        self.found.unclear.append(f"{self.source.path}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:80]}")


def _words(annotation: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}


def _constants(node: ast.expr) -> list[str]:
    """One text or several; none when anything else is among them."""
    items = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]
    texts = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return texts if len(texts) == len(items) else []
