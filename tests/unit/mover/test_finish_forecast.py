"""The forecast: exact where nothing is noisy, and a range that is kept four times in five where rates are."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from crossload.engines.mover.calendar import Calendar
from crossload.engines.mover.finish import Due, Forecast, Sample, by_slack, deadline_problems, end_of, forecast
from crossload.estate.migration import DataRules

MIB = 2**20
START = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
FREE = Calendar()
STEADY = [Sample(50 * MIB, 5, 1.0)] * 50


def seconds(found: Forecast) -> tuple[float, float, float]:
    assert found.p10 is not None
    assert found.p50 is not None
    assert found.p90 is not None
    return found.p10 - found.start, found.p50 - found.start, found.p90 - found.start


def rules(**data: object) -> Calendar:
    return Calendar.from_rules(DataRules.model_validate(data))


def test_a_steady_rate_gives_one_answer() -> None:
    found = forecast(5000 * MIB, 500, STEADY, FREE, start=START)
    assert seconds(found) == pytest.approx((100, 100, 100))
    assert seconds(forecast(5000 * MIB, 500, STEADY, FREE, start=START, workers=4)) == pytest.approx((25, 25, 25))


def test_the_largest_of_link_workers_and_requests_decides() -> None:
    thin = rules(bandwidth_mib_per_second=10)
    assert seconds(forecast(5000 * MIB, 500, STEADY, thin, start=START))[1] == pytest.approx(500)
    limited = forecast(5000 * MIB, 500, STEADY, FREE, 2.0, start=START, requests_per_object=4)
    assert seconds(limited)[1] == pytest.approx(500 * 4 / 2)
    assert seconds(forecast(5000 * MIB, 500, STEADY, FREE, 1e6, start=START))[1] == pytest.approx(100)


def test_the_calendar_is_walked_through() -> None:
    night = rules(windows=[{"from": "22:00", "to": "06:00", "mib_per_second": 25}], outside="stop")
    found = forecast(25 * 3600 * 10 * MIB, 10, STEADY, night, start=START)
    assert seconds(found)[1] == pytest.approx(10 * 3600 + 8 * 3600 + 16 * 3600 + 2 * 3600)
    empty = forecast(0, 18_000, [Sample(0, 5, 1.0)] * 10, night, start=START)
    assert seconds(empty)[1] == pytest.approx(11 * 3600), "objects without bytes rest outside the windows too"


def test_what_is_not_known_stays_unknown_and_nothing_left_is_now() -> None:
    for found in (
        forecast(None, 5, STEADY, FREE, start=START), forecast(5, None, STEADY, FREE, start=START),
        forecast(5 * MIB, 5, [], FREE, start=START), forecast(5 * MIB, 5, STEADY[:2], FREE, start=START),
        forecast(5 * MIB, 5, [Sample(0, 0, 1.0)] * 50, FREE, start=START),
    ):  # fmt: skip
        assert (found.p10, found.p50, found.p90) == (None, None, None)
        assert found.to_json()["p90"] == "unknown"
        assert found.left().to_json()["value"] == "unknown"
        assert found.basis
    assert seconds(forecast(0, 0, [], FREE, start=START)) == (0, 0, 0)


def test_what_never_ends_says_so_and_is_json() -> None:
    rarely = rules(windows=[{"days": ["mon"], "from": "00:00", "to": "00:01", "mib_per_second": 1}], outside="stop")
    found = forecast(10**15, 10, STEADY, rarely, start=START, draws=50)
    assert found.never
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["p90"] == "never"


def test_the_same_seed_gives_the_same_answer() -> None:
    rng = random.Random(1)
    noisy = [Sample(int(rng.expovariate(1 / 50) * MIB), 1, 1.0) for _ in range(200)]
    one, same, other = (forecast(10**11, 10, noisy, FREE, start=START, seed=seed) for seed in (3, 3, 4))
    assert one == same
    assert one != other
    low, middle, high = seconds(one)
    assert low < middle < high


def test_only_the_newest_200_samples_count() -> None:
    found = forecast(5000 * MIB, 500, [Sample(MIB, 1, 1.0)] * 500 + [STEADY[0]] * 200, FREE, start=START)
    assert seconds(found)[1] == pytest.approx(100)


def worker(rng: random.Random, size_bytes: int) -> Sample:
    """0.1 s per object and 40 MiB/s, give or take a third."""
    return Sample(size_bytes, 1, (0.1 + size_bytes / (40 * MIB)) * rng.uniform(0.67, 1.33))


def test_two_sizes_of_object_tell_latency_from_rate() -> None:
    """The mover takes the largest first: what is left is many small ones, unlike most of what was seen."""
    truth = (100_000 * 0.1 + 100_000 * 16 / 1024 / 40) / 8
    inside = 0
    for seed in range(40):
        rng = random.Random(seed)
        seen = [worker(rng, 64 * MIB) for _ in range(150)] + [worker(rng, 64 * 1024) for _ in range(30)]
        found = forecast(100_000 * 16 * 1024, 100_000, seen, FREE, start=START, workers=8, seed=seed, draws=200)
        low, middle, high = seconds(found)
        assert middle == pytest.approx(truth, rel=0.2)
        inside += low <= truth <= high
    assert 26 <= inside <= 39


def test_lucky_seconds_do_not_make_bytes_free() -> None:
    """Bytes and finished objects that come and go apart from each other: all of it is luck, none of it size."""
    rng = random.Random(2)
    seen = [Sample(int(rng.expovariate(1 / 50) * MIB), rng.randint(1, 3), 1.0) for _ in range(200)]
    assert seconds(forecast(5000 * MIB, 3, seen, FREE, start=START))[1] == pytest.approx(100, rel=0.25)


def test_one_size_of_object_takes_the_latency_of_the_probe_or_the_careful_side() -> None:
    rng = random.Random(6)
    seen = [worker(rng, 64 * MIB) for _ in range(200)]
    left = (100_000 * 16 * 1024, 100_000)
    truth = 100_000 * 0.1 + 100_000 * 16 / 1024 / 40
    probed = forecast(*left, seen, FREE, start=START, latency_seconds=0.1)
    assert seconds(probed)[1] == pytest.approx(truth, rel=0.1)
    careful = forecast(*left, seen, FREE, start=START)
    assert seconds(careful)[0] > truth
    assert "careful side" in careful.basis
    same = forecast(64 * 100 * MIB, 100, seen, FREE, start=START)
    assert "careful side" not in same.basis
    assert seconds(same)[1] == pytest.approx(170, rel=0.1)


def noisy_rates(rng: random.Random, memory: float, spread: float) -> Iterator[float]:
    """bytes/s that wander about 50 MiB/s; `memory` is how much of a second the next one remembers."""
    state = rng.gauss(0, 1)
    while True:
        state = memory * state + math.sqrt(1 - memory**2) * rng.gauss(0, 1)
        yield 50 * MIB * math.exp(spread * state)


@pytest.mark.parametrize(("memory", "spread", "rest"), [(0.0, 0.5, 600), (0.6, 0.5, 600), (0.9, 0.4, 1500)])
def test_the_range_holds_the_truth_about_four_times_in_five(memory: float, spread: float, rest: int) -> None:
    """Simulated moves: 200 seconds are seen, the rest is forecast, and then it happens."""
    moves, inside, early, late = 160, 0, 0, 0
    for number in range(moves):
        rng = random.Random(number)
        rates = noisy_rates(rng, memory, spread)
        seen = [Sample(int(next(rates)), 0, 1.0) for _ in range(200)]
        left = int(50 * MIB * math.exp(spread**2 / 2) * rest)
        low, _, high = seconds(forecast(left, 10, seen, FREE, start=0.0, seed=number, draws=200))
        took, todo = 0.0, float(left)
        while todo > 0:
            rate = next(rates)
            took += min(1.0, todo / rate)
            todo -= rate
        inside += low <= took <= high
        early += took < low
        late += took > high
    assert 0.70 <= inside / moves <= 0.90, (inside, early, late)
    assert early > 0
    assert late > 0


def made(p90: float | None, p10: float | None = 0.0) -> Forecast:
    return Forecast(0.0, p10, p90, p90, "made up")


def test_a_late_end_after_the_deadline_is_a_warning() -> None:
    deadline = end_of(date(2026, 6, 2))
    assert deadline == datetime(2026, 6, 3, tzinfo=UTC).timestamp()
    assert deadline_problems(made(deadline), deadline, "dataset:docs") == []
    assert deadline_problems(made(deadline + 9), None, "dataset:docs") == []
    [late] = deadline_problems(made(deadline + 7200), deadline, "dataset:docs")
    assert late.code == "XL520"
    assert "2.0 h late" in str(late)
    assert "2026-06-03T02:00:00+00:00" in str(late)
    [never] = deadline_problems(made(math.inf), deadline, "dataset:docs")
    assert never.code == "XL520"
    assert "five years" in never.summary
    [unknown] = deadline_problems(made(None), deadline, "dataset:docs")
    assert unknown.code == "XL521"


def test_the_largest_slack_moves_last() -> None:
    datasets = [
        Due("none", made(50.0)), Due("wide", made(100.0), 1000.0), Due("tight", made(100.0), 150.0),
        Due("late", made(100.0), 50.0), Due("never", made(math.inf), 1e9), Due("unknown", made(None), 1e9),
        Due("a-none", made(9e9)),
    ]  # fmt: skip
    assert [due.name for due in by_slack(datasets)] == ["never", "unknown", "late", "tight", "wide", "a-none", "none"]
    assert by_slack(datasets) == by_slack(reversed(datasets))
