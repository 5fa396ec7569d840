"""A live move's estimate: fed with what came through, under a clock of the test's own."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from crossload.engines.mover.calendar import Calendar
from crossload.engines.mover.running import Running
from crossload.estate.migration import DataRules

MIB = 2**20
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


class HandTime:
    def __init__(self, wall: float = NOON) -> None:
        self.now, self.offset = 100.0, wall - 100.0

    def wall(self) -> float:
        return self.now + self.offset

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now += seconds
        return event.is_set()


def rules(**data: object) -> Calendar:
    return Calendar.from_rules(DataRules.model_validate(data))


def feed(running: Running, clock: HandTime, seconds: int, size_bytes: int, objects: int = 1) -> None:
    for _ in range(seconds):
        running.moved(objects, size_bytes)
        clock.now += 1.0


def test_time_left_follows_what_came_through() -> None:
    clock = HandTime()
    running = Running(Calendar(), remaining_bytes=10_000 * MIB, remaining_objects=1000, clock=clock)
    assert running.left().p50 is None, "nothing came through yet"
    feed(running, clock, 20, 100 * MIB, 10)
    left = running.left().left()
    assert left.value == pytest.approx(80)
    assert left.low == pytest.approx(80)
    running.start(5, 500 * MIB)
    assert running.left().left().value == pytest.approx(5)
    feed(running, clock, 5, 100 * MIB)
    assert running.left().left().value == 0


def test_nobody_counted_the_total() -> None:
    clock = HandTime()
    running = Running(Calendar(), clock=clock)
    feed(running, clock, 20, MIB)
    assert running.left().to_json()["p90"] == "unknown"


def test_a_stall_is_felt() -> None:
    clock = HandTime()
    running = Running(Calendar(), remaining_bytes=10_000 * MIB, remaining_objects=10, clock=clock)
    feed(running, clock, 20, 100 * MIB)
    before = running.left().left().value
    clock.now += 60
    after = running.left().left().value
    assert before is not None
    assert after is not None
    assert after > 3 * before


def test_hours_in_which_the_move_is_stopped_are_no_stall() -> None:
    clock = HandTime(datetime(2026, 6, 1, 5, 59, 30, tzinfo=UTC).timestamp())
    night = rules(windows=[{"from": "22:00", "to": "06:00"}], outside="stop")
    running = Running(night, remaining_bytes=10_000 * MIB, remaining_objects=100, clock=clock)
    feed(running, clock, 25, 100 * MIB)
    clock.now += 8 * 3600
    found = running.left()
    assert found.p50 == pytest.approx(datetime(2026, 6, 1, 22, tzinfo=UTC).timestamp() + 75, rel=0, abs=10)


def test_a_rate_held_back_by_a_ceiling_does_not_bind_the_faster_hours() -> None:
    clock = HandTime(datetime(2026, 6, 1, 21, 58, tzinfo=UTC).timestamp())
    evening = rules(windows=[{"from": "22:00", "to": "06:00"}], bandwidth_mib_per_second=10)
    running = Running(evening, remaining_bytes=100_000 * MIB, remaining_objects=100_000, clock=clock)
    feed(running, clock, 110, 10 * MIB, 10)
    held = running.left()
    assert "under a ceiling" in held.basis
    feed(running, clock, 10, 10 * MIB, 10)
    feed(running, clock, 20, 200 * MIB, 200)
    free = running.left()
    assert "under a ceiling" not in free.basis
    assert free.left().value == pytest.approx((100_000 - 1200 - 4000) / 200, rel=0.1)


def test_a_rate_far_below_its_ceiling_is_the_moves_own() -> None:
    clock = HandTime()
    running = Running(
        rules(bandwidth_mib_per_second=1000), remaining_bytes=1000 * MIB, remaining_objects=9, clock=clock
    )
    feed(running, clock, 30, 10 * MIB)
    assert "under a ceiling" not in running.left().basis


def test_many_threads_feed_it() -> None:
    clock = HandTime()
    running = Running(Calendar(), remaining_bytes=64 * 1000 * MIB, remaining_objects=64_000, clock=clock)
    running.moved(0, 0)

    def work() -> None:
        for _ in range(500):
            running.moved(1, MIB)

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.now += 1
    feed(running, clock, 5, 32_000 * MIB // 5, 32_000 // 5)
    assert running.left().left().value == 0
