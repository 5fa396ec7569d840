"""Whether compressing on the way pays: decided from 1 MiB of the content, never from its name.

Stores do not unpack, so this is for two ends that are both ours; what is stored is always the content itself."""

from __future__ import annotations

import time
from typing import NamedTuple

from crossload.engines.mover.chunks.content import Content, Read
from crossload.engines.mover.chunks.packing import RATIO_MAX, compressor

SAMPLE_BYTES = 2**20
_WINDOWS = 16
_GIB = 2**30


class Sample(NamedTuple):
    """`ratio`: packed to plain bytes, zstd level 1; `cpu_s_per_gib`: CPU seconds of one core per GiB of plain bytes,
    measured here and now. Both None for an empty content: nothing was measured."""

    ratio: float | None
    cpu_s_per_gib: float | None


def sample(read: Read, size_bytes: int) -> Sample:
    """Pack 1 MiB, taken in 16 windows spread over the content (all of it when it is smaller), once to warm up and once
    to measure. Raises Invalid when the reader gives too little, Unsupported without the extra `move`."""
    content = Content(read, size_bytes)
    if size_bytes <= SAMPLE_BYTES:
        plain = content.take(0, size_bytes)
    else:
        window = SAMPLE_BYTES // _WINDOWS
        step = (size_bytes - window) // (_WINDOWS - 1)
        plain = b"".join(content.take(at * step, window) for at in range(_WINDOWS))
    if not plain:
        return Sample(None, None)
    zstd = compressor()
    zstd.compress(plain)
    began = time.thread_time()
    packed = zstd.compress(plain)
    return Sample(len(packed) / len(plain), (time.thread_time() - began) / len(plain) * _GIB)


def pays(sample_ratio: float | None, cpu_s_per_gib: float | None, link_bytes_per_second: float, cores: float) -> bool:
    """Whether packed bytes arrive sooner than plain ones, when packing and sending go on side by side: the slower of
    the two must beat the plain link. No, when the sample says that less than a tenth is saved, or says nothing. Raises
    ValueError for a link or cores of zero or less."""
    if link_bytes_per_second <= 0 or cores <= 0:
        raise ValueError("a link and cores are more than zero")
    if sample_ratio is None or cpu_s_per_gib is None or sample_ratio > RATIO_MAX:
        return False
    plain_s_per_gib = _GIB / link_bytes_per_second
    return plain_s_per_gib > max(cpu_s_per_gib / cores, sample_ratio * plain_s_per_gib)
