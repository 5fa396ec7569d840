"""Chunks cut where the content says so (FastCDC): an insertion moves the cuts with it, and the rest is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossload.engines.mover.chunks.content import BLOCK_BYTES, Content
from crossload.ports.errors import Unsupported

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

CHUNK_BYTES_MIN, CHUNK_BYTES, CHUNK_BYTES_MAX = 64 * 2**10, 2**20, 4 * 2**20
REMEMBERED_MAX = 64 * 2**10  # about 64 GiB of base; each costs some 200 bytes of memory


@dataclass(frozen=True, slots=True)
class Chunk:
    """`data` is valid until the next chunk is asked for."""

    start: int
    data: memoryview

    def sha256(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def cut(content: Content, start: int = 0, length: int | None = None) -> Iterator[Chunk]:
    """Chunks of 64 KiB to 4 MiB, 1 MiB on average, in order and without gaps. Equal bytes are cut equally, whatever
    stands before them. Memory: two times the largest chunk. Raises Unsupported without the extra `move`."""
    size = content.size_bytes - start if length is None else length
    for piece in _cutter().cut_stream(_Stream(content, start, start + size)):
        yield Chunk(start + piece.offset, piece.data)


def _cutter() -> FastCDC:
    try:
        from pyfastcdc import FastCDC
    except ImportError as error:
        raise Unsupported("chunks need pyfastcdc, which is not here", hint="pip install 'crossload[move]'") from error
    return FastCDC(CHUNK_BYTES, min_size=CHUNK_BYTES_MIN, max_size=CHUNK_BYTES_MAX)


class _Stream:
    """A range of a content as the stream that the cutter reads."""

    def __init__(self, content: Content, start: int, end: int) -> None:
        self._content, self._at, self._end = content, start, end

    def readinto(self, b: memoryview) -> int:
        data = self._content.take(self._at, min(len(b), BLOCK_BYTES, self._end - self._at))
        b[: len(data)] = data
        self._at += len(data)
        return len(data)


class Table:
    """Where the base holds which chunk. It forgets nothing and takes no more than REMEMBERED_MAX chunks: past that a
    patch becomes larger, and stays right."""

    def __init__(self, chunks_max: int = REMEMBERED_MAX) -> None:
        self._places: dict[bytes, int] = {}
        self._chunks_max = chunks_max

    def add(self, sha256: bytes, start: int, length: int) -> None:
        if len(self._places) < self._chunks_max:
            self._places.setdefault(sha256, start << 23 | length)

    def find(self, sha256: bytes, length: int) -> int | None:
        """Where that chunk begins in the base; None when it is not known."""
        place = self._places.get(sha256)
        return place >> 23 if place is not None and place & (2**23 - 1) == length else None
