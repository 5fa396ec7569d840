"""The patch file: a head, pages of operations with their frames, an end. Written and read from front to back, once.

    magic     8 bytes   89 58 4C 50 0D 0A 1A 0A
    version   4 bytes   little-endian, 1
    record*   kind (1 byte: H head, P page, E end), length of the JSON (4 bytes, little-endian), SHA-256 of the JSON
              (32 bytes), the JSON (UTF-8); after a page's JSON its frames, in the order of its operations

docs/chunks.md has the keys. There are no names and no paths in it: where the result goes is the reader's affair."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crossload.engines.mover.chunks.content import Ahead, Content, Write
from crossload.engines.mover.chunks.packing import PIECE_BYTES_MAX, STORED, WIDTHS, Way
from crossload.estate.digest import canonical_json
from crossload.ports.errors import Invalid, Unsupported

MAGIC = b"\x89XLP\r\n\x1a\n"
VERSION = 1
METHODS = ("tensors", "chunks")
JSON_BYTES_MAX = 2**20
PAGE_OPERATIONS_MAX = 2048
_PAGE_BYTES = 2**20
_HEX = frozenset("0123456789abcdef")
_AGAIN = "make the patch again, or send it again"


@dataclass(frozen=True, slots=True)
class Head:
    """What the patch is from and to. Digests are SHA-256, lower-case hexadecimal."""

    method: str
    base_size_bytes: int
    base_sha256: str
    new_size_bytes: int


@dataclass(frozen=True, slots=True)
class Operation:
    """The next `size_bytes` bytes of the new file. Without a frame (`frame_bytes` 0) they are the base's from `base`.
    With one they are the frame's, unpacked by `way`, and XORed with the base's from `base` when the way says so."""

    size_bytes: int
    base: int | None = None
    frame_bytes: int = 0
    frame_sha256: str = ""
    way: Way = STORED

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"size": self.size_bytes}
        if self.base is not None:
            told["base"] = self.base
        if self.frame_bytes:
            told |= {"frame": self.frame_bytes, "sha256": self.frame_sha256}
            told |= {"zstd": True} if self.way.packed else {}
            told |= {"width": self.way.width} if self.way.width > 1 else {}
        return told


class PatchWriter:
    """Writes a patch as it grows; holds at most one page. Call `finish` last, or there is no patch."""

    def __init__(self, out: Write, head: Head) -> None:
        self._out = out
        self._operations: list[Operation] = []
        self._frames: list[bytes] = []
        self._held_bytes = 0
        self.size_bytes = 0
        self.operations = 0
        self._send(MAGIC + VERSION.to_bytes(4, "little"))
        base = {"size": head.base_size_bytes, "sha256": head.base_sha256}
        self._record(b"H", {"method": head.method, "base": base, "new": {"size": head.new_size_bytes}})

    def copy(self, base: int, size_bytes: int) -> None:
        """Bytes that the base has. Copies that follow each other in both files become one."""
        last = self._operations[-1] if self._operations else None
        if last is not None and not last.frame_bytes and last.base is not None and last.base + last.size_bytes == base:
            self._operations[-1] = Operation(last.size_bytes + size_bytes, last.base)
        else:
            self._add(Operation(size_bytes, base))

    def data(self, size_bytes: int, frame: bytes, way: Way, base: int | None = None) -> None:
        """New bytes; at most PIECE_BYTES_MAX of them."""
        self._frames.append(frame)
        self._held_bytes += len(frame)
        digest = hashlib.sha256(frame).hexdigest()
        self._add(Operation(size_bytes, base if way.xor else None, len(frame), digest, way))

    def finish(self, new_sha256: str) -> None:
        self._page()
        self._record(b"E", {"new": {"sha256": new_sha256}, "operations": self.operations})

    def _add(self, operation: Operation) -> None:
        if len(self._operations) >= PAGE_OPERATIONS_MAX or self._held_bytes >= _PAGE_BYTES:
            kept = [self._frames.pop()] if operation.frame_bytes else []
            self._page()
            self._frames, self._held_bytes = kept, operation.frame_bytes
        self._operations.append(operation)

    def _page(self) -> None:
        if self._operations:
            self._record(b"P", {"operations": [item.to_json() for item in self._operations]})
            for frame in self._frames:
                self._send(frame)
            self.operations += len(self._operations)
        self._operations, self._frames, self._held_bytes = [], [], 0

    def _record(self, kind: bytes, told: dict[str, Any]) -> None:
        text = canonical_json(told)
        self._send(kind + len(text).to_bytes(4, "little") + hashlib.sha256(text).digest() + text)

    def _send(self, data: bytes) -> None:
        self._out(data)
        self.size_bytes += len(data)


class PatchReader:
    """Reads a patch once, from front to back, each byte once: a ranged reader over a stream will do. Everything is
    checked before it is used. Raises Invalid for a patch that is damaged, cut off or not ours, and Unsupported for one
    of a later version."""

    def __init__(self, patch: Content) -> None:
        self._ahead, self._size_bytes, self._at = Ahead(patch), patch.size_bytes, 0
        if self._take(len(MAGIC)) != MAGIC:
            raise self._damaged("it does not begin as a patch does")
        version = int.from_bytes(self._take(4), "little")
        if version != VERSION:
            raise Unsupported(f"a patch of version {version}; this reads version {VERSION}", hint="upgrade Crossload")
        kind, told = self._record()
        if kind != b"H":
            raise self._damaged("it has no head")
        try:
            method, base, new = told["method"], told["base"], told["new"]
            self.head = Head(method, _count(base["size"]), _sha256(base["sha256"]), _count(new["size"]))
        except (TypeError, KeyError, ValueError) as error:
            raise self._damaged("its head makes no sense") from error
        if method not in METHODS:
            raise Unsupported(f"a patch by the method {str(method)[:40]!r}", hint="upgrade Crossload")
        self.new_sha256 = ""

    def operations(self) -> Iterator[tuple[Operation, bytes]]:
        """Every operation with its frame, b"" where it has none. Sizes and places fit the head; frames have their
        digest. At the end `new_sha256` is known."""
        done = operations = 0
        while True:
            kind, told = self._record()
            if kind == b"E":
                break
            for operation in self._parsed(kind, told):
                done += operation.size_bytes
                if done > self.head.new_size_bytes:
                    raise self._damaged("it makes more bytes than its head says")
                yield operation, self._frame(operation)
                operations += 1
        try:
            if done != self.head.new_size_bytes or told["operations"] != operations:
                raise self._damaged("it makes fewer bytes than its head says")
            self.new_sha256 = _sha256(told["new"]["sha256"])
        except (TypeError, KeyError, ValueError) as error:
            raise self._damaged("its end makes no sense") from error
        if self._at != self._size_bytes:
            raise self._damaged("there is more behind its end")

    def _parsed(self, kind: bytes, told: dict[str, Any]) -> list[Operation]:
        try:
            entries = told["operations"]
            if kind != b"P" or type(entries) is not list or not 0 < len(entries) <= PAGE_OPERATIONS_MAX:
                raise ValueError("no page of operations")
            return [_operation(entry, self.head.base_size_bytes) for entry in entries]
        except (TypeError, KeyError, ValueError) as error:
            raise self._damaged(f"a page makes no sense ({error})") from error

    def _frame(self, operation: Operation) -> bytes:
        if not operation.frame_bytes:
            return b""
        frame = self._take(operation.frame_bytes)
        if hashlib.sha256(frame).hexdigest() != operation.frame_sha256:
            raise self._damaged("a frame has another digest")
        return frame

    def _record(self) -> tuple[bytes, dict[str, Any]]:
        kind, length, digest = self._take(1), int.from_bytes(self._take(4), "little"), self._take(32)
        if kind not in (b"H", b"P", b"E") or length > JSON_BYTES_MAX:
            raise self._damaged("a record makes no sense")
        text = self._take(length)
        if hashlib.sha256(text).digest() != digest:
            raise self._damaged("a record has another digest")
        try:
            told = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            raise self._damaged("a record is no JSON") from error
        if type(told) is not dict:
            raise self._damaged("a record is no object")
        return kind, told

    def _take(self, length: int) -> bytes:
        if self._at + length > self._size_bytes:
            raise self._damaged("it is cut off")
        data = self._ahead.take(self._at, length)
        self._at += length
        return data

    def _damaged(self, why: str) -> Invalid:
        return Invalid(f"the patch is damaged near byte {self._at}: {why}", hint=_AGAIN)


def _operation(told: dict[str, Any], base_size_bytes: int) -> Operation:
    """Raises TypeError, KeyError or ValueError for what no writer writes."""
    size, frame = _count(told["size"]), _count(told.get("frame", 0))
    base = _count(told["base"]) if "base" in told else None
    if not size or (base is None and not frame) or (base is not None and base + size > base_size_bytes):
        raise ValueError("an operation out of bounds")
    if not frame:
        return Operation(size, base)
    width, packed = told.get("width", 1), told.get("zstd", False)
    if type(packed) is not bool or type(width) is not int or width not in WIDTHS:
        raise ValueError("an unknown way of packing")
    if size > PIECE_BYTES_MAX or frame > size or (not packed and frame != size):
        raise ValueError("a frame out of bounds")
    return Operation(size, base, frame, _sha256(told["sha256"]), Way(base is not None, width, packed))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("a size or place that is none")
    return value


def _sha256(value: Any) -> str:
    if type(value) is not str or len(value) != 64 or set(value) - _HEX:
        raise ValueError("a digest that is none")
    return value
