"""Listings of both sides, side by side, straight to disk: no list of keys is ever held in memory.

A store that lists in the order of keys is listed in several ranges of keys at once, as many as pay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

from crossload.engines.mover.ranges import Range, RangePlan, Unsorted, Worth
from crossload.ledger.comparison import Comparison
from crossload.ports.store import ObjectInfo, Store

Item = TypeVar("Item")
Keep = Callable[[list[ObjectInfo]], None]
Say = Callable[[str], None]

RANGES_MAX = 16
_PAGE = 2000
_RANGE_PAGE = 1000  # the page of nearly all stores: one request each
_LEAVE_SECONDS_MAX = 5.0


def list_both(
    comparison: Comparison, source: Store, source_bucket: str, target: Store, target_bucket: str, prefix: str,
    *, ranges: int = RANGES_MAX, inventory: Iterable[ObjectInfo] | None = None, say: Say = lambda text: None,
) -> None:  # fmt: skip
    """List source and target at once into the comparison, each in up to `ranges` ranges of keys at a time. With an
    `inventory` the source is not listed: its objects are taken from there. Raises what either store raises."""
    stop = threading.Event()
    sides: list[_Listing] = [_Listing(target, target_bucket, prefix, comparison.target, ranges, stop, say)]
    if inventory is None:
        sides.append(_Listing(source, source_bucket, prefix, comparison.source, ranges, stop, say))
    else:
        sides.append(_Reading(source, source_bucket, prefix, comparison.hints, stop, say, inventory))
    _run(sides, stop)


def list_target(
    comparison: Comparison, target: Store, bucket: str, prefix: str,
    *, ranges: int = RANGES_MAX, say: Say = lambda text: None,
) -> None:  # fmt: skip
    """List the target alone into the comparison. Raises what the store raises."""
    stop = threading.Event()
    _run([_Listing(target, bucket, prefix, comparison.target, ranges, stop, say)], stop)


def paged(items: Iterable[Item], count: int = _PAGE) -> Iterator[list[Item]]:
    """The same in lists of a few thousand, so that no more than one is held at a time."""
    waiting = iter(items)
    while page := list(islice(waiting, count)):
        yield page


def _run(sides: list[_Listing], stop: threading.Event) -> None:
    """The first failure stops all sides after their current pages."""
    for side in sides:
        side.start()
    try:
        for side in sides:
            side.wait()
    except BaseException:  # Ctrl-C
        stop.set()
        raise
    finally:
        until = time.monotonic() + _LEAVE_SECONDS_MAX  # for all of them: one may be waiting for a store
        for side in sides:
            side.leave(until)
    for side in sides:
        side.end()
    for side in sides:
        side.again()


class _Listing:
    """One side. A thread for each range that is under way; one whose range has ended cuts another in two."""

    def __init__(
        self, store: Store, bucket: str, prefix: str, keep: Keep, ranges: int, stop: threading.Event, say: Say
    ) -> None:
        self._store, self._bucket, self._prefix, self._keep, self._say = store, bucket, prefix, keep, say
        self._ranges = ranges
        self._stop = stop
        self._plan = RangePlan(prefix, _RANGE_PAGE)
        self._beginning = self._plan.open[0]
        self._worth = Worth(ranges)
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._active = 0
        self._failure: BaseException | None = None
        self._unsorted = False

    def start(self) -> None:
        with self._changed:
            self._hire(self._beginning)

    def wait(self) -> None:
        """Until all ranges have ended, or something failed anywhere."""
        with self._changed:
            while self._active and not self._stop.is_set():
                self._changed.wait(0.2)  # short waits, so that Ctrl-C is heard

    def leave(self, until: float) -> None:
        with self._changed:
            while self._active and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)  # a thread may have hired one more just before it heard
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def end(self) -> None:
        """Raises what failed."""
        if self._failure is not None:
            raise self._failure

    def again(self) -> None:
        """A listing that was not in order after all is listed once more, in one piece: a range may have missed some."""
        if self._unsorted:
            self._say(f"{self._store.place} does not list {self._bucket} in order: listing it again in one piece")
            self._whole(self._store.list(self._bucket, self._prefix))

    def _hire(self, part: Range) -> None:
        self._active += 1
        thread = threading.Thread(target=self._work, args=(part,), name="listing", daemon=True)
        self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
        thread.start()

    def _work(self, part: Range | None) -> None:
        try:
            infos = self._first() if part is self._beginning else None
            while part is not None:
                self._list(part, infos or iter(self._store.list(self._bucket, self._prefix, part.after)))
                infos = None
                with self._changed:
                    over = self._over() or self._active > self._worth.limit
                    part = None if over else self._plan.cut()
        except Unsorted:
            self._unsorted = True
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, never swallowed
            with self._changed:
                self._failure = self._failure or error
            self._stop.set()
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def _over(self) -> bool:
        return self._stop.is_set() or self._unsorted

    def _first(self) -> Iterator[ObjectInfo]:
        """The listing from its beginning. Some stores only know with their first answer whether they sort."""
        infos = iter(self._store.list(self._bucket, self._prefix))
        return chain(list(islice(infos, _RANGE_PAGE)), infos)

    def _whole(self, infos: Iterable[ObjectInfo]) -> None:
        for page in paged(infos):
            if self._stop.is_set():
                return
            self._keep([info for info in page if info.key.startswith(self._prefix)])

    def _list(self, part: Range, infos: Iterator[ObjectInfo]) -> None:
        if self._ranges < 2 or not self._store.features.sorted_list:
            self._whole(infos)
            part.done = True
            return
        while not part.done and not self._over():
            begun, first = time.monotonic(), not part.keys  # the first page may have to connect: that is not its rate
            page = list(islice(infos, _RANGE_PAGE))
            with self._changed:
                count = self._plan.take(part, [info.key for info in page], more=len(page) == _RANGE_PAGE)
            self._keep(page[:count])
            with self._changed:
                if count == _RANGE_PAGE and not first:
                    self._worth.page(time.monotonic() - begun, self._active)
                while not self._over() and self._active < self._worth.limit and (new := self._plan.cut()) is not None:
                    self._hire(new)


class _Reading(_Listing):
    """An inventory in the place of a listing: what it gives is in no order, and taken as it comes."""

    def __init__(
        self, store: Store, bucket: str, prefix: str, keep: Keep, stop: threading.Event, say: Say,
        inventory: Iterable[ObjectInfo],
    ) -> None:  # fmt: skip
        super().__init__(store, bucket, prefix, keep, 1, stop, say)
        self._inventory = inventory

    def _first(self) -> Iterator[ObjectInfo]:
        return iter(self._inventory)
