"""The history of a bucket: every version and delete marker, the oldest first, so that the target tells the same story.

Run it before `move_bucket`, which then finds the latest versions in its journal and copies none of them: a version that
arrived out of turn could never be put behind an older one again. Killed at any point, the next run goes on."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossload.engines.mover.buffers import BufferPool
from crossload.engines.mover.manifest import sync_folder
from crossload.engines.mover.options import AS_USUAL, NOBODY, CopyOptions, Watcher
from crossload.engines.mover.throttle import Throttle
from crossload.engines.mover.versions import Late, VersionCopier, same_content, sha256_of_version
from crossload.ledger.journal import Entry, Journal
from crossload.ledger.versions import Carried, VersionBook
from crossload.ports.errors import CrossloadError, PreconditionFailed, Refused
from crossload.ports.store import ObjectInfo, Store, VersionedStore, versioned

VERSIONS = "versions.jsonl"
_FATAL = ("ledger", "not-signed-in", "access-denied")
_EXAMPLES_MAX = 20


@dataclass(slots=True)
class HistoryReport:
    """`versions` and `markers` were written now, `known` was there already. `late` could not be put behind what the
    target holds already; `late_keys` are the first of them. A key in `failures` is carried up to where it failed."""

    keys: int = 0
    versions: int = 0
    markers: int = 0
    known: int = 0
    late: int = 0
    late_keys: list[str] = field(default_factory=list[str])
    sent_bytes: int = 0
    seconds: float = 0.0
    losses: dict[str, int] = field(default_factory=dict[str, int])
    failures: list[str] = field(default_factory=list[str])
    path: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "keys": self.keys, "versions_carried": self.versions, "delete_markers_carried": self.markers,
            "versions_known": self.known, "versions_too_late": self.late, "too_late": sorted(self.late_keys),
            "sent_bytes": self.sent_bytes, "seconds": round(self.seconds, 3),
            "losses": dict(sorted(self.losses.items())), "failures": sorted(self.failures),
        }  # fmt: skip


def carry_history(
    source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Journal, folder: Path,
    options: CopyOptions = AS_USUAL, watcher: Watcher = NOBODY, *, prefix: str = "", may_keep_versions: bool = False,
) -> HistoryReport:  # fmt: skip
    """Bring over all versions and delete markers that the target does not have yet, and write versions.jsonl (old name
    to new name, with size and sha256) into `folder`, beside the manifest.

    Raises Unsupported when a store cannot be asked for versions, Refused when the target's bucket keeps none and
    `may_keep_versions` does not allow to turn that on, and the first error that concerns more than one key."""
    started = time.monotonic()
    ends = (versioned(source), source_bucket, versioned(target), target_bucket)
    if not ends[2].keeps_versions(target_bucket):
        if not may_keep_versions:
            raise Refused(
                f"{target.place}: bucket {target_bucket} keeps no versions, so it cannot take a history",
                hint="turn versioning on there, or set `data.versions: latest`",
            )
        ends[2].keep_versions(target_bucket)
    report = HistoryReport()
    with VersionBook(folder) as book:
        for side, store, bucket in (("source", source, source_bucket), ("target", target, target_bucket)):
            book.list(side, (info for info in store.versions(bucket) if info.key.startswith(prefix)))
        _Histories(ends, journal, book, options, watcher, report).run()
        journal.barrier()
        report.path = write_versions(book, folder)
    report.seconds = time.monotonic() - started
    return report


def write_versions(book: VersionBook, folder: Path) -> Path:
    """versions.jsonl, whole or not at all: one line for each version that has arrived, by key, the oldest first."""
    path = folder / VERSIONS
    draft = path.with_suffix(".jsonl.new")
    with draft.open("w", encoding="utf-8", newline="\n") as out:
        for row in book.all():
            out.write(json.dumps(row.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n")
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
    sync_folder(folder)
    return path


def check_history(target: Store, bucket: str, folder: Path, *, prefix: str = "") -> dict[str, str]:
    """key -> what is wrong with its history at the target: a version of ours is gone, of another size, or out of turn.
    Bytes are not read; a digest of each was compared when it was written."""
    wrong: dict[str, str] = {}
    with VersionBook(folder) as book:
        listed = (info for info in versioned(target).versions(bucket) if info.key.startswith(prefix))
        book.list("target", listed)
        for key, rows in _by_key(book):
            there = {info.version: (place, info) for place, info in enumerate(book.listed("target", key))}
            last = -1
            for row in rows:
                if not row.target_version or not key.startswith(prefix):
                    continue  # a store that marks no deletes
                place, info = there.get(row.target_version, (-1, None))
                if info is None:
                    wrong[key] = f"version {row.target_version} is gone"
                elif info.size_bytes != row.size_bytes or info.is_delete_marker != row.is_marker:
                    wrong[key] = f"version {row.target_version} is not what was written"
                elif place < last:
                    wrong[key] = f"version {row.target_version} is out of turn"
                last = max(last, place)
    return wrong


def undo_history(target: Store, bucket: str, journal: Journal, folder: Path) -> int:
    """Remove every version and marker that we wrote, the newest first, also what a killed run wrote last; what others
    wrote stays. Safe to repeat. How many were removed. Run it before `remove_copy`."""
    store = versioned(target)
    removed = 0
    with VersionBook(folder) as book:
        unheard = [row for row in book.all(newest_first=True, sending=True) if row.state == "sending"]
        if unheard:  # at most one for each worker of each run that was killed
            keys = {row.key for row in unheard}
            book.list("target", (info for info in store.versions(bucket) if info.key in keys))
            for row in unheard:
                removed += _undo_unheard(store, bucket, book, row)
        for row in book.all(newest_first=True):
            if row.state == "found":
                continue
            if row.target_version:
                store.delete_version(bucket, row.key, row.target_version)
            book.put(_with(row, state="undone"))
            entry = journal.get(row.key)
            if entry is not None and entry.state == "done" and not row.is_marker and entry.sha256 == row.sha256:
                journal.put(entry.with_(state="gone"))
            removed += 1
        write_versions(book, folder)
    journal.barrier()
    return removed


def _undo_unheard(store: VersionedStore, bucket: str, book: VersionBook, row: Carried) -> bool:
    """What a killed run was about to write lies on top of ours, or nowhere. Whether it was there."""
    if row.upload:
        store.abort(bucket, row.key, row.upload)
    ours = {item.target_version for item in book.carried(row.key)}
    newest = next(iter(reversed(book.listed("target", row.key))), None)
    there = newest is not None and newest.version not in ours and newest.is_delete_marker == row.is_marker
    if there and newest is not None and not row.is_marker:
        there = newest.size_bytes == row.size_bytes and sha256_of_version(store, bucket, newest) == row.sha256
    if there and newest is not None:
        store.delete_version(bucket, row.key, newest.version)
    book.put(_with(row, state="undone"))
    return there


def _by_key(book: VersionBook) -> Iterator[tuple[str, list[Carried]]]:
    key, rows = "", list[Carried]()
    for row in book.all():
        if rows and row.key != key:
            yield key, rows
            rows = []
        key = row.key
        rows.append(row)
    if rows:
        yield key, rows


class _Histories:
    """All keys, several at a time, the versions of each one after the other."""

    def __init__(
        self, ends: tuple[VersionedStore, str, VersionedStore, str], journal: Journal, book: VersionBook,
        options: CopyOptions, watcher: Watcher, report: HistoryReport,
    ) -> None:  # fmt: skip
        self._source, self._source_bucket, self._target, self._target_bucket = ends
        self._journal, self._book, self._workers, self._report = journal, book, max(1, options.workers), report
        self._watcher = watcher
        self._throttle = Throttle(options.calendar)
        self._mutex = threading.Lock()
        self._copier = VersionCopier(
            *ends, options.part_size_bytes, BufferPool(options.buffer_bytes_max), self._sent, self._lost
        )

    def run(self) -> None:
        waiting: set[Future[None]] = set()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="history") as pool:
            try:
                for key in self._book.keys():
                    if len(waiting) >= 4 * self._workers:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        for item in done:
                            item.result()
                    waiting.add(pool.submit(self._carry, key))
                for item in waiting:
                    item.result()
            except BaseException:
                self._throttle.stop.set()
                for item in waiting:
                    item.cancel()
                raise

    def _sent(self, size_bytes: int) -> None:
        if not self._throttle.take(size_bytes):
            raise Refused("the copy was told to stop")
        with self._mutex:
            self._report.sent_bytes += size_bytes
        self._watcher.moved(0, size_bytes)

    def _lost(self, losses: list[str]) -> None:
        with self._mutex:
            for loss in losses:
                self._report.losses[loss] = self._report.losses.get(loss, 0) + 1

    def _carry(self, key: str) -> None:
        if self._throttle.stop.is_set():
            return
        with self._mutex:
            self._report.keys += 1
        try:
            self._carry_key(key)
        except CrossloadError as error:
            if error.code in _FATAL:
                raise
            hint = f" ({error.hint})" if error.hint else ""
            with self._mutex:
                self._report.failures.append(f"{key}: {error}{hint}")

    def _carry_key(self, key: str) -> None:
        events, there = _story(self._book.listed("source", key)), self._book.listed("target", key)
        known = {row.source_version: row for row in self._book.carried(key)}
        arrived = {row.target_version for row in known.values() if row.state != "sending" and row.target_version}
        strange = [info for info in there if info.version not in arrived]
        done = [place for place, event in enumerate(events) if _arrived(known.get(event.version))]
        begin = self._align(events, max(done, default=-1) + 1, strange, known)
        late = [event for event in events[:begin] if not _arrived(known.get(event.version))]
        newest = there[-1] if there else None
        etag = newest.etag if newest is not None and newest.is_latest and not newest.is_delete_marker else ""
        with self._mutex:
            self._report.known += begin - len(late)
            if late:
                self._report.late += len(late)
                if len(self._report.late_keys) < _EXAMPLES_MAX:
                    self._report.late_keys.append(key)
        place = max((row.place for row in known.values()), default=-1) + 1
        for event in events[begin:]:
            if self._throttle.stop.is_set():
                return
            if event.version in known:
                self._copier.forget(key, known[event.version].upload)
            etag = self._write(event, place, etag, latest=event is events[-1])
            place += 1

    def _align(self, events: list[ObjectInfo], begin: int, strange: list[ObjectInfo], known: dict[str, Carried]) -> int:
        """Where to go on. What the target holds and the book does not know must be the next of the source's versions in
        the same order: ours, from a run that was killed, or brought by a copy of the latest ones. Raises
        PreconditionFailed when others wrote there."""
        found: list[tuple[ObjectInfo, ObjectInfo]] = []
        for info in strange:
            while begin < len(events) and not same_content(self._copier, events[begin], info):
                begin += 1
            if begin == len(events):
                raise PreconditionFailed(
                    f"the target holds version {info.version} there, which is none of the source's",
                    hint="move it away, or choose another target bucket",
                )
            found.append((events[begin], info))
            begin += 1
        place = max((row.place for row in known.values()), default=-1) + 1
        for event, info in found:
            before = known.get(event.version)
            state = "done" if before is not None and before.state == "sending" else "found"
            sha256 = "" if event.is_delete_marker else self._copier.sha256_of(event)
            row = Carried(
                event.key, before.place if before else place, event.version, info.version, event.is_delete_marker,
                event.size_bytes, sha256, state,
            )  # fmt: skip
            place = max(place, row.place + 1)
            known[event.version] = row
            self._book.put(row)
            if event is events[-1]:
                trust = "found" if state == "found" else "stored"
                self._note_latest(event, info.etag, sha256, "", trust)
        return begin

    def _write(self, event: ObjectInfo, place: int, etag: str, *, latest: bool) -> str:
        """One version, or one marker. The etag that the target has now."""
        row = Carried(event.key, place, event.version, "", event.is_delete_marker, event.size_bytes, "", "sending")
        self._book.put(row)  # before it is sent: after a kill it is known as ours
        if event.is_delete_marker:
            self._book.put(_with(row, target_version=self._copier.mark(event.key), state="done"))
            before = self._journal.get(event.key) if latest else None
            if before is not None:
                self._journal.put(before.with_(state="gone", upload=""))
            with self._mutex:
                self._report.markers += 1
            return ""

        def announce(upload: str, sha256: str) -> None:
            self._book.put(_with(row, upload=upload, sha256=sha256))

        copied = self._copier.copy(event, etag, announce)
        self._book.put(_with(row, target_version=copied.info.version, sha256=copied.sha256, state="done"))
        if latest:
            self._note_latest(event, copied.info.etag, copied.sha256, copied.check, copied.trust)
        with self._mutex:
            self._report.versions += 1
        self._watcher.moved(1, 0)
        return copied.info.etag

    def _note_latest(self, event: ObjectInfo, etag: str, sha256: str, check: str, trust: str) -> None:
        """`move_bucket` compares what it lists with this, and finds nothing to do."""
        if event.is_delete_marker:
            return
        self._journal.put(
            Entry(
                event.key,
                event.size_bytes,
                event.etag,
                state="done",
                sha256=sha256,
                check_digest=check,
                target_etag=etag,
                trust=trust,
                modified_at=event.modified_at,
            )
        )


def _arrived(row: Carried | None) -> bool:
    return row is not None and row.state != "sending"


def _story(listed: list[ObjectInfo]) -> list[ObjectInfo]:
    """The versions of one key as events, the oldest first. Where the store marks no deletes, a key without a latest
    version was deleted at the end. Raises Late when the key changed while it was listed."""
    latest = [place for place, info in enumerate(listed) if info.is_latest]
    if latest not in ([], [len(listed) - 1]):
        raise Late(f"{listed[0].key} changed while its versions were listed", hint="run the same command again")
    if not latest and listed and not any(info.is_delete_marker for info in listed):
        last = listed[-1]
        gone = ObjectInfo(last.key, 0, "", f"deleted-after-{last.version}", last.modified_at, (), True, True)
        return [*listed, gone]
    return listed


def _with(row: Carried, **changes: Any) -> Carried:
    return Carried(**{name: changes.get(name, getattr(row, name)) for name in Carried.__slots__})
