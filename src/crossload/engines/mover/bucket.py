"""One pass over one bucket: what differs is copied, what vanished is removed, and the journal knows the rest.

A first pass is the snapshot; every later one is a delta. Killed at any point, the next pass goes on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from crossload.engines.mover.copying import Copier, SourceChanged
from crossload.engines.mover.digests import is_ours
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import CrossloadError, NotFound, PreconditionFailed, Refused
from crossload.ports.store import ObjectInfo, Store

_MASS_DELETE_SHARE = 0.01
_TRIES_PER_OBJECT = 3
_LEAVE_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class CopyOptions:
    part_size_bytes: int = 16 * 2**20
    workers: int = 8
    bandwidth_bytes_per_second: float | None = None
    allow_mass_delete: bool = False
    target_is_home: bool = False  # users write there now: what they changed or removed is theirs, and stays so


@dataclass(frozen=True, slots=True)
class Watcher:
    """Callbacks for live talk; all may be called from any thread."""

    start: Callable[[int, int], None] = lambda objects, size_bytes: None
    moved: Callable[[int, int], None] = lambda objects, size_bytes: None
    say: Callable[[str], None] = lambda text: None


@dataclass(slots=True)
class PassReport:
    """What one pass came to. Bytes are payload bytes; `resent_bytes` counts bytes an earlier, killed pass may have
    sent already and this one sent again (an upper bound: at most one object or part per worker)."""

    listed: int = 0
    copied: int = 0
    recognised: int = 0
    removed: int = 0
    kept: int = 0
    changed_during_copy: int = 0
    sent_bytes: int = 0
    resent_bytes: int = 0
    seconds: float = 0.0
    losses: dict[str, int] = field(default_factory=dict)
    hot: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing differed: this delta found source and target equal."""
        return not (
            self.copied or self.recognised or self.removed or self.hot or self.failures or self.changed_during_copy
        )

    def to_json(self) -> dict[str, Any]:
        rate = self.copied / self.seconds if self.seconds and self.copied else None
        return {
            "objects_listed": self.listed, "objects_copied": self.copied, "objects_recognised": self.recognised,
            "objects_removed": self.removed, "objects_unchanged": self.kept,
            "changed_during_copy": self.changed_during_copy, "sent_bytes": self.sent_bytes,
            "resent_bytes": self.resent_bytes, "seconds": round(self.seconds, 3),
            "objects_per_second": round(rate, 1) if rate else "unknown", "losses": dict(sorted(self.losses.items())),
            "hot": sorted(self.hot), "failures": sorted(self.failures),
        }  # fmt: skip


class Throttle:
    """A byte budget shared by all workers; takes what it can and sleeps for the rest."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self._rate = bytes_per_second
        self._mutex = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, size_bytes: int) -> None:
        if not self._rate:
            return
        with self._mutex:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size_bytes / self._rate
            wait = self._free_at - now
        if wait > 0:
            time.sleep(wait)


def move_bucket(
    source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Journal,
    options: CopyOptions = CopyOptions(), watcher: Watcher = Watcher(), prefix: str = "",
) -> PassReport:  # fmt: skip
    """Make the target bucket hold what the source bucket lists now. Idempotent; safe to kill and run again.

    Raises Refused for a delete of more than 1 % of the keys without `allow_mass_delete`, and the first store error
    that outlasted its retries after all workers have stopped; single objects that failed are in the report."""
    started = time.monotonic()
    report = PassReport()
    known = {entry.key: entry for entry in journal.entries()}
    resuming = {key for key, entry in known.items() if entry.state == "sending"}
    there = {info.key: info for info in target.list(target_bucket, prefix)}
    todo, gone = _differences(source, source_bucket, prefix, known, there, report, home=options.target_is_home)
    gone += _left_behind(target, target_bucket, prefix, journal, known, there, todo)
    _guard_mass_delete(gone, known, options)
    watcher.start(len(todo), sum(entry.size_bytes for entry in todo))
    _Workers(source, source_bucket, target, target_bucket, journal, options, watcher, report, resuming, there).run(todo)
    _remove(gone, target, target_bucket, journal, report)
    journal.count("sent_bytes", report.sent_bytes)
    journal.count("resent_bytes", report.resent_bytes)
    journal.count("passes", 1)
    journal.barrier()
    report.seconds = time.monotonic() - started
    return report


def _differences(
    source: Store, bucket: str, prefix: str, known: dict[str, Entry], there: dict[str, ObjectInfo], report: PassReport,
    *, home: bool,
) -> tuple[list[Entry], list[Entry]]:  # fmt: skip
    """Objects to bring over, and objects we brought that the source no longer has. Truth is the listing of both
    sides, compared with what the journal says we did."""
    # By key: a listing that broke off and began again may give one object twice, and two workers must not copy it.
    listed = {info.key: info for info in source.list(bucket, prefix)}
    todo: list[Entry] = []
    for key, info in listed.items():
        report.listed += 1
        before = known.get(key)
        at_target = there.get(key)
        if (
            before is not None and before.state == "done" and before.source_etag == info.etag
            and (home or (at_target is not None and at_target.etag == before.target_etag))
        ):  # fmt: skip
            report.kept += 1
            continue
        fresh = Entry(key, info.size_bytes, info.etag, modified_at=info.modified_at)
        if before is not None:
            same = before.source_etag == info.etag
            fresh = fresh.with_(
                state="sending" if before.state == "sending" and same else "pending",
                upload=before.upload if same else "", target_etag=before.target_etag, sha256=before.sha256,
                check_digest=before.check_digest, changed_during_copy=before.changed_during_copy,
            )  # fmt: skip
        todo.append(fresh)
    gone = [e for e in known.values() if e.state == "done" and e.key.startswith(prefix) and e.key not in listed]
    if home:
        gone = []  # a source that is cleared away after the cutover must not empty its users' new home
    todo.sort(key=lambda entry: -entry.size_bytes)  # the longest first, so that none is left alone at the end
    return todo, gone


def _left_behind(
    target: Store, bucket: str, prefix: str, journal: Journal, known: dict[str, Entry], there: dict[str, ObjectInfo],
    todo: list[Entry],
) -> list[Entry]:  # fmt: skip
    """What copies that were cut short left at the target. Uploads that nobody goes on with are aborted here; objects
    that had become visible, though the source has lost them since, are returned, to be removed like any other."""
    wanted = {entry.key for entry in todo}
    resumed = {entry.upload for entry in todo}
    visible: list[Entry] = []
    for entry in [entry for state in ("sending", "pending") for entry in known.values() if entry.state == state]:
        if not entry.key.startswith(prefix):
            continue
        if entry.upload and entry.upload not in resumed:
            target.abort(bucket, entry.key, entry.upload)
        if entry.key in wanted:
            continue
        info = there.get(entry.key)
        if info is not None and is_ours(target, bucket, entry, info):
            visible.append(entry.with_(upload="", target_etag=info.etag))
        else:
            journal.put(entry.with_(state="gone", upload=""))
    return visible


def _remove(gone: list[Entry], target: Store, bucket: str, journal: Journal, report: PassReport) -> None:
    for entry in gone:
        try:
            target.delete(bucket, entry.key, if_match=entry.target_etag)
        except PreconditionFailed:
            report.failures.append(f"{entry.key}: gone at the source, but changed at the target since we wrote it")
            continue
        journal.put(entry.with_(state="gone"))
        report.removed += 1


def _guard_mass_delete(gone: list[Entry], known: dict[str, Entry], options: CopyOptions) -> None:
    done = sum(entry.state == "done" for entry in known.values())
    if len(gone) > max(1.0, done * _MASS_DELETE_SHARE) and not options.allow_mass_delete:
        raise Refused(
            f"the source lost {len(gone)} of {done} objects; removing them at the target too needs your word",
            hint="set data.allow_mass_delete: true in the migration file if this is meant",
        )


class _Workers:
    """Threads that take objects from one queue; the first fatal error stops them all after their current object."""

    def __init__(
        self, source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Journal,
        options: CopyOptions, watcher: Watcher, report: PassReport, resuming: set[str],
        there: dict[str, ObjectInfo],
    ) -> None:  # fmt: skip
        self._source, self._source_bucket = source, source_bucket
        self._target, self._target_bucket = target, target_bucket
        self._journal, self._options, self._watcher = journal, options, watcher
        self._report, self._resuming, self._there = report, resuming, there
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._fatal: BaseException | None = None
        self._throttle = Throttle(options.bandwidth_bytes_per_second)

    def run(self, todo: list[Entry]) -> None:
        work: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        for entry in todo:
            work.put(entry)
        count = max(1, min(self._options.workers, len(todo)))
        threads = [
            threading.Thread(target=self._work, args=(work,), name=f"mover-{n}", daemon=True) for n in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # short waits, so that Ctrl-C is heard
        except KeyboardInterrupt:
            self._stop.set()
            until = time.monotonic() + _LEAVE_SECONDS_MAX  # for all of them: one may be waiting for a store
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            self._journal.barrier()
            raise
        if self._fatal is not None:
            self._journal.barrier()
            raise self._fatal

    def _work(self, work: queue.SimpleQueue[Entry]) -> None:
        while not self._stop.is_set():
            try:
                entry = work.get_nowait()
            except queue.Empty:
                return
            try:
                self._move(entry)
            except CrossloadError as error:
                if error.code in ("ledger", "not-signed-in", "access-denied") or error.retryable:
                    self._give_up(error)
                    return
                with self._mutex:
                    self._report.failures.append(f"{entry.key}: {error}")
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, never swallowed
                self._give_up(error)
                return

    def _give_up(self, error: BaseException) -> None:
        with self._mutex:
            self._fatal = self._fatal or error
        self._stop.set()

    def _move(self, entry: Entry) -> None:
        resent = 0
        recognised = True
        interrupted = entry.key in self._resuming

        def sent(size_bytes: int) -> None:
            nonlocal resent, recognised
            recognised = False
            self._throttle.take(size_bytes)
            if interrupted and not resent:
                resent = min(size_bytes, self._options.part_size_bytes)
            with self._mutex:
                self._report.sent_bytes += size_bytes
            self._watcher.moved(0, size_bytes)

        copier = Copier(
            self._source, self._source_bucket, self._target, self._target_bucket, self._journal,
            self._options.part_size_bytes, sent,
        )  # fmt: skip
        for _ in range(_TRIES_PER_OBJECT):
            try:
                finished = copier.copy(entry, self._there.get(entry.key))
                break
            except SourceChanged:
                again = self._listed_again(entry)
                if again is None:
                    return
                entry = again
        else:
            with self._mutex:
                self._report.hot.append(entry.key)
            self._journal.put(entry.with_(state="pending"))
            return
        self._journal.put(finished)
        with self._mutex:
            self._report.resent_bytes += resent
            if recognised:
                self._report.recognised += 1
            else:
                self._report.copied += 1
            if finished.losses:
                self._report.losses[finished.losses] = self._report.losses.get(finished.losses, 0) + 1
        self._watcher.moved(1, 0)

    def _listed_again(self, entry: Entry) -> Entry | None:
        """The entry for what the source holds now; None when it holds nothing at that key any more."""
        with self._mutex:
            self._report.changed_during_copy += 1
        if entry.upload:
            self._target.abort(self._target_bucket, entry.key, entry.upload)
        try:
            info, _ = self._source.head(self._source_bucket, entry.key)
        except NotFound:
            return None
        try:
            self._there[entry.key] = self._target.head(self._target_bucket, entry.key)[0]
        except NotFound:
            self._there.pop(entry.key, None)
        return entry.with_(
            source_etag=info.etag, size_bytes=info.size_bytes, state="pending", upload="",
            changed_during_copy=entry.changed_during_copy + 1,
        )  # fmt: skip


def older_versions(store: Store, bucket: str) -> tuple[int, int] | None:
    """(older versions, delete markers) of a bucket; None when the store keeps none or may not say."""
    try:
        older = markers = 0
        for info in store.versions(bucket):
            if info.is_delete_marker:
                markers += 1
            elif not info.is_latest:
                older += 1
        return older, markers
    except CrossloadError:
        return None
