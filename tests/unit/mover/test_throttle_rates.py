"""The throttle under a clock of the test's own, where every byte is predicted, and under the real one."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest

from crossload.engines.mover.calendar import Calendar
from crossload.engines.mover.throttle import BURST_SECONDS, Throttle
from crossload.estate.migration import DataRules

MIB = 2**20
START = datetime(2026, 6, 1, 21, 59, 50, tzinfo=UTC).timestamp()


class HandClock:
    """Time that passes only in sleeps, and by hand. With threads it moves on when all of them sleep."""

    def __init__(self, wall: float = START, sleepers: int = 1) -> None:
        self.now = 0.0
        self.offset = wall
        self.waits: list[float] = []
        self._changed = threading.Condition()
        self._sleepers = sleepers
        self._until: list[float] = []

    def wall(self) -> float:
        return self.now + self.offset

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        with self._changed:
            self.waits.append(seconds)
            until = self.now + seconds
            self._until.append(until)
            self._on()
            while self.now < until and not event.is_set():
                assert self._changed.wait(20), "nobody moves the time on"
            return event.is_set()

    def leave(self) -> None:
        """One thread fewer will sleep."""
        with self._changed:
            self._sleepers -= 1
            self._on()

    def _on(self) -> None:
        while self._until and len(self._until) >= self._sleepers:
            self.now = max(self.now, min(self._until))
            self._until = [until for until in self._until if until > self.now]
            self._changed.notify_all()


def rules(**data: object) -> Calendar:
    return Calendar.from_rules(DataRules.model_validate(data))


NIGHT = rules(windows=[{"from": "22:00", "to": "06:00", "mib_per_second": 100}], bandwidth_mib_per_second=10)


def test_a_steady_rate_is_kept_to_the_byte() -> None:
    clock = HandClock()
    throttle = Throttle(rules(bandwidth_mib_per_second=20), clock)
    for _ in range(160):
        assert throttle.take(MIB)
    assert clock.now == pytest.approx(8.0, abs=1e-3)


def test_what_waits_while_the_rate_rises_is_let_through_at_the_new_one() -> None:
    """10 s at 10 MiB/s, then the window of 100 MiB/s opens in the middle of one sleep."""
    clock = HandClock()
    assert Throttle(NIGHT, clock).take(600 * MIB)
    assert clock.now == pytest.approx(10 + 5, abs=1e-3)


def test_what_waits_while_the_rate_falls_does_not_keep_the_old_one() -> None:
    clock = HandClock(datetime(2026, 6, 2, 5, 59, 58, tzinfo=UTC).timestamp())
    throttle = Throttle(NIGHT, clock)
    assert throttle.take(250 * MIB)
    assert clock.now == pytest.approx(2 + 5, abs=1e-3)
    assert throttle.take(10 * MIB)
    assert clock.now == pytest.approx(8, abs=1e-3)


def test_a_stop_is_slept_through_and_its_time_earns_nothing() -> None:
    clock = HandClock()
    calendar = rules(windows=[{"from": "22:00", "to": "06:00", "mib_per_second": 100}], outside="stop")
    throttle = Throttle(calendar, clock)
    assert throttle.take(100 * MIB)
    assert clock.now == pytest.approx(10 + 1, abs=1e-3), "ten seconds until the window, one inside it"
    clock.now = datetime(2026, 6, 2, 12, tzinfo=UTC).timestamp() - START  # hours of rest inside and outside
    assert throttle.take(MIB)
    assert clock.wall() == pytest.approx(datetime(2026, 6, 2, 22, tzinfo=UTC).timestamp() + 0.01, abs=1e-3)
    assert max(clock.waits) <= 30


@pytest.mark.parametrize("idle", [0.1, 0.25, 3.0, 7200.0])
def test_idleness_earns_a_quarter_of_a_second_and_no_more(idle: float) -> None:
    clock = HandClock(START - 30_000)
    throttle = Throttle(rules(bandwidth_mib_per_second=20), clock)
    throttle.take(20 * MIB)
    clock.now += idle
    began = clock.now
    throttle.take(20 * MIB)
    assert clock.now - began == pytest.approx(1.0 - min(idle, BURST_SECONDS), abs=1e-3)


def test_credit_of_a_fast_window_ends_with_it() -> None:
    """A quarter of a second at 100 MiB/s would be 2.5 s at the slower rate after it."""
    clock = HandClock(datetime(2026, 6, 2, 5, 59, 50, tzinfo=UTC).timestamp())
    throttle = Throttle(NIGHT, clock)
    throttle.take(100 * MIB)
    clock.now = 10.0
    throttle.take(25 * MIB)
    assert clock.now == pytest.approx(12.5 - BURST_SECONDS, abs=1e-3)


def test_hours_without_a_ceiling_cost_nothing_and_end() -> None:
    free = rules(windows=[{"from": "22:00", "to": "06:00"}], bandwidth_mib_per_second=10)
    clock = HandClock()
    throttle = Throttle(free, clock)
    assert throttle.take(1000 * MIB)
    assert clock.now == pytest.approx(10, abs=1e-3), "all is let go when the ceiling is lifted"
    for _ in range(1000):
        throttle.take(1000 * MIB)
    assert clock.now == pytest.approx(10, abs=1e-3)
    clock.now = datetime(2026, 6, 2, 6, 0, 1, tzinfo=UTC).timestamp() - START
    began = clock.now
    throttle.take(10 * MIB)
    assert clock.now - began == pytest.approx(1 - BURST_SECONDS, abs=1e-3), "no debt and no credit from the free hours"


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_a_clock_that_is_set_neither_stops_the_move_nor_floods_the_link(step: float) -> None:
    clock = HandClock(START - 30_000)
    throttle = Throttle(rules(bandwidth_mib_per_second=20), clock)
    throttle.take(20 * MIB)
    clock.offset += step
    throttle.take(200 * MIB)
    assert clock.now == pytest.approx(11.0, abs=1e-3)


def test_64_threads_share_one_rate_under_the_hand_clock() -> None:
    clock = HandClock(sleepers=64)
    throttle = Throttle(NIGHT, clock)
    failures: list[object] = []

    def work() -> None:
        try:
            for _ in range(10):
                assert throttle.take(MIB)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)
        finally:
            clock.leave()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert clock.now == pytest.approx(10 + 540 / 100, abs=0.01), "640 MiB: 100 before the window, 540 inside it"


def test_stop_wakes_all_who_sleep_and_lets_nothing_through() -> None:
    stop = threading.Event()
    throttle = Throttle(rules(bandwidth_mib_per_second=0.001), stop=stop)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(throttle.take(MIB)), daemon=True) for _ in range(64)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert answers == []
    began = time.monotonic()
    stop.set()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - began < 2
    assert answers == [False] * 64
    assert not throttle.take(1)
    assert not Throttle(Calendar(), stop=stop).take(1)


@pytest.mark.parametrize("workers", [1, 64])
def test_the_real_rate_is_within_five_percent(workers: int) -> None:
    """20 MiB/s, in the pieces a worker sends; two seconds' worth."""
    throttle = Throttle(rules(bandwidth_mib_per_second=20))
    total, piece = 40 * MIB, 64 * 1024
    share = total // workers

    def work() -> None:
        for _ in range(share // piece):
            throttle.take(piece)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    took = time.monotonic() - began
    assert total / took == pytest.approx(20 * MIB, rel=0.05)


def test_no_ceiling_costs_next_to_nothing() -> None:
    throttle = Throttle(Calendar())
    began = time.process_time()
    for _ in range(20_000):
        throttle.take(16 * MIB)
    assert (time.process_time() - began) / 20_000 < 20e-6
