"""The Probe port for a table: who may select, insert, delete, asked by statements that touch no row.

`bucket` is the table's name; keys and paths mean nothing here. Answers carry the HTTP status that says the same."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from crossload.ports.errors import AccessDenied, CrossloadError, Invalid, NotFound, NotSignedIn, Unavailable
from crossload.ports.probe import (
    DELETE,
    EXPIRED,
    FORGED,
    LIST,
    NONE,
    OWN,
    READ,
    UNSIGNED,
    WRITE,
    WRONG_AUDIENCE,
    Detour,
    ProbeAnswer,
)
from crossload.ports.provider import Settings
from crossload.providers.credentials import identities_of, makeable
from crossload.providers.postgres.vectors import translated

# A statement that can change nothing is still refused to those who may not: rights are checked before rows are.
_STATEMENTS = {
    LIST: sql.SQL("select 1 from {table} limit 1"),
    READ: sql.SQL("select * from {table} limit 1"),
    WRITE: sql.SQL("insert into {table} select * from {table} where false"),
    DELETE: sql.SQL("delete from {table} where false"),
}
# Named in full: to who may not use the schema, an unqualified table "does not exist", which is no refusal.
_SCHEMA = "public"
_WORDS = {LIST: "select 1 from", READ: "select * from", WRITE: "insert no row into", DELETE: "delete no row from"}
_NO_PASSFILE = "/nonexistent/pgpass"  # named, so that the process's own is not found instead


def open_probe(settings: Settings) -> PgProbe:
    return PgProbe(settings)


class PgProbe:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings

    def identities(self) -> tuple[str, ...]:
        return identities_of(self._settings, "url")

    def credentials(self) -> Mapping[str, str]:
        never = dict.fromkeys((EXPIRED, UNSIGNED, WRONG_AUDIENCE), "a password has no end, signature or audience")
        return never | makeable((OWN, NONE, FORGED, *self.identities()), self._address)

    def request(
        self, operation: str, bucket: str, key: str, credential: str, *, raw_path: str = "", body: bytes = b"",
        harmless: bool = False,
    ) -> ProbeAnswer:  # fmt: skip
        del key, body
        if raw_path or (operation in (WRITE, DELETE) and not harmless):
            raise Invalid("a table is only asked with statements that change nothing")
        line = f"{_WORDS[operation]} {bucket} as {credential}"
        try:
            with translated(), psycopg.connect(self._address(credential), connect_timeout=5) as db:
                db.execute(_STATEMENTS[operation].format(table=sql.Identifier(_SCHEMA, bucket)))
                db.rollback()
        except NotSignedIn as error:
            return ProbeAnswer(401, line, _note(error))
        except AccessDenied as error:
            return ProbeAnswer(403, line, _note(error))
        except NotFound as error:
            return ProbeAnswer(404, line, _note(error))
        except Unavailable:
            raise
        except CrossloadError as error:
            return ProbeAnswer(None, line, _note(error))
        return ProbeAnswer(412 if operation in (WRITE, DELETE) else 200, line)

    def doors(self, operation: str, bucket: str, key: str) -> tuple[str, ...]:
        return ()

    def detours(self, bucket: str, other: str, key: str) -> tuple[Detour, ...]:
        return ()

    def remove(self, bucket: str, key: str, version: str = "") -> bool:
        return True  # nothing was ever written

    def _address(self, credential: str) -> str:
        if credential in self.identities():
            return replace(self._settings, identity=credential).require("url")
        own = self._settings.require("url")
        if credential == OWN:
            return own
        kept = {name: value for name, value in conninfo_to_dict(own).items() if name not in ("password", "passfile")}
        bare = make_conninfo(**kept)  # pyright: ignore[reportArgumentType]
        if credential == NONE:
            return make_conninfo(bare, passfile=_NO_PASSFILE)
        if credential == FORGED:
            return make_conninfo(bare, password=secrets.token_hex(16))
        raise Invalid(f"place {self.place} has no identity called {credential}")


def _note(error: CrossloadError) -> str:
    return str(error).splitlines()[0][:160]
