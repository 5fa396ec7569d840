"""One blob from registry to registry: skipped where it is, mounted where it can be, else streamed and hashed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from crossload.engines.mover.image_notes import ImageNotes
from crossload.ports.errors import (
    CrossloadError,
    DigestMismatch,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unavailable,
    Unsupported,
)
from crossload.ports.registry import Descriptor, Registry, Upload
from crossload.ports.retrying import RetryPolicy, retry

Moved = Callable[[int, int], None]  # (blobs, bytes)
Say = Callable[[str], None]

_LOST_UPLOADS_MAX = 5


class Stopped(Exception):
    """Another worker failed; this one leaves its blob where it is, to be gone on with."""


@dataclass(slots=True)
class _Sending:
    """`hash` covers the first `hashed_bytes`. `unsure`: only the server knows how much it has. `spoilt`: the
    server's bytes are not those that we read."""

    blob: Descriptor
    size_bytes: int
    hash: Any
    upload: Upload | None = None
    hashed_bytes: int = 0
    unsure: bool = False
    spoilt: bool = False
    lost: int = 0


@dataclass(slots=True)
class BlobMover:
    """Moves blobs of one repository. Safe to share between threads."""

    source: Registry
    source_repository: str
    target: Registry
    target_repository: str
    notes: ImageNotes
    piece_bytes: int
    mount_from: tuple[str, ...] = ()
    moved: Moved = lambda blobs, size_bytes: None
    say: Say = lambda text: None
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    stop: threading.Event = field(default_factory=threading.Event)
    _chunked: bool = True

    def move(self, blob: Descriptor) -> str:
        """Returns found | mounted | sent | elsewhere (content that neither registry need hold).

        Raises DigestMismatch when the source's bytes are not what their digest says; nothing is made of them then."""
        there = self._size_there(blob)
        if there is not None:
            self._same_size(blob, there)
            return "found"
        for other in self.mount_from:
            if self._mounted(blob, other):
                return "mounted"
        try:
            size = retry(lambda: self.source.head_blob(self.source_repository, blob.digest), self.policy, self.say)
        except NotFound:
            if blob.urls:
                return "elsewhere"
            raise
        self._same_size(blob, size)
        self._send(blob, size)
        there = self._size_there(blob)
        if there is None:
            raise Unavailable(f"{self.target.uri(self.target_repository, blob.digest)}: sent, and not there")
        self._same_size(blob, there)
        return "sent"

    def reread(self, blob: Descriptor) -> None:
        """Read the target's bytes back. Raises DigestMismatch."""

        def whole() -> str:
            running = _hash_of(blob.digest)
            for piece in self.target.read_blob(self.target_repository, blob.digest):
                running.update(piece)
            return str(running.hexdigest())

        _check(self.target.uri(self.target_repository, blob.digest), blob.digest, retry(whole, self.policy, self.say))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _size_there(self, blob: Descriptor) -> int | None:
        try:
            return retry(lambda: self.target.head_blob(self.target_repository, blob.digest), self.policy, self.say)
        except NotFound:
            return None

    def _same_size(self, blob: Descriptor, size_bytes: int) -> None:
        if blob.size_bytes is not None and blob.size_bytes != size_bytes:
            raise DigestMismatch(f"{blob.digest} has {size_bytes} bytes, and its manifest says {blob.size_bytes}")

    def _mounted(self, blob: Descriptor, other: str) -> bool:
        try:
            return self.target.mount(self.target_repository, blob.digest, other)
        except CrossloadError as error:  # a mount only saves work: without it the blob is sent
            self.say(f"{blob.digest} is not taken over from {other}: {error}")
            return False

    def _send(self, blob: Descriptor, size_bytes: int) -> None:
        sending = _Sending(blob, size_bytes, _hash_of(blob.digest))
        noted = self.notes.upload(blob.digest)
        if noted:
            sending.upload, sending.unsure = Upload(noted), True
        try:
            self._send_whole(sending)
        except DigestMismatch:
            if not sending.spoilt:
                raise
            # The source's bytes were right: they suffered on their way, or went on from what we had not sent.
            self._drop(sending)
            self._send_whole(sending)
        except BaseException:
            if not self.notes.durable:  # nobody will ever go on with it
                self._drop(sending)
            raise
        self.notes.note_upload(blob.digest, "")

    def _send_whole(self, sending: _Sending) -> None:
        blob, size_bytes = sending.blob, sending.size_bytes
        while sending.upload is None or sending.unsure or sending.upload.offset_bytes < size_bytes:
            retry(lambda: self._piece(sending), self.policy, self.say)
        upload = sending.upload
        try:
            _check(self.source.uri(self.source_repository, blob.digest), blob.digest, sending.hash.hexdigest())
        except DigestMismatch:
            self._drop(sending)  # nothing of it becomes visible
            raise
        try:
            retry(lambda: self._finish(blob, upload), self.policy, self.say)
        except DigestMismatch:
            sending.spoilt = True
            raise

    def _piece(self, sending: _Sending) -> None:
        """Send the next piece; may be called again after any failure, and then asks the server first."""
        if self.stop.is_set():
            raise Stopped
        self._settle(sending)
        upload = sending.upload
        assert upload is not None
        start, left = upload.offset_bytes, sending.size_bytes - upload.offset_bytes
        if left <= 0:
            return
        chunked = self._chunked and self.target.features.chunked_uploads
        length = min(left, max(self.piece_bytes, upload.chunk_bytes_min)) if chunked else left
        running = sending.hash.copy()
        data = self.source.read_blob(self.source_repository, sending.blob.digest, start, length)
        sending.unsure = True
        try:
            after = self.target.append(upload, self._through(running, data), length, whole=length == sending.size_bytes)
        except PreconditionFailed as error:
            sending.lost += 1
            if sending.lost > _LOST_UPLOADS_MAX:
                raise
            raise Unavailable(f"an upload goes on elsewhere: {error}") from error
        except (Invalid, Unsupported):
            if start or length == sending.size_bytes:
                raise
            self.say(f"{self.target.place} takes no chunks: blobs are sent in one request")
            self._chunked = False
            self._drop(sending)
            return
        sending.hash, sending.hashed_bytes = running, start + length
        sending.upload, sending.unsure = after, False
        if sending.hashed_bytes < sending.size_bytes:
            self.notes.note_upload(sending.blob.digest, after.location)

    def _settle(self, sending: _Sending) -> None:
        """Know where the upload goes on, and have hashed everything before it: our own bytes of an earlier run count
        for nothing until they were read again."""
        if sending.upload is not None and sending.unsure:
            try:
                sending.upload = self.target.upload_state(sending.upload)
            except (NotFound, Invalid, PreconditionFailed, Unsupported):
                sending.upload = None
        if sending.upload is not None and sending.upload.offset_bytes > sending.size_bytes:
            self._drop(sending)
        if sending.upload is None:
            sending.upload = self.target.open_upload(self.target_repository)
            self.notes.note_upload(sending.blob.digest, sending.upload.location)
        sending.unsure = False
        offset = sending.upload.offset_bytes
        if offset < sending.hashed_bytes:
            sending.hash, sending.hashed_bytes = _hash_of(sending.blob.digest), 0
        if offset > sending.hashed_bytes:
            sending.unsure = True
            running, start = sending.hash.copy(), sending.hashed_bytes
            for piece in self.source.read_blob(self.source_repository, sending.blob.digest, start, offset - start):
                running.update(piece)
            sending.hash, sending.hashed_bytes, sending.unsure = running, offset, False

    def _through(self, running: Any, data: Iterable[bytes]) -> Iterator[bytes]:
        for piece in data:
            if self.stop.is_set():
                raise Stopped
            running.update(piece)
            yield piece
            self.moved(0, len(piece))

    def _finish(self, blob: Descriptor, upload: Upload) -> None:
        try:
            self.target.finish_upload(self.target_repository, upload, blob.digest)
        except NotFound:
            # An answer that was lost ended the upload: then the blob is there.
            self.target.head_blob(self.target_repository, blob.digest)

    def _drop(self, sending: _Sending) -> None:
        if sending.upload is not None:
            try:
                self.target.abort_upload(sending.upload)
            except CrossloadError as error:  # servers forget open uploads by themselves
                self.say(f"an upload of {sending.blob.digest} could not be cancelled: {error}")
        self.notes.note_upload(sending.blob.digest, "")
        sending.upload, sending.unsure = None, False
        sending.hash, sending.hashed_bytes = _hash_of(sending.blob.digest), 0


def _hash_of(digest: str) -> Any:
    return hashlib.new(digest.partition(":")[0])


def _check(what: str, digest: str, digits: str) -> None:
    if digits != digest.partition(":")[2]:
        raise DigestMismatch(f"{what}: its bytes are {digest.partition(':')[0]}:{digits}")
