"""A probe of one link before the move: three sizes, at most a minute, and nothing of it stays at the target."""

from __future__ import annotations

import contextlib
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from crossload.engines.mover.finish import Sample
from crossload.estate.quantity import Quantity
from crossload.ports.errors import CrossloadError, NotFound
from crossload.ports.store import ObjectInfo, ObjectMeta, Store

PREFIX = ".crossload/probe/"
SIZES_BYTES = (16 * 2**10, 2**20, 16 * 2**20)
_ROUNDS_MAX = 8
_LISTED_MAX = 1000
_STALE_SECONDS = 3600.0  # of a probe that was killed; a younger one may be somebody's who is at work


@dataclass(frozen=True, slots=True)
class Measured:
    """One size: seconds of each read at the source and of each write at the target, in the order they were made.
    A read may be of fewer bytes than the size (`read_bytes`) when the source holds no object as large; it is 0, and
    there are no reads, when nothing there could be read."""

    size_bytes: int
    write_seconds: tuple[float, ...]
    read_seconds: tuple[float, ...]
    read_bytes: int

    def write_rate(self) -> Quantity:
        return _rate(self.size_bytes, self.write_seconds, "writes at the target")

    def read_rate(self) -> Quantity:
        return _rate(self.read_bytes, self.read_seconds, "reads at the source")


@dataclass(frozen=True, slots=True)
class Probed:
    """What one worker can do on this link. `skipped` are sizes that did not fit into the time; `leftovers` keys that
    could not be removed; `problems` what went wrong on the way."""

    sizes: tuple[Measured, ...]
    seconds: float
    skipped: tuple[int, ...] = ()
    leftovers: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())

    def latency(self) -> Quantity:
        """Seconds that one object costs one worker whatever its size: a read and a write of the smallest."""
        smallest = self.sizes[0] if self.sizes else None
        if smallest is None or not smallest.write_seconds or not smallest.read_seconds:
            return Quantity.unknown("s", "link probe: no read and write of the smallest size")
        both = [r + w for r, w in zip(smallest.read_seconds, smallest.write_seconds, strict=False)]
        ordered = sorted(both)
        return Quantity(
            statistics.median(both), "s", "link probe", low=ordered[len(both) // 10], high=ordered[9 * len(both) // 10]
        )

    def samples(self) -> list[Sample]:
        """Objects as one worker would have copied them, for `forecast`; empty when the source could not be read."""
        found: list[Sample] = []
        for turn in range(_ROUNDS_MAX):
            for item in self.sizes:
                if turn < min(len(item.write_seconds), len(item.read_seconds)):
                    # A shorter read is scaled up, its latency too: the careful side.
                    read = item.read_seconds[turn] * (item.size_bytes / item.read_bytes)
                    found.append(Sample(item.size_bytes, 1, read + item.write_seconds[turn]))
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 3), "latency": self.latency().to_json(),
            "sizes": [
                {
                    "size_bytes": item.size_bytes, "write_rate": item.write_rate().to_json(),
                    "read_rate": item.read_rate().to_json(), "writes": len(item.write_seconds),
                    "reads": len(item.read_seconds),
                }
                for item in self.sizes
            ],
            "skipped_sizes_bytes": list(self.skipped), "leftovers": list(self.leftovers),
            "problems": list(self.problems),
        }  # fmt: skip


def probe(
    source: Store, source_bucket: str, target: Store, target_bucket: str, *, prefix: str = "",
    seconds_max: float = 60.0, sizes_bytes: Sequence[int] = SIZES_BYTES, clock: Callable[[], float] = time.monotonic,
) -> Probed:  # fmt: skip
    """Read objects that the source has (below `prefix`), and write, then remove, objects of our own at the target.

    Nothing is written at the source. A size that would not fit into the time, judged by the one before it, is left
    out; one call that hangs is bounded by the store's own time limits. Raises CrossloadError when a write at the target
    fails; the bucket must be there."""
    return _Probe(source, source_bucket, target, target_bucket, seconds_max, clock).run(prefix, sizes_bytes)


class _Probe:
    def __init__(
        self, source: Store, source_bucket: str, target: Store, target_bucket: str, seconds_max: float,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._source, self._source_bucket = source, source_bucket
        self._target, self._target_bucket = target, target_bucket
        self._clock = clock
        self._began = clock()
        self._until = self._began + seconds_max
        self._leftovers: list[str] = []
        self._problems: list[str] = []

    def run(self, prefix: str, sizes_bytes: Sequence[int]) -> Probed:
        self._sweep()
        readable = self._readable(prefix)
        with contextlib.suppress(CrossloadError):
            self._target.head(self._target_bucket, PREFIX + "nothing")  # the first call pays for the connection
        writes: dict[int, list[float]] = {size: [] for size in sizes_bytes}
        reads: dict[int, list[float]] = {size: [] for size in sizes_bytes}
        lengths = {size: min(size, readable.size_bytes) if readable else 0 for size in sizes_bytes}
        skipped: set[int] = set()
        for _ in range(_ROUNDS_MAX):
            pace = 0.0  # seconds per byte of the size before: an upper bound for a larger one
            for size in sorted(sizes_bytes):
                expected = max(pace * size, max(writes[size], default=0.0) + max(reads[size], default=0.0))
                if self._clock() + expected >= self._until:
                    skipped.add(size)
                    break
                wrote = self._write(size)
                writes[size].append(wrote)
                read = self._read(readable, lengths[size])
                if read is not None:
                    reads[size].append(read)
                pace = (wrote + (read or 0.0)) / size
        never = tuple(size for size in sorted(skipped | set(sizes_bytes)) if not writes[size])
        done = tuple(
            Measured(size, tuple(writes[size]), tuple(reads[size]), lengths[size] if reads[size] else 0)
            for size in sorted(sizes_bytes) if writes[size]
        )  # fmt: skip
        took = self._clock() - self._began
        return Probed(done, took, never, tuple(self._leftovers), tuple(dict.fromkeys(self._problems)))

    def _write(self, size_bytes: int) -> float:
        key = PREFIX + secrets.token_hex(8)
        block = secrets.token_bytes(size_bytes)  # nothing on the way can compress it
        try:
            began = self._clock()
            self._target.write(
                self._target_bucket, key, block, ObjectMeta(content_type="application/octet-stream"), if_absent=True
            )
            return self._clock() - began
        finally:
            self._remove(key)  # also when the write failed: its answer alone may have been lost

    def _read(self, info: ObjectInfo | None, length: int) -> float | None:
        if info is None or not length:
            return None
        began = self._clock()
        try:
            self._source.read(self._source_bucket, info.key, 0, length)
        except CrossloadError as error:
            self._problems.append(f"source: {error}")
            return None
        return self._clock() - began

    def _readable(self, prefix: str) -> ObjectInfo | None:
        """The largest object among the first listed."""
        try:
            listed = list(islice(self._source.list(self._source_bucket, prefix), _LISTED_MAX))
        except CrossloadError as error:
            self._problems.append(f"source: {error}")
            return None
        largest = max(listed, key=lambda info: info.size_bytes, default=None)
        if largest is None or largest.size_bytes <= 0:
            self._problems.append("source: nothing there to read, so its rate is unknown")
            return None
        return largest

    def _remove(self, key: str) -> None:
        try:
            self._target.delete(self._target_bucket, key)
        except CrossloadError as error:
            self._leftovers.append(key)
            self._problems.append(f"target: {error}")

    def _sweep(self) -> None:
        """What a probe that was killed left behind."""
        try:
            for info in list(islice(self._target.list(self._target_bucket, PREFIX), _LISTED_MAX)):
                if 0 < info.modified_at < time.time() - _STALE_SECONDS:
                    self._remove(info.key)
        except NotFound:
            raise
        except CrossloadError as error:
            self._problems.append(f"target: {error}")


def _rate(size_bytes: int, seconds: Sequence[float], what: str) -> Quantity:
    rates = sorted(size_bytes / max(took, 1e-9) for took in seconds)
    if not rates or not size_bytes:
        return Quantity.unknown("bytes/s", f"link probe: no {what}")
    last = len(rates) - 1
    return Quantity(
        statistics.median(rates), "bytes/s", f"link probe, {what}", low=rates[last // 10], high=rates[9 * last // 10]
    )
