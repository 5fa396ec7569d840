"""A patch from one version of a file to the next, and its use: bit-exact, or an error; never anything between.

Pickled checkpoints are bytes like any others here: nothing is ever loaded, so nothing in them can run."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from crossload.engines.mover.chunks.container import Head, PatchReader, PatchWriter
from crossload.engines.mover.chunks.content import BLOCK_BYTES, Ahead, Content, Write
from crossload.engines.mover.chunks.cutting import Table, cut
from crossload.engines.mover.chunks.matching import Match, Region, match
from crossload.engines.mover.chunks.packing import PIECE_BYTES_MAX, Packed, Packer, Unpacker
from crossload.engines.mover.chunks.tensors import read_header
from crossload.ports.errors import DigestMismatch, Invalid, PreconditionFailed, Refused, Unsupported

NEW_SIZE_BYTES_MAX = 2**40
_UNKNOWN_WIDTHS = (1, 2, 4)
_ASK_AGAIN = 16  # chunks of an unknown format that share one sample


@dataclass(frozen=True, slots=True)
class PatchReport:
    """What a patch is made of. `copied_bytes` of the new file are the base's as they are, `xored_bytes` are packed
    against the base's, `fresh_bytes` are packed alone; the three make `new_size_bytes`. Tensors that came under a new
    name are `tensors_new`, whatever they hold; with the method `chunks` tensors are not looked at, and counts are 0."""

    method: str
    base_size_bytes: int
    base_sha256: str
    new_size_bytes: int
    new_sha256: str
    patch_size_bytes: int
    copied_bytes: int
    xored_bytes: int
    fresh_bytes: int
    operations: int
    tensors_unchanged: int = 0
    tensors_changed: int = 0
    tensors_reshaped: int = 0
    tensors_new: int = 0
    tensors_removed: int = 0

    @property
    def share(self) -> float | None:
        """The patch's size in parts of the new file's; None for an empty file."""
        return self.patch_size_bytes / self.new_size_bytes if self.new_size_bytes else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def make_patch(base: Content, new: Content, out: Write, *, method: str = "", base_sha256: str = "") -> PatchReport:
    """Write to `out` what turns `base` into `new`. Reads the base twice and the new file once; memory does not grow
    with either (docs/chunks.md). `method` is tensors (safetensors) or chunks (anything); left out, it is the first that
    fits. `base_sha256` is the base's digest where it is known already, which saves one reading of safetensors; a wrong
    one makes a patch that every base refuses.

    Raises Invalid when a file is no safetensors and the method says so, or when a reader gives too little; Unsupported
    without the extra `move`. What was written by then is no patch, and no reader takes it for one."""
    if method not in ("", "tensors", "chunks"):
        raise Unsupported(f"no patch by the method {method!r}", hint="tensors or chunks")
    matched: Match | None = None
    if method != "chunks":
        try:
            matched = match(read_header(base), read_header(new))
        except Invalid:
            if method:
                raise
    making = _Making(base, new)
    if matched is not None:
        return making.by_tensors(matched, out, base_sha256)
    return making.by_chunks(out)


def apply_patch(
    base: Content,
    patch: Content,
    out: Write,
    *,
    base_sha256: str = "",
    new_sha256: str = "",
    new_size_bytes_max: int = NEW_SIZE_BYTES_MAX,
) -> str:
    """Write the new file to `out` and return its SHA-256, which is the one the patch carries. **Write into a draft, and
    give it its name after this has returned**: by an error, `out` has got a part of a file or a wrong one.

    The patch is read once from front to back; the base twice, once with `base_sha256` (what the caller knows its digest
    to be). `new_sha256` is what the caller expects, from a source that it trusts more than the patch.

    Raises PreconditionFailed before the first byte when the base is another one, Refused when the patch leads elsewhere
    than to `new_sha256` or makes more than `new_size_bytes_max`, Invalid for a damaged patch, DigestMismatch when the
    result is not the file that the patch was made from, Unsupported without the extra `move`."""
    unpacker = Unpacker()
    reader = PatchReader(patch)
    head = reader.head
    if head.new_size_bytes > new_size_bytes_max:
        raise Refused(f"the patch makes {head.new_size_bytes} bytes; {new_size_bytes_max} are allowed")
    if base.size_bytes != head.base_size_bytes or (base_sha256 or base.sha256()) != head.base_sha256:
        raise PreconditionFailed(
            f"the patch is for a base of {head.base_size_bytes} bytes with sha256 {head.base_sha256}; this is another",
            hint="apply it to the version it was made from, or send the file whole",
        )
    near, running = Ahead(base), hashlib.sha256()

    def emit(data: bytes) -> None:
        running.update(data)
        out(data)

    for operation, frame in reader.operations():
        start, size = operation.base, operation.size_bytes
        if frame:
            other = near.take(start, size) if start is not None else None
            emit(unpacker.unpack(frame, size, operation.way, other))
        elif start is not None:
            for at in range(0, size, BLOCK_BYTES):
                emit(near.take(start + at, min(BLOCK_BYTES, size - at)))
    if running.hexdigest() != reader.new_sha256:
        raise DigestMismatch(
            f"the patch gave sha256 {running.hexdigest()} where {reader.new_sha256} was due",
            hint="the base changed meanwhile or the patch is wrong: send the file whole",
        )
    if new_sha256 and new_sha256 != reader.new_sha256:
        raise Refused(f"the patch leads to sha256 {reader.new_sha256}; {new_sha256} was expected")
    return reader.new_sha256


class _Making:
    """One patch in the making."""

    def __init__(self, base: Content, new: Content) -> None:
        self._base, self._new = base, new
        self._near, self._here = Ahead(base), Ahead(new)
        self._packer = Packer()
        self._running = hashlib.sha256()
        self._copied = self._xored = self._fresh = 0
        self._writer: PatchWriter

    def by_tensors(self, matched: Match, out: Write, base_sha256: str) -> PatchReport:
        sha256 = base_sha256 or self._base.sha256()
        self._begin("tensors", out, sha256)
        changed = unchanged = 0
        for region in matched.regions:
            before = self._copied
            if region.near is not None:
                self._reshaped(region, region.near)
            else:
                self._region(region)
            if region.tensor and region.base is not None:
                same = self._copied - before == region.size_bytes
                changed, unchanged = changed + (not same), unchanged + same
        return self._end("tensors", sha256, (unchanged, changed, matched.reshaped, matched.new, matched.removed))

    def by_chunks(self, out: Write) -> PatchReport:
        table, running = Table(), hashlib.sha256()
        for chunk in cut(self._base):
            running.update(chunk.data)
            table.add(chunk.sha256(), chunk.start, len(chunk.data))
        self._begin("chunks", out, running.hexdigest())
        self._chunks(table, Region(0, self._new.size_bytes), _UNKNOWN_WIDTHS, 0)
        return self._end("chunks", running.hexdigest(), (0, 0, 0, 0, 0))

    def _region(self, region: Region) -> None:
        """Block by block against the same words of the base."""
        widths = (1, region.word_bytes) if region.word_bytes > 1 else (1,)
        before: Packed | None = None
        for at in range(0, region.size_bytes, BLOCK_BYTES):
            size = min(BLOCK_BYTES, region.size_bytes - at)
            block = self._here.take(region.start + at, size)
            before = self._block(block, None if region.base is None else region.base + at, widths, before)

    def _reshaped(self, region: Region, near: tuple[int, int]) -> None:
        """A tensor that grew or shrank: rows were added or cut out, and the rest is found by its content."""
        table = Table()
        for chunk in cut(self._base, *near):
            table.add(chunk.sha256(), chunk.start, len(chunk.data))
        widths = (1, region.word_bytes) if region.word_bytes > 1 else (1,)
        self._chunks(table, region, widths, near[0] - region.start)

    def _chunks(self, table: Table, region: Region, widths: tuple[int, ...], shift: int) -> None:
        """Chunk by chunk: known ones are referenced, others packed, against the base's bytes at the place where they
        would be after the last known chunk (at first `shift` on from their own): files of unknown formats keep their
        layout when their weights change."""
        before: Packed | None = None
        asked = 0
        for chunk in cut(self._new, region.start, region.size_bytes):
            size = len(chunk.data)
            place = table.find(chunk.sha256(), size)
            if place is not None:
                self._running.update(chunk.data)
                self._copy(place, size)
                shift = place - chunk.start
                continue
            asked += 1
            before = before if asked % _ASK_AGAIN != 1 else None
            for start, end, there in self._inside(chunk.start + shift, size):
                before = self._block(bytes(chunk.data[start:end]), there, widths, before)

    def _inside(self, there: int, size: int) -> list[tuple[int, int, int | None]]:
        """(from, to, place in the base) of the parts of `size` bytes that would lie at `there`: where the base begins
        or ends within them, the rest stands alone."""
        low, high = min(max(-there, 0), size), max(min(self._base.size_bytes - there, size), 0)
        if low >= high:
            return [(0, size, None)]
        parts = [(0, low, None), (low, high, there + low), (high, size, None)]
        return [part for part in parts if part[0] < part[1]]

    def _block(self, block: bytes, place: int | None, widths: tuple[int, ...], before: Packed | None) -> Packed | None:
        """New bytes against the base's from `place`. Returns how the last of them were packed."""
        self._running.update(block)
        near = None if place is None else self._near.take(place, len(block))
        if place is not None and near == block:
            self._copy(place, len(block))
            return before
        for at in range(0, len(block), PIECE_BYTES_MAX):
            piece, other = block[at : at + PIECE_BYTES_MAX], near and near[at : at + PIECE_BYTES_MAX]
            if place is not None and other == piece:
                self._copy(place + at, len(piece))
                continue
            before = self._packer.pack(piece, other, widths, before)
            self._writer.data(len(piece), before.frame, before.way, None if place is None else place + at)
            self._xored += len(piece) if before.way.xor else 0
            self._fresh += len(piece) if not before.way.xor else 0
        return before

    def _copy(self, place: int, size_bytes: int) -> None:
        self._writer.copy(place, size_bytes)
        self._copied += size_bytes

    def _begin(self, method: str, out: Write, base_sha256: str) -> None:
        self._writer = PatchWriter(out, Head(method, self._base.size_bytes, base_sha256, self._new.size_bytes))

    def _end(self, method: str, base_sha256: str, counts: tuple[int, int, int, int, int]) -> PatchReport:
        new_sha256 = self._running.hexdigest()
        self._writer.finish(new_sha256)
        return PatchReport(
            method,
            self._base.size_bytes,
            base_sha256,
            self._new.size_bytes,
            new_sha256,
            self._writer.size_bytes,
            self._copied,
            self._xored,
            self._fresh,
            self._writer.operations,
            *counts,
        )
