"""Which version at the target is which version of the source: what a history's copy has done, and what both sides list.

What is done lies in `history.db` and survives us; what is listed lies in a file of SQLite's own for one pass."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.ledger.database import Closing, broken, connect, transaction
from crossload.ports.store import ObjectInfo

_SCHEMA = """
create table if not exists carried(
    key text not null, place integer not null, source_version text not null, target_version text not null default '',
    is_marker integer not null, size_bytes integer not null, sha256 text not null default '', state text not null,
    upload text not null default '', primary key(key, source_version)) without rowid;
create index if not exists carried_in_order on carried(key, place);
"""
_SIDE = """create table {name}(
    key text not null, place integer not null, version text not null, size_bytes integer not null, etag text not null,
    modified_at real not null, is_marker integer not null, is_latest integer not null,
    primary key(key, place)) without rowid;"""
_CACHE_KIB = 16 * 1024
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Carried:
    """One version or delete marker of the source and what it became. `place` counts a key's versions from the oldest
    on; `state` is sending | done | found (the target held it already, so that undo leaves it there) | undone.

    While it is sending, `sha256` says what is about to be written, and `upload` is one that is open at the target."""

    key: str
    place: int
    source_version: str
    target_version: str
    is_marker: bool
    size_bytes: int
    sha256: str
    state: str
    upload: str = ""

    def to_json(self) -> dict[str, Any]:
        known: dict[str, Any] = {"delete_marker": True}
        if not self.is_marker:
            known = {"size_bytes": self.size_bytes, "sha256": self.sha256}
        return {
            "key": self.key, "source_version": self.source_version, "target_version": self.target_version, **known,
            "found": self.state == "found",
        }  # fmt: skip


class VersionBook(Closing):
    """Safe for many threads, one of them at a time for each key."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "history.db"
        self._mutex = threading.Lock()
        self._numbers = {"source": 0, "target": 0}
        self._database = connect(self.path, synchronous="NORMAL")
        self._listed = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        with broken(self.path):
            self._database.executescript(_SCHEMA)
            for pragma in (f"cache_size=-{_CACHE_KIB}", "journal_mode=off", "synchronous=off", "temp_store=file"):
                self._listed.execute(f"pragma {pragma}")
            self._listed.executescript(_SIDE.format(name="source") + _SIDE.format(name="target"))

    def close(self) -> None:
        self._listed.close()
        self._database.close()

    # -- what both sides list ------------------------------------------------------------------------------------------

    def list(self, side: str, infos: Iterable[ObjectInfo]) -> None:
        """`side` is source or target; those of one key come newest first, as `Store.versions` gives them."""
        rows: list[tuple[Any, ...]] = []
        for info in infos:
            self._numbers[side] += 1
            rows.append(
                (info.key, self._numbers[side], info.version, info.size_bytes, info.etag, info.modified_at,
                 info.is_delete_marker, info.is_latest)
            )  # fmt: skip
            if len(rows) >= _PAGE:
                self._fill(side, rows)
                rows = []
        self._fill(side, rows)

    def _fill(self, side: str, rows: list[tuple[Any, ...]]) -> None:
        with self._mutex, broken(self.path):
            self._listed.execute("begin")
            self._listed.executemany(f"insert into {side} values(?,?,?,?,?,?,?,?)", rows)
            self._listed.execute("commit")

    def keys(self) -> Iterator[str]:
        """Of the source, in UTF-8 order."""
        after: str | None = None
        while True:
            with self._mutex, broken(self.path):
                where = "" if after is None else "where key > ?"
                rows = self._listed.execute(
                    f"select distinct key from source {where} order by key limit {_PAGE}",  # noqa: S608
                    () if after is None else (after,),
                ).fetchall()
            for row in rows:
                yield row[0]
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def listed(self, side: str, key: str) -> list[ObjectInfo]:
        """The versions of one key, the oldest first."""
        with self._mutex, broken(self.path):
            rows = self._listed.execute(
                f"""select key, size_bytes, etag, version, modified_at, is_latest, is_marker from {side}
                where key=? order by place desc""",  # noqa: S608
                (key,),
            ).fetchall()
        return [ObjectInfo(row[0], row[1], row[2], row[3], row[4], (), bool(row[5]), bool(row[6])) for row in rows]

    # -- what is done --------------------------------------------------------------------------------------------------

    def put(self, row: Carried) -> None:
        """Kept, whatever becomes of this process from now on."""
        values = (
            row.key, row.place, row.source_version, row.target_version, row.is_marker, row.size_bytes, row.sha256,
            row.state, row.upload,
        )  # fmt: skip
        with self._mutex, transaction(self._database, self.path):
            self._database.execute("insert or replace into carried values(?,?,?,?,?,?,?,?,?)", values)

    def carried(self, key: str) -> list[Carried]:
        """In the order of the source, without what was undone."""
        with self._mutex, broken(self.path):
            rows = self._database.execute(
                "select * from carried where key=? and state<>'undone' order by place", (key,)
            ).fetchall()
        return [_carried(row) for row in rows]

    def all(self, *, newest_first: bool = False, sending: bool = False) -> Iterator[Carried]:
        """By key, what has arrived; or also what may have, when nobody heard of it."""
        after, way = "", "desc" if newest_first else "asc"
        states = "('done', 'found', 'sending')" if sending else "('done', 'found')"
        while True:
            with self._mutex, broken(self.path):
                keys = self._database.execute(
                    "select distinct key from carried where key > ? order by key limit ?", (after, _PAGE)
                ).fetchall()
                rows = self._database.execute(
                    f"""select * from carried where key > ? and key <= ? and state in {states}
                    order by key, place {way}""",  # noqa: S608
                    (after, keys[-1][0]),
                ).fetchall() if keys else []  # fmt: skip
            yield from map(_carried, rows)
            if len(keys) < _PAGE:
                return
            after = keys[-1][0]


def _carried(row: Any) -> Carried:
    return Carried(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6], row[7], row[8])
