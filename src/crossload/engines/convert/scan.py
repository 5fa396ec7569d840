"""From source files to neutral calls, and everything that cannot be carried as diagnostics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossload.engines.convert.arguments import split_arguments
from crossload.engines.convert.calls import Argument, NeutralCall, Origin, is_adapter
from crossload.engines.convert.index import File, Index, Scope
from crossload.engines.convert.infer import BudgetSpent, Resolver
from crossload.engines.convert.usage import keys_read, keywords_of_mapping
from crossload.engines.convert.values import Sdk, SdkMember, Values
from crossload.engines.convert.walk import build_index
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.digest import Digest, sha256_of
from crossload.ports.code import Reading, ReadRow

if TYPE_CHECKING:
    from tree_sitter import Node

# Methods of built-in types: their receivers are never clients, and asking costs most of the time.
_PLAIN_METHODS = frozenset(
    name for kind in (str, bytes, dict, list, set, int, float) for name in dir(kind) if not name.startswith("__")
)


@dataclass(frozen=True, slots=True)
class Scan:
    """`calls` in order of file and place; `problems` are about reading, not about what can be carried; `digests` are
    of every file read, so that a later write can tell whether somebody changed it."""

    root: Path
    index: Index
    calls: tuple[NeutralCall, ...]
    problems: tuple[Diagnostic, ...]
    digests: dict[str, Digest]

    @property
    def traced(self) -> list[NeutralCall]:
        return [call for call in self.calls if call.evidence != "name"]


def scan(root: Path, reading: Reading, steps_per_site: int | None = None) -> Scan:
    """Find all calls that `reading` knows below `root`. Reads files, changes nothing. Raises FileNotFoundError."""
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    index = build_index(root, reading.modules)
    resolver = Resolver(index, reading, steps_per_site) if steps_per_site else Resolver(index, reading)
    finder = _Finder(index, reading, resolver)
    for file in index.files.values():
        if not is_adapter(file.module):
            finder.look_into(file)
    problems = [*finder.problems, *_reading_problems(index)]
    digests = {path: sha256_of(file.source) for path, file in index.files.items()}
    calls = sorted(finder.calls, key=lambda call: (call.path, call.line, call.column, call.service, call.method))
    return Scan(root, index, tuple(calls), tuple(problems), digests)


def _reading_problems(index: Index) -> Iterator[Diagnostic]:
    for path, reason in index.unread.items():
        yield Diagnostic.warning("XL710", "file was not read", detail=reason, subject=path)
    for file in index.files.values():
        if file.broken_line:
            yield Diagnostic.warning(
                "XL710", "the file has a syntax error; what stands around it may be missed", subject=file.path,
                line=file.broken_line, column=1,
            )  # fmt: skip


class _Finder:
    def __init__(self, index: Index, reading: Reading, resolver: Resolver) -> None:
        self.index = index
        self.reading = reading
        self.resolver = resolver
        self.calls: list[NeutralCall] = []
        self.problems: list[Diagnostic] = []
        self._row_methods = {method for _, method in reading.rows}

    def look_into(self, file: File) -> None:
        for member, scope in file.members:
            name_node = member.child_by_field_name("attribute")
            name = file.text(name_node) if name_node is not None else ""
            call = _call_of(member)
            known = name in self._row_methods or name == self.reading.paginate
            if not name or (call is None and not known) or (name in _PLAIN_METHODS and not known):
                continue
            self._guarded(member, name, call, scope)
        for call, scope in file.calls:
            callee = call.child_by_field_name("function")
            if callee is not None and callee.type == "identifier":
                self._guarded_alias(callee, call, scope)

    def _guarded(self, member: Node, name: str, call: Node | None, scope: Scope) -> None:
        self.resolver.new_site()
        receiver = member.child_by_field_name("object")
        try:
            values = self.resolver.infer(receiver, scope)
            if not self._traced(values, name, member, call, scope) and call is not None:
                self._by_name(receiver, name, member, call, scope)
        except BudgetSpent:
            self._spent(member, scope)

    def _guarded_alias(self, callee: Node, call: Node, scope: Scope) -> None:
        """`get = client.get_x; get(...)`: the reference is found where it stands, the arguments are found here."""
        self.resolver.new_site()
        try:
            for value in self.resolver.infer(callee, scope):
                if isinstance(value, SdkMember) and self._operation(value.sdk, value.name):
                    self._add(value.sdk, value.name, callee, call, scope)
        except BudgetSpent:
            self._spent(callee, scope)

    def _spent(self, node: Node, scope: Scope) -> None:
        self.problems.append(
            Diagnostic.note(
                "XL713",
                "gave up tracing where this object comes from",
                subject=scope.file.path,
                line=node.start_point.row + 1,
                column=node.start_point.column + 1,
                hint="annotate the parameter with the client's type",
            )
        )

    def _operation(self, sdk: Sdk, name: str) -> bool:
        if sdk.kind == "paginator":
            return name == self.reading.paginate
        if sdk.kind in ("session", "waiter"):
            return False
        made = (sdk.kind, name) in self.reading.members
        return not made and name not in self.reading.plain_members and not name.startswith("_")

    def _traced(self, values: Values, name: str, member: Node, call: Node | None, scope: Scope) -> bool:
        found = sorted(
            {value for value in values if isinstance(value, Sdk) and self._operation(value, name)},
            key=lambda sdk: (sdk.service, sdk.operation, sdk.origin is None, sdk.origin or _NO_ORIGIN),
        )
        # A union of clients of several services: keep those that know the method, if any does.
        known = [sdk for sdk in found if (sdk.service, sdk.operation or name) in self.reading.rows]
        grouped: dict[tuple[str, str, str], list[Sdk]] = {}
        for sdk in known or found:
            grouped.setdefault((sdk.kind, sdk.service, sdk.operation), []).append(sdk)
        for same in grouped.values():
            self._add(same[0], name, member, call, scope, tuple(sdk.origin for sdk in same if sdk.origin is not None))
        return bool(grouped)

    def _add(
        self,
        sdk: Sdk,
        name: str,
        node: Node,
        call: Node | None,
        scope: Scope,
        origins: tuple[Origin, ...] | None = None,
    ) -> None:
        method = sdk.operation if sdk.kind == "paginator" else name
        service = sdk.service or self._only_service(method)
        given = origins if origins is not None else ((sdk.origin,) if sdk.origin is not None else ())
        evidence = "flow" if given else "annotation"
        maker = "resource" if sdk.kind in ("resource", "sub-resource") else "client"
        row = self.reading.rows.get((service, method)) if maker == "client" else None
        self._record(service, method, row, node, call, scope, evidence, given, sdk.kind == "paginator", maker)

    def _only_service(self, method: str) -> str:
        services = {service for service, name in self.reading.rows if name == method}
        return services.pop() if len(services) == 1 else ""

    def _by_name(self, receiver: Node | None, name: str, member: Node, call: Node, scope: Scope) -> None:
        """Only names speak: a known method whose keywords fit, on a receiver that is called like a client."""
        if receiver is None or name not in self._row_methods:
            return
        last = receiver.child_by_field_name("attribute") if receiver.type == "attribute" else receiver
        hint = self.reading.hints.get(scope.file.text(last).lstrip("_").lower()) if last is not None else None
        keywords = set(self._keywords(call, scope)[0])
        for service, method in self.reading.rows:
            row = self.reading.rows[service, method]
            fits = keywords & {*row.arguments, *row.losses}
            if method == name and (fits or hint == service) and hint in (None, service):
                self._record(service, method, row, member, call, scope, "name", (), False, "client")
                return

    def _record(
        self, service: str, method: str, row: ReadRow | None, node: Node, call: Node | None, scope: Scope,
        evidence: str, origins: tuple[Origin, ...], paginated: bool, maker: str,
    ) -> None:  # fmt: skip
        keywords, untraced = self._keywords(call, scope, row) if call is not None else ([], False)
        neutral = row.arguments if row is not None else {}
        self.calls.append(
            NeutralCall(
                scope.file.path,
                node.start_point.row + 1,
                node.start_point.column + 1,
                service,
                method,
                row.op if row is not None else "",
                tuple(Argument(item, neutral.get(item, "")) for item in keywords),
                evidence,
                origins,
                keys_read(call, scope) if call is not None and not paginated else (),
                untraced,
                paginated,
                scope.file.is_test,
                maker,
            )
        )

    def _keywords(self, call: Node, scope: Scope, row: ReadRow | None = None) -> tuple[list[str], bool]:
        """Keywords of the call, those of a traced `**mapping` included, and whether some stay unknown."""
        arguments = call.child_by_field_name("arguments")
        if arguments is None:
            return [], False
        plain, named = split_arguments(call, scope)
        found, untraced = list(named), False
        positions = row.positions if row is not None else ()
        found += [positions[at] for at in range(min(len(plain), len(positions)))]
        for child in arguments.named_children:
            if child.type == "dictionary_splat":
                more = keywords_of_mapping(child.named_children[0], scope, self.resolver)
                untraced = untraced or more is None
                found += [item for item in more or () if item not in found]
        return found, untraced


_NO_ORIGIN = Origin("", 0, 0, 0, 0)


def _call_of(member: Node) -> Node | None:
    """The call whose callee this member access is."""
    parent = member.parent
    if parent is not None and parent.type == "call" and parent.child_by_field_name("function") == member:
        return parent
    return None
