"""The undo of a copy: what we wrote at the target goes away, and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crossload.engines.mover.digests import is_ours
from crossload.engines.mover.listing import list_target, paged
from crossload.ledger.comparison import Comparison
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import NotFound, PreconditionFailed
from crossload.ports.store import ObjectInfo, Store

_WORKERS = 8


@dataclass(slots=True)
class RemovalReport:
    """`kept` counts objects under our keys that others wrote before, or changed since: not ours to delete."""

    removed: int = 0
    kept: int = 0


def remove_copy(target: Store, bucket: str, journal: Journal, *, prefix: str = "") -> RemovalReport:
    """Remove what this copy wrote and nobody has changed since, also what a killed pass wrote last, and abort its open
    uploads. Safe to repeat."""
    report = RemovalReport()
    mutex = threading.Lock()
    with Comparison(journal) as comparison:
        try:
            list_target(comparison, target, bucket, prefix)
            there_is_a_bucket = True
        except NotFound:
            there_is_a_bucket = False  # then there is nothing left to undo

        def remove(item: tuple[Entry, ObjectInfo | None]) -> None:
            entry, info = item
            if entry.upload and there_is_a_bucket:
                target.abort(bucket, entry.key, entry.upload)
            if info is not None:
                ours = entry.trust != "found" and is_ours(target, bucket, entry, info)
                try:
                    if ours:
                        target.delete(bucket, entry.key, if_match=info.etag)
                except PreconditionFailed:
                    ours = False
                with mutex:
                    report.removed += ours
                    report.kept += not ours
                if not ours:
                    return
            journal.put(entry.with_(state="gone", upload=""))

        with ThreadPoolExecutor(_WORKERS) as pool:
            for page in paged(comparison.known(prefix)):
                list(pool.map(remove, page))
    journal.barrier()
    return report
