"""The throttle: one byte budget for all workers, under a calendar that may change its rate while they sleep.

Two running totals: bytes asked for, and bytes the calendar has let through. Who asks gets the place in the queue where
the bytes asked for stand now, and goes on when that many are through. Time is measured by the monotonic clock and only
looked up in the calendar by the clock on the wall, so that a clock that is set, or a machine that slept, neither stops
the move nor lets a flood through."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from crossload.engines.mover.calendar import Calendar, Piece

BURST_SECONDS = 0.25
# Long sleeps are taken in steps, so that a clock that was set meanwhile is noticed.
_STEP_SECONDS = 30.0
_GRAIN_SECONDS = 1e-5


class Clock(Protocol):
    """What a throttle needs of time; a test has its own."""

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float: ...
    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Sleep until `event` is set (True) or the time is over (False)."""
        ...


class SystemClock:
    """The machine's own time."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


class Throttle:
    """Safe for any number of threads. After idleness at most a quarter of a second's worth passes at once; bytes asked
    for in one call pass together, when the last of them is due."""

    def __init__(self, calendar: Calendar, clock: Clock | None = None, stop: threading.Event | None = None) -> None:
        """`stop` wakes all who wait, now and later; set it on Ctrl-C."""
        self.stop = stop or threading.Event()
        self._calendar = calendar
        self._clock = clock or SystemClock()
        self._unlimited = calendar.unlimited
        self._mutex = threading.Lock()
        self._asked = 0.0  # bytes, since the beginning
        self._through = 0.0  # bytes; never more than asked for, plus the burst
        self._seen = self._clock.monotonic()
        self._piece = Piece(0.0, 0.0, 0.0)

    def take(self, size_bytes: int) -> bool:
        """Wait until `size_bytes` may pass. False when `stop` was set meanwhile: they may not, and the move ends."""
        if self._unlimited:
            return not self.stop.is_set()
        with self._mutex:
            self._advance(self._clock.wall())  # before we ask: idleness must not pay for what comes after it
            self._asked += size_bytes
            place = self._asked
        while not self.stop.is_set():
            with self._mutex:
                wait = self._wait(place)
            if wait <= 0:
                return True
            self._clock.wait(self.stop, min(wait, _STEP_SECONDS))
        return False

    def _wait(self, place: float) -> float:
        """Seconds until the queue has moved up to `place`, as far as can be told now; infinite when never."""
        wall = self._clock.wall()
        self._advance(wall)
        left = place - self._through
        piece = self._at(wall)
        if piece.rate and left <= piece.rate * (piece.end - wall):
            wait = left / piece.rate
        else:
            wait = self._calendar.finish(wall, left) - wall
        # What is due within this is let go now; the totals remember it, so the rate stays exact.
        return wait if wait > _GRAIN_SECONDS else 0.0

    def _advance(self, wall: float) -> None:
        """Let through what the calendar allowed since the last look."""
        now = self._clock.monotonic()
        passed, self._seen = max(0.0, now - self._seen), max(now, self._seen)
        piece = self._at(wall)
        if piece.rate is None:
            self._through = max(self._through, self._asked)
            return
        before = wall - passed
        # The time since the last look counts at the rates it had, not at the one of now.
        inside = before >= piece.start
        self._through += piece.rate * passed if inside else self._calendar.through(before, wall)
        self._through = min(self._through, self._asked + piece.rate * BURST_SECONDS)

    def _at(self, wall: float) -> Piece:
        piece = self._piece
        if not piece.start <= wall < piece.end:
            piece = self._piece = self._calendar.piece_at(wall)
        return piece
