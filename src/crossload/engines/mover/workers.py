"""Threads that carry objects: they take from one queue, small objects whole, large ones part by part."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from crossload.engines.mover.buffers import BufferPool
from crossload.engines.mover.copying import Copier, Notes, SourceChanged, Upload
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.engines.mover.parts import PartedCopy, PartJob
from crossload.engines.mover.quiet import seldom_collected
from crossload.engines.mover.throttle import Throttle
from crossload.ledger.comparison import Todo
from crossload.ledger.journal import Entry
from crossload.ports.errors import CrossloadError, NotFound
from crossload.ports.store import ObjectInfo, Store

_TRIES_PER_OBJECT = 3
_LEAVE_SECONDS_MAX = 5.0
_FATAL = ("ledger", "not-signed-in", "access-denied")


class Counts(Protocol):
    """What the workers count; a PassReport is one."""

    copied: int
    recognised: int
    changed_during_copy: int
    sent_bytes: int
    resent_bytes: int
    losses: dict[str, int]
    hot: list[str]
    failures: list[str]


class Listed(Protocol):
    """What is to do, page by page: a Comparison, or one shard of it."""

    def todo(self, after: int) -> list[tuple[int, Todo]]: ...


class _Stopped(Exception):
    """A worker that waited for its turn on the link was told to end."""


class _Carry:
    """One object on its way: how often it was tried, and what it sent."""

    def __init__(self, workers: Workers, todo: Todo, entry: Entry, there: ObjectInfo | None, tries: int) -> None:
        self._workers = workers
        self.todo, self.entry, self.there, self.tries = todo, entry, there, tries
        self.sent_bytes = 0
        self.sent_any = False

    def sent(self, size_bytes: int) -> None:
        self.sent_any = True
        self.sent_bytes += size_bytes  # parts of one object add up here from several threads
        self._workers.sent(size_bytes)


@dataclass(frozen=True, slots=True)
class _PartOf:
    carry: _Carry
    parted: PartedCopy
    job: PartJob


class _Feed:
    """Hands out work: parts of objects that are open, then the next object. Ends when nothing can come any more."""

    def __init__(self, comparison: Listed) -> None:
        self._comparison = comparison
        self._page: deque[Todo] = deque()
        self._after = 0
        self._open: deque[tuple[_Carry, PartedCopy]] = deque()
        self._busy = 0  # objects that are being begun: parts may come of them
        self._some = threading.Condition()
        self._stopped = False

    def next(self) -> Todo | _PartOf | None:
        with self._some:
            while not self._stopped:
                while self._open:
                    carry, parted = self._open[0]
                    job = parted.next()
                    if job is not None:
                        return _PartOf(carry, parted, job)
                    self._open.popleft()
                todo = self._next_todo()
                if todo is not None:
                    self._busy += 1
                    return todo
                if not self._busy:
                    break
                self._some.wait()
            self._some.notify_all()
            return None

    def begun(self, carry: _Carry | None = None, parted: PartedCopy | None = None) -> None:
        """One object less is being begun; its parts, if it has any, are open."""
        with self._some:
            self._busy -= 1
            if carry is not None and parted is not None:
                self._open.append((carry, parted))
            self._some.notify_all()

    def again(self) -> None:
        """One object is being begun anew."""
        with self._some:
            self._busy += 1

    def stop(self) -> None:
        with self._some:
            self._stopped = True
            self._some.notify_all()

    def _next_todo(self) -> Todo | None:
        if not self._page:
            page = self._comparison.todo(self._after)
            if page:
                self._after = page[-1][0]
                self._page.extend(todo for _, todo in page)
        return self._page.popleft() if self._page else None


class Workers:
    """The first fatal error stops them all after their current object or part."""

    def __init__(
        self, source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Notes,
        options: CopyOptions, watcher: Watcher, report: Counts,
    ) -> None:  # fmt: skip
        self._source, self._source_bucket = source, source_bucket
        self._target, self._target_bucket = target, target_bucket
        self._journal, self._options, self._watcher, self._report = journal, options, watcher, report
        self._mutex = threading.Lock()
        self._fatal: BaseException | None = None
        self._throttle = Throttle(options.calendar)
        self._copier = Copier(
            source, source_bucket, target, target_bucket, journal, options.part_size_bytes,
            BufferPool(options.buffer_bytes_max),
        )  # fmt: skip

    def run(self, comparison: Listed) -> None:
        """Carry everything there is to do. Raises the first fatal error once all threads have stopped."""
        with seldom_collected():
            self._run(comparison)

    def _run(self, comparison: Listed) -> None:
        feed = _Feed(comparison)
        count = max(1, self._options.workers)
        threads = [
            threading.Thread(target=self._work, args=(feed,), name=f"mover-{n}", daemon=True) for n in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # short waits, so that Ctrl-C is heard
        except KeyboardInterrupt:
            self._end(feed)
            until = time.monotonic() + _LEAVE_SECONDS_MAX  # for all of them: one may be waiting for a store
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            self._journal.barrier()
            raise
        if self._fatal is not None:
            self._journal.barrier()
            raise self._fatal

    def sent(self, size_bytes: int) -> None:
        if not self._throttle.take(size_bytes):
            raise _Stopped
        with self._mutex:
            self._report.sent_bytes += size_bytes
        self._watcher.moved(0, size_bytes)

    def _work(self, feed: _Feed) -> None:
        try:
            while (task := feed.next()) is not None:
                if isinstance(task, _PartOf):
                    if task.parted.run(task.job):
                        feed.again()
                        self._finish(feed, task.carry, task.parted)
                else:
                    self._begin(feed, _Carry(self, task, task.entry, task.there, 1))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, never swallowed
            with self._mutex:
                self._fatal = self._fatal or error
            self._end(feed)

    def _end(self, feed: _Feed) -> None:
        self._throttle.stop.set()
        feed.stop()

    def _begin(self, feed: _Feed, carry: _Carry) -> None:
        """Carry one object, or open it for all workers to carry its parts; again when it changed meanwhile."""
        found: Entry | Upload | None = None
        again: _Carry | None = carry
        while again is not None:
            carry, again = again, None
            try:
                found = self._copier.begin(carry.entry, carry.there, carry.sent)
            except SourceChanged:
                again = self._listed_again(carry)
            except CrossloadError as error:
                self._refused(carry, error)
        if isinstance(found, Upload):
            feed.begun(carry, PartedCopy(self._copier, found, carry.sent))
            return
        if found is not None:
            self._arrived(carry, found)
        feed.begun()

    def _finish(self, feed: _Feed, carry: _Carry, parted: PartedCopy) -> None:
        try:
            self._arrived(carry, parted.finish())
        except SourceChanged:
            carry.entry = parted.entry
            again = self._listed_again(carry)
            if again is not None:
                self._begin(feed, again)
                return
        except CrossloadError as error:
            self._refused(carry, error)
        feed.begun()

    def _refused(self, carry: _Carry, error: CrossloadError) -> None:
        """A single object's failure is written down; one that would meet every object ends the pass."""
        if error.code in _FATAL or error.retryable:
            raise error
        with self._mutex:
            self._report.failures.append(f"{carry.entry.key}: {error}")

    def _arrived(self, carry: _Carry, finished: Entry) -> None:
        self._journal.put(finished)
        with self._mutex:
            report = self._report
            if carry.sent_any:
                report.copied += 1
            else:
                report.recognised += 1
            if carry.todo.interrupted and carry.sent_bytes:
                most = self._options.workers * self._options.part_size_bytes  # under way when the earlier pass died
                report.resent_bytes = min(most, report.resent_bytes + carry.sent_bytes)
            if finished.losses:
                report.losses[finished.losses] = report.losses.get(finished.losses, 0) + 1
        self._watcher.moved(1, 0)

    def _listed_again(self, carry: _Carry) -> _Carry | None:
        """The same for what the source holds now; None when it holds nothing at that key any more, or changes faster
        than it copies."""
        entry, there = carry.entry, carry.there
        with self._mutex:
            self._report.changed_during_copy += 1
        if entry.upload:
            self._target.abort(self._target_bucket, entry.key, entry.upload)
        try:
            info, _ = self._source.head(self._source_bucket, entry.key)
        except NotFound:
            return None
        try:
            there = self._target.head(self._target_bucket, entry.key)[0]
        except NotFound:
            there = None
        entry = entry.with_(
            source_etag=info.etag, size_bytes=info.size_bytes, state="pending", upload="",
            changed_during_copy=entry.changed_during_copy + 1,
        )  # fmt: skip
        if carry.tries >= _TRIES_PER_OBJECT:
            with self._mutex:
                self._report.hot.append(entry.key)
            self._journal.put(entry)
            return None
        return _Carry(self, carry.todo, entry, there, carry.tries + 1)
