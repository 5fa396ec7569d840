"""What both sides list now, beside what the journal knows: sorted and joined on disk, so that memory stays flat at any
number of keys. Lives as long as one pass, in a file of its own."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.estate.digest import Digest
from crossload.ledger.database import Closing, broken
from crossload.ledger.journal import NAMES, Entry, Journal, entry_for
from crossload.ports.store import ObjectInfo

_FIELDS = "size_bytes integer not null, etag text not null, modified_at real not null, digests text not null"
_SIDE = f"create table {{name}}(key text primary key, {_FIELDS}) without rowid;"
_UNSORTED = f"create table unsorted(key text, {_FIELDS});"
_THERE = "t.size_bytes, t.etag, t.modified_at, t.digests"
_JOURNALED = ", ".join(f"o.{name}" for name in NAMES)
_WITHIN = "substr(o.key, 1, length(:prefix)) = :prefix"
_CHOSEN = """create table todo(number integer primary key, key text not null, size_bytes integer not null);
    create table first(place integer primary key, number integer not null unique);"""
# The nesting of the loops is ours: in the order of what is to do, the other three are looked up.
_DETAILS = """cross join source s on s.key = n.key left join journal.object o on o.key = s.key
    left join target t on t.key = s.key"""
_COLUMNS = f"s.key, s.size_bytes, s.etag, s.modified_at, {_JOURNALED}, t.key, {_THERE}"
_CHOOSE_FIRST = """insert into first select null, number from todo where size_bytes >= ?
    order by size_bytes desc, number limit ?"""
_TODO_FIRST = f"""select f.place, {_COLUMNS} from first f cross join todo n on n.number = f.number {_DETAILS}
    where f.place > ? order by f.place limit ?"""  # noqa: S608
_TODO_REST = f"""select n.number + ?, {_COLUMNS} from todo n {_DETAILS} where n.number > ?
    and (n.size_bytes < ? or not exists (select 1 from first f where f.number = n.number))
    order by n.number limit ?"""  # noqa: S608
_LARGE_BYTES = 16 * 2**20  # smaller ones take no worker for long
_LARGE_MAX = 100_000  # so many are put in order by their sizes: that is done in memory
_CACHE_KIB = 16 * 1024
_PAGE_BYTES = 16 * 1024
# Nothing here outlives us: a file that a kill left behind is removed by the next pass, whatever state it is in.
_PRAGMAS = (
    f"page_size={_PAGE_BYTES}", f"cache_size=-{_CACHE_KIB}", "journal_mode=off", "synchronous=off",
    "main.locking_mode=exclusive", "secure_delete=off", "temp_store=file",
)  # fmt: skip
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Todo:
    """One object to bring over. `there` is what the target listed at the key; `interrupted`: an earlier pass was cut
    short while it sent this very object."""

    entry: Entry
    there: ObjectInfo | None
    interrupted: bool


class Comparison(Closing):
    """Fill both sides, `settle`, then read. Safe to fill from many threads."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._path = listing_of(journal.path)
        self._mutex = threading.Lock()
        self._first = 0
        self._hinted = False
        with broken(self._path):
            self._path.unlink(missing_ok=True)  # of a pass that was killed
            self._path.touch(mode=0o600)
            self._database = sqlite3.connect(self._path, uri=True, isolation_level=None, check_same_thread=False)
            for pragma in _PRAGMAS:
                self._database.execute(f"pragma {pragma}")
            self._database.executescript(
                _SIDE.format(name="source") + _SIDE.format(name="target") + _UNSORTED + _CHOSEN
            )
            self._database.execute("attach ? as journal", (f"{journal.path.absolute().as_uri()}?mode=ro",))

    def close(self) -> None:
        self._database.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def source(self, infos: Iterable[ObjectInfo]) -> None:
        self._fill("source", infos)

    def target(self, infos: Iterable[ObjectInfo]) -> None:
        self._fill("target", infos)

    def hints(self, infos: Iterable[ObjectInfo]) -> None:
        """What the source held some time ago, in any order: of an inventory. From then on nothing counts as vanished
        or left behind, for what is not among the hints may be new; and what was copied later than a hint was true is
        not copied again."""
        self._hinted = True
        self._fill("unsorted", infos)

    def _fill(self, side: str, infos: Iterable[ObjectInfo]) -> None:
        """By key: a listing that broke off and began again may give one object twice, and two must not copy it."""
        rows = [(i.key, i.size_bytes, i.etag, i.modified_at, " ".join(map(str, i.digests))) for i in infos]
        with self._mutex, broken(self._path):
            self._database.execute("begin")
            self._database.executemany(f"insert or replace into {side} values(?,?,?,?,?)", rows)
            self._database.execute("commit")

    def settle(self, *, home: bool) -> tuple[int, int]:
        """Decide what is to do: (objects, bytes). Equal is what the journal says we brought from this very source
        object, and what the target still holds as we wrote it; at `home` users may change it there."""
        self._journal.barrier()
        there = "1" if home else "t.etag = o.target_etag"
        same = "o.source_etag = s.etag"
        if self._hinted:
            same = f"({same} or o.modified_at > s.modified_at)"
        with self._mutex, broken(self._path):
            self._database.execute("begin")
            # Sorted once on disk: rows that come in no order would each be written somewhere else.
            self._database.execute("insert or replace into source select * from unsorted order by key")
            self._database.execute("delete from unsorted")
            self._database.execute("delete from first")
            self._database.execute("delete from todo")
            self._database.execute(
                f"""insert into todo select null, s.key, s.size_bytes from source s
                left join journal.object o on o.key = s.key left join target t on t.key = s.key
                where not (coalesce(o.state, '') = 'done' and {same} and coalesce({there}, 0))
                order by s.key"""  # noqa: S608
            )
            self._first = self._database.execute(_CHOOSE_FIRST, (_LARGE_BYTES, _LARGE_MAX)).rowcount
            self._database.execute("commit")
        row = self._one("select count(*), coalesce(sum(size_bytes), 0) from todo")
        return row[0], row[1]

    def listed(self) -> int:
        return self._one("select count(*) from source")[0]

    def source_keys(self) -> Iterator[str]:
        """Every key that the source lists, in UTF-8 order."""
        query = f"select key from source where key > :after order by key limit {_PAGE}"  # noqa: S608
        for row in self._pages(query, ""):
            yield row[0]

    def todo(self, after: int) -> list[tuple[int, Todo]]:
        """The next page of what is to do, each with its number; [] at the end. The largest come first, so that none of
        them is left alone at the end; the others follow in the order of their keys."""
        rows: list[Any] = []
        with self._mutex, broken(self._path):
            if after < self._first:
                rows = self._database.execute(_TODO_FIRST, (after, _PAGE)).fetchall()
            if not rows:
                begin = max(0, after - self._first)
                rows = self._database.execute(_TODO_REST, (self._first, begin, _LARGE_BYTES, _PAGE)).fetchall()
        return [(row[0], _todo(row[1:])) for row in rows]

    def vanished(self, prefix: str) -> Iterator[Entry]:
        """What we brought over and the source lists no longer."""
        if self._hinted:
            return
        query = f"""select {_JOURNALED} from journal.object o left join source s on s.key = o.key
            where o.state = 'done' and s.key is null and {_WITHIN} and o.key > :after order by o.key limit {_PAGE}"""  # noqa: S608
        for row in self._pages(query, prefix):
            yield Entry(*row)

    def vanished_count(self, prefix: str) -> int:
        if self._hinted:
            return 0
        return self._one(
            f"""select count(*) from journal.object o left join source s on s.key = o.key
            where o.state = 'done' and s.key is null and {_WITHIN}""",  # noqa: S608
            {"prefix": prefix},
        )[0]

    def cut_short(self, prefix: str) -> Iterator[tuple[Entry, ObjectInfo | None, bool]]:
        """Copies that were begun and never finished, and that nobody goes on with: the source object has changed, or
        is gone. (What the journal knows, what the target lists at the key, whether the source still has the key.)"""
        if self._hinted:
            return
        query = f"""select {_JOURNALED}, t.key, {_THERE}, s.key from journal.object o
            left join source s on s.key = o.key left join target t on t.key = o.key
            where o.state = :state and {_WITHIN} and coalesce(s.etag, '') <> o.source_etag
            and o.key > :after order by o.key limit {_PAGE}"""  # noqa: S608
        width = len(NAMES)
        for state in ("sending", "pending"):  # one by one: both at once would be sorted anew for every page
            for row in self._pages(query, prefix, state):
                yield Entry(*row[:width]), _info(row[width : width + 5]), row[width + 5] is not None

    def known(self, prefix: str) -> Iterator[tuple[Entry, ObjectInfo | None]]:
        """Everything in the journal that is not gone, with what the target lists at its key; in UTF-8 key order."""
        query = f"""select {_JOURNALED}, t.key, {_THERE} from journal.object o left join target t on t.key = o.key
            where o.state <> 'gone' and {_WITHIN} and o.key > :after order by o.key limit {_PAGE}"""  # noqa: S608
        width = len(NAMES)
        for row in self._pages(query, prefix):
            yield Entry(*row[:width]), _info(row[width : width + 5])

    def strange(self) -> tuple[int, list[str]]:
        """What the target lists and the journal does not know: (how many keys, the first of them)."""
        query = """from target t left join journal.object o on o.key = t.key where coalesce(o.state, 'gone') = 'gone'"""
        with self._mutex, broken(self._path):
            count = self._database.execute(f"select count(*) {query}").fetchone()[0]
            rows = self._database.execute(f"select t.key {query} order by t.key limit {_PAGE}").fetchall()
        return count, [row[0] for row in rows]

    def _pages(self, query: str, prefix: str, state: str = "") -> Iterator[Any]:
        """Page by page, so that the journal may be written between two rows."""
        after = ""
        while True:
            with self._mutex, broken(self._path):
                rows = self._database.execute(query, {"prefix": prefix, "after": after, "state": state}).fetchall()
            yield from rows
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def _one(self, query: str, values: Any = ()) -> Any:
        with self._mutex, broken(self._path):
            return self._database.execute(query, values).fetchone()


class Settled(Closing):
    """A settled comparison for other processes: what is to do, read only. Whoever settled it holds a lock on the file
    and writes to it no more, so this reads past the lock. What the journal says is as of now."""

    def __init__(self, journal: Path) -> None:
        self._path = listing_of(journal)
        with broken(self._path):
            address = f"{self._path.absolute().as_uri()}?mode=ro&immutable=1"
            self._database = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            self._database.execute("attach ? as journal", (f"{journal.absolute().as_uri()}?mode=ro",))

    def close(self) -> None:
        self._database.close()

    def sizes(self) -> Iterator[tuple[int, int, bool]]:
        """(number, bytes, whether the journal calls it done) of all that is to do, in the order of the keys."""
        with broken(self._path):
            for number, size_bytes, done in self._database.execute(
                f"""select n.number, n.size_bytes, coalesce(o.state = 'done' and o.source_etag = s.etag, 0)
                from todo n {_DETAILS} order by n.number"""  # noqa: S608
            ):
                yield number, size_bytes, bool(done)

    def between(self, first: int, last: int) -> list[tuple[int, Todo, bool]]:
        """(number, what, whether the journal calls it done) from `first` to `last`, both included."""
        with broken(self._path):
            rows = self._database.execute(
                f"""select n.number, coalesce(o.state = 'done' and o.source_etag = s.etag, 0), {_COLUMNS}
                from todo n {_DETAILS} where n.number between ? and ? order by n.number""",  # noqa: S608
                (first, last),
            ).fetchall()
        return [(row[0], _todo(row[2:]), bool(row[1])) for row in rows]


def listing_of(journal: Path) -> Path:
    """Where the pass over this journal keeps its comparison."""
    return journal.with_name(f"{journal.stem}.listing")


def _info(row: Any) -> ObjectInfo | None:
    key, size_bytes, etag, modified_at, digests = row
    if key is None:
        return None
    return ObjectInfo(key, size_bytes, etag, "", modified_at, tuple(map(Digest.parse, digests.split())))


def _todo(row: Any) -> Todo:
    key, size_bytes, etag, modified_at = row[:4]
    width = 4 + len(NAMES)
    before = Entry(*row[4:width]) if row[4] is not None else None
    interrupted = before is not None and before.state == "sending"
    return Todo(entry_for(key, size_bytes, etag, modified_at, before), _info(row[width : width + 5]), interrupted)
