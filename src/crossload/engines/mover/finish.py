"""When a move will be done, as a range: bootstrap over what was measured, laid over the calendar of bandwidth.

The time of one draw is the largest of three: bytes over the calendar's ceiling, the workers' own time (per object and
per byte), and requests over the limit on requests. Blocks of neighbouring samples are drawn, since a slow second is
followed by another more often than not: drawn one by one they would promise a range too narrow to be kept."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate, pairwise
from typing import Any

from crossload.engines.mover.calendar import HORIZON_SECONDS, Calendar, finish_over
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.quantity import Quantity

SAMPLES_MAX = 200  # the newest count: what a link did yesterday says little of tonight
_SAMPLES_MIN = 3
_FUTURE_MIN = 10
_DIFFERENT_SIZES = 8.0  # how far apart the objects of two groups of samples lie before we tell object from byte cost
_CHUNK = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """What came through in a stretch of time: one second of the whole move, or one shard, object or probe of one
    worker. A second in which nothing came through is a sample too."""

    size_bytes: int
    objects: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """`p10` is the early end, `p90` the late one, in seconds since the epoch: None when unknown, infinite when not
    within five years. `basis` says what it rests on."""

    start: float
    p10: float | None
    p50: float | None
    p90: float | None
    basis: str

    @classmethod
    def unknown(cls, start: float, why: str) -> Forecast:
        return cls(start, None, None, None, why)

    @property
    def never(self) -> bool:
        """The late end is not within five years."""
        return self.p90 == math.inf

    def left(self) -> Quantity:
        """Seconds from `start`, with p10 and p90; unknown also when one of them is not within five years."""
        if self.p10 is None or self.p50 is None or self.p90 is None:
            return Quantity.unknown("s", self.basis)
        if self.never:
            return Quantity.unknown("s", f"{self.basis}; not within five years")
        return Quantity(
            self.p50 - self.start, "s", self.basis, _iso(self.start), self.p10 - self.start, self.p90 - self.start
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "start": _iso(self.start), "p10": _iso(self.p10), "p50": _iso(self.p50), "p90": _iso(self.p90),
            "left": self.left().to_json(), "basis": self.basis,
        }  # fmt: skip


def forecast(
    remaining_bytes: int | None, remaining_objects: int | None, rates: Sequence[Sample], calendar: Calendar,
    requests_limit: float | None = None, *, start: float, workers: int = 1, latency_seconds: float | None = None,
    requests_per_object: float = 3.0, seed: int = 0, draws: int = 500,
) -> Forecast:  # fmt: skip
    """When the rest is through, if it goes on at `start` (seconds since the epoch). The same seed, the same answer.

    `rates` are the newest samples, oldest first; `workers` says how many work beside the one each sample is of (1 when
    a sample is of the whole move). `latency_seconds` is what one object costs whatever its size, in the samples' own
    terms; it is used while the samples hold objects of one size only. `requests_limit` is requests/s, None for none."""
    if remaining_bytes is None or remaining_objects is None:
        return Forecast.unknown(start, "what is left to move was not counted")
    if remaining_bytes <= 0 and remaining_objects <= 0:
        return Forecast(start, start, start, start, "nothing is left to move")
    work = _Work(remaining_bytes, remaining_objects, latency_seconds)
    bag = _Bag([sample for sample in rates if sample.seconds > 0][-SAMPLES_MAX:])
    usual = work.worker_seconds(bag.all()) if bag.count >= _SAMPLES_MIN else None
    if usual is None:
        return Forecast.unknown(start, f"{bag.count} sample(s) of the rate, too few to tell")
    limit = remaining_objects * requests_per_object / requests_limit if requests_limit else 0.0
    rng = random.Random(seed)  # noqa: S311 - a forecast, not a secret
    times = [max(_draw(rng, bag, work, usual) / workers, limit) for _ in range(draws)]
    ends = sorted(_over(calendar, start, remaining_bytes, times))
    basis = f"bootstrap of {bag.count} samples over the calendar"
    if bag.groups == 1 and latency_seconds is None and remaining_objects and bag.sizes_differ(work):
        basis += "; they hold objects of another size than what is left, so this is the careful side"
    return Forecast(start, _quantile(ends, 0.1), _quantile(ends, 0.5), _quantile(ends, 0.9), basis)


def deadline_problems(found: Forecast, deadline: float | None, subject: str) -> list[Diagnostic]:
    """What is wrong when the late end (p90) is after `deadline` (seconds since the epoch), or nobody knows."""
    if deadline is None:
        return []
    if found.p90 is None:
        return [
            Diagnostic.warning(
                "XL521", "whether the move keeps its deadline is unknown", detail=found.basis, subject=subject,
                hint="probe the link, or let the move run for some seconds",
            )
        ]  # fmt: skip
    if found.p90 <= deadline:
        return []
    late = "not within five years" if found.never else f"{_iso(found.p90)} ({_span(found.p90 - deadline)} late)"
    return [
        Diagnostic.warning(
            "XL520", f"the move may miss its deadline of {_iso(deadline)}: late end (p90) {late}",
            detail=f"early end (p10) {_iso(found.p10)}, middle (p50) {_iso(found.p50)}; {found.basis}", subject=subject,
            hint="widen data.windows, raise the bandwidth or data.workers, carry less, or move the deadline",
        )
    ]  # fmt: skip


def end_of(day: date) -> float:
    """The moment a deadline that is a day runs out: midnight UTC at its end, in seconds since the epoch."""
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)).timestamp()


@dataclass(frozen=True, slots=True)
class Due:
    """One dataset to order: `deadline` in seconds since the epoch, None without one."""

    name: str
    forecast: Forecast
    deadline: float | None = None

    @property
    def slack_seconds(self) -> float:
        """What is left between its late end and its deadline: infinite without a deadline, minus infinite when
        nobody knows how long it takes, because then it cannot wait."""
        if self.deadline is None:
            return math.inf
        return -math.inf if self.forecast.p90 is None else self.deadline - self.forecast.p90


def by_slack(datasets: Iterable[Due]) -> list[Due]:
    """In the order they should move: the least slack first, the largest last; equals by name."""
    return sorted(datasets, key=lambda item: (item.slack_seconds, item.name))


@dataclass(frozen=True, slots=True)
class _Sums:
    seconds: float = 0.0
    objects: float = 0.0
    size_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class _Work:
    size_bytes: int
    objects: int
    latency_seconds: float | None

    def worker_seconds(self, groups: Sequence[_Sums]) -> float | None:
        """What all of it costs one worker; None when the samples cannot tell.

        Samples of two sizes of object give two equations for the two unknowns, seconds per object and per byte. They
        hold for sums, where noise cancels; least squares would lean towards the samples that noise made large."""
        seconds = sum(group.seconds for group in groups)
        objects = sum(group.objects for group in groups)
        size_bytes = sum(group.size_bytes for group in groups)
        if (self.size_bytes and not size_bytes) or (not self.size_bytes and not objects):
            return None
        per_byte = seconds / size_bytes if size_bytes else 0.0
        per_object = seconds / objects if objects else 0.0
        if len(groups) == 2:
            one, two = groups
            det = one.objects * two.size_bytes - two.objects * one.size_bytes
            if det:
                both = (
                    (one.seconds * two.size_bytes - two.seconds * one.size_bytes) / det,
                    (one.objects * two.seconds - two.objects * one.seconds) / det,
                )
                if both[0] > 0 and both[1] > 0:  # else noise hides one of the two, and neither is free
                    return self.objects * both[0] + self.size_bytes * both[1]
        if self.latency_seconds is not None and size_bytes:
            fixed = min(self.latency_seconds, per_object) if objects else self.latency_seconds
            rest = max(0.0, seconds - fixed * objects) / size_bytes
            return self.objects * fixed + self.size_bytes * rest
        # Of one size: either measure alone counts all of the time, so for other sizes the larger is the careful one.
        return max(self.size_bytes * per_byte, self.objects * per_object)


class _Bag:
    """Samples to draw blocks from, in one group or two by the size of their objects."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.count = len(samples)
        self._samples = samples
        marks = _two_sizes(samples)
        self.groups = 2 if marks else 1
        self._running = [_running_sums(samples, marks, group) for group in range(self.groups)]
        self.block, self.wide = _blocks(samples, marks)
        self.mean_seconds = sum(sample.seconds for sample in samples) / max(1, len(samples))

    def all(self) -> list[_Sums]:
        return [self._sum(group, [(0, self.count)]) for group in range(self.groups)]

    def draw(self, rng: random.Random, count: int) -> list[_Sums]:
        """About `count` samples in blocks, round the end and on from the start."""
        blocks = max(1, round(count / self.block))
        spans = [(at, at + self.block) for at in (rng.randrange(self.count) for _ in range(blocks))]
        return [self._sum(group, spans) for group in range(self.groups)]

    def sizes_differ(self, work: _Work) -> bool:
        objects = sum(sample.objects for sample in self._samples)
        if not objects or not work.objects:
            return False
        ratio = (sum(s.size_bytes for s in self._samples) / objects + 1) / (work.size_bytes / work.objects + 1)
        return not 1 / _DIFFERENT_SIZES < ratio < _DIFFERENT_SIZES

    def _sum(self, group: int, spans: Sequence[tuple[int, int]]) -> _Sums:
        seconds, objects, size_bytes = self._running[group]
        return _Sums(
            sum(seconds[end] - seconds[begin] for begin, end in spans),
            sum(objects[end] - objects[begin] for begin, end in spans),
            sum(size_bytes[end] - size_bytes[begin] for begin, end in spans),
        )


def _draw(rng: random.Random, bag: _Bag, work: _Work, usual: float) -> float:
    """One worker's seconds for the rest, in one possible world: the rates that could stand behind the samples, and on
    top the luck of the time to come, which evens out the longer it is."""
    world = work.worker_seconds(bag.draw(rng, bag.count))
    world = usual if world is None else world
    coming = max(_FUTURE_MIN, round(usual / bag.mean_seconds))
    luck = work.worker_seconds(bag.draw(rng, min(coming, bag.count)))
    if luck is None or luck <= 0 or usual <= 0:
        return world
    spread = math.log(max(world, 1e-12) / usual) + math.log(luck / usual) * math.sqrt(
        min(coming, bag.count) / max(coming, 1)
    )
    return usual * math.exp(spread * bag.wide)


def _over(calendar: Calendar, start: float, size_bytes: int, times: Sequence[float]) -> list[float]:
    """When each of these, in seconds without a calendar, ends under it."""
    if size_bytes <= 0:
        return [calendar.finish_running(start, seconds) for seconds in times]
    own = [size_bytes / max(seconds, 1e-9) for seconds in times]
    latest = calendar.finish(start, size_bytes, min(own))
    pieces = list(calendar.pieces(start, min(latest, start + HORIZON_SECONDS) + 1.0))
    return [finish_over(pieces, start, size_bytes, rate) for rate in own]


def _two_sizes(samples: Sequence[Sample]) -> list[int]:
    """A group (0 small objects, 1 large) for each sample; empty when they are all of about one size.

    What one second holds is luck as much as size, so of samples of equal length neighbours are looked at together:
    told apart one by one, the lucky seconds would seem to show that bytes cost nothing."""
    if not samples:
        return []
    times = [sample.seconds for sample in samples]
    whole = min(times) < 0.99 * max(times) and all(sample.objects for sample in samples)
    chunk = 1 if whole else _CHUNK
    chunks = [samples[at : at + chunk] for at in range(0, len(samples), chunk)]
    sizes = [sum(s.size_bytes for s in part) / (sum(s.objects for s in part) + 0.5) for part in chunks]
    known = [size for size in sizes if size > 0]
    if len(known) < 4:
        return []
    middle = math.sqrt(min(known) * max(known))
    large = [size > middle for size in sizes]
    one = [size for size, is_large in zip(sizes, large, strict=True) if not is_large]
    two = [size for size, is_large in zip(sizes, large, strict=True) if is_large]
    if len(one) < 2 or len(two) < 2 or sum(two) / len(two) < _DIFFERENT_SIZES * sum(one) / len(one):
        return []
    return [int(large[at // chunk]) for at in range(len(samples))]


def _running_sums(samples: Sequence[Sample], marks: Sequence[int], group: int) -> tuple[list[float], ...]:
    """Sums up to each sample of one group, twice round: (seconds, objects, bytes)."""
    mine = [sample if not marks or marks[at] == group else Sample(0, 0, 0.0) for at, sample in enumerate(samples)] * 2
    return (
        [0.0, *accumulate(sample.seconds for sample in mine)],
        [0.0, *accumulate(float(sample.objects) for sample in mine)],
        [0.0, *accumulate(float(sample.size_bytes) for sample in mine)],
    )


def _blocks(samples: Sequence[Sample], marks: Sequence[int]) -> tuple[int, float]:
    """How many neighbours belong together, and how much wider than the draws the truth is.

    The length is Politis and White's for a process that forgets by one factor. Blocks still vary less than the process
    they were cut from: by what lies beyond their ends, by the mean that was taken out, and by how few they are."""
    count = len(samples)
    if count < 8:
        return 1, 1.0
    marks = marks or [0] * count
    usual: list[float] = []
    for group in range(2):
        mine = [sample for sample, mark in zip(samples, marks, strict=True) if mark == group]
        took = sum(sample.seconds for sample in mine)
        usual.append(sum(sample.size_bytes for sample in mine) / took if took else 0.0)
    # Against what is usual for their size of object: that sizes change in the course of a move is no weather.
    rates = [s.size_bytes / s.seconds / (usual[mark] or 1.0) for s, mark in zip(samples, marks, strict=True)]
    mean = sum(rates) / count
    spread = sum((rate - mean) ** 2 for rate in rates)
    if spread <= 0:
        return 1, 1.0
    memory = sum((a - mean) * (b - mean) for a, b in pairwise(rates)) / spread
    # A short series looks more forgetful than it is (Kendall).
    memory = max(0.0, min(0.95, (count * memory + 1) / (count - 3)))
    reach = 2 * memory / (1 - memory**2)
    length = max(min(4, count // 8), min(math.ceil(reach ** (2 / 3) * (1.5 * count) ** (1 / 3)), count // 4))
    beyond = 1 / (1 - min(0.6, reach / length))
    few = 1 + 0.66 / max(1.0, count / length - 1)  # Student's t at p10 and p90 against the normal
    return length, few * math.sqrt(beyond * count / (count - length))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _iso(at: float | None) -> str:
    if at is None:
        return "unknown"
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return "never"


def _span(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days" if seconds >= 2 * 86_400 else f"{seconds / 3600:.1f} h"
