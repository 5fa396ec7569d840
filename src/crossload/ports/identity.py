"""The Identity port: who we are on one side, and what we may do there, found out by harmless real calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from crossload.ports.errors import AccessDenied, CrossloadError, NotFound, NotSignedIn, PreconditionFailed


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


def judged(permission: Permission, ask: Callable[[], str]) -> PermissionCheck:
    """What one harmless call says. `ask` makes it and returns how it was answered, "" when no call can tell.

    Whoever hears "not there" or "not in that state" was let through; an error of another kind has denied nothing."""
    try:
        how = ask()
    except (AccessDenied, NotSignedIn) as error:
        return PermissionCheck(permission, "denied", str(error))
    except (NotFound, PreconditionFailed) as error:
        return PermissionCheck(permission, "allowed", f"answered {error}, not a refusal")
    except CrossloadError as error:
        return PermissionCheck(permission, "unknown", str(error))
    return PermissionCheck(permission, "allowed" if how else "unknown", how or "no harmless call tells")


class Identity(Protocol):
    place: str

    def sign_in(self) -> SignIn:
        """Raises NotSignedIn with the chain that was tried."""
        ...

    def check(self, permission: Permission) -> PermissionCheck: ...
