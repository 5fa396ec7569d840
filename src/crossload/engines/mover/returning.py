"""The way back: what was written at the target since the switch goes to the source, without echo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crossload.engines.mover.buffers import BufferPool
from crossload.engines.mover.copying import Copier, ForeignObject, SourceChanged
from crossload.engines.mover.parts import copy_alone
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import PreconditionFailed
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
    source: Store, target: Store, bucket: str, journal: Journal, *, prefix: str = "", part_size_bytes: int = 16 * 2**20
) -> ReturnReport:
    """Copy to the source what is new or changed at the target, remove what was deleted there. Safe to repeat.

    A change is the users', not ours, when the target's etag is not the one the journal says we wrote. `source` must be
    opened with an identity that may write back."""
    report = ReturnReport()
    known = {entry.key: entry for entry in journal.entries("done")}
    at_source = {info.key: info for info in source.list(bucket, prefix)}
    for info in target.list(bucket, prefix):
        ours = known.pop(info.key, None)
        if info.key.startswith(".crossload/"):
            continue
        if ours is not None and ours.target_etag == info.etag:
            report.unchanged += 1
            continue
        back = _Back(target, source, bucket, part_size_bytes)
        _bring_back(back, info, ours, at_source.get(info.key), journal, report)
    for entry in known.values():
        there = at_source.get(entry.key)
        if there is None:
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


class _Unwritten:
    """A return that is cut short begins anew with the object it was at: nothing to write down."""

    def put(self, entry: Entry) -> None: ...
    def barrier(self) -> None: ...


@dataclass(slots=True)
class _Back:
    """The copier with its two ends exchanged."""

    target: Store
    source: Store
    bucket: str
    part_size_bytes: int
    sent_bytes: int = 0

    def copy(self, entry: Entry, there: ObjectInfo | None) -> Entry:
        pool = BufferPool(2 * self.part_size_bytes)
        copier = Copier(self.target, self.bucket, self.source, self.bucket, _Unwritten(), self.part_size_bytes, pool)
        return copy_alone(copier, entry, there, self._sent)

    def _sent(self, size_bytes: int) -> None:
        self.sent_bytes += size_bytes


def _bring_back(
    back: _Back, info: ObjectInfo, ours: Entry | None, there: ObjectInfo | None, journal: Journal, report: ReturnReport
) -> None:
    """One object from the target to the source, in parts, digest and all. What the source holds is replaced only if
    it is what we once copied from there; equal bytes (an earlier, interrupted return) are recognised."""
    unchanged = there is not None and ours is not None and there.etag == ours.source_etag
    entry = Entry(
        info.key, info.size_bytes, info.etag, target_etag=there.etag if there is not None and unchanged else ""
    )
    try:
        finished = back.copy(entry, there)
    except ForeignObject:
        report.conflicts.append(info.key)
        return
    except SourceChanged as error:
        raise PreconditionFailed(
            f"{back.bucket}/{info.key} changes at the target while it is returned",
            hint="stop the writers there, then run the same command again",
        ) from error
    _remember(journal, info, finished)
    if there is not None and not unchanged:
        report.unchanged += 1
    else:
        report.returned.append(info.key)
        report.size_bytes += back.sent_bytes


def _remember(journal: Journal, info: ObjectInfo, finished: Entry) -> None:
    """Both sides are equal now; the next forward pass must not carry it again."""
    check = next((item for item in info.digests if item.algorithm in ("crc32c", "crc64nvme")), None)
    journal.put(
        Entry(
            info.key, info.size_bytes, finished.target_etag, "done", sha256=finished.sha256,
            check_digest=str(check or ""), target_etag=info.etag, trust="stored" if check else "reread",
            losses=finished.losses, modified_at=info.modified_at,
        )
    )  # fmt: skip


def still_frozen(source: Store, bucket: str, journal: Journal, prefix: str = "") -> list[str]:
    """Keys that changed at the source since the last pass: empty while the freeze holds."""
    known = {entry.key: entry.source_etag for entry in journal.entries("done")}
    changed = [info.key for info in source.list(bucket, prefix) if known.pop(info.key, None) != info.etag]
    return sorted([*changed, *known])
