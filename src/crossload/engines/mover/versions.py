"""One version from source to target: read by its name, hashed in the same pass, written on top of the one before it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crossload.engines.mover.buffers import BufferPool
from crossload.engines.mover.digests import RunningDigest, check_algorithm, crc, crc_digest
from crossload.engines.mover.meta import fit
from crossload.estate.digest import Digest
from crossload.ports.errors import CrossloadError, DigestMismatch, NotFound, PreconditionFailed, Throttled
from crossload.ports.store import Digests, ObjectInfo, ObjectMeta, Part, VersionedStore

_STEP_BYTES = 2**20
_HASH_BYTES = 4 * 2**20
_TRIES = 6
Announce = Callable[[str, str], None]


class Late(PreconditionFailed):
    """The versions of a key changed under us: they are listed again with the next run."""

    code = "changed-meanwhile"


@dataclass(frozen=True, slots=True)
class CopiedVersion:
    """`check` is the digest that the target tells by itself, as text; `trust` is sent | stored | reread."""

    info: ObjectInfo
    sha256: str
    check: str
    trust: str


@dataclass(frozen=True, slots=True)
class VersionCopier:
    """Safe to share between threads."""

    source: VersionedStore
    source_bucket: str
    target: VersionedStore
    target_bucket: str
    part_size_bytes: int
    pool: BufferPool
    sent: Callable[[int], None]
    lost: Callable[[list[str]], None]

    def copy(self, event: ObjectInfo, there: str, announce: Announce) -> CopiedVersion:
        """Write this version where the etag `there` is ("" for nothing, or a delete marker). `announce` hears of an
        upload that was opened, and of the sha256 of what is about to become visible.

        Raises PreconditionFailed when somebody else wrote there, DigestMismatch, or a store's error."""
        try:
            told, meta = self.source.head_version(self.source_bucket, event.key, event.version)
        except NotFound as error:
            raise Late(f"version {event.version} is gone", hint="run the same command again") from error
        meta, losses = fit(meta, self.target.features)
        condition: dict[str, Any] = {"if_match": there} if there else {"if_absent": True}
        running = RunningDigest(check_algorithm(self.target))
        if event.size_bytes <= self._part_size(event.size_bytes):
            written = self._whole(event, told, meta, condition, running, announce)
        else:
            written = self._in_parts(event, told, meta, condition, running, announce)
        self.lost(losses)
        return self._checked(event, running, written)

    def mark(self, key: str) -> str:
        """A delete marker. A store that marks no deletes, and has nothing to delete, needs none."""
        tries = 0
        while True:
            try:
                return self.target.mark_deleted(self.target_bucket, key)
            except NotFound:
                return ""
            except Throttled as error:  # refused, so it may be asked again; after any other error it may have happened
                tries += 1
                if tries == _TRIES:
                    raise
                pause = 0.1 * 2**tries
                time.sleep(pause if error.retry_after_seconds is None else max(pause, error.retry_after_seconds))

    def forget(self, key: str, upload: str) -> None:
        """An open upload is paid for until somebody aborts it."""
        if upload:
            self.target.abort(self.target_bucket, key, upload)

    def sha256_of(self, event: ObjectInfo) -> str:
        """Of a version at the source."""
        return sha256_of_version(self.source, self.source_bucket, event)

    def hash_both(self, event: ObjectInfo, info: ObjectInfo) -> tuple[str, str]:
        return self.sha256_of(event), sha256_of_version(self.target, self.target_bucket, info)

    def _whole(
        self, event: ObjectInfo, told: ObjectInfo, meta: ObjectMeta, condition: dict[str, Any],
        running: RunningDigest, announce: Announce,
    ) -> ObjectInfo:  # fmt: skip
        buffer = self.pool.lend(event.size_bytes)
        try:
            self._read(event, 0, buffer.view)
            running.feed(buffer.view)
            _expect_told(event, told, running)
            announce("", running.sha256)
            self.sent(event.size_bytes)
            return self.target.write(
                self.target_bucket, event.key, buffer.view, meta, digests=_known(running), **condition
            )
        finally:
            buffer.give_back()

    def _in_parts(
        self, event: ObjectInfo, told: ObjectInfo, meta: ObjectMeta, condition: dict[str, Any],
        running: RunningDigest, announce: Announce,
    ) -> ObjectInfo:  # fmt: skip
        size = self._part_size(event.size_bytes)
        upload = self.target.open_upload(self.target_bucket, event.key, meta, event.size_bytes)
        announce(upload, "")
        parts: list[Part] = []
        try:
            buffer = self.pool.lend(size)
            try:
                for start in range(0, event.size_bytes, size):
                    view = buffer.view[: min(size, event.size_bytes - start)]
                    try:
                        parts.append(self._part(event, upload, len(parts) + 1, start, view, running))
                    finally:
                        view.release()
            finally:
                buffer.give_back()
            _expect_told(event, told, running)
            announce(upload, running.sha256)
            return self.target.complete(self.target_bucket, event.key, upload, parts, **condition)
        except CrossloadError:
            self.target.abort(self.target_bucket, event.key, upload)
            raise

    def _part(
        self, event: ObjectInfo, upload: str, number: int, start: int, view: memoryview, running: RunningDigest
    ) -> Part:
        self._read(event, start, view)
        value = crc(running.algorithm, view)
        running.feed(view, value)
        self.sent(len(view))
        check = crc_digest(running.algorithm, value)
        last = start + len(view) == event.size_bytes
        return self.target.write_part(
            self.target_bucket, event.key, upload, Part(number, start, len(view), ""), view, last=last,
            digests=(check,) if check else (),
        )  # fmt: skip

    def _read(self, event: ObjectInfo, start: int, view: memoryview) -> None:
        count = self.source.read_version_into(self.source_bucket, event.key, event.version, start, view)
        if count != len(view):
            raise Late(f"version {event.version}: {count} of {len(view)} bytes at {start}", hint="run it again")

    def _part_size(self, size_bytes: int) -> int:
        features = self.target.features
        size = max(self.part_size_bytes, features.part_size_bytes_min)
        if size * features.parts_max >= size_bytes:
            return size
        return -(-size_bytes // (features.parts_max * _STEP_BYTES)) * _STEP_BYTES

    def _checked(self, event: ObjectInfo, running: RunningDigest, written: ObjectInfo) -> CopiedVersion:
        """Compare what the target says it holds with what we read; a version that is wrong is taken away again."""
        if not written.version:
            raise PreconditionFailed(f"{self.target_bucket} gave the version no name: it keeps none")
        told = written.digest(running.algorithm) if running.algorithm else None
        if running.algorithm and told is None:
            told = self.target.head_version(self.target_bucket, event.key, written.version)[0].digest(running.algorithm)
        problem, trust = "", "sent"
        if written.size_bytes != event.size_bytes:
            problem = f"{written.size_bytes} of {event.size_bytes} bytes arrived"
        elif told is not None:
            trust = "stored"
            problem = "" if told == running.check else f"we read {running.check}, the target holds {told}"
        elif not self.target.features.digests_verified:
            trust = "reread"
            if sha256_of_version(self.target, self.target_bucket, written) != running.sha256:
                problem = "read back with another sha256 than the source's"
        if problem:
            self.target.delete_version(self.target_bucket, event.key, written.version)
            raise DigestMismatch(f"version {event.version}: {problem}", hint="run the same command again")
        return CopiedVersion(written, running.sha256, str(running.check or ""), trust)


def sha256_of_version(store: VersionedStore, bucket: str, info: ObjectInfo) -> str:
    """Read piece by piece. Raises Late when it is gone or shorter than it was listed."""
    digest = hashlib.sha256()
    held = memoryview(bytearray(min(_HASH_BYTES, info.size_bytes)))
    for start in range(0, info.size_bytes, _HASH_BYTES):
        view = held[: min(_HASH_BYTES, info.size_bytes - start)]
        if store.read_version_into(bucket, info.key, info.version, start, view) != len(view):
            raise Late(f"version {info.version} changed while it was read", hint="run it again")
        digest.update(view)
    return digest.hexdigest()


def same_content(copier: VersionCopier, event: ObjectInfo, info: ObjectInfo) -> bool:
    """Whether a version at the target is this version of the source: by a digest that both stores tell, else by
    reading both."""
    if event.is_delete_marker or info.is_delete_marker:
        return event.is_delete_marker and info.is_delete_marker
    if event.size_bytes != info.size_bytes:
        return False
    ours = copier.source.head_version(copier.source_bucket, event.key, event.version)[0]
    theirs = copier.target.head_version(copier.target_bucket, info.key, info.version)[0]
    for digest in ours.digests:
        other = theirs.digest(digest.algorithm)
        if other is not None and digest.algorithm != "md5":
            return other == digest
    one, other_one = copier.hash_both(event, info)
    return one == other_one


def _expect_told(event: ObjectInfo, told: ObjectInfo, running: RunningDigest) -> None:
    digest: Digest | None = told.digest(running.algorithm) if running.algorithm else None
    if digest is not None and digest != running.check:
        raise DigestMismatch(
            f"version {event.version}: the source's store says {digest}, its bytes came as {running.check}",
            hint="it is damaged where it lies, or on the way; compare it with a backup",
        )


def _known(running: RunningDigest) -> Digests:
    sha256 = Digest("sha256", running.sha256)
    return (running.check, sha256) if running.check else (sha256,)
