"""Reading the migration file: all problems at once, each with line, column, code and what to do."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from crossload.estate.diagnostic import Diagnostic, errors_in
from crossload.estate.migration import PORTS, Migration, MigrationFile, PlaceSection
from crossload.estate.secret import is_reference

Position = tuple[int, int]
Location = tuple[str | int, ...]

_LITERAL = re.compile(r"'([^']+)'")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2  # a few lines of YAML can unfold to billions of values
# Names of connection settings that hold secrets, before any `@identity`; an address may hold one too.
_SECRET_NAME = re.compile(r"(^|_)(password|passwd|secret|token|key|passphrase|credential)$")
_SECRET_IN_URL = re.compile(r"://[^/@:\s]*:[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Connection:
    """The settings of one place (`port` is ""), or of one of its services, as the file has them; the rest of the file
    may be wrong. `at` is where they stand, `replaced` the ports of the place that its services answer."""

    at: Location
    provider: str
    port: str
    settings: tuple[str, ...]
    replaced: frozenset[str] = frozenset()


# What a provider thinks of a connection: (the setting, or "" for the provider's own name; the problem).
Judge = Callable[[Connection], Iterable[tuple[str, Diagnostic]]]


def read_migration(path: Path, judge: Judge | None = None) -> tuple[Migration | None, list[Diagnostic]]:
    """Return the migration, or None with at least one error among the diagnostics. Never raises for bad content.

    `judge` knows which settings each provider reads; without it any will do."""
    subject = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = _elsewhere(path) or "run `crossload init` to write one, or name it with --file"
        return None, [Diagnostic.error("XL100", f"cannot read the migration file: {error}", subject=subject, hint=hint)]
    try:
        parsed = _parse(text, subject)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return None, [_not_yaml(subject, str(error.problem or error.context), line, column)]
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        return None, [_not_yaml(subject, f"{error.reason} (U+{ord(text[error.position]):04X})", line, column)]
    except RecursionError:
        return None, [_not_yaml(subject, "nested too deeply", 1, 1)]
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        # PyYAML's own constructors stumble over dates, numbers and tags that only look like ones.
        return None, [_not_yaml(subject, f"a value is not what its tag or form says: {error}", 1, 1)]
    if parsed is None:
        return None, [Diagnostic.error("XL102", "the file is empty", subject=subject, hint="run `crossload init`")]
    value, tree, problems = parsed
    migration: Migration | None = None
    try:
        migration = Migration(MigrationFile.model_validate(value), path)
    except ValidationError as error:
        problems += [_diagnostic(item, tree, subject) for item in error.errors(include_url=False)]
    if migration is not None:
        problems += _cross_checks(migration, tree, subject)
    if judge is not None:
        problems += _judged(value, judge, tree, subject)
    problems.sort(key=lambda item: (item.line, item.column, item.code))
    return (None if errors_in(problems) else migration), problems


def _elsewhere(path: Path) -> str:
    """People stand in a folder of their project; the file is at its top."""
    if path.exists() or path.is_absolute():
        return ""
    above = next((up for up in Path.cwd().parents if (up / path).is_file()), None)
    return f"there is one in {above}: go there, or --file {above / path}" if above else ""


class _Tree:
    """Where everything stands, a key behind an alias or a merge (`<<`) too. Nothing is unfolded: aliases may form
    circles, and a few lines of them can unfold to billions of nodes."""

    def __init__(self, root: yaml.Node) -> None:
        self._root = root
        self._indexed: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}

    def value(self, location: Location) -> Position:
        """The nearest enclosing node that exists in the file (pydantic adds steps that no node has)."""
        return _start(self._walk(location)[0])

    def key(self, location: Location) -> Position:
        """The last step's key; where its value would be when there is none."""
        node, left = self._walk(location[:-1])
        found = None if left else self._pairs(node).get(str(location[-1]))
        return _start(found[0]) if found else self.value(location)

    def _walk(self, location: Location) -> tuple[yaml.Node, int]:
        """The last node on the way there, and how many steps no node has."""
        node = self._root
        for done, part in enumerate(location):
            inner: yaml.Node | None = None
            if isinstance(node, yaml.SequenceNode):
                inner = node.value[part] if isinstance(part, int) and part < len(node.value) else None
            else:
                pair = self._pairs(node).get(str(part))
                inner = pair[1] if pair else None
            if inner is None:
                return node, len(location) - done
            node = inner
        return node, 0

    def _pairs(self, node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            return {}
        if id(node) not in self._indexed:
            self._indexed[id(node)] = {str(key.value): (key, value) for key, value in node.value}
        return self._indexed[id(node)]


def _start(node: yaml.Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _parse(text: str, subject: str) -> tuple[Any, _Tree, list[Diagnostic]] | None:
    """The plain value, where everything stands, and keys given twice. None when there is nothing in the file."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return None
    # Before the value is made: that writes the keys of merges (`<<`) into the tree, which are not given twice.
    problems = list(_duplicate_keys(root, subject, set()))
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root), _Tree(root), problems
    finally:
        loader.dispose()


def _not_yaml(subject: str, problem: str, line: int, column: int) -> Diagnostic:
    hint = "check indentation, quotes and colons near this place"
    return Diagnostic.error("XL101", f"not YAML: {problem}", subject=subject, line=line, column=column, hint=hint)


def _duplicate_keys(node: yaml.Node, subject: str, entered: set[int]) -> Iterator[Diagnostic]:
    """YAML lets the last of two equal keys win in silence; one of the two limits would be lost."""
    if id(node) in entered:
        return
    entered.add(id(node))
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in seen:
                yield Diagnostic.error(
                    "XL103", f"key `{name}` is given twice (first on line {seen[name]})", subject=subject,
                    line=line, column=key.start_mark.column + 1, hint="keep one of them",
                )  # fmt: skip
            seen.setdefault(name, line)
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    for child in children:
        yield from _duplicate_keys(child, subject, entered)


def _diagnostic(item: ErrorDetails, tree: _Tree, subject: str) -> Diagnostic:
    location: Location = tuple(part for part in item["loc"] if part != "[key]")
    dotted = ".".join(str(part) for part in location)
    of_key = item["type"] == "extra_forbidden" or "[key]" in item["loc"]
    line, column = tree.key(location) if of_key else tree.value(location)
    if item["type"] == "extra_forbidden":
        hint = nearest(str(location[-1]), _keys_of(location[:-1]), "known keys here: ")
        return Diagnostic.error(
            "XL110", f"unknown key `{dotted}`", subject=subject, line=line, column=column, hint=hint
        )
    if item["type"] == "missing":
        return Diagnostic.error(
            "XL111", f"`{dotted}` is missing", subject=subject, line=line, column=column, hint=_describe(location)
        )
    shown = _SHORT.repr(item.get("input"))
    hint = _describe(location)
    if not location:
        return Diagnostic.error(
            "XL112", f"the file must be a mapping of sections, and is {shown}", subject=subject, line=line,
            column=column, hint=f"it begins with {', '.join(_keys_of(())[:4])}; `crossload init` writes one",
        )  # fmt: skip
    if item["type"] == "literal_error":
        hint = nearest(shown.strip("'\""), _LITERAL.findall(item["msg"]), "one of: ")
    return Diagnostic.error(
        "XL112", f"`{dotted}`: {item['msg'].lower()} (got {shown})", subject=subject, line=line, column=column,
        hint=hint,
    )  # fmt: skip


def nearest(word: str, known: Iterable[str], otherwise: str, tail: str = "") -> str:
    """A hint: the known word that was probably meant (with `tail` after it), or all of them after `otherwise`."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f"did you mean `{near[0]}{tail}`?" if near else f"{otherwise}{', '.join(words)}"


def _model_at(location: Location) -> type[BaseModel] | None:
    model: type[BaseModel] | None = MigrationFile
    for part in location:
        if isinstance(part, int) or model is None:
            continue
        field = _field(model, part)
        model = _inner_model(field.annotation) if field is not None else model
    return model


def _field(model: type[BaseModel], part: str | int) -> FieldInfo | None:
    return next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def _keys_of(location: Location) -> list[str]:
    model = _model_at(location)
    return [] if model is None else [f.alias or name for name, f in model.model_fields.items()]


def _describe(location: Location) -> str:
    model = _model_at(location[:-1])
    if model is None or not location:
        return ""
    field = _field(model, location[-1])
    return (field.description or "") if field is not None else ""


def _cross_checks(migration: Migration, tree: _Tree, subject: str) -> list[Diagnostic]:
    """What no single field can see."""
    found: list[Diagnostic] = []

    def complain(code: str, location: Location, summary: str, hint: str) -> None:
        line, column = tree.value(location)
        found.append(Diagnostic.error(code, summary, subject=subject, line=line, column=column, hint=hint))

    file = migration.file
    seen: set[str] = set()
    for at, section in _sections(file):
        if section.id in seen:
            complain("XL120", (*at, "id"), f"place id `{section.id}` is used twice", "give every place its own id")
        seen.add(section.id)
    regions = {(s.provider, s.region) for s in file.targets.allow if not {s.id, s.region} & set(file.targets.forbid)}
    if len(regions) < file.targets.regions.min:
        complain(
            "XL121", ("targets", "allow"),
            f"{len(regions)} region(s) allowed, `targets.regions.min` asks for {file.targets.regions.min}",
            "allow a place in another region, or lower targets.regions.min",
        )  # fmt: skip
    for index, item in enumerate(file.targets.forbid):
        if item not in {s.id for s in file.targets.allow} | {s.region for s in file.targets.allow}:
            complain(
                "XL122", ("targets", "forbid", index), f"`{item}` is neither an allowed place nor a region of one",
                "remove it or correct the name",
            )  # fmt: skip
    names = [metric.name for metric in file.goals.metrics]
    for index, name in enumerate(names):
        if name in names[:index]:
            complain("XL123", ("goals", "metrics", index, "name"), f"metric `{name}` is given twice", "rename one")
    weights = file.cutover.canary_weights
    if not weights or weights != sorted(set(weights)) or weights[-1] != 100 or weights[0] < 1:
        complain(
            "XL124", ("cutover", "canary_weights"), f"canary weights {weights} must rise and end at 100",
            "for example [5, 25, 50, 100]",
        )  # fmt: skip
    for location in _bare_secrets(file):
        name = location[-1]
        complain(
            "XL125", location, f"connection setting `{name}` holds a secret's value; the file may only refer to it",
            f"put it elsewhere and write `{name}: env:NAME` or `{name}: file:PATH`",
        )  # fmt: skip
    return found


def _sections(file: MigrationFile) -> Iterator[tuple[Location, PlaceSection]]:
    """Every place of the file, and where it stands."""
    yield from ((("sources", i), section) for i, section in enumerate(file.sources))
    yield from ((("targets", "allow", i), section) for i, section in enumerate(file.targets.allow))


def _bare_secrets(file: MigrationFile) -> Iterator[Location]:
    """Where a value stands that should be a reference: plans, logs and evidence repeat what the file says."""
    for at, section in _sections(file):
        for inside in bare_secrets(section):
            yield (*at, *inside)


def bare_secrets(section: PlaceSection) -> Iterator[Location]:
    """The same of one place; locations inside it, the setting's name last."""
    connections: list[tuple[Location, dict[str, str]]] = [(("connection",), section.connection)]
    connections += [
        (("services", port, "connection"), service.connection) for port, service in section.services.items()
    ]
    for where, connection in connections:
        for name, value in connection.items():
            secret = _SECRET_NAME.search(name.partition("@")[0].lower()) or _SECRET_IN_URL.search(value)
            if secret and value and not is_reference(value):
                yield (*where, name)


def connections_of(place: Any, at: Location = ()) -> Iterator[Connection]:
    """The connections of a place's section and of its services, whatever else is wrong with them."""
    if not isinstance(place, Mapping):
        return
    section = cast(Mapping[Any, Any], place)
    given: Any = section.get("services")
    services = cast(Mapping[Any, Any], given) if isinstance(given, Mapping) else {}
    answered = {port: services[port] for port in get_args(PORTS) if isinstance(services.get(port), Mapping)}
    for where, port, item in [(at, "", section), *(((*at, "services", p), p, s) for p, s in answered.items())]:
        provider, settings = item.get("provider"), item.get("connection")
        if isinstance(provider, str):
            names = (name for name in settings if isinstance(name, str)) if isinstance(settings, Mapping) else ()
            yield Connection(where, provider, port, tuple(names), frozenset() if port else frozenset(answered))


def _judged(file: Any, judge: Judge, tree: _Tree, subject: str) -> Iterator[Diagnostic]:
    """What the judge says of every place in the file, with line and column."""
    told: set[tuple[int, int, str]] = set()  # an alias or a merge leads to one mistake more than once
    sections: Mapping[Any, Any] = file if isinstance(file, Mapping) else {}
    targets: Any = sections.get("targets")
    listed: list[tuple[Location, Any]] = [(("sources",), sections.get("sources"))]
    listed.append((("targets", "allow"), targets.get("allow") if isinstance(targets, Mapping) else None))
    for at, places in listed:
        for index, place in enumerate(places if isinstance(places, list) else ()):
            for connection in connections_of(place, (*at, index)):
                for setting, problem in judge(connection):
                    inside = (*connection.at, "connection", setting)
                    line, column = tree.key(inside) if setting else tree.value((*connection.at, "provider"))
                    if (line, column, problem.code) not in told:
                        told.add((line, column, problem.code))
                        yield replace(problem, subject=subject, line=line, column=column)
