"""The journal of one bucket's copy: what was sent, what arrived, what is open. One writer thread, group commit.

State of an object: pending -> sending -> done, or gone (removed at the source and then at the target)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from crossload.ledger.database import Closing, LedgerBroken, broken, connect, transaction

_SCHEMA = """
create table if not exists object(
    key text primary key, size_bytes integer not null, source_etag text not null, state text not null,
    upload text not null default '', sha256 text not null default '', check_digest text not null default '',
    target_etag text not null default '', trust text not null default '', losses text not null default '',
    changed_during_copy integer not null default 0, modified_at real not null default 0) without rowid;
create index if not exists object_state on object(state);
create table if not exists counter(name text primary key, value integer not null) without rowid;
"""
_GROUP_SECONDS = 0.05
_ROWS_MAX = 10_000
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One object. `check_digest` is the digest the target store reports by itself; `trust` is sent | stored | reread,
    or found: the target held these bytes though we never sent them, so that undo leaves them there.

    Until the state is `done`, `sha256` and `check_digest` say what was about to be written, not what arrived."""

    key: str
    size_bytes: int
    source_etag: str
    state: str = "pending"
    upload: str = ""
    sha256: str = ""
    check_digest: str = ""
    target_etag: str = ""
    trust: str = ""
    losses: str = ""
    changed_during_copy: int = 0
    modified_at: float = 0.0

    def with_(self, **changes: Any) -> Entry:
        values = dict(zip(NAMES, _VALUES(self), strict=True))
        values.update(changes)
        return Entry(**values)  # a third of what dataclasses.replace costs


NAMES = tuple(item.name for item in fields(Entry))
_COLUMNS = ", ".join(NAMES)
_VALUES = attrgetter(*NAMES)
_INSERT = f"insert or replace into object({_COLUMNS}) values({','.join('?' * len(NAMES))})"


def entry_for(key: str, size_bytes: int, etag: str, modified_at: float, before: Entry | None) -> Entry:
    """What a copier takes: this source object, and what an earlier copy of the same bytes had reached."""
    fresh = Entry(key, size_bytes, etag, modified_at=modified_at)
    if before is None:
        return fresh
    same = before.source_etag == etag
    return fresh.with_(
        state="sending" if before.state == "sending" and same else "pending", upload=before.upload if same else "",
        target_etag=before.target_etag, sha256=before.sha256, check_digest=before.check_digest,
        changed_during_copy=before.changed_during_copy,
    )  # fmt: skip


class Journal(Closing):
    """Writes are queued and committed together; `barrier()` waits until all that was put so far is on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = connect(path, synchronous="NORMAL")
        self._mutex = threading.Lock()
        with broken(path):
            self._reader.executescript(_SCHEMA)
        self._mail = threading.Lock()
        self._rows: list[Entry] = []
        self._counts: list[tuple[str, int]] = []
        self._waiting: list[threading.Event] = []
        self._closing = False
        self._some = threading.Event()  # there is something to write
        self._hurry = threading.Event()  # somebody waits for it
        self._failure: LedgerBroken | None = None
        self._thread = threading.Thread(target=self._write, name=f"journal {path.name}", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Queue a new state of one object. Raises LedgerBroken if an earlier write failed."""
        if self._failure is not None:
            raise self._failure
        with self._mail:
            self._rows.append(entry)
            waiting = len(self._rows)
        if waiting == 1:
            self._some.set()  # once a group: waking a thread for every object costs more than writing it
        elif waiting > _ROWS_MAX:
            self.barrier()

    def count(self, name: str, amount: int) -> None:
        """Add to a named counter that survives us."""
        self._check()
        with self._mail:
            self._counts.append((name, amount))
        self._some.set()

    def barrier(self) -> None:
        done = threading.Event()
        with self._mail:
            self._waiting.append(done)
        self._hurry.set()
        self._some.set()
        while not done.wait(0.5):
            self._check()
        self._check()

    def close(self) -> None:
        with self._mail:
            self._closing = True
            self._hurry.set()
            self._some.set()
        self._thread.join(timeout=30)
        self._reader.close()

    def entries(self, state: str = "") -> Iterator[Entry]:
        """In UTF-8 key order (SQLite's binary collation), page by page: what is put meanwhile may be among them."""
        where = "state=? and " if state else ""
        query = f"select {_COLUMNS} from object where {where}key > ? order by key limit {_PAGE}"  # noqa: S608
        after = ""
        while True:
            with self._mutex, broken(self.path):
                rows = self._reader.execute(query, [state, after] if state else [after]).fetchall()
            for row in rows:
                yield Entry(*row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def get(self, key: str) -> Entry | None:
        with self._mutex, broken(self.path):
            row = self._reader.execute(f"select {_COLUMNS} from object where key=?", (key,)).fetchone()  # noqa: S608
        return Entry(*row) if row else None

    def counter(self, name: str) -> int:
        with self._mutex, broken(self.path):
            row = self._reader.execute("select value from counter where name=?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def totals(self) -> dict[str, tuple[int, int]]:
        """state -> (objects, bytes)."""
        with self._mutex, broken(self.path):
            rows = self._reader.execute("select state, count(*), sum(size_bytes) from object group by state").fetchall()
        return {row[0]: (row[1], row[2] or 0) for row in rows}

    def trust(self) -> dict[str, int]:
        """trust -> how many objects have arrived with it."""
        with self._mutex, broken(self.path):
            rows = self._reader.execute(
                "select trust, count(*) from object where state='done' group by trust"
            ).fetchall()
        return dict.fromkeys(("found", "reread", "stored", "sent"), 0) | dict(rows)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        """Whatever goes wrong here is kept and raised by the next `put` or `barrier`; the queue is emptied in any
        case, or those who wait for it would wait for ever."""
        writer: sqlite3.Connection | None = None
        try:
            writer = connect(self.path, synchronous="NORMAL")
        except LedgerBroken as error:
            self._failure = error
        ended = False
        while not ended:
            self._some.wait()
            self._hurry.wait(_GROUP_SECONDS)
            with self._mail:
                ended = self._closing
                self._some.clear()
                self._hurry.clear()
                rows, self._rows = self._rows, []
                counts, self._counts = self._counts, []
                waiting, self._waiting = self._waiting, []
            try:
                if writer is not None:
                    self._commit(writer, rows, counts)
            except LedgerBroken as error:
                self._failure = error
            except Exception as error:  # noqa: BLE001 - raised again in the threads that write
                self._failure = LedgerBroken(f"{self.path}: {error}")
            for event in waiting:
                event.set()
        if writer is not None:
            writer.close()

    def _commit(self, writer: sqlite3.Connection, rows: list[Entry], counts: list[tuple[str, int]]) -> None:
        if not (rows or counts) or self._failure is not None:
            return
        # Of an object that came twice only its last state is written: that is what a reader would have seen.
        last = {entry.key: entry for entry in rows}
        with transaction(writer, self.path):
            writer.executemany(_INSERT, map(_VALUES, last.values()))
            writer.executemany(
                "insert into counter values(?,?) on conflict(name) do update set value=value+excluded.value", counts
            )


def copy_folder(workspace: Path, asset: str) -> Path:
    """Where the copy of one asset keeps its journal, and its manifest beside it."""
    return workspace / "transfer" / asset.replace(":", "-")


def copy_journal(workspace: Path, asset: str) -> Journal:
    return Journal(copy_folder(workspace, asset) / "journal.db")
