"""Wealth stays positive, the null is seldom rejected at any look, and real effects are found."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.traffic.betting import Bet, BoundBroken, pairs_needed


@given(
    st.lists(st.tuples(st.floats(0.001, 4), st.floats(0, 1), st.floats(0, 3)), max_size=60),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_wealth_stays_positive_and_finite_for_any_values_in_bounds(
    values: list[tuple[float, float, float]], guess: float, spread: float
) -> None:
    bet = Bet(guess=guess, spread=spread)
    for depth, part, above in values:
        low = -depth
        x = low + part * (depth + above)
        bet.update(x, low)
        assert math.isfinite(bet.log_wealth)
        assert bet.wealth > 0
    assert Bet.from_json(json.loads(json.dumps(bet.to_json()))) == bet


def test_a_value_below_its_bound_is_a_broken_promise() -> None:
    with pytest.raises(BoundBroken):
        Bet().update(-1.1, -1.0)
    with pytest.raises(BoundBroken):
        Bet().update(0.5, 0.0)


def test_expected_wealth_never_grows_under_the_null() -> None:
    """The martingale itself, without sampling: after any history, the mean of the next wealth is at most this one."""
    rng = random.Random(4)
    for _ in range(200):
        bet = Bet()
        for _ in range(rng.randrange(30)):
            bet.update(rng.choice((-1.0, 0.0, 1.0)), -1.0)
        before = bet.wealth
        state = json.dumps(bet.to_json())
        after = 0.0
        for x, chance in ((-1.0, 0.3), (0.0, 0.4), (1.0, 0.3)):
            one = Bet.from_json(json.loads(state))
            one.update(x, -1.0)
            after += chance * one.wealth
        assert after <= before * (1 + 1e-9)


def test_false_alarms_stay_below_alpha_at_every_look() -> None:
    runs, alarms, alpha = 400, 0, 0.05
    for seed in range(runs):
        rng = random.Random(seed)
        bet = Bet()
        for _ in range(300):
            source, target = rng.random() < 0.05, rng.random() < 0.05
            bet.update(float(target) - float(source), -1.0)
        alarms += bet.best >= math.log(1 / alpha)
    # 20 of 400 are allowed on average; 33 would be three standard deviations above.
    assert alarms <= 33


def test_a_bad_target_is_found_quickly() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        bet = Bet()
        while bet.wealth < 100 and bet.count < 400:
            bet.update(float(rng.random() < 0.4) - float(rng.random() < 0.02), -1.0)
        assert bet.count < 80


def test_pairs_needed_tells_the_truth() -> None:
    assert pairs_needed(0.02, 0.05) <= 200
    assert pairs_needed(0.005, 0.01) > 900
    needed = pairs_needed(0.05, 0.01)
    bet = Bet(guess=0.05)
    for _ in range(needed - 1):
        bet.update(0.05, 0.05 - 1)
    assert bet.best < math.log(100)
    bet.update(0.05, 0.05 - 1)
    assert bet.best >= math.log(100)
