"""The calendar of bandwidth: how fast the move may go at any moment, and when work is done under it.

A window holds whenever the clock on the wall of its zone shows a time in it, and belongs to the day it begins on. So
nobody has to know about daylight saving: a skipped hour never comes, and an hour that comes twice counts twice. Where
several windows hold, the lowest ceiling does, in whatever order they are written. All times are seconds since the
epoch; all rates are bytes/s, None is no ceiling and 0 a stop."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

from crossload.estate.migration import DAYS, DataRules, Window, minutes_of

_DAY_SECONDS = 86_400
HORIZON_SECONDS = 5 * 366 * _DAY_SECONDS  # what is not done within five years is never done


@dataclass(frozen=True, slots=True)
class Piece:
    """One stretch of time [start, end) at one rate: bytes/s, None without a ceiling, 0 when stopped."""

    start: float
    end: float
    rate: float | None


@dataclass(frozen=True, slots=True)
class Hours:
    """One window: `days` count from Monday (0), `begins` and `ends` are minutes since midnight in `zone`."""

    days: frozenset[int]
    begins: int
    ends: int
    zone: tzinfo
    rate: float | None

    @classmethod
    def of(cls, window: Window) -> Hours:
        """From the migration file, where names and times were checked. Raises ZoneInfoNotFoundError on a system whose
        database of time zones lacks this one."""
        zone = UTC if window.zone == "UTC" else ZoneInfo(window.zone)
        rate = None if window.mib_per_second is None else window.mib_per_second * 2**20
        days = frozenset(DAYS.index(day) for day in window.days)
        return cls(days, minutes_of(window.begins), minutes_of(window.ends), zone, rate)

    def holds(self, at: float) -> bool:
        wall = datetime.fromtimestamp(at, self.zone)
        minute, today = wall.hour * 60 + wall.minute, wall.weekday()
        if self.begins < self.ends:
            return today in self.days and self.begins <= minute < self.ends
        yesterday = (today - 1) % 7
        return (today in self.days and minute >= self.begins) or (yesterday in self.days and minute < self.ends)

    def edges(self, start: float, end: float) -> Iterator[float]:
        """Every moment in [start, end) at which it may begin or cease to hold; more of them do no harm."""
        offset = _offset(start, self.zone)
        if offset != _offset(end, self.zone):
            yield _jump(start, end, self.zone)
        day = datetime.fromtimestamp(start, self.zone).date() - timedelta(days=1)
        last = datetime.fromtimestamp(end, self.zone).date()
        while day <= last:
            for minute in (0, self.begins, self.ends):
                for fold in (0, 1):  # both times that an hour comes twice
                    yield _moment(day, minute, fold, self.zone)
            day += timedelta(days=1)


class Calendar:
    """The rate at every moment. Immutable to its users and safe to share between threads."""

    def __init__(
        self, hours: Sequence[Hours] = (), default: float | None = None, *, stops_outside: bool = False
    ) -> None:
        """`default` is the rate outside all windows (bytes/s, None without a ceiling), unless it stops there."""
        self._hours = tuple(hours)
        self._outside = 0.0 if stops_outside else default
        self._days: dict[int, list[Piece]] = {}

    @classmethod
    def from_rules(cls, rules: DataRules) -> Calendar:
        """The `data:` section of a migration file as a calendar."""
        default = rules.bandwidth_mib_per_second
        return cls(
            [Hours.of(window) for window in rules.windows],
            None if default is None else default * 2**20,
            stops_outside=rules.outside == "stop",
        )

    def share(self, among: int) -> Calendar:
        """The same for one of so many that use the link at once: a part of every ceiling."""
        hours = [replace(one, rate=None if one.rate is None else one.rate / among) for one in self._hours]
        return Calendar(hours, None if self._outside is None else self._outside / among)

    @property
    def unlimited(self) -> bool:
        """There is never any ceiling."""
        return self._outside is None and all(hours.rate is None for hours in self._hours)

    def rate_at(self, time: float) -> float | None:
        """bytes/s at this moment; None without a ceiling, 0 when the move is stopped."""
        if not self._hours:
            return self._outside
        rates = [hours.rate for hours in self._hours if hours.holds(time)]
        if not rates:
            return self._outside
        return min((rate for rate in rates if rate is not None), default=None)

    def piece_at(self, time: float) -> Piece:
        """The stretch of one rate around this moment; it is cut at midnight UTC, though the rate may go on."""
        pieces = self._day(math.floor(time / _DAY_SECONDS))
        return pieces[bisect.bisect_right(pieces, time, key=_start_of) - 1]

    def pieces(self, start: float, until: float) -> Iterator[Piece]:
        """All stretches of [start, until) in order; neighbours differ in their rate. `until` may be infinite."""
        open_one: Piece | None = None
        at = start
        while at < until:
            piece = self.piece_at(at) if self._hours else Piece(at, until, self._outside)
            end = min(piece.end, until)
            if open_one is None:
                open_one = Piece(at, end, piece.rate)
            elif open_one.rate == piece.rate:
                open_one = Piece(open_one.start, end, piece.rate)
            else:
                yield open_one
                open_one = Piece(at, end, piece.rate)
            at = end
        if open_one is not None:
            yield open_one

    def finish(self, start: float, size_bytes: float, own_rate: float | None = None) -> float:
        """When `size_bytes` that begin at `start` are through, if the move alone could do `own_rate` bytes/s (None:
        any). Infinite when that is not within five years."""
        return finish_over(self.pieces(start, start + HORIZON_SECONDS), start, size_bytes, own_rate)

    def finish_running(self, start: float, seconds: float) -> float:
        """When `seconds` of work that needs no bandwidth are done; it rests only where the calendar stops the move."""
        return finish_over(self._running(start), start, seconds, 1.0)

    def through(self, start: float, until: float) -> float:
        """Bytes that fit through in [start, until); infinite when some of that time has no ceiling."""
        total = 0.0
        for piece in self.pieces(start, until):
            total += math.inf if piece.rate is None else piece.rate * (piece.end - piece.start)
        return total

    def _running(self, start: float) -> Iterator[Piece]:
        for piece in self.pieces(start, start + HORIZON_SECONDS):
            yield piece if piece.rate == 0 else Piece(piece.start, piece.end, None)

    def _day(self, number: int) -> list[Piece]:
        """The pieces of one UTC day, computed once."""
        found = self._days.get(number)
        if found is None:
            found = self._days[number] = self._compute(number * _DAY_SECONDS, (number + 1) * _DAY_SECONDS)
        return found

    def _compute(self, start: float, end: float) -> list[Piece]:
        edges = {edge for hours in self._hours for edge in hours.edges(start, end) if start < edge < end}
        marks = [start, *sorted(edges), end]
        pieces: list[Piece] = []
        for begin, finish in pairwise(marks):
            rate = self.rate_at(begin)
            if pieces and pieces[-1].rate == rate:
                pieces[-1] = Piece(pieces[-1].start, finish, rate)
            else:
                pieces.append(Piece(begin, finish, rate))
        return pieces


def finish_over(pieces: Iterable[Piece], start: float, size_bytes: float, own_rate: float | None) -> float:
    """When `size_bytes` are through these pieces, none faster than `own_rate`; infinite when they do not suffice."""
    left = float(size_bytes)
    if left <= 0:
        return start
    for piece in pieces:
        rate = _lower(piece.rate, own_rate)
        if rate is None:
            return piece.start
        if rate <= 0:
            continue
        if left <= rate * (piece.end - piece.start):
            return piece.start + left / rate
        left -= rate * (piece.end - piece.start)
    return math.inf


def _lower(rate: float | None, own_rate: float | None) -> float | None:
    if rate is None or own_rate is None:
        return rate if own_rate is None else own_rate
    return min(rate, own_rate)


def _start_of(piece: Piece) -> float:
    return piece.start


def _offset(at: float, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(at, zone).utcoffset()


def _moment(day: date, minute: int, fold: int, zone: tzinfo) -> float:
    midnight = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)
    return midnight.replace(tzinfo=zone, fold=fold).timestamp()


def _jump(start: float, end: float, zone: tzinfo) -> float:
    """The second between these at which the zone's clocks are put forward or back."""
    before, low, high = _offset(start, zone), math.floor(start), math.ceil(end)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return float(high)
