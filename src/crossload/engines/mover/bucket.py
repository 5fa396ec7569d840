"""One pass over one bucket: what differs is copied, what vanished is removed, and the journal knows the rest.

A first pass is the snapshot; every later one is a delta. Killed at any point, the next pass goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from crossload.engines.mover.digests import is_ours
from crossload.engines.mover.listing import list_both, paged
from crossload.engines.mover.options import AS_USUAL, NOBODY, CopyOptions, Watcher
from crossload.engines.mover.workers import Workers
from crossload.ledger.comparison import Comparison
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import CrossloadError, PreconditionFailed, Refused
from crossload.ports.store import Store

Carry = Callable[["PassReport"], None]  # bring over what the settled comparison says, and count it

_MASS_DELETE_SHARE = 0.01


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


def move_bucket(
    source: Store, source_bucket: str, target: Store, target_bucket: str, journal: Journal,
    options: CopyOptions = AS_USUAL, watcher: Watcher = NOBODY, prefix: str = "", carry: Carry | None = None,
) -> PassReport:  # fmt: skip
    """Make the target bucket hold what the source bucket lists now. Idempotent; safe to kill and run again. `carry`
    brings over what is to do in place of this process's own threads.

    Raises Refused for a delete of more than 1 % of the keys without `allow_mass_delete`, and the first store error
    that outlasted its retries after all workers have stopped; single objects that failed are in the report."""
    started = time.monotonic()
    report = PassReport()
    with Comparison(journal) as comparison:
        list_both(comparison, source, source_bucket, target, target_bucket, prefix, say=watcher.say)
        objects, size_bytes = comparison.settle(home=options.target_is_home)
        report.listed = comparison.listed()
        report.kept = report.listed - objects
        behind = _left_behind(target, target_bucket, prefix, journal, comparison)
        gone = 0 if options.target_is_home else comparison.vanished_count(prefix)
        _guard_mass_delete(gone + len(behind), journal, options)
        watcher.start(objects, size_bytes)
        if carry is not None:
            carry(report)
        else:
            workers = Workers(source, source_bucket, target, target_bucket, journal, options, watcher, report)
            workers.run(comparison)
        _remove(behind, target, target_bucket, journal, report, options.workers)
        if gone:  # at home a source that is cleared away after the cutover must not empty its users' new home
            _remove(comparison.vanished(prefix), target, target_bucket, journal, report, options.workers)
    journal.count("sent_bytes", report.sent_bytes)
    journal.count("resent_bytes", report.resent_bytes)
    journal.count("passes", 1)
    journal.barrier()
    report.seconds = time.monotonic() - started
    return report


def _left_behind(target: Store, bucket: str, prefix: str, journal: Journal, comparison: Comparison) -> list[Entry]:
    """What copies that were cut short left at the target. Uploads that nobody goes on with are aborted here; objects
    that had become visible, though the source has lost them since, are returned, to be removed like any other."""
    visible: list[Entry] = []
    for entry, there, wanted in comparison.cut_short(prefix):
        if entry.upload:
            target.abort(bucket, entry.key, entry.upload)
        if wanted:
            continue
        if there is not None and is_ours(target, bucket, entry, there):
            visible.append(entry.with_(upload="", target_etag=there.etag))
        else:
            journal.put(entry.with_(state="gone", upload=""))
    return visible


def _remove(
    gone: Iterable[Entry], target: Store, bucket: str, journal: Journal, report: PassReport, workers: int
) -> None:
    mutex = threading.Lock()

    def remove(entry: Entry) -> None:
        try:
            target.delete(bucket, entry.key, if_match=entry.target_etag)
        except PreconditionFailed:
            with mutex:
                report.failures.append(f"{entry.key}: gone at the source, but changed at the target since we wrote it")
            return
        journal.put(entry.with_(state="gone"))
        with mutex:
            report.removed += 1

    with ThreadPoolExecutor(workers) as pool:
        for page in paged(gone):
            list(pool.map(remove, page))


def is_mass_delete(gone: int, journal: Journal) -> bool:
    """More than one object, and more than 1 % of what has arrived."""
    # A single one never is: the journal need not be counted for that, which at 10^7 objects takes seconds.
    return gone > 1 and gone > _arrived(journal) * _MASS_DELETE_SHARE


def _arrived(journal: Journal) -> int:
    return journal.totals().get("done", (0, 0))[0]


def _guard_mass_delete(gone: int, journal: Journal, options: CopyOptions) -> None:
    if not options.allow_mass_delete and is_mass_delete(gone, journal):
        raise Refused(
            f"the source lost {gone} of {_arrived(journal)} objects; removing them at the target too needs your word",
            hint="set data.allow_mass_delete: true in the migration file if this is meant",
        )


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
