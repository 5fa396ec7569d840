"""The Account port over PostgreSQL: vector indexes and tables, from the catalogs (PostgreSQL manual, chapter 53)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from crossload.estate.asset import Asset, Kind, KindReport
from crossload.ports.account import DENIED, FOUND, Discovery, index_assets
from crossload.ports.errors import AccessDenied
from crossload.ports.provider import Settings
from crossload.providers.postgres.vectors import PgVectors, translated

_TABLES = """select c.relname, pg_total_relation_size(c.oid)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.relkind in ('r', 'p') and n.nspname = 'public' order by 1"""


def open_account(settings: Settings) -> PostgresAccount:
    return PostgresAccount(settings)


class PostgresAccount:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._url = settings.require("url")
        self._vectors = PgVectors(settings)

    def permissions(self) -> list[str]:
        return ["CONNECT on the database", "SELECT on each table", "USAGE on schema public"]

    def discover(self) -> Discovery:
        """Raises NotSignedIn or Unavailable when the database does not let us in."""
        with translated(), psycopg.connect(self._url, connect_timeout=10, application_name="crossload") as db:
            sizes: dict[str, int] = {str(name): int(size) for name, size in db.execute(_TABLES)}
            try:
                found = index_assets(self.place, self._vectors.indexes())
            except AccessDenied as error:
                found = index_assets(self.place, [], DENIED, str(error))
            indexes = [replace(a, facts={**a.facts, "size_bytes": sizes.get(a.name)}) for a in found.assets]
            named = {asset.name for asset in indexes}
            tables = [_table(db, self.place, name, size) for name, size in sizes.items() if name not in named]
        reports = [*found.reports, KindReport(self.place, str(Kind.TABLE), FOUND, len(tables))]
        unknown = [asset for asset in tables if asset.fact("rows") is None]
        if unknown:
            words = "permission denied to count rows"
            reports.append(KindReport(self.place, "table.rows", DENIED, len(unknown), words))
        assets = sorted([*indexes, *tables], key=lambda asset: asset.id)
        return Discovery(self.place, tuple(assets), (), tuple(reports))


def _table(db: psycopg.Connection[Any], place: str, name: str, size_bytes: int) -> Asset:
    """One table; `rows` is None where we may not count them (a savepoint keeps the connection usable)."""
    rows: int | None = None
    try:
        with db.transaction():
            counted = db.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(name))).fetchone()
            rows = int(counted[0]) if counted else None
    except psycopg.errors.InsufficientPrivilege:
        rows = None
    return Asset(f"table:{name}", Kind.TABLE, name, place, f"{place}/{name}", {"rows": rows, "size_bytes": size_bytes})
