"""The quick round between two full passes: look at both sides of the dirty keys, copy and remove what differs.

It decides as a full pass would from its listings, so that it never calls a key clean which that pass would touch."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from crossload.engines.mover.bucket import PassReport, is_mass_delete, move_bucket
from crossload.engines.mover.dirty import Dirty, DirtySet
from crossload.engines.mover.options import AS_USUAL, NOBODY, CopyOptions, Watcher
from crossload.engines.mover.workers import Workers
from crossload.ledger.comparison import Comparison
from crossload.ledger.journal import Entry, Journal, entry_for
from crossload.ports.errors import AccessDenied, CrossloadError, NotFound, NotSignedIn, PreconditionFailed
from crossload.ports.store import ObjectInfo, Store


@dataclass(frozen=True, slots=True)
class Difference:
    """A key at which the sides differ. `kind` is copy, remove, or leave: a copy that was cut short and whose source is
    gone, which only a full pass clears up."""

    dirty: Dirty
    kind: str
    source: ObjectInfo | None
    target: ObjectInfo | None
    before: Entry | None

    @property
    def key(self) -> str:
        return self.dirty.key

    def entry(self) -> Entry:
        """What a copier takes: this source, and what an earlier copy of the same bytes had reached."""
        info, before = self.source, self.before
        if info is None:
            raise NotFound(f"{self.key} is not at the source any more")
        return entry_for(self.key, info.size_bytes, info.etag, info.modified_at, before)


@dataclass(slots=True)
class QuickPass:
    """`same` need nothing. `failures` are keys at which a side could not be asked; they stay dirty."""

    same: list[Dirty] = field(default_factory=list)
    differ: list[Difference] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def quick_pass(
    source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Journal, keys: Sequence[Dirty],
    *, target_is_home: bool = False, workers: int = 8,
) -> QuickPass:  # fmt: skip
    """Look at both sides of each key. Says "same" only where a full pass at this moment would do nothing.

    Writes nothing. Raises the first error that concerns all keys (no access, not signed in, a store that is down)."""

    def look(item: Dirty) -> tuple[Dirty, Difference | None, str]:
        try:
            at_source = _head(source, source_bucket, item.key)
            at_target = _head(target, target_bucket, item.key)
        except (AccessDenied, NotSignedIn):
            raise
        except CrossloadError as error:
            if error.retryable or error.code == "ledger":
                raise
            return item, None, str(error)
        before = journal.get(item.key)
        kind = _difference(before, at_source, at_target, home=target_is_home)
        return item, Difference(item, kind, at_source, at_target, before) if kind else None, ""

    found = QuickPass()
    with ThreadPoolExecutor(max(1, min(workers, len(keys))), thread_name_prefix="quick") as pool:
        for item, difference, failure in pool.map(look, keys):
            if failure:
                found.failures[item.key] = failure
            elif difference is None:
                found.same.append(item)
            else:
                found.differ.append(difference)
    return found


def _head(store: Store, bucket: str, key: str) -> ObjectInfo | None:
    try:
        return store.head(bucket, key)[0]
    except NotFound:
        return None


def _difference(before: Entry | None, source: ObjectInfo | None, target: ObjectInfo | None, *, home: bool) -> str:
    """copy, remove, leave, or "" where nothing is to be done: what a full pass decides from its listings."""
    state = before.state if before is not None else "gone"
    if source is None:
        if state in ("pending", "sending"):
            return "leave"
        return "remove" if state == "done" and not home else ""
    if before is None or state != "done" or before.source_etag != source.etag:
        return "copy"
    return "" if home or (target is not None and target.etag == before.target_etag) else "copy"


@dataclass(slots=True)
class Carried:
    """What one quick round came to, in keys. `waiting` stay dirty until a later round or a full pass."""

    same: int = 0
    copied: int = 0
    removed: int = 0
    waiting: dict[str, str] = field(default_factory=dict)


def carry(
    source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Journal, dirty: DirtySet,
    copy: Callable[[Sequence[Difference]], Collection[str]], *, limit: int = 1000, target_is_home: bool = False,
    allow_mass_delete: bool = False, workers: int = 8,
) -> Carried:  # fmt: skip
    """One quick round: take dirty keys, compare, copy, remove. Safe to kill: what was not settled is dirty still.

    `copy` carries the differences it is given, in any order, and returns the keys that the journal has as done. More
    removals than 1 % of the keys since the last full pass are left to that pass, which asks for somebody's word."""
    taken = dirty.take(limit)
    report = Carried()
    settled: list[Dirty] = []
    try:
        found = quick_pass(
            source, source_bucket, target, target_bucket, journal, taken, target_is_home=target_is_home, workers=workers
        )
        report.waiting.update(found.failures)
        report.same = len(found.same)
        settled += found.same
        dirty.weigh((one.key, one.source.size_bytes if one.source else 0) for one in found.differ)
        wanted = [one for one in found.differ if one.kind == "copy"]
        arrived = set(copy(wanted)) if wanted else set[str]()
        report.waiting.update((one.key, "not copied yet") for one in wanted if one.key not in arrived)
        report.waiting.update((one.key, "a full pass clears this up") for one in found.differ if one.kind == "leave")
        removals = [one for one in found.differ if one.kind == "remove"]
        if removals and not allow_mass_delete and is_mass_delete(len(removals) + dirty.buried_since_pass(), journal):
            report.waiting.update((one.key, "many removals wait for a full pass") for one in removals)
            removals = []
        removed = _remove(removals, target, target_bucket, journal, dirty, report)
        journal.barrier()  # a key is clean only when the journal, too, will still know it after a crash
        report.copied, report.removed = len(arrived), len(removed)
        settled += [one.dirty for one in wanted if one.key in arrived] + removed
    finally:
        done = {item.key for item in settled}
        dirty.clean(settled)
        dirty.release(item for item in taken if item.key not in done)
    return report


def _remove(
    removals: Sequence[Difference], target: Store, bucket: str, journal: Journal, dirty: DirtySet, report: Carried
) -> list[Dirty]:
    settled: list[Dirty] = []
    for one in removals:
        before = one.before
        if before is None:
            continue
        try:
            target.delete(bucket, one.key, if_match=before.target_etag)
        except PreconditionFailed:
            report.waiting[one.key] = "gone at the source, but changed at the target since we wrote it"
            continue
        dirty.bury(one.key, before.target_etag)
        journal.put(before.with_(state="gone"))
        settled.append(one.dirty)
    return settled


# -- together with full passes


def bucket_copier(
    source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Journal,
    options: CopyOptions = AS_USUAL, watcher: Watcher = NOBODY, report: PassReport | None = None,
) -> Callable[[Sequence[Difference]], set[str]]:  # fmt: skip
    """What `carry` wants as `copy`: the workers of a full pass, given these keys instead of listings. They count into
    `report`."""
    counts = report or PassReport()

    def copy(wanted: Sequence[Difference]) -> set[str]:
        with Comparison(journal) as comparison:
            comparison.source(one.source for one in wanted if one.source is not None)
            comparison.target(one.target for one in wanted if one.target is not None)
            comparison.settle(home=options.target_is_home)
            Workers(source, source_bucket, target, target_bucket, journal, options, watcher, counts).run(comparison)
        journal.barrier()
        after = {one.key: journal.get(one.key) for one in wanted}
        # One that changed while it was copied is done as what it became; one that is as before was not done now.
        return {
            one.key for one in wanted
            if (now := after[one.key]) is not None and now.state == "done" and now != one.before
        }  # fmt: skip

    return copy


def full_round(
    source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Journal, dirty: DirtySet,
    options: CopyOptions = AS_USUAL, watcher: Watcher = NOBODY, prefix: str = "",
) -> PassReport:  # fmt: skip
    """A full pass, and what it means for the dirty keys. Not at the same time as a quick round."""
    mark, listed_at, began = dirty.mark(), time.time(), time.monotonic()
    list_seconds: list[float] = []

    def start(objects: int, size_bytes: int) -> None:
        list_seconds.append(time.monotonic() - began)
        watcher.start(objects, size_bytes)

    report = move_bucket(
        source, source_bucket, target, target_bucket, journal, options, replace(watcher, start=start), prefix
    )
    took = list_seconds[0] if list_seconds else report.seconds
    dirty.settle(mark, listed_at, took, unless=report.hot, complete=not report.failures)
    return report
