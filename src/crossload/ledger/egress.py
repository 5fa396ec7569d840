"""Bytes that left each place on each UTC day: never fewer than the truth, whatever kills us.

Bytes are reserved on disk in blocks before they are read, and counted against the block in memory. What is left of a
block is given back when the book is closed or the day ends; a process that is killed leaves it counted, and `open`
says how much of a count may be such a rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossload.ledger.database import Closing, broken, connect, transaction

_SCHEMA = """
create table if not exists egress(
    day text not null, place text not null, size_bytes integer not null, open_bytes integer not null,
    primary key(day, place)) without rowid;
"""
# One fsync for so much: at 1 GiB/s that is 16 a second. It is also the most that one kill can count too much.
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class EgressDay:
    """Bytes out of `place` on `day` (ISO, UTC). The truth lies between `size_bytes - open_bytes` and `size_bytes`."""

    day: str
    place: str
    size_bytes: int
    open_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "day": self.day, "place": self.place, "size_bytes": self.size_bytes,
            "size_bytes_min": self.size_bytes - self.open_bytes,
        }  # fmt: skip


@dataclass(slots=True)
class _Block:
    """What this process has reserved: `open_bytes` of the row are its, of which `left_bytes` are not used yet."""

    day: str
    open_bytes: int = 0
    left_bytes: int = 0


class EgressBook(Closing):
    """Safe for threads, and for several processes at one file."""

    def __init__(self, path: Path, *, block_bytes: int = _BLOCK_BYTES, today: Callable[[], str] | None = None) -> None:
        """`today` gives the UTC day as ISO text; a test has its own."""
        self.path = path
        self._block_bytes = block_bytes
        self._today = today or _utc_day
        self._mutex = threading.Lock()
        self._blocks: dict[str, _Block] = {}
        self._database = connect(path, synchronous="FULL")
        with broken(path):
            self._database.executescript(_SCHEMA)

    def count(self, place: str, size_bytes: int) -> None:
        """Call it before the bytes are asked for. Raises LedgerBroken when they cannot be counted: do not read them."""
        with self._mutex:
            day = self._today()
            block = self._blocks.get(place)
            if block is not None and block.day != day:
                self._give_back(place, block)
                block = None
            if block is None or block.left_bytes < size_bytes:
                block = self._blocks[place] = self._reserve(place, block or _Block(day), size_bytes)
            block.left_bytes -= size_bytes

    def settle(self) -> None:
        """Give back what is reserved and was not used, so that the counts are exact now."""
        with self._mutex:
            for place, block in list(self._blocks.items()):
                self._give_back(place, block)

    def days(self, place: str = "") -> list[EgressDay]:
        """All counts, or one place's, by day and place."""
        query = "select day, place, size_bytes, open_bytes from egress where ?1 = '' or place = ?1 order by day, place"
        with self._mutex, broken(self.path):
            return [EgressDay(*row) for row in self._database.execute(query, (place,)).fetchall()]

    def close(self) -> None:
        """Settle and close. Losing this loses no byte: the rest of a block stays counted."""
        try:
            self.settle()
        finally:
            self._database.close()

    def _reserve(self, place: str, block: _Block, size_bytes: int) -> _Block:
        """The block with room for `size_bytes`; what was used of it is no longer open."""
        more = max(self._block_bytes, size_bytes)
        used = block.open_bytes - block.left_bytes
        self._change(block.day, place, more, more - used)
        return _Block(block.day, block.left_bytes + more, block.left_bytes + more)

    def _give_back(self, place: str, block: _Block) -> None:
        self._change(block.day, place, -block.left_bytes, -block.open_bytes)
        del self._blocks[place]

    def _change(self, day: str, place: str, size_bytes: int, open_bytes: int) -> None:
        """Add to both counts; other processes may do so at the same moment."""
        with transaction(self._database, self.path) as database:
            database.execute(
                "insert into egress values(?,?,?,?) on conflict(day, place) do update set "
                "size_bytes = size_bytes + excluded.size_bytes, open_bytes = open_bytes + excluded.open_bytes",
                (day, place, size_bytes, open_bytes),
            )


def _utc_day() -> str:
    return datetime.now(UTC).date().isoformat()


def egress_book(workspace: Path) -> EgressBook:
    """The book of one migration's workspace."""
    return EgressBook(workspace / "egress.db")
