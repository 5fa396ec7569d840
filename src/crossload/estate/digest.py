"""A digest names its algorithm, so that two of different kinds never compare equal by accident."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm` is one of sha256, crc64nvme, crc32c, md5; `hex` is lower-case hexadecimal, big-endian."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`. Raises ValueError when it is not that."""
        algorithm, _, digits = text.partition(":")
        if not algorithm or not digits or set(digits.lower()) - set("0123456789abcdef"):
            raise ValueError(f"not a digest: {text!r} (expected algorithm:hex)")
        return cls(algorithm, digits.lower())


def sha256_of(data: bytes | bytearray | memoryview) -> Digest:
    """SHA-256 (FIPS 180-4) of the bytes."""
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value that we hash: sorted keys, no spaces, UTF-8 (in the spirit of RFC 8785)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of_json(value: Any) -> Digest:
    """SHA-256 of the canonical JSON form."""
    return sha256_of(canonical_json(value))
