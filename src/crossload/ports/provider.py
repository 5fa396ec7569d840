"""How a provider says what it offers, and how its ports are handed their settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossload.estate.place import Place
from crossload.estate.secret import ReferenceUnresolved, resolve
from crossload.ports.errors import Invalid, Unsupported


@dataclass(frozen=True, slots=True)
class Settings:
    """Connection settings of one port at one place. References are resolved at the moment of use, never before.

    `identity` picks a variant: with identity `return`, `get("profile")` prefers the key `profile@return`, so that a
    place can name a separate, narrower user for each kind of work."""

    place: Place
    connection: Mapping[str, str]
    environment: Mapping[str, str] = field(repr=False)
    identity: str = ""

    def get(self, name: str, default: str = "") -> str:
        """The value, or `default` when the key is absent. A reference that points at nothing raises Invalid."""
        text = self.connection.get(f"{name}@{self.identity}") or self.connection.get(name)
        if text is None:
            return default
        try:
            return resolve(text, self.environment)
        except ReferenceUnresolved as error:
            raise Invalid(
                f"place {self.place.id}: {error}", hint="set the variable or write the file, then run again"
            ) from error

    def require(self, name: str) -> str:
        value = self.get(name)
        if not value:
            raise Invalid(
                f"place {self.place.id}: connection setting `{name}` is missing",
                hint=f"add `{name}:` under this place's connection in the migration file",
            )
        return value


@dataclass(frozen=True, slots=True)
class Provider:
    """One outside party. `ports` maps a port's name to `module:function`; the module is loaded when first asked for,
    and the function is called with Settings. What is not listed is not offered."""

    name: str
    title: str
    ports: Mapping[str, str]
    extra: str = ""  # the pip extra that brings its SDK

    def open(self, port: str, settings: Settings) -> Any:
        """Raises Unsupported when the port is not offered or its SDK is not installed."""
        if port not in self.ports:
            raise Unsupported(
                f"provider {self.name} offers no {port}", hint=f"it offers: {', '.join(sorted(self.ports))}"
            )
        module, _, function = self.ports[port].partition(":")
        try:
            factory: Callable[[Settings], Any] = getattr(importlib.import_module(module), function)
        except ImportError as error:
            if (error.name or "").startswith("crossload"):
                raise
            raise Unsupported(
                f"provider {self.name} needs a package that is not installed ({error.name})",
                hint=f"pip install 'crossload[{self.extra}]'",
            ) from error
        return factory(settings)
