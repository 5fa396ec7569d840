"""Time and cost: ranges from what was measured, unknown as soon as one part is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossload.engines.planner.forecast import Link, estimate, finishes, forecast, link_from, transfer_time
from crossload.engines.planner.offers import Offer
from crossload.engines.planner.placement import choose
from crossload.estate.asset import Inventory
from crossload.estate.migration import Migration
from crossload.estate.quantity import Quantity

Make = Callable[..., Migration]


def quantity(value: float | None, unit: str, low: float | None = None, high: float | None = None) -> Quantity:
    return Quantity(value, unit, "measured", "2026-01-01", low, high)


def link(rate: float | None = 1e6, wait: float | None = 0.01, workers: int = 1) -> Link:
    return Link(quantity(rate, "bytes/s"), quantity(wait, "s"), workers)


PROBE: dict[str, Any] = {
    "write_bytes_per_second": [2e6, 1e6, 4e6],
    "read_bytes_per_second": [8e6, 9e6],
    "latency_seconds": {"p50": 0.02, "max": 0.05},
}


def test_bytes_and_requests_add_up() -> None:
    time = transfer_time(quantity(10e6, "bytes"), quantity(100, "objects"), link())
    assert time.value == pytest.approx(10 + 100 * 3 * 0.01)
    assert time.unit == "s" and time.source == "measured"


def test_workers_hide_latency_but_give_no_bandwidth() -> None:
    size, objects = quantity(10e6, "bytes"), quantity(100, "objects")
    assert transfer_time(size, objects, link(workers=10)).value == pytest.approx(10 + 0.3)


def test_the_range_comes_from_the_probe() -> None:
    measured = Link(quantity(2e6, "bytes/s", 1e6, 4e6), quantity(0.0, "s"), 1)
    time = transfer_time(quantity(8e6, "bytes"), quantity(0, "objects"), measured)
    assert (time.low, time.value, time.high) == (2.0, 4.0, 8.0)


@given(st.floats(1, 1e15), st.floats(0, 1e9), st.floats(1, 1e10), st.floats(0, 10))
def test_low_middle_and_high_are_in_order(size: float, objects: float, rate: float, wait: float) -> None:
    time = transfer_time(quantity(size, "bytes"), quantity(objects, "objects"), link(rate, wait))
    assert time.low is not None and time.value is not None and time.high is not None
    assert 0 <= time.low <= time.value <= time.high


@pytest.mark.parametrize("missing", range(4))
def test_one_unknown_part_makes_the_time_unknown(missing: int) -> None:
    values: list[float | None] = [1e6, 10, 1e6, 0.01]
    values[missing] = None
    time = transfer_time(quantity(values[0], "bytes"), quantity(values[1], "objects"), link(values[2], values[3]))
    assert time.value is None and time.low is None


def test_a_link_that_carries_nothing_gives_no_time() -> None:
    assert not transfer_time(quantity(1, "bytes"), quantity(1, "objects"), link(rate=0.0)).known


def test_the_slower_side_of_the_probe_counts() -> None:
    found = link_from({"foundations/probe/old-n": PROBE, "transfer/copy/x": {"write_bytes_per_second": [1.0]}}, 4)
    assert (found.throughput.value, found.throughput.low, found.throughput.high) == (2e6, 1e6, 4e6)
    assert (found.latency.value, found.latency.high, found.workers) == (0.02, 0.05, 4)


def test_the_slowest_of_two_links_counts() -> None:
    slow = {**PROBE, "write_bytes_per_second": [5e5]}
    found = link_from({"foundations/probe/old-n": PROBE, "foundations/probe/old-s": slow}, 1)
    assert found.throughput.value == 5e5


@pytest.mark.parametrize(
    "data",
    [{}, {"write_bytes_per_second": []}, {"write_bytes_per_second": [float("inf")], "latency_seconds": {"p50": 1}}],
)
def test_an_empty_probe_is_no_link(data: dict[str, Any]) -> None:
    assert not link_from({"foundations/probe/a-b": data}, 1).throughput.known
    assert not link_from({}, 1).latency.known


def test_the_whole_moves_cost_is_the_sum_of_its_parts(
    make_migration: Make, offers: list[Offer], helpdesk_inventory: Inventory
) -> None:
    choices = choose(make_migration(), helpdesk_inventory, offers)
    found = estimate(helpdesk_inventory, choices, link())
    costs = [choice.costs for choice in choices.values() if choice.costs is not None]
    assert len(costs) == 4
    assert found.one_time.value == pytest.approx(sum(c.one_time.value or 0 for c in costs))
    assert found.monthly.value == pytest.approx(sum(c.monthly.value or 0 for c in costs))
    assert found.one_time.source == "test list"
    assert found.size.value == 10 * 2**30 + 2**30 + 1000 * 384 * 4
    assert found.objects.value == 2002


def test_one_unknown_price_makes_the_total_unknown(
    make_migration: Make, offers: list[Offer], helpdesk_inventory: Inventory
) -> None:
    dark = {"allow": [{"id": "d", "provider": "cheap", "region": "dark"}], "regions": {"min": 1}}
    found = estimate(helpdesk_inventory, choose(make_migration(targets=dark), helpdesk_inventory, offers), link())
    assert not found.monthly.known and not found.one_time.known


def test_the_plan_shows_ranges_and_sources(make_migration: Make, helpdesk_inventory: Inventory) -> None:
    migration = make_migration()
    choices = {name: c.place for name, c in choose(migration, helpdesk_inventory).items() if c.place}
    shown = forecast(migration, helpdesk_inventory, choices, {"foundations/probe/old-n": PROBE})
    assert shown["transfer time"]["low"] < shown["transfer time"]["value"] < shown["transfer time"]["high"]
    assert shown["monthly cost"]["value"] == "unknown", "no shipped list names this test's provider"
    assert set(shown) == {"bytes to move", "objects to move", "transfer time", "one-time cost", "monthly cost"}


def test_days() -> None:
    time = quantity(3600 * 30, "s", high=3600 * 80)
    assert finishes("2026-01-01", time) == (date(2026, 1, 2), date(2026, 1, 4))
    assert finishes("unknown", time) is None
    assert finishes("2026-01-01", quantity(None, "s")) is None
    assert finishes("2026-01-01", quantity(1e18, "s")) == (date.max, date.max)
