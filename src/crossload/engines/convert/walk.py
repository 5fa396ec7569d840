"""One walk over a syntax tree that fills the index. Explicit stack: deep code must not end in a RecursionError."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from crossload.engines.convert.calls import ADAPTER_MODULE
from crossload.engines.convert.grammar import parse
from crossload.engines.convert.index import (
    SIZE_LIMIT_BYTES,
    Binding,
    Class,
    File,
    Function,
    Index,
    Parameter,
    Scope,
    python_files,
)

if TYPE_CHECKING:
    from tree_sitter import Node

Work: TypeAlias = "list[tuple[Node, Scope]]"


def build_index(root: Path, sdk_modules: frozenset[str] = frozenset()) -> Index:
    """Read and index every Python file below `root`."""
    index = Index(root)
    for path in python_files(root, sdk_modules):
        relative = path.relative_to(root).as_posix()
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            index.unread[relative] = f"larger than {SIZE_LIMIT_BYTES} bytes"
            continue
        try:
            source = path.read_bytes()
        except OSError as error:
            index.unread[relative] = str(error.strerror)
            continue
        package = path.name == "__init__.py"
        dotted = relative.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", ".")
        file = File(relative, dotted, package, source, parse(source))
        index.files[relative] = file
        index.modules[dotted] = file
        # The adapter's own calls are not the application's: they would crowd out its callers.
        if path.stem != ADAPTER_MODULE:
            index_file(file, index)
    return index


def index_file(file: File, index: Index) -> None:
    """Scopes, bindings, classes, functions, calls and member accesses of one file."""
    if file.root.has_error:
        file.broken_line = _first_error(file.root)
    work: Work = [(file.root, file.scope)]
    while work:
        node, scope = work.pop()
        handler = _HANDLERS.get(node.type)
        if handler is not None:
            handler(node, scope, index, work)
        else:
            _children(node, scope, work)


def _children(node: Node, scope: Scope, work: Work) -> None:
    work.extend((child, scope) for child in reversed(node.named_children))


def _first_error(root: Node) -> int:
    node = root
    while True:
        child = next((item for item in node.children if item.has_error or item.is_error or item.is_missing), None)
        if child is None or node.is_error:
            return node.start_point.row + 1
        node = child


def _field(node: Node, name: str) -> Node | None:
    return node.child_by_field_name(name)


def _bind(scope: Scope, name: str, binding: Binding) -> None:
    target = scope
    outside = scope.outside.get(name)
    if outside == "global":
        while target.parent is not None:
            target = target.parent
    elif outside == "nonlocal":
        while target.parent is not None and (target is scope or target.kind == "class" or name not in target.names):
            target = target.parent
    target.names[name].append(binding)
    if target.kind == "class" and target.class_ is not None:
        target.class_.attributes[name].append(binding)


def _function(node: Node, scope: Scope, index: Index, work: Work) -> None:
    _define_function(node, scope, index, work, [])


def _define_function(node: Node, scope: Scope, index: Index, work: Work, decorators: list[str]) -> None:
    file = scope.file
    name_node = _field(node, "name")
    name = file.text(name_node) if name_node is not None else "<lambda>"
    inner = Scope("function", file, scope)
    parameters = _parameters(_field(node, "parameters"), scope, work)
    function = Function(name, node, inner, scope, parameters, decorators, annotation=_field(node, "return_type"))
    inner.function = function
    if scope.kind == "class":
        function.owner = scope.class_
    index.functions[name].append(function)
    for parameter in parameters:
        inner.names[parameter.name].append(Binding("parameter", inner, function=function))
    if name_node is not None:
        _bind(scope, name, Binding("function", scope, function=function))
    body = _field(node, "body")
    if body is not None:
        if node.type == "lambda":
            function.results.append(body)
        work.append((body, inner))


def _parameters(node: Node | None, scope: Scope, work: Work) -> list[Parameter]:
    found: list[Parameter] = []
    for child in node.named_children if node is not None else ():
        kind, name, annotation, default = "plain", child, _field(child, "type"), _field(child, "value")
        if child.type in ("default_parameter", "typed_default_parameter"):
            name = _field(child, "name") or child
        elif child.type == "typed_parameter":
            name = child.named_children[0]
        if name.type in ("list_splat_pattern", "dictionary_splat_pattern"):
            kind = "star" if name.type == "list_splat_pattern" else "double-star"
            name = name.named_children[0] if name.named_children else name
        if name.type == "identifier":
            found.append(Parameter(scope.file.text(name), kind, annotation, default))
        if default is not None:
            work.append((default, scope))
    return found


def _class(node: Node, scope: Scope, index: Index, work: Work) -> None:
    name_node = _field(node, "name")
    name = scope.file.text(name_node) if name_node is not None else ""
    inner = Scope("class", scope.file, scope)
    arguments = _field(node, "superclasses")
    bases = [child for child in arguments.named_children if child.type != "keyword_argument"] if arguments else []
    found = Class(name, node, inner, scope, bases)
    inner.class_ = found
    index.classes.append(found)
    _bind(scope, name, Binding("class", scope, class_=found))
    body = _field(node, "body")
    if body is not None:
        work.append((body, inner))


def _decorated(node: Node, scope: Scope, index: Index, work: Work) -> None:
    decorators = [child for child in node.named_children if child.type == "decorator"]
    for decorator in decorators:
        _children(decorator, scope, work)
    definition = _field(node, "definition")
    if definition is None:
        return
    if definition.type == "function_definition":
        texts = [scope.file.text(item).lstrip("@").strip() for item in decorators]
        _define_function(definition, scope, index, work, texts)
    else:
        _class(definition, scope, index, work)


def _assignment(node: Node, scope: Scope, index: Index, work: Work) -> None:
    left, right, annotation = _field(node, "left"), _field(node, "right"), _field(node, "type")
    if left is None:
        return
    if annotation is not None and left.type == "identifier":
        name = scope.file.text(left)
        _bind(scope, name, Binding("annotation", scope, annotation))
        if scope.class_ is not None and scope.kind == "class":
            scope.class_.fields.append(name)
    elif annotation is not None:
        _target(left, Binding("annotation", scope, annotation), scope)
    if right is not None:
        _target(left, Binding("value", scope, right), scope)
        work.append((right, scope))
    if left.type not in ("identifier", "attribute"):
        work.append((left, scope))


def _target(target: Node, binding: Binding, scope: Scope) -> None:
    """Bind what stands on the left: a name, `self.x`, `x[k]`, `self.x[k]`, or several of them."""
    text = scope.file.text
    if target.type == "identifier":
        _bind(scope, text(target), binding)
    elif target.type == "attribute":
        owner = _owner_of_self(_field(target, "object"), scope)
        name = _field(target, "attribute")
        if owner is not None and name is not None:
            owner.attributes[text(name)].append(binding)
    elif target.type == "subscript":
        base, keys = _field(target, "value"), target.children_by_field_name("subscript")
        if base is not None and keys:
            _target(base, Binding("item", scope, binding.node, key=keys[0]), scope)
    elif target.type in ("pattern_list", "tuple_pattern", "list_pattern", "expression_list", "tuple"):
        for position, child in enumerate(target.named_children):
            _target(child, Binding("unpack", scope, binding.node, position=position), scope)
    elif target.type in ("parenthesized_expression", "as_pattern_target") and target.named_children:
        _target(target.named_children[0], binding, scope)


def _owner_of_self(node: Node | None, scope: Scope) -> Class | None:
    """The class whose first method parameter this name is."""
    if node is None or node.type != "identifier":
        return None
    at: Scope | None = scope
    while at is not None:
        function = at.function
        if function is not None and function.owner is not None and function.parameters:
            named = function.parameters[0].name == scope.file.text(node)
            return function.owner if named and not function.decorated("staticmethod") else None
        at = at.parent
    return None


def _named(node: Node, scope: Scope, index: Index, work: Work) -> None:
    name, value = _field(node, "name"), _field(node, "value")
    if name is not None and value is not None:
        _target(name, Binding("value", scope, value), scope)
        work.append((value, scope))


def _loop(node: Node, scope: Scope, index: Index, work: Work) -> None:
    left, right = _field(node, "left"), _field(node, "right")
    if left is not None and right is not None:
        _target(left, Binding("loop", scope, right), scope)
    _children(node, scope, work)


def _with(node: Node, scope: Scope, index: Index, work: Work) -> None:
    value = _field(node, "value")
    if value is not None and value.type == "as_pattern":
        alias = _field(value, "alias")
        if alias is not None:
            _target(alias, Binding("with", scope, value.named_children[0]), scope)
        work.append((value.named_children[0], scope))
    else:
        _children(node, scope, work)


def _import(node: Node, scope: Scope, index: Index, work: Work) -> None:
    text = scope.file.text
    for child in node.children_by_field_name("name"):
        if child.type == "aliased_import":
            name, alias = _field(child, "name"), _field(child, "alias")
            if name is not None and alias is not None:
                _bind(scope, text(alias), Binding("import", scope, node, module=text(name)))
        else:
            dotted = text(child)
            # `import a.b` binds `a`; the rest is reached by attribute access.
            _bind(scope, dotted.split(".")[0], Binding("import", scope, node, module=dotted.split(".")[0]))


def _import_from(node: Node, scope: Scope, index: Index, work: Work) -> None:
    text = scope.file.text
    origin = _field(node, "module_name")
    module = absolute_module(text(origin) if origin is not None else "", scope.file)
    if any(child.type == "wildcard_import" for child in node.named_children):
        scope.names["*"].append(Binding("star", scope, node, module=module))
    for child in node.children_by_field_name("name"):
        name, alias = child, child
        if child.type == "aliased_import":
            name, alias = _field(child, "name") or child, _field(child, "alias") or child
        _bind(scope, text(alias), Binding("from", scope, node, module=module, name=text(name)))


def absolute_module(text: str, file: File) -> str:
    """`..x` as seen from the file, as a dotted name."""
    dots = len(text) - len(text.lstrip("."))
    if not dots:
        return text
    parts = file.module.split(".") if file.module else []
    parts = parts if file.package else parts[:-1]
    parts = parts[: len(parts) - (dots - 1)] if dots > 1 else parts
    rest = text.lstrip(".").strip()
    return ".".join([*parts, *([rest] if rest else [])])


def _outside(node: Node, scope: Scope, index: Index, work: Work) -> None:
    kind = "global" if node.type == "global_statement" else "nonlocal"
    scope.outside.update({scope.file.text(child): kind for child in node.named_children})


def _result(node: Node, scope: Scope, index: Index, work: Work) -> None:
    at: Scope | None = scope
    while at is not None and at.function is None:
        at = at.parent
    if at is not None and at.function is not None and node.named_children:
        at.function.results.append(node.named_children[0])
    _children(node, scope, work)


def _call(node: Node, scope: Scope, index: Index, work: Work) -> None:
    scope.file.calls.append((node, scope))
    callee = _field(node, "function")
    if callee is not None:
        name = _field(callee, "attribute") if callee.type == "attribute" else callee
        if name is not None and name.type == "identifier":
            index.calls[scope.file.text(name)].append((node, scope))
    _children(node, scope, work)


def _member(node: Node, scope: Scope, index: Index, work: Work) -> None:
    scope.file.members.append((node, scope))
    owner = _field(node, "object")
    if owner is not None:
        work.append((owner, scope))


def _type(node: Node, scope: Scope, index: Index, work: Work) -> None:
    """Annotations hold no calls that run."""


_HANDLERS: dict[str, Callable[[Node, Scope, Index, Work], None]] = {
    "function_definition": _function,
    "lambda": _function,
    "class_definition": _class,
    "decorated_definition": _decorated,
    "assignment": _assignment,
    "named_expression": _named,
    "for_statement": _loop,
    "for_in_clause": _loop,
    "with_item": _with,
    "import_statement": _import,
    "import_from_statement": _import_from,
    "global_statement": _outside,
    "nonlocal_statement": _outside,
    "return_statement": _result,
    "yield": _result,
    "call": _call,
    "attribute": _member,
    "type": _type,
}
