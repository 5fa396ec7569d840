"""Check Terraform text offline: syntax, then every resource against its provider's schema, every reference, every rule.

What this proves and what not: names, types, required arguments and references are right for that provider version.
That a cloud accepts the values is proved only by applying them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossload.engines.infra.parse import ParsedBlock, parse
from crossload.engines.infra.references import (
    Declared,
    block_traversals,
    check_reference,
    cycles,
    declared,
    near,
    type_of,
)
from crossload.engines.infra.schema import BlockSchema, ProviderSchema
from crossload.engines.infra.syntax import Literal, ObjectNode, SyntaxProblem
from crossload.engines.infra.types import mismatch
from crossload.estate.diagnostic import Diagnostic, errors_in
from crossload.ports.infra import Constraint

_LABELS = {
    "resource": 2,
    "variable": 1,
    "output": 1,
    "provider": 1,
    "terraform": 0,
    "locals": 0,
    "data": 2,
    "module": 1,
    "moved": 0,
    "import": 0,
    "check": 1,
    "removed": 0,
}
_META_ARGUMENTS = {"count": "number", "for_each": "any", "depends_on": "any", "provider": "any"}
_META_BLOCKS = frozenset({"lifecycle", "provisioner", "connection", "dynamic"})
_OF_VARIABLE = frozenset({"type", "default", "description", "sensitive", "nullable", "ephemeral", "validation"})
_OF_OUTPUT = frozenset({"value", "description", "sensitive", "depends_on", "ephemeral"})
_SECRET_NAME = re.compile(r"(password|secret_data|secret_key|private_key|access_key|client_secret|token)$")


@dataclass(frozen=True, slots=True)
class CheckReport:
    """`against` names the schemas, for example `owner/cloud 8.7.0`; empty means not checked against any."""

    diagnostics: tuple[Diagnostic, ...]
    against: tuple[str, ...]
    resource_count: int
    unchecked: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not errors_in(self.diagnostics)

    @property
    def statement(self) -> str:
        """The one sentence for the report; never claims a check that did not happen."""
        if not self.against:
            return "not checked against a provider schema"
        text = f"checked against {', '.join(self.against)} schema: {self.resource_count} resources"
        return text + (f"; not checked: {', '.join(self.unchecked)}" if self.unchecked else "")


def check_files(
    files: Mapping[str, str], schemas: Sequence[ProviderSchema], constraints: Iterable[Constraint] = ()
) -> CheckReport:
    """All problems of one Terraform module at once. `files` maps names to text; only *.tf are read."""
    problems: list[Diagnostic] = []
    blocks: list[ParsedBlock] = []
    for name in sorted(files):
        if not name.endswith(".tf"):
            continue
        try:
            blocks += parse(files[name], name).blocks
        except SyntaxProblem as error:
            problems.append(
                Diagnostic.error(
                    "XL810",
                    f"not HCL: {error.message}",
                    subject=name,
                    line=error.line,
                    column=error.column,
                    hint="check quotes, brackets and `=` near this place",
                )
            )
    known, doubled = declared(blocks)
    problems += doubled
    checker = _Checker(
        {schema.name: schema for schema in schemas}, known, {item.attribute: item for item in constraints}
    )
    for block in blocks:
        checker.top(block)
    for ring in cycles(known):
        problems.append(
            Diagnostic.error("XL821", f"these wait for each other: {' -> '.join(ring)}", hint="remove one reference")
        )
    problems += checker.problems
    used = {
        found.path[1]
        for block in blocks
        for found in block_traversals(block)
        if found.path[0] == "var" and len(found.path) > 1
    }
    problems += [
        Diagnostic.warning("XL822", f"variable `{name}` is never used", hint="remove it, or use it")
        for name in sorted(set(known.variables) - used)
    ]
    problems.sort(key=lambda item: (item.subject, item.line, item.code, item.summary))
    return CheckReport(
        tuple(problems),
        tuple(schema.title for schema in schemas),
        len(known.resources),
        tuple(sorted(checker.unchecked)),
    )


class _Checker:
    def __init__(
        self, schemas: dict[str, ProviderSchema], known: Declared, constraints: Mapping[str, Constraint]
    ) -> None:
        self._schemas = schemas
        self._known = known
        self._constraints = constraints
        self.problems: list[Diagnostic] = []
        self.unchecked: set[str] = set()

    def _say(self, code: str, block: ParsedBlock, line: int, summary: str, hint: str = "") -> None:
        self.problems.append(
            Diagnostic.error(code, f"{block.address}: {summary}", subject=block.file, line=line, column=1, hint=hint)
        )

    def top(self, block: ParsedBlock) -> None:
        wanted = _LABELS.get(block.kind)
        if wanted is None:
            self._say("XL811", block, block.line, "no such kind of block", near(block.kind, _LABELS))
            return
        if len(block.labels) != wanted:
            self._say("XL811", block, block.line, f"`{block.kind}` takes {wanted} name(s), {len(block.labels)} given")
            return
        for found in block_traversals(block):
            problem = check_reference(found, self._known, self._schemas, block.file)
            if problem is not None:
                self.problems.append(problem)
        for name, line in block.duplicates:
            self._say("XL819", block, line, f"`{name}` is given twice", "keep one of them")
        if block.kind == "resource":
            self._resource(block)
        elif block.kind == "provider":
            schema = self._schemas.get(block.labels[0])
            if schema is not None:
                self._body(block, block, schema.settings, block.labels[0])
        elif block.kind == "terraform":
            self._terraform(block)
        elif block.kind in ("variable", "output"):
            self._variable_or_output(block)

    def _resource(self, block: ParsedBlock) -> None:
        kind = block.labels[0]
        schema = self._schemas.get(kind.partition("_")[0])
        if schema is None:
            self.unchecked.add(kind)
            return
        resource = schema.resource(kind)
        if resource is None:
            if schema.complete:
                hint = near(kind, schema.kinds)
                self._say("XL811", block, block.line, f"{schema.title} has no resource `{kind}`", hint)
            else:
                self.unchecked.add(kind)
            return
        self._body(block, block, resource, kind)

    def _body(self, root: ParsedBlock, block: ParsedBlock, schema: BlockSchema, path: str) -> None:
        top = root is block
        for name, node in block.attributes.items():
            argument = schema.argument(name)
            where = f"`{path.partition('.')[2] + '.' if '.' in path else ''}{name}`"
            if argument is None:
                if top and name in _META_ARGUMENTS:
                    continue
                if schema.block(name) is not None:
                    self._say("XL818", root, node.line, f"{where} is a block: write `{name} {{ .. }}`")
                    continue
                hint = near(name, [*schema.arguments, *schema.blocks])
                self._say("XL812", root, node.line, f"unknown argument {where}", hint)
                continue
            if not argument.settable:
                self._say("XL817", root, node.line, f"{where} is read-only: the provider fills it in", "remove it")
                continue
            wrong = mismatch(node, argument.type, lambda found: type_of(found, self._known, self._schemas))
            if wrong:
                self._say("XL814", root, node.line, f"{where}: {wrong}")
            self._values(root, node, f"{path}.{name}", name)
        for name in schema.arguments:
            argument = schema.argument(name)
            if argument is not None and argument.required and name not in block.attributes:
                self._say("XL813", root, block.line, f"required argument `{name}` is missing in {block.kind}")
        self._nested(root, block, schema, path)

    def _nested(self, root: ParsedBlock, block: ParsedBlock, schema: BlockSchema, path: str) -> None:
        counts: dict[str, int] = {}
        for inner in block.blocks:
            for name, line in inner.duplicates:
                self._say("XL819", root, line, f"`{name}` is given twice", "keep one of them")
            nested = schema.block(inner.kind)
            counts[inner.kind] = counts.get(inner.kind, 0) + 1
            if nested is None:
                if root is block and inner.kind in _META_BLOCKS:
                    continue
                if schema.argument(inner.kind) is not None:
                    self._say("XL818", root, inner.line, f"`{inner.kind}` is an argument: write `{inner.kind} = ..`")
                else:
                    hint = near(inner.kind, [*schema.blocks, *schema.arguments])
                    self._say("XL812", root, inner.line, f"unknown block `{inner.kind}`", hint)
                continue
            if nested.single and counts[inner.kind] == 2:
                self._say("XL818", root, inner.line, f"block `{inner.kind}` may stand only once")
            self._body(root, inner, nested, f"{path}.{inner.kind}")
        for name in schema.blocks:
            nested = schema.block(name)
            if nested is not None and nested.required and not counts.get(name):
                self._say("XL813", root, block.line, f"required block `{name}` is missing")

    def _values(self, root: ParsedBlock, node: object, path: str, name: str) -> None:
        literal = node.value if isinstance(node, Literal) else None
        if isinstance(literal, str) and literal and _SECRET_NAME.search(name):
            self._say(
                "XL824",
                root,
                getattr(node, "line", 0),
                f"`{name}` holds a secret's value",
                "pass it as a sensitive variable, or by reference",
            )
        rule = self._constraints.get(path)
        if rule is not None and literal is not None:
            text = str(literal).lower() if isinstance(literal, bool) else str(literal)
            if re.fullmatch(rule.pattern, text) is None:
                self._say("XL820", root, getattr(node, "line", 0), f"`{name}` = {literal!r}: {rule.rule}")

    def _variable_or_output(self, block: ParsedBlock) -> None:
        allowed = _OF_VARIABLE if block.kind == "variable" else _OF_OUTPUT
        for name in (*block.attributes, *(inner.kind for inner in block.blocks)):
            if name not in allowed:
                self._say("XL812", block, block.line, f"unknown argument `{name}`", near(name, allowed))
        if block.kind == "output" and "value" not in block.attributes:
            self._say("XL813", block, block.line, "required argument `value` is missing")
        if block.kind == "variable" and "default" in block.attributes:
            kind = self._known.variables.get(block.labels[0], "any")
            wrong = mismatch(block.attributes["default"], kind, lambda _: "any")
            if wrong:
                self._say("XL814", block, block.line, f"`default`: {wrong}")

    def _terraform(self, block: ParsedBlock) -> None:
        """The version asked for must be the one whose schema was used, else the check says nothing about the run."""
        for inner in block.blocks:
            if inner.kind != "required_providers":
                continue
            for name, node in inner.attributes.items():
                values = (
                    {key: item.value for key, item in node.items if isinstance(item, Literal)}
                    if isinstance(node, ObjectNode)
                    else {}
                )
                schema = self._schemas.get(name)
                if schema is None:
                    self.unchecked.add(f"provider {name}")
                    continue
                if values.get("source") != schema.provider:
                    self._say(
                        "XL823",
                        block,
                        node.line,
                        f"provider {name}: source {values.get('source')!r} is not {schema.provider}",
                    )
                wanted = str(values.get("version", ""))
                if not _admits(wanted, schema.version):
                    self._say(
                        "XL823",
                        block,
                        node.line,
                        f"provider {name}: version {wanted!r} leaves out {schema.version}, which the schema is of",
                    )


def _admits(constraint: str, version: str) -> bool:
    """`~> 8.7`, `= 8.7.0`, `8.7.0`, `>= 8, < 9` (Terraform's version constraint syntax)."""
    have = tuple(int(part) for part in version.split("."))
    for part in constraint.split(","):
        match = re.fullmatch(r"\s*(~>|>=|<=|=|<|>|!=)?\s*(\d+(?:\.\d+)*)\s*", part)
        if match is None:
            return False
        operator, given = match.group(1) or "=", tuple(int(item) for item in match.group(2).split("."))
        full = given + (0,) * (3 - len(given))
        fits = {
            "=": have == full,
            "!=": have != full,
            ">=": have >= full,
            "<=": have <= full,
            ">": have > full,
            "<": have < full,
            "~>": have >= full and have[: len(given) - 1] == given[:-1],
        }[operator]
        if not fits:
            return False
    return True
