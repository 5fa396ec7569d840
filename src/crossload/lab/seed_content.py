"""What the seed puts into cloud A's buckets, made from nothing but names: the same bytes on every run.

A key's own hash picks its size and its content, so an object never depends on which others exist.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

KIB = 2**10
MIB = 2**20

Kind = Literal["noise", "text", "tickets", "lines", "gzip"]

_BLOCK_BYTES = 4 * MIB
_WORDS = (
    "order parcel refund invoice python manual chapter loop string return carrier depot customs address label "
    "window reply question book index cover edition payment voucher account"
).split()


@dataclass(frozen=True, slots=True)
class SeedObject:
    """One object. `part_size_bytes` > 0 uploads it in parts of that size. `metadata` keys are lower-case."""

    key: str
    kind: Kind
    size_bytes: int = 0
    text: str = ""
    charset: str = "utf-8"
    content_type: str = "application/octet-stream"
    cache_control: str = ""
    content_disposition: str = ""
    content_encoding: str = ""
    content_language: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    part_size_bytes: int = 0

    def parts(self) -> Iterator[bytes]:
        """The bytes, in the parts they are uploaded in; one part for an ordinary object."""
        if not self.part_size_bytes:
            yield self.body()
            return
        left = self.size_bytes
        for number in range(-(-self.size_bytes // self.part_size_bytes)):
            yield noise(f"{self.key}#{number}", min(self.part_size_bytes, left))
            left -= self.part_size_bytes

    def body(self) -> bytes:
        match self.kind:
            case "noise":
                return noise(self.key, self.size_bytes)
            case "text":
                return self.text.encode(self.charset)
            case "tickets":
                return ticket(self.key, self.size_bytes)
            case "lines":
                return log_lines(self.key, self.size_bytes)
            case "gzip":
                return stored_gzip(self.text.encode())

    def fingerprint(self) -> tuple[str, int]:
        """ETag and size in bytes. The ETag is what an S3 server answers: MD5 of the bytes, or of the parts' MD5s and
        their number. `size_bytes` of the object itself is only what its maker aims at."""
        sums: list[bytes] = []
        size = 0
        for part in self.parts():
            sums.append(hashlib.md5(part, usedforsecurity=False).digest())
            size += len(part)
        if not self.part_size_bytes:
            return sums[0].hex(), size
        return f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(sums)}", size

    def etag(self) -> str:
        return self.fingerprint()[0]


def number_of(name: str, low: int, high: int) -> int:
    """A whole number in [low, high], fixed by `name`; small ones are more frequent (log-uniform)."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
    return int(low * (high / low) ** share)


def noise(name: str, size_bytes: int) -> bytes:
    """Bytes no compressor can shrink, different for every name. Fast: slices of one block, each under its own head."""
    block = _block()
    pieces: list[bytes | memoryview] = []
    left, number = size_bytes, 0
    while left > 0:
        head = hashlib.sha512(f"{name}\0{number}".encode()).digest()
        length = min(left, MIB)
        start = int.from_bytes(head[:4], "big") % (_BLOCK_BYTES - MIB)
        pieces += [head[:length], block[start : start + max(0, length - len(head))]]
        left -= length
        number += 1
    return b"".join(pieces)


@functools.cache
def _block() -> memoryview:
    return memoryview(hashlib.shake_256(b"crossload helpdesk").digest(_BLOCK_BYTES))


def ticket(name: str, size_bytes: int) -> bytes:
    """One JSON document of about `size_bytes`."""
    digest = hashlib.sha256(name.encode()).digest()
    words = " ".join(_WORDS[byte % len(_WORDS)] for byte in digest)
    body = (words + ". ") * max(1, size_bytes // (len(words) + 2))
    content = {"ticket": name, "priority": digest[0] % 4, "order_id": 1001 + digest[1] % 42, "body": body.strip()}
    return json.dumps(content, sort_keys=True).encode()


def log_lines(name: str, size_bytes: int) -> bytes:
    """JSON lines of about `size_bytes` in all, as a service's log looks: repetitive, with numbers that are not."""
    choices = _log_phrases()
    picks = noise(name, size_bytes // 80 + 1)
    lines = [
        f'{{"n": {number}, "ms": {pick * 3 + 1}, {choices[pick % len(choices)]}}}\n'
        for number, pick in enumerate(picks)
    ]
    return "".join(lines).encode()


@functools.cache
def _log_phrases() -> tuple[str, ...]:
    return tuple(
        f'"level": "{"warn" if number % 7 == 0 else "info"}", "event": "{first} {second}"'
        for number, (first, second) in enumerate(zip(_WORDS, reversed(_WORDS), strict=True))
    )


def stored_gzip(data: bytes) -> bytes:
    """A gzip file whose one block is stored, not deflated: two zlibs may deflate the same text to different bytes."""
    if len(data) > 0xFFFF:
        raise ValueError("one stored block holds 65,535 bytes at most")
    size = len(data).to_bytes(2, "little")
    block = b"\x01" + size + bytes(byte ^ 0xFF for byte in size) + data
    tail = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + block + tail
