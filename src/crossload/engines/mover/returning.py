"""The way back: what was written at the target since the switch goes to the source, without echo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crossload.engines.mover.copying import RunningDigest
from crossload.engines.mover.meta import fit
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import DigestMismatch, PreconditionFailed
from crossload.ports.store import ObjectInfo, Store


@dataclass(slots=True)
class ReturnReport:
    """`returned` and `removed` are keys. `conflicts` changed on both sides since: neither version is overwritten."""

    returned: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    unchanged: int = 0
    size_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "returned": sorted(self.returned), "removed_at_source": sorted(self.removed),
            "conflicts": sorted(self.conflicts), "unchanged": self.unchanged, "returned_bytes": self.size_bytes,
        }  # fmt: skip


def return_changes(
    source: Store, target: Store, bucket: str, journal: Journal, *, prefix: str = "", owns: frozenset[str] = frozenset()
) -> ReturnReport:
    """Copy to the source what is new or changed at the target, remove what was deleted there. Safe to repeat.

    A change is the users', not ours, when the target's etag is not the one the journal says we wrote. `source` must be
    opened with an identity that may write back. Keys in `owns` belong to another copy step and are left alone."""
    report = ReturnReport()
    known = {entry.key: entry for entry in journal.entries("done")}
    at_source = {info.key: info for info in source.list(bucket, prefix)}
    for info in target.list(bucket, prefix):
        if info.key in owns or info.key.startswith(".crossload/"):
            known.pop(info.key, None)
            continue
        ours = known.pop(info.key, None)
        if ours is not None and ours.target_etag == info.etag:
            report.unchanged += 1
            continue
        _bring_back(source, target, bucket, info, ours, at_source.get(info.key), journal, report)
    for entry in known.values():
        there = at_source.get(entry.key)
        if there is None or entry.key in owns:
            continue
        if there.etag != entry.source_etag:
            report.conflicts.append(entry.key)
            continue
        try:
            source.delete(bucket, entry.key, if_match=there.etag)
        except PreconditionFailed:
            report.conflicts.append(entry.key)
            continue
        journal.put(entry.with_(state="gone"))
        report.removed.append(entry.key)
    journal.barrier()
    return report


def _bring_back(
    source: Store, target: Store, bucket: str, info: ObjectInfo, ours: Entry | None, there: ObjectInfo | None,
    journal: Journal, report: ReturnReport,
) -> None:  # fmt: skip
    _, meta = target.head(bucket, info.key)
    data = target.read(bucket, info.key, if_match=info.etag) if info.size_bytes else b""
    running = RunningDigest(next(iter(source.features.digests_returned & {"crc64nvme", "crc32c"}), ""))
    running.feed(data)
    if there is not None and (ours is None or there.etag != ours.source_etag):
        if source.read(bucket, info.key) == data:  # an earlier, interrupted return brought it already
            _remember(journal, info, there, running)
            report.unchanged += 1
        else:
            report.conflicts.append(info.key)
        return
    fitted, losses = fit(meta, source.features)
    try:
        written = (
            source.write(bucket, info.key, data, fitted, if_absent=True)
            if there is None
            else source.write(bucket, info.key, data, fitted, if_match=there.etag)
        )
    except PreconditionFailed:
        report.conflicts.append(info.key)
        return
    theirs = written.digest(running.algorithm) if running.algorithm else None
    if theirs is not None and theirs != running.check:
        raise DigestMismatch(f"{bucket}/{info.key}: returned as {theirs}, read as {running.check}")
    _remember(journal, info, written, running, "; ".join(losses))
    report.returned.append(info.key)
    report.size_bytes += len(data)


def _remember(
    journal: Journal, info: ObjectInfo, written: ObjectInfo, running: RunningDigest, losses: str = ""
) -> None:
    """Both sides are equal now; the next forward pass must not carry it again."""
    check = next((item for item in info.digests if item.algorithm in ("crc32c", "crc64nvme")), None)
    journal.put(
        Entry(
            info.key, info.size_bytes, written.etag, "done", sha256=running.sha256, check_digest=str(check or ""),
            target_etag=info.etag, trust="stored", losses=losses, modified_at=info.modified_at,
        )
    )  # fmt: skip


def still_frozen(source: Store, bucket: str, journal: Journal, prefix: str = "") -> list[str]:
    """Keys that changed at the source since the last pass: empty while the freeze holds."""
    known = {entry.key: entry.source_etag for entry in journal.entries("done")}
    changed = [info.key for info in source.list(bucket, prefix) if known.pop(info.key, None) != info.etag]
    return sorted([*changed, *known])


__all__ = ["ReturnReport", "return_changes", "still_frozen"]
