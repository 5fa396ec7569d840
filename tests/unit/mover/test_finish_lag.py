"""Lag, convergence and the length of a freeze, against sums done by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from crossload.engines.mover.lag import (
    DeltaPass,
    change_rate,
    change_rates,
    converged,
    freeze_budget_bytes,
    freeze_forecast,
    lag_bytes,
    lag_seconds,
)

MIB = 2**20


@dataclass(frozen=True)
class Key:
    size_bytes: int | None
    first_at: float | None


def test_lag_is_the_oldest_change_and_all_the_bytes() -> None:
    behind = [Key(10, 50.0), Key(30, 20.0), Key(0, 90.0)]
    assert lag_seconds(behind, 100.0) == 80.0
    assert lag_bytes(behind) == 40
    assert (lag_seconds([], 100.0), lag_bytes([])) == (0.0, 0)
    assert lag_seconds([Key(1, 120.0)], 100.0) == 0.0, "a clock that is ahead makes no lag below nothing"


def test_one_unknown_makes_it_unknown() -> None:
    assert lag_seconds([Key(1, 5.0), Key(1, None)], 100.0) is None
    assert lag_bytes([Key(1, 5.0), Key(None, 5.0)]) is None


def passes(*changed: int, every: float = 100.0, seconds: float = 10.0) -> list[DeltaPass]:
    return [DeltaPass(number * every, seconds, size) for number, size in enumerate(changed)]


def test_change_rate_is_per_time_between_passes() -> None:
    assert change_rates(passes(10**9, 500, 1000, 250)) == [5.0, 10.0, 2.5]
    found = change_rate(passes(10**9, 500, 1000, 250))
    assert (found.value, found.low, found.high) == (5.0, 2.5, 10.0)
    assert not change_rate(passes(5)).known


def test_three_small_passes_in_a_row_have_converged() -> None:
    """Each changes 5 bytes/s and lasts 10 s: 50 bytes come during a pass."""
    assert converged(passes(10**9, 500, 500, 500), 51)
    assert not converged(passes(10**9, 500, 500, 500), 50), "as much as the budget is not less than it"
    assert not converged(passes(500, 500, 500), 51), "the first tells no rate, so these are two"
    assert not converged(passes(0, 500, 520, 500), 51), "one of the three is too large"
    assert converged(passes(0, 10**9, 500, 500, 500), 51), "an old one does not count"
    assert converged(passes(0, 0, 0, 0), 1)
    assert not converged([DeltaPass(5.0, 1.0, 0)] * 4, 1), "passes that did not follow one another prove nothing"


def test_the_budget_of_a_freeze() -> None:
    assert freeze_budget_bytes(60, 10, 100.0) == 5000
    assert freeze_budget_bytes(60, 10, 100.0, lists=3) == 3000
    assert freeze_budget_bytes(5, 10, 100.0) == 0


def test_freeze_time_is_listing_plus_the_rest() -> None:
    exact = freeze_forecast([10.0], [500 * MIB], [100 * MIB], lists=3)
    assert (exact.low, exact.value, exact.high) == (35.0, 35.0, 35.0)
    spread = freeze_forecast([10.0, 20.0], [0, 1000 * MIB], [50 * MIB, 100 * MIB])
    assert spread.low is not None
    assert spread.value is not None
    assert spread.high is not None
    assert spread.low == 10.0
    assert spread.low < spread.value < spread.high <= 40.0
    assert spread == freeze_forecast([10.0, 20.0], [0, 1000 * MIB], [50 * MIB, 100 * MIB])


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_what_was_never_measured_makes_it_unknown(missing: int) -> None:
    arguments: list[list[float]] = [[10.0], [500.0], [100.0]]
    arguments[missing] = []
    assert not freeze_forecast(*arguments).known
    assert freeze_forecast([10.0], [0.0], []).value == 10.0, "nothing to copy needs no throughput"
