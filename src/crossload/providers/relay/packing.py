"""Whether a body is worth packing, and the packing itself: one zstd frame a body, which names its content's size.

The rule is that of docs/chunks.md, decided from a sample of the bytes and never from a name:
1/link > max(cpu/cores, ratio/link), link in GiB/s; and never when less than a tenth is saved."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from functools import cache
from typing import TYPE_CHECKING

from crossload.ports.errors import Invalid, Unsupported
from crossload.ports.store import Bytes

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

MODES = ("auto", "off", "zstd")
_LEVEL = 1
_SAMPLE_BYTES = 2**20
_WINDOWS = 16
_RATIO_MAX = 0.9
_BODY_BYTES_MIN = 256  # below it the head of the request is longer than what could be saved
_GIB = 2**30
_HELD_BYTES = 64 * 2**20
_own = threading.local()  # a compressor serves one thread at a time


@cache
def can_pack() -> bool:
    """Whether zstandard is installed here."""
    return importlib.util.find_spec("zstandard") is not None


def require_zstd() -> None:
    """Raises Unsupported without the extra `move`."""
    if not can_pack():
        raise Unsupported("packing needs zstandard, which is not here", hint="pip install 'crossload[move]'")


def pays(ratio: float, cpu_s_per_gib: float, link_bytes_per_second: float | None, cores: float) -> bool:
    """Whether packed bytes arrive sooner than plain ones when packing and sending go on side by side. A link that
    nobody has measured yet counts as thin."""
    if ratio > _RATIO_MAX:
        return False
    if not link_bytes_per_second:
        return True
    plain_s_per_gib = _GIB / link_bytes_per_second
    return plain_s_per_gib > max(cpu_s_per_gib / cores, ratio * plain_s_per_gib)


def pack(data: Bytes, mode: str, link_bytes_per_second: float | None) -> bytes | None:
    """The frame, or None where the bytes had better go as they are. `mode` is one of MODES; with `zstd` only the size
    counts, not the time."""
    if mode == "off" or len(data) < _BODY_BYTES_MIN or not can_pack():
        return None
    zstd = _compressor()
    part = _sample(data)
    began = time.thread_time()
    packed = zstd.compress(part)
    cpu = (time.thread_time() - began) / len(part) * _GIB
    ratio = len(packed) / len(part)
    if not pays(ratio, cpu, None if mode == "zstd" else link_bytes_per_second, cores()):
        return None
    if len(part) < len(data):
        packed = zstd.compress(data)
    return packed if len(packed) < len(data) else None


def unpack(frame: Bytes, size_bytes: int) -> bytes:
    """Raises Invalid unless the frame holds exactly that many bytes. Nothing is allocated by what the frame says of
    itself: it must agree with `size_bytes`, which the caller has allowed."""
    require_zstd()
    from zstandard import ZstdError, frame_content_size

    try:
        if frame_content_size(frame) != size_bytes:
            raise Invalid("a packed body holds another number of bytes than its head says")
        data = _decompressor().decompress(frame, max_output_size=size_bytes, allow_extra_data=False)
    except ZstdError as error:
        raise Invalid(f"a packed body cannot be unpacked: {error}", hint="it was cut off on its way") from error
    if len(data) != size_bytes:
        raise Invalid("a packed body holds another number of bytes than its head says")
    return data


def cores() -> int:
    """Of the machine that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


class Link:
    """Bytes a second that came through while anything was under way: all connections together. Older traffic counts
    half after every 64 MiB. A slow store at the far end makes the link look thin, and packing then costs nothing that
    anybody waits for."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._under_way = 0
        self._since = 0.0
        self._busy_seconds = self._sent_bytes = 0.0

    def begin(self) -> None:
        with self._mutex:
            if not self._under_way:
                self._since = time.monotonic()
            self._under_way += 1

    def end(self, size_bytes: int) -> None:
        """`size_bytes` as they travelled, in either direction; 0 for what failed."""
        with self._mutex:
            now = time.monotonic()
            self._busy_seconds += now - self._since
            self._since = now
            self._sent_bytes += size_bytes
            self._under_way -= 1
            if self._sent_bytes > _HELD_BYTES:
                self._busy_seconds, self._sent_bytes = self._busy_seconds / 2, self._sent_bytes / 2

    @property
    def bytes_per_second(self) -> float | None:
        """None before the first MiB: small requests measure the way there and back, not the link."""
        with self._mutex:
            if self._sent_bytes < 2**20 or self._busy_seconds <= 0:
                return None
            return self._sent_bytes / self._busy_seconds


def _sample(data: Bytes) -> Bytes:
    if len(data) <= 2 * _SAMPLE_BYTES:
        return data
    window = _SAMPLE_BYTES // _WINDOWS
    step = (len(data) - window) // (_WINDOWS - 1)
    view = memoryview(data)
    return b"".join(view[at * step : at * step + window] for at in range(_WINDOWS))


def _compressor() -> ZstdCompressor:
    found: ZstdCompressor | None = getattr(_own, "compressor", None)
    if found is None:
        from zstandard import ZstdCompressor

        found = _own.compressor = ZstdCompressor(level=_LEVEL)
    return found


def _decompressor() -> ZstdDecompressor:
    found: ZstdDecompressor | None = getattr(_own, "decompressor", None)
    if found is None:
        from zstandard import ZstdDecompressor

        found = _own.decompressor = ZstdDecompressor()
    return found
