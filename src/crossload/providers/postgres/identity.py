"""The Identity port for PostgreSQL: sign in, and ask the server's own privilege functions."""

from __future__ import annotations

import psycopg

from crossload.ports.errors import CrossloadError
from crossload.ports.identity import Permission, PermissionCheck, SignIn
from crossload.ports.provider import Settings
from crossload.providers.postgres.vectors import translated


def open_identity(settings: Settings) -> PgIdentity:
    return PgIdentity(settings)


class PgIdentity:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._url = settings.require("url")

    def sign_in(self) -> SignIn:
        with translated(), psycopg.connect(self._url, connect_timeout=10) as db:
            row = db.execute("select current_user, current_database()").fetchone()
        return SignIn(f"{row[0]}@{row[1]}" if row else "unknown", "password file")

    def check(self, permission: Permission) -> PermissionCheck:
        queries = {
            "vectors.read": ("select has_table_privilege(%s, 'select')", (permission.resource,)),
            "vectors.write": ("select has_schema_privilege('public', 'create')", ()),
        }
        if permission.capability not in queries:
            return PermissionCheck(permission, "unknown", "no harmless call tells")
        query, arguments = queries[permission.capability]
        try:
            with translated(), psycopg.connect(self._url, connect_timeout=10) as db:
                row = db.execute(query, arguments).fetchone()  # pyright: ignore[reportArgumentType]
        except CrossloadError as error:
            if error.retryable:
                raise  # a server that is down has denied nothing
            return PermissionCheck(permission, "denied", str(error))
        allowed = bool(row and row[0])
        return PermissionCheck(permission, "allowed" if allowed else "denied", query.partition("(")[0] + " answered")
