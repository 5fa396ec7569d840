"""One object from source to target: read under If-Match, hash in the same pass, write under a condition, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from crossload.engines.mover.digests import RunningDigest, check_algorithm, holds, is_ours, reread
from crossload.engines.mover.meta import fit
from crossload.ledger.journal import Entry
from crossload.ports.errors import DigestMismatch, NotFound, PreconditionFailed
from crossload.ports.store import ObjectInfo, ObjectMeta, Part, Store

Sent = Callable[[int], None]

_PART_STEP_BYTES = 2**20


class SourceChanged(Exception):
    """The source object is not the one we listed; it is listed again and copied anew, never mixed."""


class ForeignObject(PreconditionFailed):
    """The target key holds bytes that are neither ours nor equal to the source's. We never overwrite them unasked."""

    code = "foreign-object"


class Notes(Protocol):
    """What a copier writes down on its way; a Journal, or nothing where a copy is simply begun anew."""

    def put(self, entry: Entry) -> None: ...
    def barrier(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies single objects of one bucket. Safe to share between threads."""

    source: Store
    source_bucket: str
    target: Store
    target_bucket: str
    journal: Notes
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
            if there is not None and there.etag != entry.target_etag:
                known = self._recognise(entry, there, fitted)
                if known is not None:
                    self._forget_upload(entry)
                    return known
            if info.size_bytes <= self._part_size(info.size_bytes):
                self._forget_upload(entry)
                return self._copy_whole(entry.with_(upload=""), fitted, there)
            return self._copy_parts(entry, fitted, there)
        except PreconditionFailed as error:
            if isinstance(error, ForeignObject):
                raise
            raise SourceChanged(f"{entry.key}: {error}") from error

    def _forget_upload(self, entry: Entry) -> None:
        """An open upload is paid for until somebody aborts it."""
        if entry.upload:
            self.target.abort(self.target_bucket, entry.key, entry.upload)

    def _part_size(self, size_bytes: int) -> int:
        """The part size asked for, larger where the target allows no such small parts or not so many."""
        features = self.target.features
        least = -(-size_bytes // features.parts_max)
        if least > self.part_size_bytes:
            least = -(-least // _PART_STEP_BYTES) * _PART_STEP_BYTES
        return max(self.part_size_bytes, features.part_size_bytes_min, least)

    def _recognise(self, entry: Entry, there: ObjectInfo, fitted: ObjectMeta) -> Entry | None:
        """After a crash the target may hold our bytes though the journal never heard: read the source, compare, and
        send nothing. None when the bytes differ."""
        if there.size_bytes != entry.size_bytes:
            return None
        there, held = self.target.head(self.target_bucket, entry.key)
        running = self._hash_source(entry, check_algorithm(self.target), entry.size_bytes)
        if not holds(self.target, self.target_bucket, there, str(running.check or ""), running.sha256):
            return None
        self._check_unchanged(entry)
        if dict(held.user) != dict(fitted.user) or dict(held.tags) != dict(fitted.tags):
            lost = "equal bytes were at the target already, with other metadata, which stays"
            entry = entry.with_(losses="; ".join([*filter(None, [entry.losses]), lost]))
        announced = entry.sha256 == running.sha256
        finished = self._finished(entry, running, there)
        return finished if announced else finished.with_(trust="found")

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

    def _check_unchanged(self, entry: Entry) -> None:
        """A store without conditional reads may have given us parts of two objects: ask once more before we write."""
        if self.source.features.conditional_read:
            return
        try:
            info = self.source.head(self.source_bucket, entry.key)[0]
        except NotFound as error:
            raise SourceChanged(f"{entry.key} was removed during its copy") from error
        if info.etag != entry.source_etag:
            raise SourceChanged(f"{entry.key} changed during its copy")

    def _announce(self, entry: Entry, running: RunningDigest) -> Entry:
        """Write down what is about to become visible: after a crash we know these bytes at the target as ours, even
        if the source has changed meanwhile."""
        entry = entry.with_(state="sending", sha256=running.sha256, check_digest=str(running.check or ""))
        self.journal.put(entry)
        return entry

    def _copy_whole(self, entry: Entry, meta: ObjectMeta, there: ObjectInfo | None) -> Entry:
        condition = self._condition(entry, there)
        data = self._read(entry, 0, entry.size_bytes)
        self._check_unchanged(entry)
        running = RunningDigest(check_algorithm(self.target))
        running.feed(data)
        entry = self._announce(entry, running)
        self.sent(len(data))
        try:
            written = self.target.write(self.target_bucket, entry.key, data, meta, **condition)
        except PreconditionFailed:
            written = self._ours_or_foreign(entry, running)
        return self._finished(entry, running, written)

    def _condition(self, entry: Entry, there: ObjectInfo | None) -> dict[str, Any]:
        """Create only where nothing is; replace only what we wrote ourselves."""
        if there is None:
            return {"if_absent": True}
        if is_ours(self.target, self.target_bucket, entry, there):
            return {"if_match": there.etag}
        raise ForeignObject(
            f"{self.target_bucket}/{entry.key} exists with other content that this migration did not write",
            hint="move it away, or choose another target bucket",
        )

    def _ours_or_foreign(self, entry: Entry, running: RunningDigest) -> ObjectInfo:
        """A refused create may be our own earlier attempt whose answer was lost."""
        try:
            there = self.target.head(self.target_bucket, entry.key)[0]
        except NotFound as error:
            raise SourceChanged(f"{self.target_bucket}/{entry.key} was removed during the copy") from error
        if holds(self.target, self.target_bucket, there, str(running.check or ""), running.sha256):
            return there
        raise ForeignObject(
            f"{self.target_bucket}/{entry.key} was written by somebody else during the copy",
            hint="stop the other writer, then run apply again",
        )

    def _copy_parts(self, entry: Entry, meta: ObjectMeta, there: ObjectInfo | None) -> Entry:
        condition = self._condition(entry, there)
        entry, held = self._open_or_resume(entry, meta)
        try:
            return self._send_parts(entry, held, condition)
        except (SourceChanged, PreconditionFailed):
            self._forget_upload(entry)  # these parts can never become the object any more
            raise

    def _send_parts(self, entry: Entry, held: list[Part], condition: dict[str, Any]) -> Entry:
        parts = list(held)
        start = held[-1].offset_bytes + held[-1].size_bytes if held else 0
        running = self._hash_source(entry, check_algorithm(self.target), start)  # read again, not sent again
        part_size = self._part_size(entry.size_bytes)
        while entry.size_bytes - start > part_size:
            data = self._read(entry, start, part_size)
            running.feed(data)
            self.sent(part_size)
            part = Part(len(parts) + 1, start, part_size, "")
            parts.append(self.target.write_part(self.target_bucket, entry.key, entry.upload, part, data, last=False))
            start += part_size
        length = entry.size_bytes - start
        data = self._read(entry, start, length) if length else b""
        running.feed(data)
        self._check_unchanged(entry)
        entry = self._announce(entry, running)
        self.journal.barrier()
        try:
            if length:
                self.sent(length)
                part = Part(len(parts) + 1, start, length, "")
                parts.append(self.target.write_part(self.target_bucket, entry.key, entry.upload, part, data, last=True))
            written = self.target.complete(self.target_bucket, entry.key, entry.upload, parts, **condition)
        except (PreconditionFailed, NotFound):
            written = self._ours_or_foreign(entry, running)
        return self._finished(entry, running, written)

    def _open_or_resume(self, entry: Entry, meta: ObjectMeta) -> tuple[Entry, list[Part]]:
        if entry.upload:
            try:
                held = self.target.parts(self.target_bucket, entry.key, entry.upload)
                usable = self._usable(held, entry)
                if usable is not None:
                    return entry, usable
            except NotFound:
                pass
            self.target.abort(self.target_bucket, entry.key, entry.upload)
        upload = self.target.open_upload(self.target_bucket, entry.key, meta, entry.size_bytes)
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
            if not self.target.features.ordered_parts and part.size_bytes != self._part_size(entry.size_bytes):
                break
            kept.append(part)
            offset += part.size_bytes
        return kept

    def _finished(self, entry: Entry, running: RunningDigest, written: ObjectInfo) -> Entry:
        """Compare what the target says it holds with what we read; only then does it count as copied."""
        algorithm, trust = running.algorithm, "sent"
        if algorithm and written.digest(algorithm) is None:
            written = self.target.head(self.target_bucket, entry.key)[0]
        theirs = written.digest(algorithm) if algorithm else None
        problem = ""
        if written.size_bytes != entry.size_bytes:
            problem = f"{written.size_bytes} of {entry.size_bytes} bytes arrived"
        elif theirs is not None:
            trust = "stored"
            if theirs != running.check:
                problem = f"we read {running.check}, the target holds {theirs}"
        elif not self.target.features.digests_verified:
            trust = "reread"  # the store neither checks nor tells a digest, so we look at the bytes ourselves
            if reread(self.target, self.target_bucket, written) != running.sha256:
                problem = "read back with another sha256 than the source's"
        if problem:
            # They are ours although they are wrong: the next pass may replace them.
            self.journal.put(entry.with_(state="pending", upload="", target_etag=written.etag))
            raise DigestMismatch(
                f"{self.target_bucket}/{entry.key}: {problem}",
                hint="run apply again; the object is not counted as copied",
            )
        return entry.with_(
            state="done", upload="", sha256=running.sha256, check_digest=str(running.check or ""),
            target_etag=written.etag, trust=trust,
        )  # fmt: skip
