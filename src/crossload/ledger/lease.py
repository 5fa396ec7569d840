"""Shards of one pass, and who carries which until when: a table that many processes share.

A lease is a promise with an end. Whoever holds one renews it while it works; one that ran out may be taken by anybody,
and its former owner is told so at its next call. Time is that of the machine the database is on."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.ledger.database import Closing, broken, connect, transaction
from crossload.ports.errors import CrossloadError

STARTS_MAX = 5  # a shard that ended so many workers will end the next one too

_SCHEMA = """
create table shard(
    shard integer primary key, first integer not null, last integer not null, objects integer not null,
    size_bytes integer not null, owner text not null default '', lease_until real not null default 0,
    starts integer not null default 0, done integer not null default 0, moved integer not null default 0,
    sent_bytes integer not null default 0, report text not null default '');
create index shard_open on shard(done, size_bytes desc, shard);
create table again(number integer primary key);
create table trouble(place integer primary key check(place = 1), code text, message text, hint text);
"""
_NOW = "select (julianday('now') - 2440587.5) * 86400.0"
_COLUMNS = "shard, first, last, objects, size_bytes, starts"


@dataclass(frozen=True, slots=True)
class Shard:
    """The things to do from number `first` to `last`, both included. `starts` counts how often it was begun."""

    number: int
    first: int
    last: int
    objects: int
    size_bytes: int
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far all shards are. `moved` and `sent_bytes` are as of each owner's last word; `starts` of all shards
    together: it exceeds `shards` by those that were begun anew."""

    shards: int
    done: int
    starts: int
    moved: int
    sent_bytes: int


class Worn(CrossloadError):
    """One shard ended every worker that began it."""

    code = "shard-worn"


class Leases(Closing):
    """Safe for any number of processes and threads; each call is one transaction. Raises LedgerBroken."""

    def __init__(self, path: Path, *, clock: Callable[[], float] | None = None) -> None:
        self._path = path
        self._clock = clock
        self._mutex = threading.Lock()
        self._database = connect(path, synchronous="NORMAL")

    @classmethod
    def fresh(cls, path: Path, *, clock: Callable[[], float] | None = None) -> Leases:
        """An empty table in place of whatever a killed pass left."""
        remove(path)
        made = cls(path, clock=clock)
        with broken(path):
            made._database.executescript(_SCHEMA)
        return made

    def close(self) -> None:
        self._database.close()

    def fill(self, shards: Iterable[Shard], again: Iterable[int] = ()) -> None:
        """`again`: numbers of things that the journal calls done already, and that are to be done nevertheless."""
        with self._mutex, transaction(self._database, self._path) as database:
            database.executemany(
                "insert into shard(shard, first, last, objects, size_bytes) values(?,?,?,?,?)",
                ((one.number, one.first, one.last, one.objects, one.size_bytes) for one in shards),
            )
            database.executemany("insert into again values(?)", ((number,) for number in again))

    def claim(self, owner: str, seconds: float) -> Shard | None:
        """The largest shard that nobody holds, now held by `owner` for so long; None when there is none now. Raises
        Worn for one that was begun too often."""
        with self._mutex, transaction(self._database, self._path) as database:
            now = self._now()
            row = database.execute(
                f"""select {_COLUMNS} from shard where done = 0 and (owner = '' or lease_until <= ?)
                order by size_bytes desc, shard limit 1""",  # noqa: S608
                (now,),
            ).fetchone()
            if row is None:
                return None
            shard = Shard(*row)
            if shard.starts >= STARTS_MAX:
                raise Worn(
                    f"{shard.starts} workers in turn ended while they carried objects {shard.first} to {shard.last}",
                    hint="look at the machine's memory; the same move with one process names the object",
                )
            database.execute(
                """update shard set owner = ?, lease_until = ?, starts = starts + 1, moved = 0, sent_bytes = 0
                where shard = ?""",
                (owner, now + seconds, shard.number),
            )
        return Shard(*row[:5], starts=shard.starts + 1)

    def renew(self, shard: int, owner: str, seconds: float, *, moved: int = 0, sent_bytes: int = 0) -> bool:
        """Hold it for so long from now. False when it is ours no longer: stop working on it."""
        with self._mutex, transaction(self._database, self._path) as database:
            changed = database.execute(
                """update shard set lease_until = ?, moved = ?, sent_bytes = ?
                where shard = ? and owner = ? and done = 0""",
                (self._now() + seconds, moved, sent_bytes, shard, owner),
            )
            return changed.rowcount == 1

    def finish(self, shard: int, owner: str, report: Mapping[str, Any]) -> bool:
        """It is done, and this is what came of it. False when it is ours no longer: somebody else's report counts."""
        with self._mutex, transaction(self._database, self._path) as database:
            changed = database.execute(
                """update shard set done = 1, lease_until = 0, report = ?, moved = objects
                where shard = ? and owner = ? and done = 0""",
                (json.dumps(report), shard, owner),
            )
            return changed.rowcount == 1

    def give_back(self, owner: str) -> int:
        """What this owner holds is free at once; how many shards that was. For one that ends, or is known dead."""
        with self._mutex, transaction(self._database, self._path) as database:
            return database.execute(
                "update shard set owner = '', lease_until = 0 where owner = ? and done = 0", (owner,)
            ).rowcount

    def fail(self, error: CrossloadError) -> None:
        """Tell all others to end; the first to fail is remembered."""
        with self._mutex, transaction(self._database, self._path) as database:
            database.execute("insert or ignore into trouble values(1,?,?,?)", (error.code, str(error), error.hint))

    def trouble(self) -> tuple[str, str, str] | None:
        """(code, message, hint) of the error that ended it."""
        return self._one("select code, message, hint from trouble")

    def over(self) -> bool:
        """All is done, or something ended it: nothing will come to be claimed any more."""
        return self._one("select not exists (select 1 from shard where done = 0) or exists (select 1 from trouble)")[0]

    def again(self, shard: Shard) -> frozenset[int]:
        """Those numbers of a shard that were done before this pass, and are to be done nevertheless."""
        with self._mutex, broken(self._path):
            rows = self._database.execute(
                "select number from again where number between ? and ?", (shard.first, shard.last)
            ).fetchall()
        return frozenset(row[0] for row in rows)

    def standing(self) -> Standing:
        return Standing(
            *self._one(
                """select count(*), coalesce(sum(done), 0), coalesce(sum(starts), 0), coalesce(sum(moved), 0),
                coalesce(sum(sent_bytes), 0) from shard"""
            )
        )

    def reports(self) -> list[dict[str, Any]]:
        """What came of every shard that is done, in their order."""
        with self._mutex, broken(self._path):
            rows = self._database.execute("select report from shard where done = 1 order by shard").fetchall()
        return [json.loads(row[0]) for row in rows]

    def _one(self, query: str) -> Any:
        with self._mutex, broken(self._path):
            return self._database.execute(query).fetchone()

    def _now(self) -> float:
        return self._clock() if self._clock is not None else self._database.execute(_NOW).fetchone()[0]


def remove(path: Path) -> None:
    """The table and its logs."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with contextlib.suppress(OSError):
            path.with_name(name).unlink(missing_ok=True)
