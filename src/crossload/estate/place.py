"""Where things are: one account (or project, or folder) of one provider in one region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Service:
    """One port of a place served by another provider than the place's own (a database, a model server)."""

    provider: str
    connection: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """`connection` holds the provider's own settings; every value may be a reference (`env:NAME`, `file:PATH`).

    `country` is ISO 3166-1 alpha-2, "" when unknown (which fails residency rather than passing it). `services` maps
    a port's name (store, vectors, models, identity, account, policy, probe) to the provider that answers it here."""

    id: str
    provider: str
    region: str
    country: str = ""
    connection: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)

    def service(self, port: str) -> Service:
        return self.services.get(port) or Service(self.provider, self.connection)
