"""What an expression may be, as far as cloud calls care."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossload.engines.convert.calls import Origin
from crossload.engines.convert.index import Class, File, Function, Scope

if TYPE_CHECKING:
    from tree_sitter import Node


@dataclass(frozen=True, slots=True)
class Text:
    """A string constant."""

    text: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """A module, or something in a module, that is not among the scanned files."""

    dotted: str


@dataclass(frozen=True, slots=True)
class Module:
    file: File


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of one of our own classes."""

    class_: Class


@dataclass(frozen=True, slots=True)
class Parent:
    """`super()` inside a method of `class_`, for the object `instance`."""

    class_: Class
    instance: Instance


@dataclass(frozen=True, slots=True)
class Maker:
    """One of our own classes, as a value."""

    class_: Class


@dataclass(frozen=True, slots=True)
class Routine:
    """A function; `instance` is what it is bound to, `frame` what its closure knows."""

    function: Function
    instance: Instance | None = None
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """A callable with some arguments given: the call node and its scope hold them."""

    callee: Value
    call: Node
    scope: Scope
    frame: Frame | None


@dataclass(frozen=True, slots=True)
class Literal:
    """A dict, list or tuple display, with the scope it stands in."""

    node: Node
    scope: Scope
    frame: Frame | None


@dataclass(frozen=True, slots=True)
class Items:
    """Something whose elements were assigned one by one (`x[k] = value`)."""

    name: str
    scope: Scope | None
    class_: Class | None
    frame: Frame | None


@dataclass(frozen=True, slots=True)
class Sdk:
    """A value of the cloud SDK. `service` is "" when it could not be read; `operation` is a paginator's."""

    kind: str
    service: str
    origin: Origin | None = None
    operation: str = ""


@dataclass(frozen=True, slots=True)
class SdkMember:
    sdk: Sdk
    name: str


Value = Text | Foreign | Module | Instance | Parent | Maker | Routine | Partial | Literal | Items | Sdk | SdkMember
Values = frozenset[Value]
NOTHING: Values = frozenset()


@dataclass(frozen=True, slots=True)
class Frame:
    """What is known of a call in progress: the function, its arguments and `self`."""

    function: Function
    arguments: tuple[tuple[str, Values], ...] = ()
    instance: Instance | None = None
    outer: Frame | None = None

    def argument(self, name: str) -> Values | None:
        return next((values for key, values in self.arguments if key == name), None)
