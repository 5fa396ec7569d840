"""A move that is under way tells how long it will still take: it feeds what came through, and asks."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from crossload.engines.mover.calendar import Calendar
from crossload.engines.mover.finish import SAMPLES_MAX, Forecast, Sample, forecast
from crossload.engines.mover.throttle import Clock, SystemClock

_KEPT = 2 * SAMPLES_MAX
_FREE_MIN = 5
# A ceiling that is used to this share is what held the move back: its samples do not tell what it could do alone.
_HELD_BACK = 0.8


@dataclass(frozen=True, slots=True)
class _Second:
    sample: Sample
    ceiling: float | None


class Running:
    """Feed `moved` from any thread; ask `left` from any other. Seconds in which the calendar stops the move do not
    count, seconds in which it stalls do."""

    def __init__(
        self, calendar: Calendar, *, remaining_bytes: int | None = None, remaining_objects: int | None = None,
        requests_limit: float | None = None, requests_per_object: float = 3.0, latency_seconds: float | None = None,
        workers: int = 1, clock: Clock | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        """`latency_seconds` is one worker's for one object, as a probe gives it; `workers` is how many share it."""
        self._calendar = calendar
        self._requests_limit, self._requests_per_object = requests_limit, requests_per_object
        self._latency = None if latency_seconds is None else latency_seconds / max(1, workers)
        self._clock = clock or SystemClock()
        self._seed = seed
        self._mutex = threading.Lock()
        self._remaining_bytes, self._remaining_objects = remaining_bytes, remaining_objects
        self._seconds: deque[_Second] = deque(maxlen=_KEPT)
        self._second: int | None = None  # counted on the monotonic clock; None until the first thing came through
        self._bytes = self._objects = 0

    def start(self, objects: int, size_bytes: int) -> None:
        """What a pass is about to move, in place of what was left before."""
        with self._mutex:
            self._remaining_objects, self._remaining_bytes = objects, size_bytes

    def moved(self, objects: int, size_bytes: int) -> None:
        """Some came through just now."""
        with self._mutex:
            self._roll()
            self._bytes += size_bytes
            self._objects += objects
            if self._remaining_bytes is not None:
                self._remaining_bytes = max(0, self._remaining_bytes - size_bytes)
            if self._remaining_objects is not None:
                self._remaining_objects = max(0, self._remaining_objects - objects)

    def left(self, draws: int = 200) -> Forecast:
        """The finish time as of now. Costs some milliseconds: ask about once a second."""
        with self._mutex:
            if self._second is not None:
                self._roll()
            size_bytes, objects = self._remaining_bytes, self._remaining_objects
            samples, held = self._telling()
        now = self._clock.wall()
        found = forecast(
            size_bytes, objects, samples, self._calendar, self._requests_limit, start=now,
            latency_seconds=self._latency, requests_per_object=self._requests_per_object, seed=self._seed, draws=draws,
        )  # fmt: skip
        if not held or found.p90 is None:
            return found
        words = f"{found.basis}; all of them under a ceiling, so a faster window may end it sooner"
        return Forecast(found.start, found.p10, found.p50, found.p90, words)

    def _roll(self) -> None:
        """Close the seconds that are over."""
        now = self._clock.monotonic()
        second = int(now)
        if self._second is None:
            self._second = second
            return
        if second <= self._second:
            return
        wall = self._clock.wall()
        for number in range(max(self._second, second - _KEPT), second):
            ceiling = self._calendar.rate_at(wall - (now - number))
            ends = self._calendar.rate_at(wall - (now - number) + 1)
            sample = Sample(self._bytes, self._objects, 1.0) if number == self._second else Sample(0, 0, 1.0)
            if ceiling == ends and ceiling != 0:
                self._seconds.append(_Second(sample, ceiling))
        self._second, self._bytes, self._objects = second, 0, 0

    def _telling(self) -> tuple[list[Sample], bool]:
        """The samples that tell what the move can do alone, where there are some; else all, and True."""
        came: dict[float, list[int]] = {}
        for item in self._seconds:
            if item.ceiling is not None:
                came.setdefault(item.ceiling, []).append(item.sample.size_bytes)
        held = {ceiling for ceiling, sizes in came.items() if sum(sizes) >= _HELD_BACK * ceiling * len(sizes)}
        free = [item.sample for item in self._seconds if item.ceiling is None or item.ceiling not in held]
        if len(free) >= _FREE_MIN:
            return free[-SAMPLES_MAX:], False
        return [item.sample for item in self._seconds][-SAMPLES_MAX:], bool(held)
