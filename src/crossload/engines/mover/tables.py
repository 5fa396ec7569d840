"""An SQL table from one place to another: chunks of one snapshot, each shown equal, then one swap.

States of a move, in its journal: (none) -> loading -> built -> swapped; or found, when the target had an equal table
that we never made. Killed anywhere, the next try goes on: it reads the source again, since a snapshot dies with its
connection, and sends only the chunks that differ from what the target has."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossload.engines.mover.chunks_journal import ChunkEntry, ChunkJournal
from crossload.engines.mover.merkle import MerkleTree
from crossload.estate.digest import canonical_json, digest_of_json
from crossload.ports.errors import DigestMismatch, Refused
from crossload.ports.tables import Chunk, TableInfo, Tables, TableSnapshot

_ROWS_MIN, _ROWS_MAX, _ROWS_UNKNOWN = 1_000, 1_000_000, 50_000


@dataclass(frozen=True, slots=True)
class TableOptions:
    """`chunk_rows` is computed from `chunk_bytes` and the server's estimates unless it is given. `target_is_home`:
    users write at the target, so a table that differs there is theirs and is not replaced."""

    chunk_bytes: int = 64 * 2**20
    chunk_rows: int | None = None
    target_is_home: bool = False


@dataclass(frozen=True, slots=True)
class TableWatcher:
    """`moved(rows, size_bytes)` after every chunk; `say` for what a person should read."""

    start: Callable[[int], None] = lambda chunks: None
    moved: Callable[[int, int], None] = lambda rows, size_bytes: None
    say: Callable[[str], None] = lambda text: None


@dataclass(slots=True)
class TableReport:
    """What one try came to. `status`: moved | unchanged. Bytes are those of COPY. `left` names what stays behind."""

    name: str
    status: str = "moved"
    rows: int = 0
    size_bytes: int = 0
    chunks: int = 0
    chunks_sent: int = 0
    root: str = ""
    form: str = "binary"
    form_reason: str = ""
    by: str = "key"
    seconds: float = 0.0
    indexes: int = 0
    counters: dict[str, int | None] = field(default_factory=dict)
    references_missing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "table": self.name, "status": self.status, "rows": self.rows, "copy_bytes": self.size_bytes,
            "chunks": self.chunks, "chunks_sent": self.chunks_sent, "chunks_by": self.by,
            "chunks_merkle_root": self.root, "copy_form": self.form, "copy_form_reason": self.form_reason,
            "indexes_and_constraints": self.indexes,
            "counters": {name: "unknown" if v is None else v for name, v in sorted(self.counters.items())},
            "foreign_keys_missing": self.references_missing, "left_behind": self.left,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


class ChunkDigest:
    """The digest of a chunk, from whichever side its rows come.

    By key: SHA-256 of the rows' COPY bytes in key order. By blocks, where order means nothing: the sum of the rows'
    SHA-256 modulo 2^256, which adds up over chunks. (A sum is proof against accidents, not against somebody who can
    choose rows.)"""

    def __init__(self, by: str) -> None:
        self._whole = hashlib.sha256() if by == "key" else None
        self._sum = 0
        self.rows = 0
        self.size_bytes = 0

    def feed(self, row: bytes) -> None:
        self.rows += 1
        self.size_bytes += len(row)
        if self._whole is not None:
            self._whole.update(row)
        else:
            self._sum += int.from_bytes(hashlib.sha256(row).digest(), "big")

    def passing(self, rows: Iterator[bytes]) -> Iterator[bytes]:
        for row in rows:
            self.feed(row)
            yield row

    def hex(self) -> str:
        return self._whole.hexdigest() if self._whole is not None else f"{self._sum % 2**256:064x}"

    def entry(self, chunk: Chunk) -> ChunkEntry:
        return ChunkEntry(chunk, self.rows, self.size_bytes, self.hex())


def digest_chunk(chunk: Chunk, rows: Iterator[bytes]) -> ChunkEntry:
    digest = ChunkDigest(chunk.by)
    for row in rows:
        digest.feed(row)
    return digest.entry(chunk)


def root_of_chunks(entries: list[ChunkEntry], form: str) -> str:
    """Merkle root (RFC 6962) over one line of canonical JSON a chunk: its number, ends, rows and digest."""
    tree = MerkleTree()
    for entry in entries:
        chunk = entry.chunk
        line = {"number": chunk.number, "by": chunk.by, "after": chunk.after, "upto": chunk.upto,
                "rows": entry.rows, "form": form, "digest": entry.digest}  # fmt: skip
        tree.add(canonical_json(line))
    return tree.root().hex()


def choose_form(source: TableInfo, target_version: str) -> tuple[str, str]:
    """(binary or text, why it is text)."""
    if source.carries == "anywhere" or (source.carries == "same-version" and source.version == target_version):
        return "binary", ""
    reach = "between versions" if source.carries == "same-version" else "between databases"
    return "text", f"the binary form is not the same {reach}: {source.why}"


def choose_order(info: TableInfo, source: Tables, target: Tables) -> str:
    """key, when both sides sort it alike; else blocks."""
    if not info.primary_key or info.key_order == "nobody":
        return "blocks"
    if info.key_order == "bytewise" and not (source.bytewise() and target.bytewise()):
        return "blocks"
    return "key"


def rows_per_chunk(info: TableInfo, options: TableOptions) -> int:
    if options.chunk_rows:
        return options.chunk_rows
    if not info.rows_estimate or not info.size_bytes:
        return _ROWS_UNKNOWN
    row_bytes = max(1, info.size_bytes // info.rows_estimate)
    return min(max(options.chunk_bytes // row_bytes, _ROWS_MIN), _ROWS_MAX)


def move_table(
    source: Tables, target: Tables, name: str, journal: ChunkJournal, options: TableOptions | None = None,
    watcher: TableWatcher | None = None,
) -> TableReport:  # fmt: skip
    """Bring the table over, or go on where an earlier try was killed. Readers of the target see the old table or the
    whole new one. Raises DigestMismatch when the target gives back other rows than it was sent; nothing is swapped
    then."""
    options, watcher = options or TableOptions(), watcher or TableWatcher()
    began = time.monotonic()
    with source.snapshot(name) as snapshot:
        move = _Move(snapshot, source, target, journal, options, watcher)
        arrived = move.load()
    report = move.finish() if arrived else move.report("unchanged")  # without holding the source's old rows any longer
    report.seconds = time.monotonic() - began
    return report


class _Move:
    def __init__(
        self, snapshot: TableSnapshot, source: Tables, target: Tables, journal: ChunkJournal, options: TableOptions,
        watcher: TableWatcher,
    ) -> None:  # fmt: skip
        self._snapshot, self._target, self._journal = snapshot, target, journal
        self._options, self._watcher = options, watcher
        self._info = snapshot.info
        self._form, self._reason = choose_form(self._info, target.version())
        self._by = choose_order(self._info, source, target)
        self._sent = 0

    def load(self) -> bool:
        """Fill the staging table. False when the target's table is equal already."""
        info, journal = self._info, self._journal
        live = self._target.mark(info.name)
        ours = live != "" and live in (journal.fact("mark"), journal.fact("earlier"))
        if ours and live == journal.fact("mark"):
            journal.note(state="swapped")  # it may have been killed between the swap and this line
        self._agree_on_chunks()
        if live and journal.fact("state") not in ("loading", "built") and self._equal():
            if not ours:
                journal.note(state="found")
            return False
        if live and self._options.target_is_home:
            raise Refused(f"users write to {info.name} at the target: it is not replaced by the source's")
        journal.note(state="loading", earlier=live if ours else None)
        self._fill()
        return True

    def finish(self) -> TableReport:
        info, journal, target = self._info, self._journal, self._target
        target.build(info, journal.owner)
        journal.note(state="built")
        target.swap(info, journal.owner, str(journal.fact("earlier") or ""))
        journal.note(state="swapped")
        return self.report("moved", target.bind(info.name, [i for i in info.definitions if i.kind == "reference"]))

    def _agree_on_chunks(self) -> None:
        """Chunks of an earlier try are kept while the table has the shape it had."""
        terms = {"shape": digest_of_json(self._info.shape()).hex, "form": self._form, "by": self._by}
        if self._journal.fact("terms") == terms and self._journal.entries():
            return
        if self._journal.fact("terms") is not None:
            self._watcher.say(f"{self._info.name} has changed its columns or its way of travel: starting again")
        if self._journal.fact("state") not in ("swapped", "found"):
            self._target.discard(self._journal.owner)
        self._replan()
        self._journal.note(terms=terms)

    def _replan(self) -> None:
        self._journal.plan(self._snapshot.chunks(self._by, rows_per_chunk(self._info, self._options)))

    def _equal(self) -> bool:
        """Compare the target's table of this name with the source's, chunk by chunk, up to the first difference."""
        found: list[ChunkEntry] = []
        with self._target.snapshot(self._info.name) as there:
            key = self._by == "blocks" or there.info.primary_key == self._info.primary_key
            if not key or _values(there.info) != _values(self._info):
                return False
            for entry in self._journal.entries():
                here = digest_chunk(entry.chunk, self._snapshot.read(entry.chunk, self._form))
                if self._by == "key" and here != digest_chunk(entry.chunk, there.read(entry.chunk, self._form)):
                    return False
                found.append(here)
            if self._by == "blocks":
                whole = digest_chunk(Chunk(0, "blocks"), there.read(Chunk(0, "blocks"), self._form))
                if (whole.rows, whole.digest) != _added(found):
                    return False
        for entry in found:
            self._journal.done(entry)
        return True

    def _fill(self) -> None:
        journal, info = self._journal, self._info
        staging = self._target.stage(info, journal.owner, self._by)
        if staging.mark != journal.fact("mark"):
            journal.forget_digests()
            journal.note(mark=staging.mark, state="loading")
        if self._by == "blocks" and not self._may_go_on(staging.loaded):
            self._target.discard(journal.owner)
            self._replan()
            staging = self._target.stage(info, journal.owner, self._by)
            journal.note(mark=staging.mark)
        entries = journal.entries()
        self._watcher.start(len(entries))
        for entry in entries:
            done = self._kept(entry) if entry.digest else None
            if done is None:
                done = self._send(entry.chunk)
                self._sent += 1
            journal.done(done)
            self._watcher.moved(done.rows, done.size_bytes)
        if self._by == "blocks" and self._sent < len(entries):
            self._whole_again()

    def _may_go_on(self, loaded: int) -> bool:
        """By blocks, one changed chunk means a new start: its rows cannot be told from others at the target."""
        entries = self._journal.entries()
        if any(entry.digest for entry in entries[loaded:]):
            return False  # the target has lost what the journal knows
        for entry in entries[:loaded]:
            here = digest_chunk(entry.chunk, self._snapshot.read(entry.chunk, self._form))
            if entry.digest and here != entry:
                return False
            self._journal.done(here)  # one was loaded and not noted; `_whole_again` looks at all of them together
        return True

    def _kept(self, entry: ChunkEntry) -> ChunkEntry | None:
        """The chunk, when source and staging table both still have it as the journal says."""
        if self._by == "blocks":
            return entry  # `_may_go_on` has looked
        here = digest_chunk(entry.chunk, self._snapshot.read(entry.chunk, self._form))
        if here != entry:
            return None
        there = digest_chunk(entry.chunk, self._target.staged(self._info, self._journal.owner, entry.chunk, self._form))
        return here if there == here else None

    def _send(self, chunk: Chunk) -> ChunkEntry:
        digest = ChunkDigest(chunk.by)
        rows = digest.passing(self._snapshot.read(chunk, self._form))

        def check(back: Iterator[bytes]) -> None:
            sent, arrived = digest.entry(chunk), digest_chunk(chunk, back)
            if arrived != sent:
                raise DigestMismatch(
                    f"{self._info.name}, chunk {chunk.number}: sent {sent.rows} rows ({sent.digest[:12]}),"
                    f" read back {arrived.rows} ({arrived.digest[:12]})",
                    hint="a trigger, a rule or another version's type may change values as they arrive",
                )

        self._target.load(self._info, self._journal.owner, chunk, self._form, rows, check)
        return digest.entry(chunk)

    def _whole_again(self) -> None:
        """Chunks by blocks that an earlier try loaded are shown equal together: their digests add up."""
        whole = Chunk(0, "blocks")
        found = digest_chunk(whole, self._target.staged(self._info, self._journal.owner, whole, self._form))
        wanted = _added(self._journal.entries())
        if (found.rows, found.digest) != wanted:
            self._target.discard(self._journal.owner)
            raise DigestMismatch(
                f"{self._info.name}: {found.rows} rows at the target are not the {wanted[0]} sent",
                hint="the source was written to while a try was killed; the next try starts again",
            )

    def report(self, status: str, missing: Sequence[str] = ()) -> TableReport:
        entries = self._journal.entries()
        root = root_of_chunks(entries, self._form)
        self._journal.note(root=root)
        return TableReport(
            self._info.name, status, sum(e.rows for e in entries), sum(e.size_bytes for e in entries), len(entries),
            self._sent, root, self._form, self._reason, self._by,
            indexes=sum(1 for item in self._info.definitions if item.kind != "reference"),
            counters={counter.name: counter.value for counter in self._info.counters},
            references_missing=list(missing), left=list(self._info.left),
        )  # fmt: skip


def _values(info: TableInfo) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in info.sent]


def _added(entries: list[ChunkEntry]) -> tuple[int, str]:
    total = sum(int(entry.digest or "0", 16) for entry in entries) % 2**256
    return sum(entry.rows for entry in entries), f"{total:064x}"


def prove_table(target: Tables, name: str, journal: ChunkJournal) -> dict[str, Any]:
    """Read the target's table again, from one snapshot, and compare with the journal. JSON-shaped; `wrong` lists the
    numbers of chunks that differ (all of them as one, where chunks are by blocks)."""
    entries = journal.entries()
    terms = journal.fact("terms") or {}
    form, by = terms.get("form", "binary"), terms.get("by", "key")
    wrong: list[int] = []
    rows = 0
    with target.snapshot(name) as there:
        if by == "blocks":
            whole = digest_chunk(Chunk(0, "blocks"), there.read(Chunk(0, "blocks"), form))
            rows = whole.rows
            wrong = [] if (whole.rows, whole.digest) == _added(entries) else [0]
        else:
            for entry in entries:
                found = digest_chunk(entry.chunk, there.read(entry.chunk, form))
                rows += found.rows
                if found != entry:
                    wrong.append(entry.chunk.number)
    root = root_of_chunks(entries, form)
    return {
        "table": name, "rows": rows, "chunks": len(entries), "chunks_by": by, "chunks_merkle_root": root,
        "root_as_recorded": root == journal.fact("root"), "wrong": wrong,
        "ours": target.mark(name) == journal.fact("mark"),
    }  # fmt: skip


def undo_table(target: Tables, name: str, journal: ChunkJournal) -> str:
    """Drop what we made and give the name back to the table that had it. A table that users have changed since, or
    that we did not make, stays. Returns what was done, in words."""
    target.discard(journal.owner)
    state, mark, live = journal.fact("state"), str(journal.fact("mark") or ""), target.mark(name)
    if state == "loading" and live and live == journal.fact("earlier"):
        return f"kept {name}: a second move of it did not come to its end; let it, or drop the table by hand"
    if state == "found" or not live or live != mark:
        return f"left {name}: the table of that name is not ours" if live else f"nothing of {name} is there"
    if prove_table(target, name, journal)["wrong"]:
        return f"kept {name}: its rows were changed after the move"
    if not target.restore(name, journal.owner, mark):
        return f"left {name}: the table of that name is not ours"
    journal.clear()
    return f"dropped {name}" + (", and the one before has its name again" if target.mark(name) else "")


def settle_table(target: Tables, journal: ChunkJournal) -> None:
    """The move is final: what the swap kept aside is dropped."""
    target.settle(journal.owner)
