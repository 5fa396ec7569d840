"""Shards and what came of them, as small objects in the target bucket under `.crossload/shards/MOVE/RUN/`.

They go that way because a fleet's server must not see them: it keeps the history of every move, in messages of at most
2 MB. Each shard has up to three: `todo`, what the coordinator wants; `part`, what a worker has done so far, for the one
that takes over; `done`, the result, for the journal. The coordinator removes them."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from crossload.engines.mover.carrying import ShardReport
from crossload.estate.digest import Digest
from crossload.ledger.comparison import Todo
from crossload.ledger.journal import NAMES, Entry
from crossload.ports.errors import Invalid, NotFound
from crossload.ports.store import ObjectInfo, ObjectMeta, Store

FOLDER = ".crossload/shards"  # what lies below `.crossload/` is nobody's data
TODO, PART, DONE = "todo", "part", "done"
_META = ObjectMeta(content_type="application/octet-stream")
_VALUES = attrgetter(*NAMES)


@dataclass(frozen=True, slots=True)
class Slip:
    """One object of a spool."""

    run: str
    number: int
    kind: str


class Spool:
    """The spool of one move. Safe for any number of threads, as its store is."""

    def __init__(self, store: Store, bucket: str, move: str, folder: str = FOLDER) -> None:
        self._store, self._bucket = store, bucket
        self._folder = f"{folder}/{move}"

    def slips(self, run: str = "") -> Iterator[Slip]:
        """All there are, of one run or of all."""
        for info in self._store.list(self._bucket, f"{self._folder}/{run}{'/' if run else ''}"):
            of_run, _, name = info.key.removeprefix(f"{self._folder}/").partition("/")
            number, _, kind = name.partition(".")
            if number.isdecimal() and kind in (TODO, PART, DONE):
                yield Slip(of_run, int(number), kind)

    def put(self, slip: Slip, value: Any) -> None:
        data = zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)
        self._store.write(self._bucket, self._key(slip), data, _META)

    def get(self, slip: Slip) -> Any:
        """None when there is none."""
        try:
            return json.loads(zlib.decompress(self._store.read(self._bucket, self._key(slip))))
        except NotFound:
            return None
        except (ValueError, zlib.error) as error:
            raise Invalid(
                f"{self._store.uri(self._bucket, self._key(slip))} is damaged", hint="remove it, and run again"
            ) from error

    def drop(self, run: str, number: int) -> None:
        """The result last: without it a shard that is begun again would not know that it is done."""
        for kind in (TODO, PART, DONE):
            self._store.delete(self._bucket, self._key(Slip(run, number, kind)))

    def _key(self, slip: Slip) -> str:
        return f"{self._folder}/{slip.run}/{slip.number:08d}.{slip.kind}"


class Notebook:
    """What is noted of one shard on a machine without the journal: kept here, and in the spool when it is saved."""

    def __init__(self, spool: Spool, slip: Slip, entries: Iterable[Entry] = ()) -> None:
        self._spool, self._slip = spool, slip
        self._mutex = threading.Lock()
        self._saving = threading.Lock()
        self._entries = {entry.key: entry for entry in entries}
        self._changed = 0

    def put(self, entry: Entry) -> None:
        with self._mutex:
            self._entries[entry.key] = entry
            self._changed += 1

    def barrier(self) -> None:
        """An upload that nobody heard of could not be gone on with, nor aborted."""
        with self._saving:
            with self._mutex:
                changed, self._changed = self._changed, 0
                entries = list(self._entries.values())
            if changed:
                self._spool.put(self._slip, entries_out(entries))

    def entries(self) -> list[Entry]:
        with self._mutex:
            return list(self._entries.values())


def entries_out(entries: Iterable[Entry]) -> list[list[Any]]:
    return [list(_VALUES(entry)) for entry in entries]


def entries_in(rows: Iterable[Iterable[Any]]) -> list[Entry]:
    return [Entry(*row) for row in rows]


def todo_out(rows: Iterable[Todo]) -> list[list[Any]]:
    return [[list(_VALUES(row.entry)), _there_out(row.there), row.interrupted] for row in rows]


def todo_in(rows: Iterable[Any]) -> list[Todo]:
    return [Todo(Entry(*entry), _there_in(there), interrupted) for entry, there, interrupted in rows]


def _there_out(info: ObjectInfo | None) -> list[Any] | None:
    return info and [info.key, info.size_bytes, info.etag, info.modified_at, [str(one) for one in info.digests]]


def _there_in(row: Any) -> ObjectInfo | None:
    if row is None:
        return None
    key, size_bytes, etag, modified_at, digests = row
    return ObjectInfo(key, size_bytes, etag, "", modified_at, tuple(map(Digest.parse, digests)))


def left_to_do(rows: list[Todo], before: dict[str, Entry]) -> list[Todo]:
    """Without what an earlier worker finished, and with the uploads that it had open."""
    left: list[Todo] = []
    for row in rows:
        known = before.get(row.entry.key)
        if known is None or known.source_etag != row.entry.source_etag:
            left.append(row)
        elif known.state != "done":
            left.append(replace(row, entry=known, interrupted=known.state == "sending"))
    return left


def result_out(entries: list[Entry], report: ShardReport) -> dict[str, Any]:
    return {"entries": entries_out(entries), "report": report.to_json()}
