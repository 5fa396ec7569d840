"""Bets against "this is not worse": wealth that, under the null, grows beyond 1/alpha with probability at most alpha,
however often one looks (Ville's inequality for a non-negative supermartingale).

One bet: values x with E[x | past] <= 0 under the null and a known lower bound. Wealth is multiplied by 1 + lambda * x.
lambda is chosen before x is seen. Half of the money follows what was seen so far, half is spread over fixed stakes, so
that neither a strong nor a weak effect is missed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Fractions of the largest stake that keeps wealth positive.
STAKES = (0.02, 0.06, 0.15, 0.35, 0.7, 0.95)
_CAP = 0.95


class BoundBroken(AssertionError):
    """A value fell below its promised bound: wealth could turn negative and the test would mean nothing."""


@dataclass(slots=True)
class Bet:
    """`guess` is the mean of x one expects if the alternative holds; it only decides the first stakes. All state is
    plain floats, so it goes through JSON and comes back the same."""

    guess: float = 0.1
    spread: float = 0.05
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    adaptive: float = 0.0  # log wealth of the half that follows
    fixed: list[float] = field(default_factory=lambda: [0.0] * len(STAKES))  # log wealth of each fixed stake
    best: float = 0.0  # highest log wealth so far

    def update(self, x: float, low: float) -> None:
        """`low` < 0 is the smallest value x could have taken, known before. Raises BoundBroken when x is below it."""
        if not low < 0 or x < low - 1e-12:
            raise BoundBroken(f"value {x} is below its bound {low}")
        stake_max = 1 / -low
        gain = max(x, low)
        mean = (self.guess + self.total) / (1 + self.count)
        variance = max((self.spread + self.squares) / (1 + self.count) - mean * mean, 1e-9)
        wanted = mean / (variance + mean * mean)
        self.adaptive += _log_growth(min(max(wanted, 0.0), _CAP * stake_max), gain)
        for position, fraction in enumerate(STAKES):
            self.fixed[position] += _log_growth(fraction * stake_max, gain)
        self.count += 1
        self.total += x
        self.squares += x * x
        self.best = max(self.best, self.log_wealth)

    @property
    def log_wealth(self) -> float:
        logs = [self.adaptive + math.log(0.5), *(one + math.log(0.5 / len(STAKES)) for one in self.fixed)]
        top = max(logs)
        return top + math.log(sum(math.exp(one - top) for one in logs))

    @property
    def wealth(self) -> float:
        return math.exp(min(self.log_wealth, 700.0))

    def to_json(self) -> dict[str, Any]:
        return {
            "guess": self.guess, "spread": self.spread, "count": self.count, "total": self.total,
            "squares": self.squares, "adaptive": self.adaptive, "fixed": list(self.fixed), "best": self.best,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Bet:
        made: dict[str, Any] = {**value, "fixed": list(value["fixed"])}
        return cls(**made)


def _log_growth(stake: float, x: float) -> float:
    growth = 1 + stake * x
    if growth <= 0:
        raise BoundBroken(f"a stake of {stake} on {x} would lose more than there is")
    return math.log(growth)


def pairs_needed(margin: float, alpha: float) -> int:
    """Pairs without a single difference after which `not worse than margin` can be accepted: tell it before sending.

    Any difference on the way makes it more. Found by running the bet itself, so it is what will happen."""
    if margin <= 0:
        raise ValueError("a margin of 0 can never be shown")
    bet = Bet(guess=margin)
    while bet.best < math.log(1 / alpha):
        bet.update(margin, margin - 1)
    return bet.count
