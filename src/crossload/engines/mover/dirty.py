"""What a store says has changed, kept on disk until it is confirmed at the other side, and how far that side is behind.

A hint makes a key dirty; only a look at both sides makes it clean (`quick.py`), or a full pass. A full pass asks
nothing here: with every hint lost it finds the same, later."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.ledger.database import Closing, broken, connect, transaction
from crossload.ledger.journal import Entry, Journal
from crossload.ports.changes import CREATED, REMOVED, Batch, Change, Subscription

RELIST_SECONDS_MIN = 60.0
TOMBSTONE_SECONDS = 30 * 86_400.0
_OURS = ".crossload/"  # what we keep beside the objects is nobody's data

_SCHEMA = """
create table if not exists dirty(
    key text primary key, number integer not null, kind text not null, etag text not null, sequence text not null,
    size_bytes integer, first_at real not null, later_at real, taken integer not null default 0) without rowid;
create index if not exists dirty_age on dirty(first_at);
create table if not exists tombstone(key text primary key, at real not null, etag text not null) without rowid;
create table if not exists fact(name text primary key, value) without rowid;
"""


@dataclass(frozen=True, slots=True)
class Dirty:
    """One dirty key. `number` grows with every hint about it; `first_at` (epoch seconds) is the time of the oldest
    change that is not confirmed yet. `size_bytes` is None while unknown."""

    key: str
    number: int
    kind: str
    first_at: float
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Heard:
    """What one poll came to: hints that made or kept a key dirty, echoes of our own writes, messages not understood."""

    hints: int = 0
    echoes: int = 0
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the other side is behind, as far as is known. `seconds` is None before the first poll or pass, 0.0 when
    nothing is dirty. `size_bytes` is None while the size of a dirty key is unknown; `sized_bytes` counts the others.
    `as_of` is when a stream or a pass last told anything, in epoch seconds."""

    seconds: float | None
    size_bytes: int | None
    sized_bytes: int
    keys: int
    as_of: float | None

    def to_json(self) -> dict[str, Any]:
        seconds: float | str = "unknown" if self.seconds is None else round(self.seconds, 1)
        size: int | str = "unknown" if self.size_bytes is None else self.size_bytes
        return {"lag_seconds": seconds, "lag_bytes": size, "dirty_keys": self.keys, "as_of": self.as_of or "unknown"}


def relist_period_seconds(list_seconds: float | None) -> float:
    """From the start of one listing to the start of the next: a minute, or twice what a listing takes."""
    return RELIST_SECONDS_MIN if list_seconds is None else max(RELIST_SECONDS_MIN, 2 * list_seconds)


class DirtySet(Closing):
    """The dirty keys of one copy, on disk. One process at a time, any number of threads.

    Raises LedgerBroken when the file cannot be written; a hint is on disk when `record` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = connect(path, synchronous="FULL")
        self._mutex = threading.RLock()
        with broken(path):
            self._database.executescript(_SCHEMA)
            # Whoever had taken keys is dead: they are nobody's again.
            self._database.execute(_RELEASE + "1")

    def close(self) -> None:
        self._database.close()

    # -- hints come in

    @property
    def cursor(self) -> str:
        """Where the stream goes on; "" when it has none."""
        return str(self._fact("cursor") or "")

    def record(self, batch: Batch, journal: Journal, side: str = "source", now: float | None = None) -> Heard:
        """Write down one batch and its cursor, all or nothing. `side` (source or target) is the one that is followed.

        A change that the journal knows as done, by its etag on that side, is an echo and is dropped, unless the key is
        dirty already: then something else happened to it, too, and the order is not known."""
        moment = time.time() if now is None else now
        hints = echoes = 0
        with self._mutex, transaction(self._database, self.path) as database:
            number = int(self._fact("number") or 0)
            for change in batch.changes:
                if change.key.startswith(_OURS):
                    continue
                row = database.execute("select sequence from dirty where key=?", (change.key,)).fetchone()
                if row is None and _is_echo(journal.get(change.key), change, side):
                    echoes += 1
                    continue
                number += 1
                hints += 1
                _upsert(database, change, number, moment, None if row is None else row[0])
            self._remember(number=number, heard_at=moment)
            if batch.cursor:
                self._remember(cursor=batch.cursor)
        return Heard(hints, echoes, batch.unread)

    # -- keys are looked at

    def take(self, limit: int = 1000) -> list[Dirty]:
        """The keys that have been dirty longest and that nobody has taken."""
        query = "select key, number, kind, first_at, size_bytes from dirty where taken=0 order by first_at, key limit ?"
        with self._mutex, transaction(self._database, self.path) as database:
            found = [Dirty(*row) for row in database.execute(query, (limit,)).fetchall()]
            database.executemany("update dirty set taken=1, later_at=null where key=?", [(item.key,) for item in found])
        return found

    def clean(self, items: Iterable[Dirty]) -> int:
        """These were compared, or carried, since they were taken. Keys with a newer hint stay dirty; returns how many
        are clean."""
        count = 0
        with self._mutex, transaction(self._database, self.path) as database:
            for item in items:
                gone = database.execute("delete from dirty where key=? and number=?", (item.key, item.number)).rowcount
                count += gone
                if not gone:
                    database.execute(_NEWER + "key=?", (item.key,))
        return count

    def release(self, items: Iterable[Dirty]) -> None:
        """These could not be settled: they stay dirty, as old as they are."""
        with self._mutex, transaction(self._database, self.path) as database:
            database.executemany(_RELEASE + "key=?", [(item.key,) for item in items])

    def weigh(self, sizes: Iterable[tuple[str, int]]) -> None:
        """Sizes that a look at the followed side found: (key, bytes)."""
        with self._mutex, transaction(self._database, self.path) as database:
            database.executemany("update dirty set size_bytes=? where key=?", [(size, key) for key, size in sizes])

    # -- full passes

    def mark(self) -> int:
        """Call it before a full pass lists: what was heard by now is what that pass will see."""
        with self._mutex, transaction(self._database, self.path) as database:
            database.execute("update dirty set taken=1, later_at=null where taken=0")
            return int(self._fact("number") or 0)

    def settle(
        self, mark: int, listed_at: float, list_seconds: float, *, unless: Collection[str] = (), complete: bool = True
    ) -> None:
        """A full pass ended. `listed_at` is when it began (epoch seconds), `list_seconds` what listing both sides took.
        Keys heard of before `mark` are clean, without those in `unless` (that went on changing); none is when the pass
        had failures (`complete` false)."""
        keep = set(unless)
        with self._mutex, transaction(self._database, self.path) as database:
            if complete:
                rows = database.execute("select key, number, taken from dirty").fetchall()
                seen = [row for row in rows if row[0] not in keep]
                database.executemany("delete from dirty where key=?", [(key,) for key, at, _ in seen if at <= mark])
                database.executemany(_NEWER + "key=?", [(key,) for key, at, taken in seen if at > mark and taken])
            database.execute(_RELEASE + "1")
            self._remember(listed_at=listed_at, list_seconds=list_seconds)

    def relist_in_seconds(self, now: float | None = None) -> float:
        """Until the next full pass is due; 0.0 when it is, or when there was none yet."""
        with self._mutex:
            listed_at, list_seconds = self._fact("listed_at"), self._fact("list_seconds")
        if listed_at is None:
            return 0.0
        moment = time.time() if now is None else now
        passed = moment - float(listed_at)
        if passed < 0:  # a clock that was set back must not put the pass off for ever
            return 0.0
        return max(0.0, relist_period_seconds(list_seconds) - passed)

    # -- what is known

    def lag(self, now: float | None = None) -> Lag:
        moment = time.time() if now is None else now
        with self._mutex, broken(self.path):
            oldest, sized, keys, known = self._database.execute(
                "select min(first_at), coalesce(sum(size_bytes), 0), count(*), count(size_bytes) from dirty"
            ).fetchone()
            told = [float(at) for at in (self._fact("heard_at"), self._fact("listed_at")) if at is not None]
        sized_bytes = int(sized)
        seconds = max(0.0, moment - float(oldest)) if keys else 0.0 if told else None
        size_bytes = sized_bytes if told and known == keys else None
        return Lag(seconds, size_bytes, sized_bytes, int(keys), max(told, default=None))

    def keys(self) -> list[str]:
        with self._mutex, broken(self.path):
            return [row[0] for row in self._database.execute("select key from dirty order by key").fetchall()]

    # -- tombstones

    def bury(self, key: str, etag: str, now: float | None = None) -> None:
        """The object with this etag was removed from the side that receives, because the followed one lost it."""
        moment = time.time() if now is None else now
        with self._mutex, transaction(self._database, self.path) as database:
            database.execute("insert or replace into tombstone values(?,?,?)", (key, moment, etag))
            database.execute("delete from tombstone where at<?", (moment - TOMBSTONE_SECONDS,))

    def tombstones(self) -> dict[str, tuple[float, str]]:
        """key -> (epoch seconds, etag), for 30 days."""
        with self._mutex, broken(self.path):
            rows = self._database.execute("select key, at, etag from tombstone order by key").fetchall()
        return {key: (at, etag) for key, at, etag in rows}

    def buried_since_pass(self) -> int:
        """Removals since the last full pass began: many small ones must not add up to one that nobody allowed."""
        with self._mutex, broken(self.path):
            since = float(self._fact("listed_at") or 0.0)
            return int(self._database.execute("select count(*) from tombstone where at>=?", (since,)).fetchone()[0])

    # -- inside

    def _fact(self, name: str) -> Any:
        with broken(self.path):
            row = self._database.execute("select value from fact where name=?", (name,)).fetchone()
        return row[0] if row else None

    def _remember(self, **facts: float | str) -> None:
        self._database.executemany("insert or replace into fact values(?,?)", list(facts.items()))


# A taken key that was not settled: as old as the oldest of its hints.
_RELEASE = "update dirty set taken=0, first_at=min(first_at, ifnull(later_at, first_at)), later_at=null where "
# A taken key that was settled, with hints since: as old as the oldest of those.
_NEWER = "update dirty set taken=0, first_at=ifnull(later_at, first_at), later_at=null where "


def _upsert(database: sqlite3.Connection, change: Change, number: int, now: float, before: str | None) -> None:
    """`before` is the sequence of the last hint about this key, None for the first. Where the order is known, an older
    hint does not replace what a newer one said; it makes the key dirty all the same."""
    at = min(now, change.at) if change.at is not None else now
    if before is None:
        database.execute(
            "insert into dirty values(?,?,?,?,?,?,?,null,0)",
            (change.key, number, change.kind, change.etag, change.sequence, change.size_bytes, at),
        )
        return
    database.execute(
        """update dirty set number=?, first_at=case taken when 0 then min(first_at, ?) else first_at end,
            later_at=case taken when 0 then null else min(ifnull(later_at, ?), ?) end where key=?""",
        (number, at, at, at, change.key),
    )
    if not change.sequence or change.sequence >= before:
        database.execute(
            "update dirty set kind=?, etag=?, sequence=?, size_bytes=? where key=?",
            (change.kind, change.etag, change.sequence, change.size_bytes, change.key),
        )


def _is_echo(entry: Entry | None, change: Change, side: str) -> bool:
    """Whether the journal says that this very change is our own doing, or was carried already."""
    if entry is None:
        return False
    if change.kind == REMOVED:
        return entry.state == "gone"
    ours = entry.target_etag if side == "target" else entry.source_etag
    return change.kind == CREATED and entry.state == "done" and bool(change.etag) and change.etag == ours


def listen(stream: Subscription, dirty: DirtySet, journal: Journal, wait_seconds: float, side: str = "source") -> Heard:
    """One poll, in the only safe order: written down first, acknowledged then."""
    batch = stream.poll(wait_seconds)
    heard = dirty.record(batch, journal, side)
    stream.acknowledge(batch)
    return heard
