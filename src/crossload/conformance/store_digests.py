"""Are the digests a store returns those of the bytes?"""

from __future__ import annotations

import hashlib

from crossload.conformance.case import NotOffered, expect_equal
from crossload.estate.digest import Digest
from crossload.ports.store import ObjectInfo


def digest_of(algorithm: str, data: bytes) -> Digest:
    """Computed here, independently of any provider. Raises NotOffered for an algorithm we do not know."""
    if algorithm in ("sha256", "md5"):
        return Digest(algorithm, hashlib.new(algorithm, data, usedforsecurity=False).hexdigest())
    if algorithm == "crc64nvme":
        from awscrt import checksums

        return Digest(algorithm, checksums.crc64nvme(data).to_bytes(8, "big").hex())
    if algorithm == "crc32c":
        from awscrt import checksums

        return Digest(algorithm, checksums.crc32c(data).to_bytes(4, "big").hex())
    raise NotOffered(f"no way here to compute {algorithm}")


def expect_true_digests(info: ObjectInfo, data: bytes) -> None:
    for digest in info.digests:
        expect_equal(digest, digest_of(digest.algorithm, data), f"{digest.algorithm} of {info.key}")
