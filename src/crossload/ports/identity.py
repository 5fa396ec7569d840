"""The Identity port: who we are on one side, and what we may do there, found out by harmless real calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SignIn:
    """`method` names the chain that gave the credentials (profile, oidc-federation, ...). Times are epoch seconds."""

    subject: str
    method: str
    issuer: str = ""
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Permission:
    """`capability` is neutral: objects.list, objects.read, objects.write, objects.tags, vectors.read, vectors.write,
    models.invoke, models.deploy, secrets.read, inventory.read. `resource` is a bucket, table or model name."""

    capability: str
    resource: str


@dataclass(frozen=True, slots=True)
class PermissionCheck:
    """`verdict` is allowed | denied | unknown; `how` says which real call answered; nothing is left behind by it."""

    permission: Permission
    verdict: str
    how: str


class Identity(Protocol):
    place: str

    def sign_in(self) -> SignIn:
        """Raises NotSignedIn with the chain that was tried."""
        ...

    def check(self, permission: Permission) -> PermissionCheck: ...
