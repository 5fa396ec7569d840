"""How a provider says what it offers, and how its ports are handed their settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossload.estate.place import Place
from crossload.estate.secret import ReferenceUnresolved, resolve
from crossload.ports.errors import Invalid, Unsupported

# Whom Crossload itself works as, and what for. A place may name others after the `@`: probes try those too.
IDENTITIES: Mapping[str, str] = {
    "app": "what the converted app and its tests run as",
    "audit": "reads settings and rights for assurance, and no data",
    "freeze": "denies and allows writes at the source during the cutover",
    "return": "writes at the source when a rollback brings data back",
    "stranger": "somebody without any right here: attacks are tried as this one",
}
# Ports that the provider of a service is asked for as well: a database has roles and rights of its own.
BESIDE = frozenset({"identity", "policy", "probe", "code"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Connection settings of one port at one place. References are resolved at the moment of use, never before.

    `identity` picks a variant: with identity `return`, `get("profile")` prefers the key `profile@return`, so that a
    place can name a separate, narrower user for each kind of work."""

    place: Place
    connection: Mapping[str, str]
    environment: Mapping[str, str] = field(repr=False)
    identity: str = ""

    def written(self, name: str) -> str | None:
        """What the migration file says: the value or the reference to it, this identity's before everybody's; None
        when the key is absent."""
        return self.connection.get(f"{name}@{self.identity}") or self.connection.get(name)

    def get(self, name: str, default: str = "") -> str:
        """The value, or `default` when the key is absent. A reference that points at nothing raises Invalid."""
        text = self.written(name)
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
    and the function is called with Settings. What is not listed is not offered.

    `settings` maps every port to the connection settings it reads, each with one line that says what it is. A setting
    that is not listed is an error in the migration file. Each may have variants by identity (`profile@freeze`)."""

    name: str
    title: str
    ports: Mapping[str, str]
    settings: Mapping[str, Mapping[str, str]]
    extra: str = ""  # the pip extra that brings its SDK
    schemes: tuple[str, ...] = ()  # of addresses: SCHEME://BUCKET/KEY

    def readers(self, setting: str) -> tuple[str, ...]:
        """The ports that read a setting, in the order in which they are offered; none when it is unknown."""
        return tuple(port for port in self.ports if setting in self.settings[port])

    def known(self, ports: Collection[str]) -> list[str]:
        """The settings that any of these ports reads, sorted. A port that is not offered reads none."""
        return sorted({setting for port in ports for setting in self.settings.get(port, ())})

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
