"""Contradictions between goals, and the wiring of rollback triggers. Pure; codes XL201 to XL212."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from crossload.engines.planner.forecast import Estimate, finishes
from crossload.estate.asset import Inventory, Kind
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.migration import Budget, Metric

_DATA = (Kind.DATASET, Kind.MODEL, Kind.INDEX)


@dataclass(frozen=True, slots=True)
class Measure:
    """How one measure behaves: which way is better, its units, the stage that measures it and what that stage needs.

    `needs` are kinds of which one must be in the inventory, or the measure has nothing to look at."""

    better: str
    units: tuple[str, ...]
    stage: str
    needs: tuple[Kind, ...]
    low: float = 0.0
    high: float | None = None


MEASURES: Mapping[str, Measure] = {
    "latency_p95": Measure("lower", ("s", "ms"), "cutover", (Kind.ENDPOINT,)),
    "error_rate": Measure("lower", ("ratio",), "cutover", (Kind.ENDPOINT,), high=1.0),
    "answer_agreement": Measure("higher", ("ratio",), "cutover", (Kind.ENDPOINT,), high=1.0),
    "cost_per_1k_tokens": Measure("lower", ("usd",), "portability", (Kind.ENDPOINT,)),
    "digest_mismatches": Measure("lower", ("count",), "transfer", _DATA),
    "data_lag": Measure("lower", ("s",), "transfer", (Kind.DATASET,)),
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """Traffic goes back to the source when `measure` reaches `at`: at or above it for direction lower, at or below it
    for direction higher. `unit` is the metric's."""

    metric: str
    measure: str
    direction: str
    at: float
    unit: str

    def fires(self, value: float) -> bool:
        return value >= self.at if self.direction == "lower" else value <= self.at

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "measure": self.measure,
            "direction": self.direction,
            "at": self.at,
            "unit": self.unit,
        }


def triggers(metrics: Sequence[Metric]) -> list[Trigger]:
    """One trigger per metric with a `rollback_at`, in the file's order."""
    return [
        Trigger(metric.name, metric.measure, metric.direction, metric.rollback_at, metric.unit)
        for metric in metrics
        if metric.rollback_at is not None
    ]


def contradictions(
    metrics: Sequence[Metric],
    budget: Budget,
    deadline: date | None,
    today: str,
    inventory: Inventory,
    estimate: Estimate,
) -> list[Diagnostic]:
    """Every contradiction at once. An empty inventory leaves out what needs one: nothing known is nothing wrong."""
    found: list[Diagnostic] = []
    for metric in metrics:
        found += _one_metric(metric)
        if inventory.assets:
            found += _measured(metric, inventory)
    for index, metric in enumerate(metrics):
        for other in metrics[:index]:
            found += _two_metrics(other, metric)
    if not triggers(metrics):
        found.append(
            Diagnostic.warning(
                "XL208", "no metric can send traffic back", hint="give at least one metric a `rollback_at`"
            )
        )
    found += _deadline(deadline, today, estimate)
    if inventory.assets:
        found += _budget(
            "one_time_usd", budget.one_time_usd, estimate.one_time.value, estimate.one_time.source, "XL206"
        )
        found += _budget("monthly_usd", budget.monthly_usd, estimate.monthly.value, estimate.monthly.source, "XL207")
    return found


def _one_metric(metric: Metric) -> Iterator[Diagnostic]:
    measure = MEASURES[metric.measure]
    subject = f"goal {metric.name}"
    if metric.direction != measure.better:
        yield Diagnostic.error(
            "XL209", f"{subject}: for {metric.measure} {measure.better} is better, not {metric.direction}",
            subject=metric.name, hint=f"set `direction: {measure.better}`",
        )  # fmt: skip
    if metric.unit not in measure.units:
        yield Diagnostic.error(
            "XL210", f"{subject}: {metric.measure} is measured in {' or '.join(measure.units)}, not {metric.unit}",
            subject=metric.name, hint=f"set `unit: {measure.units[0]}` and give the limit in it",
        )  # fmt: skip
    for name, value in (("limit", metric.limit), ("rollback_at", metric.rollback_at)):
        if value is not None and (value < measure.low or (measure.high is not None and value > measure.high)):
            span = (
                f"{measure.low:g} or more" if measure.high is None else f"between {measure.low:g} and {measure.high:g}"
            )
            yield Diagnostic.error(
                "XL211", f"{subject}: {name} {value:g} can never be reached, {metric.measure} is {span}",
                subject=metric.name, hint=f"correct `{name}`",
            )  # fmt: skip
    if metric.rollback_at is None:
        return
    worse = metric.rollback_at > metric.limit if metric.direction == "lower" else metric.rollback_at < metric.limit
    if not worse:
        need = "above" if metric.direction == "lower" else "below"
        yield Diagnostic.error(
            "XL203",
            f"{subject}: rollback_at {metric.rollback_at:g} is not worse than limit {metric.limit:g}: "
            "traffic would go back while the goal is met",
            subject=metric.name, hint=f"for `direction: {metric.direction}` put rollback_at {need} the limit",
        )  # fmt: skip


def _measured(metric: Metric, inventory: Inventory) -> Iterator[Diagnostic]:
    measure = MEASURES[metric.measure]
    if any(inventory.of(kind) for kind in measure.needs):
        return
    kinds = " or ".join(measure.needs)
    text = f"goal {metric.name}: nobody measures {metric.measure}, the inventory has no {kinds}"
    hint = f"{measure.stage} measures it on a {kinds}; choose another measure, or find out why none was discovered"
    # A trigger that can never fire is a rollback that only looks wired; a metric without one merely stays unknown.
    make = Diagnostic.error if metric.rollback_at is not None else Diagnostic.warning
    yield make("XL204", text, subject=metric.name, hint=hint)


def _two_metrics(first: Metric, second: Metric) -> Iterator[Diagnostic]:
    if first.measure != second.measure:
        return
    names = f"goals {first.name} and {second.name}"
    if first.unit != second.unit:
        return  # ms and s: the units are told apart by XL210 where one of them is wrong
    if first.direction != second.direction:
        low, high = (first, second) if first.direction == "higher" else (second, first)
        if low.limit > high.limit:
            yield Diagnostic.error(
                "XL205", f"{names}: {first.measure} cannot be at least {low.limit:g} and at most {high.limit:g}",
                subject=second.name, hint="keep one of the two",
            )  # fmt: skip
        return
    sign = 1 if first.direction == "lower" else -1
    strict, loose = (first, second) if sign * first.limit <= sign * second.limit else (second, first)
    if strict.rollback_at is not None and sign * strict.rollback_at < sign * loose.limit:
        yield Diagnostic.error(
            "XL205",
            f"{names}: {loose.name} allows {first.measure} {loose.limit:g}, {strict.name} rolls back at "
            f"{strict.rollback_at:g}",
            subject=second.name, hint="keep one metric per measure",
        )  # fmt: skip
    elif first.limit != second.limit:
        yield Diagnostic.warning(
            "XL212", f"{names}: both limit {first.measure}; {strict.name} decides", subject=second.name,
            hint="keep one metric per measure",
        )  # fmt: skip


def _deadline(deadline: date | None, today: str, estimate: Estimate) -> Iterator[Diagnostic]:
    try:
        now = date.fromisoformat(today)
    except ValueError:
        return
    if deadline is None:
        return
    if deadline < now:
        yield Diagnostic.error(
            "XL201", f"the deadline {deadline} has passed (today is {now})", subject="metadata.deadline",
            hint="set a deadline to come, or leave it out",
        )  # fmt: skip
        return
    days = finishes(today, estimate.time)
    if days is None:
        return
    middle, slow = days
    if slow > deadline:
        kind = "cannot" if middle > deadline else "may not"
        yield Diagnostic.error(
            "XL202", f"the transfer {kind} finish by {deadline}: forecast {middle}, one time in ten after {slow}",
            detail=f"transfer time {estimate.time}", subject="metadata.deadline",
            hint="move the deadline, raise data.workers or bandwidth, or carry less",
        )  # fmt: skip


def _budget(name: str, ceiling: float | None, value: float | None, source: str, code: str) -> Iterator[Diagnostic]:
    if ceiling is None:
        return
    if value is None:
        yield Diagnostic.warning(
            "XL213", f"goals.budget.{name} cannot be checked: the cost is unknown", detail=source,
            subject=f"goals.budget.{name}", hint="the funnel of `crossload plan` names the prices nobody knows",
        )  # fmt: skip
    elif value > ceiling:
        yield Diagnostic.error(
            code, f"goals.budget.{name} is {ceiling:,.2f} usd, the estimate is {value:,.2f}", detail=source,
            subject=f"goals.budget.{name}", hint="raise the budget, allow cheaper places, or carry less",
        )  # fmt: skip
