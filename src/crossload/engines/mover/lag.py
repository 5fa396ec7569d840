"""How far the target is behind, whether the deltas have caught up, and how long a freeze would last. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from crossload.estate.quantity import Quantity

_PASSES = 3
_DRAWS = 2000


class Unconfirmed(Protocol):
    """A key that changed at the source and is not confirmed at the target. `first_at` is when the oldest such change
    was made, in seconds since the epoch; each is None when nobody knows."""

    @property
    def size_bytes(self) -> int | None: ...
    @property
    def first_at(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class DeltaPass:
    """One delta: when it began (seconds since the epoch), how long it took with its listing, and what it found
    changed since the one before it."""

    started_at: float
    seconds: float
    changed_bytes: int
    changed_objects: int = 0


def lag_seconds(unconfirmed: Iterable[Unconfirmed], now: float) -> float | None:
    """Age of the oldest change that is not at the target; 0 when there is none, None when one's age is unknown."""
    oldest = now
    for item in unconfirmed:
        if item.first_at is None:
            return None
        oldest = min(oldest, item.first_at)
    return now - oldest


def lag_bytes(unconfirmed: Iterable[Unconfirmed]) -> int | None:
    """Bytes that have still to come; None when one size is unknown."""
    total = 0
    for item in unconfirmed:
        if item.size_bytes is None:
            return None
        total += item.size_bytes
    return total


def change_rates(passes: Sequence[DeltaPass]) -> list[float]:
    """bytes/s of each pass but the first: what it found, over the time since the one before it began."""
    return [
        item.changed_bytes / (item.started_at - before.started_at)
        for before, item in pairwise(passes)
        if item.started_at > before.started_at
    ]


def change_rate(passes: Sequence[DeltaPass]) -> Quantity:
    """Median of the newest passes' rates (bytes/s) with the lowest and the highest; unknown before the second pass."""
    rates = change_rates(passes[-(2 * _PASSES + 1) :])
    if not rates:
        return Quantity.unknown("bytes/s", "one delta alone tells no rate")
    return Quantity(statistics.median(rates), "bytes/s", f"{len(rates)} deltas", low=min(rates), high=max(rates))


def freeze_budget_bytes(freeze_seconds: float, list_seconds: float, bytes_per_second: float, lists: int = 1) -> float:
    """What may be left to copy when writes are denied, if the freeze may last `freeze_seconds` and lists so often."""
    return max(0.0, freeze_seconds - lists * list_seconds) * bytes_per_second


def converged(passes: Sequence[DeltaPass], budget_bytes: float) -> bool:
    """Whether in each of the last three passes what changes during one pass is less than the budget of the freeze."""
    if len(passes) < _PASSES + 1:  # the first has no rate
        return False
    last = passes[-(_PASSES + 1) :]
    rates = change_rates(last)
    return len(rates) == _PASSES and all(
        rate * item.seconds < budget_bytes for rate, item in zip(rates, last[1:], strict=True)
    )


def freeze_forecast(
    list_seconds: Sequence[float], lags_bytes: Sequence[float], bytes_per_second: Sequence[float], *, lists: int = 1,
    seed: int = 0,
) -> Quantity:  # fmt: skip
    """How long writes would be denied: list time plus lag over throughput, in seconds with p10 and p90.

    Each argument holds what was measured lately; `lists` is how often the freeze lists both sides (one that finds the
    rest, and as many as have to find nothing). Unknown when one of the three was never measured."""
    moving = [rate for rate in bytes_per_second if rate > 0]
    if not list_seconds or not lags_bytes or (not moving and any(lags_bytes)):
        return Quantity.unknown("s", "list time, lag or throughput was not measured yet")
    rng = random.Random(seed)  # noqa: S311 - a forecast, not a secret
    times = sorted(
        sum(rng.choice(list_seconds) for _ in range(lists))
        + (rng.choice(lags_bytes) / rng.choice(moving) if moving else 0.0)
        for _ in range(_DRAWS)
    )
    source = f"{len(list_seconds)} listings, {len(lags_bytes)} lags, {len(moving)} rates"
    return Quantity(
        times[_DRAWS // 2], "s", source, low=times[_DRAWS // 10], high=times[9 * _DRAWS // 10]
    )  # fmt: skip
