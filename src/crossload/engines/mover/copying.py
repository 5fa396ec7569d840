"""One object from source to target: read under If-Match, hash in the same pass, write under a condition, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from crossload.engines.mover.buffers import BufferPool
from crossload.engines.mover.digests import RunningDigest, check_algorithm, holds, is_ours, reread
from crossload.engines.mover.meta import fit
from crossload.estate.digest import Digest
from crossload.ledger.journal import Entry
from crossload.ports.errors import DigestMismatch, NotFound, PreconditionFailed
from crossload.ports.store import Digests, ObjectInfo, ObjectMeta, Part, Store

Sent = Callable[[int], None]

_PART_STEP_BYTES = 2**20
_DAMAGED_TRIES = 3


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
class Upload:
    """An object too large for one buffer, ready to go over in parts. `held` are those the target has already; `told`
    is the digest that the source's store tells of the whole."""

    entry: Entry
    condition: dict[str, Any]
    held: dict[int, Part]
    part_size_bytes: int
    told: Digest | None

    @property
    def count(self) -> int:
        return -(-self.entry.size_bytes // self.part_size_bytes)

    def part(self, number: int) -> Part:
        start = (number - 1) * self.part_size_bytes
        return Part(number, start, min(self.part_size_bytes, self.entry.size_bytes - start), "")


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies single objects of one bucket. Safe to share between threads."""

    source: Store
    source_bucket: str
    target: Store
    target_bucket: str
    journal: Notes
    part_size_bytes: int
    pool: BufferPool

    def begin(self, entry: Entry, there: ObjectInfo | None, sent: Sent) -> Entry | Upload:
        """Bring one object over and return its finished entry; for a large one, what is to be done in parts. `there`
        is what the target's listing showed at the key.

        Raises SourceChanged, ForeignObject, DigestMismatch, or a store's error."""
        try:
            if there is not None and there.etag != entry.target_etag:
                known = self._recognise(entry, there)
                if known is not None:
                    return known
            part_size = self._part_size(entry.size_bytes)
            if entry.size_bytes <= part_size:
                return self._copy_whole(entry, there, sent)
            return self._prepare_parts(entry, there, part_size)
        except PreconditionFailed as error:
            if isinstance(error, ForeignObject):
                raise
            raise SourceChanged(f"{entry.key}: {error}") from error

    def _forget_upload(self, entry: Entry) -> Entry:
        """An open upload is paid for until somebody aborts it."""
        if not entry.upload:
            return entry
        self.target.abort(self.target_bucket, entry.key, entry.upload)
        return entry.with_(upload="")

    def _part_size(self, size_bytes: int) -> int:
        """The part size asked for, larger where the target allows no such small parts or not so many."""
        features = self.target.features
        least = -(-size_bytes // features.parts_max)
        if least > self.part_size_bytes:
            least = -(-least // _PART_STEP_BYTES) * _PART_STEP_BYTES
        return max(self.part_size_bytes, features.part_size_bytes_min, least)

    def _look(self, entry: Entry) -> tuple[ObjectInfo, ObjectMeta, list[str]]:
        """The source object as it is now, its meta fitted to the target, and the losses."""
        try:
            info, meta = self.source.head(self.source_bucket, entry.key)
        except NotFound as error:
            raise SourceChanged(f"{entry.key} was removed") from error
        if info.etag != entry.source_etag or info.size_bytes != entry.size_bytes:
            raise SourceChanged(f"{entry.key} changed before its copy")
        return info, *fit(meta, self.target.features)

    def _recognise(self, entry: Entry, there: ObjectInfo) -> Entry | None:
        """After a crash the target may hold our bytes though the journal never heard. What was written down before it
        was sent needs only the target's digest; else read the source, compare, and send nothing. None when the bytes
        differ."""
        if there.size_bytes != entry.size_bytes:
            return None
        if entry.state == "sending" and entry.sha256 and is_ours(self.target, self.target_bucket, entry, there):
            running = _Known(entry)
            return self._finished(self._forget_upload(entry), running, there)
        _, meta, losses = self._look(entry)
        entry = entry.with_(losses="; ".join(losses))
        there, held = self.target.head(self.target_bucket, entry.key)
        running = self._hash_source(entry, check_algorithm(self.target))
        if not holds(self.target, self.target_bucket, there, str(running.check or ""), running.sha256):
            return None
        self._check_unchanged(entry)
        if dict(held.user) != dict(meta.user) or dict(held.tags) != dict(meta.tags):
            lost = "equal bytes were at the target already, with other metadata, which stays"
            entry = entry.with_(losses="; ".join([*filter(None, [entry.losses]), lost]))
        announced = entry.sha256 == running.sha256
        finished = self._finished(self._forget_upload(entry), running, there)
        return finished if announced else finished.with_(trust="found")

    def _hash_source(self, entry: Entry, algorithm: str) -> RunningDigest:
        running = RunningDigest(algorithm)
        buffer = self.pool.lend(min(self.part_size_bytes, entry.size_bytes))
        try:
            for start in range(0, entry.size_bytes, self.part_size_bytes):
                view = buffer.view[: min(self.part_size_bytes, entry.size_bytes - start)]
                self.read(entry, start, view)
                running.feed(view)
                view.release()
        finally:
            buffer.give_back()
        return running

    def read(self, entry: Entry, start: int, view: memoryview) -> None:
        """Fill the view from the source object that was listed, and from no other."""
        try:
            count = self.source.read_into(self.source_bucket, entry.key, start, view, entry.source_etag)
        except (PreconditionFailed, NotFound) as error:
            raise SourceChanged(f"{entry.key} changed during its copy") from error
        if count != len(view):
            raise SourceChanged(f"{entry.key}: {count} of {len(view)} bytes at {start}")

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

    def _announce(self, entry: Entry, running: RunningDigest, losses: str) -> Entry:
        """Write down what is about to become visible: after a crash we know these bytes at the target as ours, even
        if the source has changed meanwhile."""
        entry = entry.with_(
            state="sending", sha256=running.sha256, check_digest=str(running.check or ""), losses=losses
        )
        self.journal.put(entry)
        return entry

    def _copy_whole(self, entry: Entry, there: ObjectInfo | None, sent: Sent) -> Entry:
        condition = self._condition(entry, there)
        entry = self._forget_upload(entry)
        buffer = self.pool.lend(entry.size_bytes)
        try:
            meta, losses, running = self._fetch(entry, buffer.view)
            self._check_unchanged(entry)
            entry = self._announce(entry, running, "; ".join(losses))
            sent(entry.size_bytes)
            try:
                written = self.target.write(
                    self.target_bucket, entry.key, buffer.view, meta, digests=_known(running), **condition
                )
            except PreconditionFailed:
                written = self._ours_or_foreign(entry, running)
        finally:
            buffer.give_back()
        return self._finished(entry, running, written)

    def _fetch(self, entry: Entry, view: memoryview) -> tuple[ObjectMeta, list[str], RunningDigest]:
        """A whole object in the buffer, compared with the digest that its own store tells."""
        for _ in range(_DAMAGED_TRIES):
            try:
                info, meta = self.source.fetch(self.source_bucket, entry.key, view, entry.source_etag)
            except (PreconditionFailed, NotFound) as error:
                raise SourceChanged(f"{entry.key} changed before its copy") from error
            if info.etag != entry.source_etag or info.size_bytes != entry.size_bytes:
                raise SourceChanged(f"{entry.key} changed before its copy")
            running = RunningDigest(check_algorithm(self.target))
            running.feed(view)
            told = info.digest(running.algorithm) if running.algorithm else None
            if told is None or told == running.check:
                return *fit(meta, self.target.features), running
        raise _damaged(entry, running.check, told)  # pyright: ignore[reportPossiblyUnboundVariable]

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

    def _prepare_parts(self, entry: Entry, there: ObjectInfo | None, part_size: int) -> Upload:
        info, meta, losses = self._look(entry)
        condition = self._condition(entry, there)
        entry, held = self._open_or_resume(entry.with_(losses="; ".join(losses)), meta, part_size)
        told = info.digest(check_algorithm(self.target))
        return Upload(entry, condition, {part.number: part for part in held}, part_size, told)

    def send_part(self, upload: Upload, part: Part, view: memoryview, check: Digest | None) -> Part:
        """One part to the target."""
        last = part.number == upload.count
        return self.target.write_part(
            self.target_bucket, upload.entry.key, upload.entry.upload, part, view, last=last,
            digests=(check,) if check else (),
        )  # fmt: skip

    def finish(self, upload: Upload, parts: list[Part], running: RunningDigest) -> Entry:
        """Make the object of its parts, once all of them are there and hashed."""
        entry = upload.entry
        try:
            self._check_unchanged(entry)
            if upload.told is not None and upload.told != running.check:
                raise _damaged(entry, running.check, upload.told)
            entry = self._announce(entry, running, entry.losses)
            self.journal.barrier()
            try:
                written = self.target.complete(self.target_bucket, entry.key, entry.upload, parts, **upload.condition)
            except (PreconditionFailed, NotFound):
                written = self._ours_or_foreign(entry, running)
            return self._finished(entry, running, written)
        except SourceChanged:
            raise
        except PreconditionFailed as error:
            self.give_up(upload)
            if isinstance(error, ForeignObject):
                raise
            raise SourceChanged(f"{entry.key}: {error}") from error

    def give_up(self, upload: Upload) -> None:
        """These parts can never become the object any more."""
        self._forget_upload(upload.entry)

    def _open_or_resume(self, entry: Entry, meta: ObjectMeta, part_size: int) -> tuple[Entry, list[Part]]:
        if entry.upload:
            try:
                held = self.target.parts(self.target_bucket, entry.key, entry.upload)
                return entry, _usable(held, entry.size_bytes, part_size)
            except NotFound:
                pass
            self.target.abort(self.target_bucket, entry.key, entry.upload)
        upload = self.target.open_upload(self.target_bucket, entry.key, meta, entry.size_bytes)
        entry = entry.with_(state="sending", upload=upload, sha256="", check_digest="")
        self.journal.put(entry)
        self.journal.barrier()  # an upload the journal never heard of could not be resumed, nor cleaned away
        return entry, []

    def _finished(self, entry: Entry, running: RunningDigest | _Known, written: ObjectInfo) -> Entry:
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


class _Known:
    """The digests of a copy that was cut short, as they were written down before the bytes were sent."""

    def __init__(self, entry: Entry) -> None:
        self.sha256 = entry.sha256
        self.check = Digest.parse(entry.check_digest) if entry.check_digest else None
        self.algorithm = self.check.algorithm if self.check else ""


def _known(running: RunningDigest) -> Digests:
    sha256 = Digest("sha256", running.sha256)
    return (running.check, sha256) if running.check else (sha256,)


def _damaged(entry: Entry, read: Digest | None, told: Digest | None) -> DigestMismatch:
    return DigestMismatch(
        f"{entry.key}: the source's store says it is {told}, but its bytes came as {read}",
        hint="the object is damaged where it lies, or on the way; compare it with a backup before it is carried",
    )


def _usable(held: list[Part], size_bytes: int, part_size: int) -> list[Part]:
    """Those parts that are where, and as long as, ours would be."""
    return [
        part
        for part in held
        if part.number * part_size - part_size == part.offset_bytes < size_bytes
        and part.size_bytes == min(part_size, size_bytes - part.offset_bytes)
    ]
