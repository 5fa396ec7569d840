"""One object from source to target: read under If-Match, hash in the same pass, write under a condition, compare."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from awscrt import checksums

from crossload.engines.mover.meta import fit
from crossload.estate.digest import Digest
from crossload.ledger.journal import Entry, Journal
from crossload.ports.errors import DigestMismatch, NotFound, PreconditionFailed
from crossload.ports.store import ObjectInfo, ObjectMeta, Part, Store

Sent = Callable[[int], None]


class SourceChanged(Exception):
    """The source object is not the one we listed; it is listed again and copied anew, never mixed."""


class ForeignObject(PreconditionFailed):
    """The target key holds bytes that are neither ours nor equal to the source's. We never overwrite them unasked."""

    code = "foreign-object"


class RunningDigest:
    """sha256, and the digest the target computes by itself (crc64nvme or crc32c), over bytes fed in order."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self._sha256 = hashlib.sha256()
        self._crc = 0

    def feed(self, data: bytes) -> None:
        self._sha256.update(data)
        if self.algorithm == "crc32c":
            self._crc = checksums.crc32c(data, self._crc)
        elif self.algorithm == "crc64nvme":
            self._crc = checksums.crc64nvme(data, self._crc)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def check(self) -> Digest | None:
        widths = {"crc32c": 4, "crc64nvme": 8}
        if self.algorithm not in widths:
            return None
        return Digest(self.algorithm, self._crc.to_bytes(widths[self.algorithm], "big").hex())


def check_algorithm(target: Store) -> str:
    """The strongest digest the target reports by itself; "" when it reports none and we must read back."""
    offered = target.features.digests_returned
    return next((name for name in ("crc64nvme", "crc32c") if name in offered), "")


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies single objects of one bucket. Safe to share between threads."""

    source: Store
    source_bucket: str
    target: Store
    target_bucket: str
    journal: Journal
    part_size_bytes: int
    sent: Sent

    def copy(self, entry: Entry, there: ObjectInfo | None) -> Entry:
        """Bring one object over and return its finished entry. `there` is what the target's listing showed at the key.

        Raises SourceChanged, ForeignObject, DigestMismatch, or a store's error."""
        try:
            info, meta = self.source.head(self.source_bucket, entry.key)
        except NotFound as error:
            raise SourceChanged(f"{entry.key} was removed") from error
        if info.etag != entry.source_etag:
            raise SourceChanged(f"{entry.key} changed before its copy")
        fitted, losses = fit(meta, self.target.features)
        entry = entry.with_(losses="; ".join(losses), size_bytes=info.size_bytes)
        try:
            if there is not None and entry.state != "done":
                known = self._recognise(entry, there)
                if known is not None:
                    return known
            if info.size_bytes <= self.part_size_bytes:
                return self._copy_whole(entry, fitted, there)
            return self._copy_parts(entry, fitted, there)
        except PreconditionFailed as error:
            if isinstance(error, ForeignObject):
                raise
            raise SourceChanged(f"{entry.key}: {error}") from error

    def _recognise(self, entry: Entry, there: ObjectInfo) -> Entry | None:
        """After a crash the target may hold our bytes though the journal never heard: read the source, compare, and
        send nothing. None when the bytes differ or the target gives no digest."""
        algorithm = check_algorithm(self.target)
        if there.size_bytes != entry.size_bytes or not algorithm:
            return None
        theirs = there.digest(algorithm)
        if theirs is None:
            there = self.target.head(self.target_bucket, entry.key)[0]
            theirs = there.digest(algorithm)
        running = self._hash_source(entry, algorithm, entry.size_bytes)
        if theirs is None or theirs != running.check:
            return None
        return self._finished(entry, running, there)

    def _hash_source(self, entry: Entry, algorithm: str, end: int) -> RunningDigest:
        running = RunningDigest(algorithm)
        for start in range(0, end, self.part_size_bytes):
            length = min(self.part_size_bytes, end - start)
            running.feed(self._read(entry, start, length))
        return running

    def _read(self, entry: Entry, start: int, length: int) -> bytes:
        try:
            data = self.source.read(self.source_bucket, entry.key, start, length, if_match=entry.source_etag)
        except (PreconditionFailed, NotFound) as error:
            raise SourceChanged(f"{entry.key} changed during its copy") from error
        if len(data) != length:
            raise SourceChanged(f"{entry.key}: {len(data)} of {length} bytes at {start}")
        return data

    def _copy_whole(self, entry: Entry, meta: ObjectMeta, there: ObjectInfo | None) -> Entry:
        data = self._read(entry, 0, entry.size_bytes)
        running = RunningDigest(check_algorithm(self.target))
        running.feed(data)
        self.journal.put(entry.with_(state="sending"))
        self.sent(len(data))
        try:
            written = self.target.write(self.target_bucket, entry.key, data, meta, **self._condition(entry, there))
        except PreconditionFailed:
            written = self._ours_or_foreign(entry, running)
        return self._finished(entry, running, written)

    def _condition(self, entry: Entry, there: ObjectInfo | None) -> dict[str, Any]:
        """Create only where nothing is; replace only what we wrote ourselves."""
        if there is None:
            return {"if_absent": True}
        if entry.target_etag and entry.target_etag == there.etag:
            return {"if_match": there.etag}
        raise ForeignObject(
            f"{self.target_bucket}/{entry.key} exists with other content that this migration did not write",
            hint="move it away, or choose another target bucket",
        )

    def _ours_or_foreign(self, entry: Entry, running: RunningDigest) -> ObjectInfo:
        """A refused create may be our own earlier attempt whose answer was lost."""
        there = self.target.head(self.target_bucket, entry.key)[0]
        if running.check is not None and there.digest(running.algorithm) == running.check:
            return there
        raise ForeignObject(
            f"{self.target_bucket}/{entry.key} was written by somebody else during the copy",
            hint="stop the other writer, then run apply again",
        )

    def _copy_parts(self, entry: Entry, meta: ObjectMeta, there: ObjectInfo | None) -> Entry:
        condition = self._condition(entry, there)
        entry, held = self._open_or_resume(entry, meta, condition)
        parts = list(held)
        start = held[-1].offset_bytes + held[-1].size_bytes if held else 0
        running = self._hash_source(entry, check_algorithm(self.target), start)  # read again, not sent again
        while start < entry.size_bytes:
            length = min(self.part_size_bytes, entry.size_bytes - start)
            data = self._read(entry, start, length)
            running.feed(data)
            self.sent(length)
            part = Part(len(parts) + 1, start, length, "")
            last = start + length == entry.size_bytes
            parts.append(self.target.write_part(self.target_bucket, entry.key, entry.upload, part, data, last=last))
            start += length
        written = self.target.complete(self.target_bucket, entry.key, entry.upload, parts, if_absent=there is None)
        return self._finished(entry, running, written)

    def _open_or_resume(self, entry: Entry, meta: ObjectMeta, condition: dict[str, Any]) -> tuple[Entry, list[Part]]:
        if entry.upload:
            try:
                held = self.target.parts(self.target_bucket, entry.key, entry.upload)
                usable = self._usable(held, entry)
                if usable is not None:
                    return entry, usable
            except NotFound:
                pass
            self.target.abort(self.target_bucket, entry.key, entry.upload)
        upload = self.target.open_upload(self.target_bucket, entry.key, meta, entry.size_bytes, **condition)
        entry = entry.with_(state="sending", upload=upload)
        self.journal.put(entry)
        self.journal.barrier()  # an upload the journal never heard of could not be resumed, nor cleaned away
        return entry, []

    def _usable(self, held: list[Part], entry: Entry) -> list[Part] | None:
        """The run of parts from the start that we may keep; None when the upload cannot be gone on with."""
        kept: list[Part] = []
        offset = 0
        for part in held:
            if part.offset_bytes != offset or offset + part.size_bytes > entry.size_bytes:
                return None
            if not self.target.features.ordered_parts and part.size_bytes != self.part_size_bytes:
                break
            kept.append(part)
            offset += part.size_bytes
        if offset == entry.size_bytes and not self.target.features.ordered_parts:
            return kept
        return None if offset >= entry.size_bytes else kept

    def _finished(self, entry: Entry, running: RunningDigest, written: ObjectInfo) -> Entry:
        """Compare what the target says it holds with what we read; only then does it count as copied."""
        trust = "sent"
        theirs = written.digest(running.algorithm) if running.algorithm else None
        if running.algorithm and theirs is None:
            written = self.target.head(self.target_bucket, entry.key)[0]
            theirs = written.digest(running.algorithm)
        if theirs is not None:
            if theirs != running.check:
                raise DigestMismatch(
                    f"{self.target_bucket}/{entry.key}: we read {running.check}, the target holds {theirs}",
                    hint="run apply again; the object is not counted as copied",
                )
            trust = "stored"
        elif written.size_bytes != entry.size_bytes:
            raise DigestMismatch(f"{self.target_bucket}/{entry.key}: {written.size_bytes} of {entry.size_bytes} bytes")
        return entry.with_(
            state="done", upload="", sha256=running.sha256, check_digest=str(running.check or ""),
            target_etag=written.etag, trust=trust,
        )  # fmt: skip
