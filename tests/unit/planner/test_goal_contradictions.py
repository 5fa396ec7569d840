"""Every contradiction is found, by its code, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from crossload.engines.planner.forecast import Estimate
from crossload.engines.planner.goals import MEASURES, contradictions, triggers
from crossload.estate.asset import Inventory, Kind
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.migration import Budget, Metric
from crossload.estate.quantity import Quantity

Make = Callable[..., dict[str, Any]]
DAY = 86400.0


def estimated(seconds: float | None = 3600.0, slow: float | None = None, once: float | None = 5.0,
              monthly: float | None = 7.0) -> Estimate:  # fmt: skip
    return Estimate(
        Quantity(1, "bytes", "t"), Quantity(1, "objects", "t"), Quantity(seconds, "s", "t", high=slow),
        Quantity(once, "usd", "list"), Quantity(monthly, "usd/month", "list"),
    )  # fmt: skip


def check(
    entries: list[dict[str, Any]], inventory: Inventory, budget: Budget | None = None, deadline: date | None = None,
    today: str = "2026-06-01", expected: Estimate | None = None,
) -> list[Diagnostic]:  # fmt: skip
    metrics = [Metric.model_validate(entry) for entry in entries]
    return contradictions(metrics, budget or Budget(), deadline, today, inventory, expected or estimated())


@pytest.fixture
def good(make_metric: Make) -> list[dict[str, Any]]:
    return [
        make_metric("slow", "latency_p95", "lower", 2, "s", 5),
        make_metric("agree", "answer_agreement", "higher", 0.95, "ratio", 0.8),
        make_metric("bytes", "digest_mismatches", "lower", 0, "count", 1),
    ]


def codes(found: list[Diagnostic]) -> list[str]:
    return sorted(problem.code for problem in found)


def test_good_goals_have_no_problem(good: list[dict[str, Any]], helpdesk_inventory: Inventory) -> None:
    budget = Budget(one_time_usd=5, monthly_usd=7)
    assert check(good, helpdesk_inventory, budget, date(2026, 6, 1)) == []


def test_a_deadline_in_the_past(good: list[dict[str, Any]], helpdesk_inventory: Inventory) -> None:
    found = check(good, helpdesk_inventory, deadline=date(2026, 5, 31))
    assert codes(found) == ["XL201"] and "2026-05-31" in found[0].summary


@pytest.mark.parametrize(("middle", "slow", "word"), [(10 * DAY, 12 * DAY, "cannot"), (3 * DAY, 9 * DAY, "may not")])
def test_a_deadline_before_the_slow_end_of_the_forecast(
    good: list[dict[str, Any]], helpdesk_inventory: Inventory, middle: float, slow: float, word: str
) -> None:
    found = check(good, helpdesk_inventory, deadline=date(2026, 6, 8), expected=estimated(middle, slow))
    assert codes(found) == ["XL202"] and f"transfer {word} finish" in found[0].summary


def test_an_unknown_forecast_proves_nothing(good: list[dict[str, Any]], helpdesk_inventory: Inventory) -> None:
    assert check(good, helpdesk_inventory, deadline=date(2026, 6, 1), expected=estimated(None)) == []
    assert check(good, helpdesk_inventory, deadline=date(2020, 1, 1), today="unknown") == []


@pytest.mark.parametrize(
    ("measure", "direction", "unit", "limit", "at"),
    [
        ("latency_p95", "lower", "s", 2, 2),
        ("latency_p95", "lower", "s", 2, 1),
        ("answer_agreement", "higher", "ratio", 0.9, 0.95),
    ],
)
def test_a_rollback_that_is_not_worse_than_the_limit(
    good: list[dict[str, Any]], make_metric: Make, helpdesk_inventory: Inventory, measure: str, direction: str,
    unit: str, limit: float, at: float,
) -> None:  # fmt: skip
    entries = [make_metric("odd", measure, direction, limit, unit, at), good[2]]
    found = check(entries, helpdesk_inventory)
    assert codes(found) == ["XL203"] and found[0].subject == "odd"


def test_a_metric_nobody_measures(good: list[dict[str, Any]], helpdesk_inventory: Inventory) -> None:
    without = replace(
        helpdesk_inventory, assets=tuple(a for a in helpdesk_inventory.assets if a.kind is not Kind.ENDPOINT)
    )
    found = check(good, without)
    assert [(p.code, str(p.severity), p.subject) for p in found] == [
        ("XL204", "error", "slow"),
        ("XL204", "error", "agree"),
    ]
    good[0].pop("rollback_at")
    assert [str(p.severity) for p in check(good, without) if p.subject == "slow"] == ["warning"]
    assert check(good, Inventory()) == [], "before the first inventory nothing is known"


def test_two_metrics_that_cannot_both_hold(make_metric: Make, helpdesk_inventory: Inventory) -> None:
    entries = [
        make_metric("loose", "latency_p95", "lower", 10, "s", 20),
        make_metric("strict", "latency_p95", "lower", 1, "s", 5),
    ]
    found = check(entries, helpdesk_inventory)
    assert codes(found) == ["XL205"] and "rolls back at 5" in found[0].summary


def test_two_limits_on_one_measure_are_told(make_metric: Make, helpdesk_inventory: Inventory) -> None:
    entries = [
        make_metric("a", "latency_p95", "lower", 3, "s"),
        make_metric("b", "latency_p95", "lower", 2, "s", 9),
    ]
    found = check(entries, helpdesk_inventory)
    assert [(p.code, str(p.severity)) for p in found] == [("XL212", "warning")]
    assert "b decides" in found[0].summary


def test_at_least_and_at_most_that_leave_nothing(make_metric: Make, helpdesk_inventory: Inventory) -> None:
    entries = [
        make_metric("most", "answer_agreement", "lower", 0.5, "ratio", 0.6),
        make_metric("least", "answer_agreement", "higher", 0.9, "ratio", 0.1),
    ]
    assert codes(check(entries, helpdesk_inventory)) == ["XL205", "XL209"]


def test_budget(good: list[dict[str, Any]], helpdesk_inventory: Inventory) -> None:
    tight = Budget(one_time_usd=4.99, monthly_usd=6.99)
    found = check(good, helpdesk_inventory, tight)
    assert codes(found) == ["XL206", "XL207"] and "5.00" in found[0].summary and found[0].detail == "list"
    blind = check(good, helpdesk_inventory, tight, expected=estimated(once=None, monthly=None))
    assert [(p.code, str(p.severity)) for p in blind] == [("XL213", "warning"), ("XL213", "warning")]
    assert check(good, Inventory(), tight) == []


def test_no_way_back_is_told(good: list[dict[str, Any]], helpdesk_inventory: Inventory) -> None:
    for entry in good:
        entry.pop("rollback_at")
    assert codes(check(good, helpdesk_inventory)) == ["XL208"]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (("x", "latency_p95", "higher", 2, "s", 1), "XL209"),
        (("x", "latency_p95", "lower", 2, "usd", 3), "XL210"),
        (("x", "error_rate", "lower", 0.5, "ratio", 1.5), "XL211"),
        (("x", "answer_agreement", "higher", 1.2, "ratio", 0.5), "XL211"),
        (("x", "data_lag", "lower", -1, "s", 3), "XL211"),
    ],
)
def test_a_metric_that_makes_no_sense(
    make_metric: Make, helpdesk_inventory: Inventory, entry: tuple[Any, ...], code: str
) -> None:
    assert codes(check([make_metric(*entry)], helpdesk_inventory)) == [code]


def test_all_problems_come_at_once(make_metric: Make, helpdesk_inventory: Inventory) -> None:
    entries = [make_metric("a", "latency_p95", "higher", 2, "usd", 9)]
    found = check(entries, helpdesk_inventory, Budget(one_time_usd=1), date(2020, 1, 1))
    assert codes(found) == ["XL201", "XL203", "XL206", "XL209", "XL210"]


def test_triggers_fire_at_their_value_and_beyond(good: list[dict[str, Any]]) -> None:
    slow, agree, _ = triggers([Metric.model_validate(entry) for entry in good])
    assert slow.to_json() == {"metric": "slow", "measure": "latency_p95", "direction": "lower", "at": 5.0, "unit": "s"}
    assert slow.fires(5.0) and slow.fires(6.0) and not slow.fires(4.9)
    assert agree.fires(0.8) and agree.fires(0.0) and not agree.fires(0.81)


def test_every_measure_of_the_file_is_known() -> None:
    from typing import get_args

    measures = get_args(Metric.model_fields["measure"].annotation)
    assert set(MEASURES) == set(measures)
