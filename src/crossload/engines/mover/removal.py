"""The undo of a copy: what we wrote at the target goes away, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from crossload.engines.mover.digests import is_ours
from crossload.ledger.journal import Journal
from crossload.ports.errors import NotFound, PreconditionFailed
from crossload.ports.store import ObjectInfo, Store


@dataclass(slots=True)
class RemovalReport:
    """`kept` counts objects under our keys that others wrote before, or changed since: not ours to delete."""

    removed: int = 0
    kept: int = 0


def remove_copy(target: Store, bucket: str, journal: Journal, *, prefix: str = "") -> RemovalReport:
    """Remove what this copy wrote and nobody has changed since, also what a killed pass wrote last, and abort its open
    uploads. Safe to repeat."""
    report = RemovalReport()
    there = _listed(target, bucket, prefix)
    for entry in list(journal.entries()):
        if entry.state == "gone" or not entry.key.startswith(prefix):
            continue
        if entry.upload and there is not None:
            target.abort(bucket, entry.key, entry.upload)
        info = there.get(entry.key) if there is not None else None
        if info is not None:
            if entry.trust == "found" or not is_ours(target, bucket, entry, info):
                report.kept += 1
                continue
            try:
                target.delete(bucket, entry.key, if_match=info.etag)
            except PreconditionFailed:
                report.kept += 1
                continue
            report.removed += 1
        journal.put(entry.with_(state="gone", upload=""))
    journal.barrier()
    return report


def _listed(target: Store, bucket: str, prefix: str) -> dict[str, ObjectInfo] | None:
    """None when the bucket itself is gone: then there is nothing left to undo."""
    try:
        return {info.key: info for info in target.list(bucket, prefix)}
    except NotFound:
        return None
