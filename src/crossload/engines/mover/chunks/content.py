"""Bytes that are read in ranges: a file, an object of a store, a byte string."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from crossload.ports.errors import Invalid

Read = Callable[[int, int], bytes]
Write = Callable[[bytes], object]

BLOCK_BYTES = 4 * 2**20  # of one read
_AHEAD_BYTES = 256 * 2**10


@dataclass(frozen=True, slots=True)
class Content:
    """`read(start, length)` gives the bytes [start, start+length), as a store's ranged read does; it is never asked for
    anything outside [0, size_bytes). The bytes must not change meanwhile; where they do, digests tell."""

    read: Read
    size_bytes: int

    @classmethod
    def of(cls, data: bytes) -> Content:
        """The content that is already in memory."""
        return cls(lambda start, length: data[start : start + length], len(data))

    def take(self, start: int, length: int) -> bytes:
        """Exactly these bytes. Raises Invalid when they lie outside, or when the reader gives more or fewer."""
        if start < 0 or length < 0 or start + length > self.size_bytes:
            raise Invalid(f"bytes {start} to {start + length} of {self.size_bytes} were asked for")
        data = self.read(start, length) if length else b""
        if len(data) != length:
            raise Invalid(
                f"{len(data)} of {length} bytes came at {start}", hint="the file changed or was cut: begin again"
            )
        return data

    def blocks(self, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes in order, in blocks of at most BLOCK_BYTES."""
        end = self.size_bytes if length is None else start + length
        for at in range(start, end, BLOCK_BYTES):
            yield self.take(at, min(BLOCK_BYTES, end - at))

    def sha256(self) -> str:
        """SHA-256 (FIPS 180-4) of the whole, lower-case hexadecimal."""
        running = hashlib.sha256()
        for block in self.blocks():
            running.update(block)
        return running.hexdigest()


class Ahead:
    """Small reads in about ascending order are served from one larger read: a file of a thousand small tensors costs
    a few dozen requests, not a thousand. Reads without jumps ask for each byte once, in order: a stream will do."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._start, self._held = 0, b""

    def take(self, start: int, length: int) -> bytes:
        """As Content.take."""
        at = start - self._start
        if not 0 <= at <= len(self._held):
            self._start, self._held, at = start, b"", 0
        head = self._held[at : at + length]
        rest, behind = length - len(head), self._start + len(self._held)
        if not rest:
            return head
        if rest >= _AHEAD_BYTES:
            more = self._content.take(behind, rest)
            self._start, self._held = behind + rest, b""
        else:
            more = self._content.take(behind, max(rest, min(_AHEAD_BYTES, self._content.size_bytes - behind)))
            self._start, self._held = behind, more
        return head + more[:rest] if head or len(more) > rest else more
