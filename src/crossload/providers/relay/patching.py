"""A patch on the far side: spooled, applied against the stored base into a draft, seen to be right, then made visible.

How a patch is read is the business of whoever hands in `ApplyPatch`; here are the store and the order of things."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any, Protocol

from crossload.ports.errors import CrossloadError, DigestMismatch, Invalid, PreconditionFailed, Unavailable
from crossload.ports.store import ObjectInfo, ObjectMeta, Part, Store

_PART_BYTES = 16 * 2**20
_STEP_BYTES = 2**20
_WORKING_BYTES = 64 * 2**20  # what applying takes besides the draft's part (docs/chunks.md)

Read = Callable[[int, int], bytes]


class ApplyPatch(Protocol):
    """Writes the new file as it goes and returns its SHA-256 once it is known to be the one the patch carries. `base`
    and `patch` are (ranged read, size); `base_sha256` is "" where nobody knows it. Raises the errors of
    docs/chunks.md; what was written by then is nothing."""

    def __call__(
        self, base: tuple[Read, int], patch: tuple[Read, int], out: Callable[[bytes], object], *, base_sha256: str,
        new_sha256: str, new_size_bytes_max: int,
    ) -> str: ...  # fmt: skip


@dataclass(frozen=True, slots=True)
class PatchJob:
    """`base_etag` is the version of `base_key` that the patch is for; digests are SHA-256, of the new file and of the
    patch itself."""

    bucket: str
    key: str
    base_key: str
    base_etag: str
    new_size_bytes: int
    new_sha256: str
    patch_sha256: str
    meta: ObjectMeta


def patch_object(
    store: Store, job: PatchJob, apply_patch: ApplyPatch, hold: Callable[[int], None], blocks: Iterator[bytes],
    stay_in_touch: Callable[[], AbstractContextManager[None]], condition: Mapping[str, Any],
) -> ObjectInfo:  # fmt: skip
    """The new object. By any error the key is what it was before, and no upload stays open."""
    base, _ = store.head(job.bucket, job.base_key)
    if not job.base_etag or base.etag != job.base_etag:
        raise PreconditionFailed(
            f"{job.bucket}/{job.base_key} is not the version that the patch is for", hint="send the file whole"
        )
    part_bytes = _part_bytes(store, job.new_size_bytes)
    hold(2 * part_bytes + _WORKING_BYTES)
    with tempfile.TemporaryFile(prefix="crossload-patch-") as spool:
        size = _spool(spool, blocks, job)
        known = base.digest("sha256")
        etag = base.etag if store.features.conditional_read else ""

        def read_base(start: int, length: int) -> bytes:
            return store.read(job.bucket, job.base_key, start, length, etag)

        def read_patch(start: int, length: int) -> bytes:
            spool.seek(start)
            return spool.read(length)

        draft = _Draft(store, job, part_bytes)
        try:
            with stay_in_touch():
                apply_patch(
                    (read_base, base.size_bytes), (read_patch, size), draft.write,
                    base_sha256=known.hex if known else "", new_sha256=job.new_sha256,
                    new_size_bytes_max=job.new_size_bytes,
                )  # fmt: skip
                return draft.publish(condition)
        finally:
            draft.forget()


def _spool(spool: IO[bytes], blocks: Iterator[bytes], job: PatchJob) -> int:
    running, size = hashlib.sha256(), 0
    for block in blocks:
        running.update(block)
        size += len(block)
        try:
            spool.write(block)
        except OSError as error:
            raise Unavailable(f"no room for the patch: {error.strerror}", hint="free the agent's disk") from error
    if running.hexdigest() != job.patch_sha256:
        raise DigestMismatch(f"{job.bucket}/{job.key}: another patch arrived than was sent")
    return size


def _part_bytes(store: Store, size_bytes: int) -> int:
    least = -(-size_bytes // store.features.parts_max)
    return max(_PART_BYTES, store.features.part_size_bytes_min, -(-least // _STEP_BYTES) * _STEP_BYTES)


class _Draft:
    """An object in the making: an upload in parts that is completed last, or one write when it is small."""

    def __init__(self, store: Store, job: PatchJob, part_bytes: int) -> None:
        self._store, self._job, self._part_bytes = store, job, part_bytes
        self._held = bytearray()
        self._parts: list[Part] = []
        self._sent_bytes = 0
        self._upload = ""

    def write(self, data: bytes) -> None:
        self._held += data
        while len(self._held) >= self._part_bytes and self._job.new_size_bytes > self._part_bytes:
            self._part(self._part_bytes)

    def publish(self, condition: Mapping[str, Any]) -> ObjectInfo:
        """Make it visible. Raises Invalid when it has another size than was said."""
        job = self._job
        if self._sent_bytes + len(self._held) != job.new_size_bytes:
            raise Invalid(f"the patch makes {self._sent_bytes + len(self._held)} bytes, not {job.new_size_bytes}")
        if not self._parts:
            return self._store.write(job.bucket, job.key, bytes(self._held), job.meta, **condition)
        if self._held:
            self._part(len(self._held))
        info = self._store.complete(job.bucket, job.key, self._upload, self._parts, **condition)
        self._upload = ""
        return info

    def forget(self) -> None:
        """Nothing to do once it is visible."""
        if self._upload:
            with contextlib.suppress(CrossloadError):  # the first error is the one to tell
                self._store.abort(self._job.bucket, self._job.key, self._upload)
            self._upload = ""

    def _part(self, size_bytes: int) -> None:
        job = self._job
        if not self._upload:
            self._upload = self._store.open_upload(job.bucket, job.key, job.meta, job.new_size_bytes)
        data = bytes(self._held[:size_bytes])
        del self._held[:size_bytes]
        last = self._sent_bytes + size_bytes == job.new_size_bytes
        part = Part(len(self._parts) + 1, self._sent_bytes, size_bytes, "")
        self._parts.append(self._store.write_part(job.bucket, job.key, self._upload, part, data, last=last))
        self._sent_bytes += size_bytes
