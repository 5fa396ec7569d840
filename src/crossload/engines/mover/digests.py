"""Digests in one pass, and how we know that a target holds certain bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import cast

from awscrt import checksums

from crossload.estate.digest import Digest
from crossload.ledger.journal import Entry
from crossload.ports.errors import NotFound, PreconditionFailed
from crossload.ports.store import Bytes, ObjectInfo, Store

_REREAD_BYTES = 8 * 2**20


_WIDTHS = {"crc32c": 4, "crc64nvme": 8}
_CRC: dict[str, Callable[[bytes, int], int]] = {"crc32c": checksums.crc32c, "crc64nvme": checksums.crc64nvme}
_COMBINE: dict[str, Callable[[int, int, int], int]] = {
    "crc32c": checksums.combine_crc32c, "crc64nvme": checksums.combine_crc64nvme,
}  # fmt: skip


def crc(algorithm: str, data: Bytes) -> int:
    """CRC of one piece; 0 for an algorithm that is none of ours."""
    function = _CRC.get(algorithm)
    return function(cast("bytes", data), 0) if function else 0


def crc_digest(algorithm: str, value: int) -> Digest | None:
    """A CRC in the words of the port; None when there is none."""
    width = _WIDTHS.get(algorithm)
    return Digest(algorithm, value.to_bytes(width, "big").hex()) if width else None


class RunningDigest:
    """sha256 of bytes fed in order, and the CRC that the target computes by itself, joined from those of the pieces:
    a piece's CRC may be computed by another thread, long before its turn."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._crc = 0
        self._told: tuple[str, Digest | None] | None = None

    def feed(self, data: Bytes, known: int | None = None) -> None:
        """`known` is the piece's CRC, where that is known already."""
        self._sha256.update(data)
        if self.algorithm in _CRC:
            piece = crc(self.algorithm, data) if known is None else known
            self._crc = _COMBINE[self.algorithm](self._crc, piece, len(data)) if self.size_bytes else piece
        self.size_bytes += len(data)
        self._told = None

    @property
    def sha256(self) -> str:
        return self._so_far()[0]

    @property
    def check(self) -> Digest | None:
        return self._so_far()[1]

    def _so_far(self) -> tuple[str, Digest | None]:
        if self._told is None:
            self._told = self._sha256.hexdigest(), crc_digest(self.algorithm, self._crc)
        return self._told


def check_algorithm(target: Store) -> str:
    """The strongest digest the target reports by itself; "" when it reports none and we must read back."""
    offered = target.features.digests_returned
    return next((name for name in ("crc64nvme", "crc32c") if name in offered), "")


def is_ours(target: Store, bucket: str, entry: Entry, there: ObjectInfo) -> bool:
    """Whether the object at the target is one that this migration wrote: by its etag, or by the digest that was
    written down before it was sent."""
    if entry.target_etag and entry.target_etag == there.etag:
        return True
    return bool(entry.sha256) and holds(target, bucket, there, entry.check_digest, entry.sha256)


def holds(target: Store, bucket: str, there: ObjectInfo, check_digest: str, sha256: str) -> bool:
    """Whether the target's object is these bytes: by the digest the store reports, else by reading it back."""
    if check_digest:
        wanted = Digest.parse(check_digest)
        theirs = stored_digest(target, bucket, there, wanted.algorithm)
        if theirs is not None:
            return theirs == wanted
    return reread(target, bucket, there) == sha256


def stored_digest(target: Store, bucket: str, there: ObjectInfo, algorithm: str) -> Digest | None:
    """What the store reports by itself. Many leave digests out of listings; asking for them is cheaper than reading
    everything back."""
    theirs = there.digest(algorithm)
    if theirs is None and algorithm in target.features.digests_returned:
        theirs = target.head(bucket, there.key)[0].digest(algorithm)
    return theirs


def reread(target: Store, bucket: str, there: ObjectInfo) -> str:
    """sha256 of the bytes the target holds, "" when they changed or vanished while they were read."""
    try:
        return sha256_at(target, bucket, there, if_match=there.etag)
    except (NotFound, PreconditionFailed):
        return ""


def sha256_at(target: Store, bucket: str, there: ObjectInfo, if_match: str = "") -> str:
    """sha256 of the bytes at a key, read piece by piece."""
    digest = hashlib.sha256()
    for start in range(0, there.size_bytes, _REREAD_BYTES):
        length = min(_REREAD_BYTES, there.size_bytes - start)
        digest.update(target.read(bucket, there.key, start, length, if_match=if_match))
    return digest.hexdigest()
