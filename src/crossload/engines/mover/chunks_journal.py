"""The journal of one table's move: its chunks, and which of them the target has given back equal."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.ledger.database import Closing, broken, connect, transaction
from crossload.ports.tables import Chunk

_SCHEMA = """
create table if not exists fact(name text primary key, value text not null) without rowid;
create table if not exists chunk(
    number integer primary key, by text not null, after text not null, upto text not null,
    rows integer not null default 0, size_bytes integer not null default 0, digest text not null default '');
"""


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """`digest` is "" until the chunk was read back from the target equal to what was sent."""

    chunk: Chunk
    rows: int = 0
    size_bytes: int = 0
    digest: str = ""


class ChunkJournal(Closing):
    """One writer, one move. Every call is a transaction of its own; a kill loses at most the call it interrupts, and
    a chunk without its line here is only sent again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = connect(path, synchronous="NORMAL")
        with broken(path):
            self._database.executescript(_SCHEMA)
        if not self.fact("owner"):
            self.note(owner=secrets.token_hex(6))

    @property
    def owner(self) -> str:
        """12 hexadecimal digits that name this move at the target."""
        return str(self.fact("owner"))

    def fact(self, name: str) -> Any:
        """A noted fact, JSON-shaped; None when it was never noted."""
        with broken(self.path):
            row = self._database.execute("select value from fact where name=?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def note(self, **facts: Any) -> None:
        with transaction(self._database, self.path) as database:
            database.executemany(
                "insert or replace into fact values(?,?)", [(name, json.dumps(value)) for name, value in facts.items()]
            )

    def plan(self, chunks: Iterable[Chunk]) -> None:
        """Forget all chunks and begin with these."""
        rows = [(c.number, c.by, json.dumps(c.after), json.dumps(c.upto)) for c in chunks]
        with transaction(self._database, self.path) as database:
            database.execute("delete from chunk")
            database.executemany("insert into chunk(number, by, after, upto) values(?,?,?,?)", rows)

    def done(self, entry: ChunkEntry) -> None:
        with transaction(self._database, self.path) as database:
            database.execute(
                "update chunk set rows=?, size_bytes=?, digest=? where number=?",
                (entry.rows, entry.size_bytes, entry.digest, entry.chunk.number),
            )

    def forget_digests(self) -> None:
        """The chunks stay as they are cut; none of them counts as loaded any more."""
        with transaction(self._database, self.path) as database:
            database.execute("update chunk set rows=0, size_bytes=0, digest=''")

    def clear(self) -> None:
        """As if nothing had been moved, under a new name."""
        with transaction(self._database, self.path) as database:
            database.execute("delete from chunk")
            database.execute("delete from fact")
            database.execute("insert into fact values('owner', ?)", (json.dumps(secrets.token_hex(6)),))

    def entries(self) -> list[ChunkEntry]:
        with broken(self.path):
            rows = self._database.execute(
                "select number, by, after, upto, rows, size_bytes, digest from chunk order by number"
            ).fetchall()
        return [ChunkEntry(Chunk(n, by, _key(after), _key(upto)), count, size, digest)
                for n, by, after, upto, count, size, digest in rows]  # fmt: skip

    def close(self) -> None:
        self._database.close()


def _key(text: str) -> tuple[str, ...] | None:
    value = json.loads(text)
    return None if value is None else tuple(value)
