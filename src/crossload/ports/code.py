"""The Code port: what a provider's SDK looks like in code, as data, and how a child process reaches the provider.

A provider that applications leave has a `Reading` (SDK calls -> neutral calls), one that they come to has a `Writing`
(neutral calls -> code). Both are tables; the engine that uses them knows no provider."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from crossload.estate.secret import ReferenceUnresolved, is_reference, resolve
from crossload.ports.errors import Invalid
from crossload.ports.provider import Settings


@dataclass(frozen=True, slots=True)
class Constructor:
    """A call that makes an SDK value. `kind`: client | resource | session | paginator | waiter | sub-resource.

    `service_keyword`/`service_position` say which argument names the service (or the operation, for a paginator);
    position -1 means that no argument does."""

    kind: str
    service_keyword: str = ""
    service_position: int = -1


@dataclass(frozen=True, slots=True)
class ReadRow:
    """One SDK method in neutral words. `op` is `group.verb`; "" means that no neutral form exists (see `why`).

    `arguments`: SDK keyword -> neutral argument. `losses`: SDK keyword -> what is lost when it is accepted and not
    carried over. Any other keyword has no neutral form. `results`: first-level keys of the answer that the adapter
    gives back; None means they are not checked. `positions`: names of positional arguments, for methods that have."""

    op: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    losses: Mapping[str, str] = field(default_factory=dict)
    results: frozenset[str] | None = None
    positions: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Front:
    """The source-shaped class of `Reading.part` that answers for one service. `paginator` is its method that makes
    paginators, kept when the application uses one."""

    service: str
    class_name: str
    paginator: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """How one SDK is recognised, and what stands in front of the target in its shape.

    `modules`: top-level packages of the SDK. `constructors`: dotted name -> what it makes. `members`: (kind, member)
    -> what calling that member of such a value makes. `annotations`: class name -> service, for type annotations.
    `plain_members`: attributes of a client that are no operations. `hints`: receiver name -> service, for calls whose
    receiver cannot be traced. `rows`: (service, method) -> row. `paginate`: the method that runs a paginator's
    operation. `fronts`: neutral group -> front.

    `errors`: (`group:operation`, neutral trouble) -> the SDK's error code; operation "" stands for the whole group.
    `part` returns the source text that adapters are cut from; there `dispatch` stands for a constructor of the SDK's
    module, `session_dispatch` wraps a session, and `table` is the mapping service -> opener that is filled in."""

    name: str
    modules: frozenset[str]
    constructors: Mapping[str, Constructor]
    members: Mapping[tuple[str, str], Constructor]
    annotations: Mapping[str, str]
    plain_members: frozenset[str]
    hints: Mapping[str, str]
    rows: Mapping[tuple[str, str], ReadRow]
    paginate: str
    fronts: Mapping[str, Front]
    dispatch: str
    session_dispatch: str
    table: str
    errors: Callable[[], Mapping[tuple[str, str], str]]
    part: Callable[[], str]

    def services_of(self, groups: Collection[str]) -> dict[str, str]:
        """Service -> group, for the groups given."""
        return {front.service: group for group, front in self.fronts.items() if group in groups}


@dataclass(frozen=True, slots=True)
class WriteRow:
    """One neutral op at the target: the method that does it; `losses` are said for every call site."""

    method: str
    losses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable that the generated code reads. A secret one holds a reference, never a value."""

    name: str
    meaning: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Writing:
    """What the target can do: neutral op -> method of the class that `part` defines for the group.

    `errors`: HTTP status -> neutral trouble. `requirements`: PEP 508 lines that the converted application
    needs in addition."""

    name: str
    group: str
    class_name: str
    rows: Mapping[str, WriteRow]
    errors: Callable[[], Mapping[int, str]]
    requirements: tuple[str, ...]
    settings: tuple[Setting, ...]
    part: Callable[[], str]


class Code(Protocol):
    """A provider's dialect at one place. `reading` or `writing` is None when it has no such table."""

    place: str
    reading: Reading | None
    writing: Writing | None

    def environment(self) -> dict[str, str]:
        """Variables that make a child process reach this place as the application's identity. No secret values:
        files and references only. Raises Invalid when the place's settings hold a secret as a value."""
        ...

    def inherited(self, environment: Mapping[str, str]) -> dict[str, str]:
        """`environment` without the variables that would outrank ours."""
        ...

    def cut_off(self, services: Collection[str]) -> dict[str, str]:
        """Variables that make these SDK services unreachable: a call that still goes there fails instead of passing
        unseen."""
        ...

    def redact(self, text: str) -> str:
        """`text` without the secret values that this place knows."""
        ...


def reference_of(settings: Settings, name: str) -> str:
    """The reference behind a secret setting, for a child process to resolve: `file:` with an absolute path, or
    `env:`; "" when the setting is absent. Raises Invalid when it holds the secret itself."""
    text = settings.written(name) or ""
    while text.startswith("env:") and is_reference(settings.environment.get(text[4:], "")):
        text = settings.environment[text[4:]]
    if text.startswith("file:"):
        return f"file:{Path(text[5:]).expanduser().absolute()}"
    if text and not is_reference(text):
        raise Invalid(
            f"place {settings.place.id}: `{name}` holds a secret as a value",
            hint=f"write it to a file and set `{name}: file:PATH`",
        )
    return text


def secret_value(settings: Settings, name: str) -> str:
    """The secret itself, to be looked for and blotted out; "" when it cannot be read."""
    text = settings.written(name) or ""
    try:
        return resolve(text, settings.environment)
    except ReferenceUnresolved:
        return ""
