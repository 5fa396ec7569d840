"""The Identity port for LanceDB: a folder or bucket has no sign-in of its own; what it lets us do is asked."""

from __future__ import annotations

from crossload.ports.identity import Permission, PermissionCheck, SignIn, judged
from crossload.ports.provider import Settings
from crossload.providers.lancedb.vectors import open_vectors


def open_identity(settings: Settings) -> LanceIdentity:
    return LanceIdentity(settings)


class LanceIdentity:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._vectors = open_vectors(settings)

    def sign_in(self) -> SignIn:
        self._vectors.indexes()
        return SignIn(f"whoever reads {self.place}", "access to the folder or bucket")

    def check(self, permission: Permission) -> PermissionCheck:
        """Whether we may write shows when we write: no harmless call tells."""

        def ask() -> str:
            if permission.capability != "vectors.read":
                return ""
            self._vectors.describe(permission.resource)
            return f"described {permission.resource}"

        return judged(permission, ask)
