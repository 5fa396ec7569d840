"""The Policy port: how one bucket is protected, in neutral words, each with whether it is known at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

# Neutral facts and their values. A fact that a server does not tell is unknown: never guessed, never "off".
ENCRYPTION = "encryption"  # none | provider-key | customer-key
ENCRYPTION_KEY = "encryption_key"  # the provider's own name of the key
PUBLIC_ACCESS = "public_access"  # blocked | open
VERSIONING = "versioning"  # on | off
TRANSPORT = "transport"  # tls-only | plain-possible
ACCESS_LOGS = "access_logs"  # on | off
REGION = "region"  # the provider's own spelling, lower case
GRANTS = "grants"  # {capability: [principal, ..]} as the settings say; "*" is everybody
FACTS = (ENCRYPTION, ENCRYPTION_KEY, PUBLIC_ACCESS, VERSIONING, TRANSPORT, ACCESS_LOGS, REGION, GRANTS)


@dataclass(frozen=True, slots=True)
class Fact:
    """`value` is None when unknown. `how` says which call answered, or why none could."""

    value: Any
    how: str

    @property
    def known(self) -> bool:
        return self.value is not None

    @classmethod
    def unknown(cls, how: str) -> Fact:
        return cls(None, how)

    def to_json(self) -> dict[str, Any]:
        return {"value": "unknown" if self.value is None else self.value, "how": self.how}


@dataclass(frozen=True, slots=True)
class Posture:
    """Facts of one bucket at one place. A fact that is not in `facts` was never asked for, and is unknown."""

    place: str
    bucket: str
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def fact(self, name: str) -> Fact:
        return self.facts.get(name) or Fact.unknown("not asked")

    def to_json(self) -> dict[str, Any]:
        return {name: fact.to_json() for name, fact in sorted(self.facts.items())}


class Policy(Protocol):
    place: str

    def posture(self, bucket: str) -> Posture:
        """Raises NotFound when there is no such bucket, NotSignedIn and Unavailable; a single refused or missing
        answer is an unknown fact and no error."""
        ...
