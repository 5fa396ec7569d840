"""The bill of what left, with waivers and without; and what is wrong with a waiver."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime

import pytest

from crossload.engines.mover.egress import egress_report, waiver_problems
from crossload.engines.mover.finish import Forecast
from crossload.engines.planner.offers import shipped
from crossload.estate.migration import DataRules, EgressWaiver
from crossload.estate.quantity import Quantity
from crossload.ledger.egress import EgressDay

GIB = 2**30
PRICE = Quantity(0.09 / GIB, "usd/byte", "a price list", "2026-01-01")
APPROVED = {
    "place": "a", "reference": "case-1", "approved_by": "K. Meyer", "approved_on": "2026-05-20",
    "from": "2026-06-01", "to": "2026-06-30",
}  # fmt: skip
TODAY = date(2026, 6, 10)


def waiver(**changes: object) -> EgressWaiver:
    rules = DataRules.model_validate({"egress_waivers": [{**APPROVED, **changes}]})
    return rules.egress_waivers[0]


def day(number: int, gib: float, place: str = "a", open_gib: float = 0) -> EgressDay:
    return EgressDay(f"2026-06-{number:02}", place, int(gib * GIB), int(open_gib * GIB))


def test_the_bill_with_and_without_a_waiver() -> None:
    before = EgressDay("2026-05-31", "a", 10 * GIB, 0)
    report = egress_report([before, day(1, 100), day(30, 50), EgressDay("2026-07-01", "a", GIB, 0)], {"a": PRICE},
                           [waiver()])  # fmt: skip
    [place] = report.places
    assert place.waived_bytes == 150 * GIB
    assert report.cost.value == pytest.approx(161 * 0.09)
    assert report.cost_with_waivers.value == pytest.approx(11 * 0.09), "the days before and after it are billed"
    assert [item.waived_bytes // GIB for item in place.days] == [0, 100, 50, 0]
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["places"][0]["days"][1]["waived"] == {"case-1": 100 * GIB}
    assert report.cost.source == "a price list"


def test_a_cap_is_used_up_and_the_next_waiver_follows() -> None:
    two = [waiver(cap_gib=120), waiver(reference="case-2", cap_gib=10)]
    report = egress_report([day(2, 50), day(1, 100)], {"a": PRICE}, two)
    first, second = report.places[0].days
    assert (first.waived, second.waived) == (
        {"case-1": 100 * GIB}, {"case-1": 20 * GIB, "case-2": 10 * GIB},
    )  # fmt: skip
    assert report.cost_with_waivers.value == pytest.approx(20 * 0.09)


@pytest.mark.parametrize(
    "changes",
    [{"approved_by": ""}, {"approved_by": "  "}, {"approved_on": None}, {"place": "b"}, {"approved_on": "2026-06-02"}],
)
def test_what_does_not_count(changes: dict[str, object]) -> None:
    report = egress_report([day(1, 100)], {"a": PRICE}, [waiver(**changes)])
    assert report.places[0].waived_bytes == 0
    assert report.cost_with_waivers == report.cost


def test_without_a_price_the_cost_is_unknown_and_the_bytes_are_not() -> None:
    report = egress_report([day(1, 100), day(1, 5, "b")], {"a": PRICE}, [waiver(), waiver(place="b")])
    assert [place.cost.known for place in report.places] == [True, False]
    assert not report.cost.known
    assert not report.cost_with_waivers.known
    assert report.to_json()["cost"]["value"] == "unknown"
    assert report.places[1].size_bytes == 5 * GIB
    nobody = egress_report([day(1, 1)], {"a": Quantity.unknown("usd/byte", "silent")})
    assert nobody.places[0].cost.source == "silent"


def test_an_upper_bound_shows_its_range() -> None:
    report = egress_report([day(1, 100, open_gib=10), day(2, 10)], {"a": PRICE}, [waiver(cap_gib=50)])
    assert report.cost.low == pytest.approx(100 * 0.09)
    assert report.cost.value == report.cost.high == pytest.approx(110 * 0.09)
    assert report.cost_with_waivers.low == pytest.approx(50 * 0.09)
    assert report.places[0].size_bytes_min == 100 * GIB


def test_the_price_lists_of_placement_fit() -> None:
    offer = next(offer for offer in shipped() if offer.egress.known)
    report = egress_report([day(1, 1)], {"a": offer.egress})
    assert report.cost.value == pytest.approx(GIB * (offer.egress.value or math.nan))
    assert report.cost.as_of == offer.egress.as_of


def moving(start: date, p90: date | float | None) -> Forecast:
    end = datetime(p90.year, p90.month, p90.day, 12, tzinfo=UTC).timestamp() if isinstance(p90, date) else p90
    return Forecast(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp(), end, end, end, "made up")


def codes(*waivers: EgressWaiver, forecast: Forecast, remaining: int | None = None) -> list[str]:
    left = {"a": remaining}
    return [item.code for item in waiver_problems(waivers, ["a", "b"], {"a": forecast}, TODAY, left)]


def test_a_good_waiver_has_no_problem() -> None:
    assert codes(waiver(), forecast=moving(TODAY, date(2026, 6, 30))) == []
    assert codes(waiver(cap_gib=1), forecast=moving(TODAY, date(2026, 6, 30)), remaining=GIB) == []
    assert waiver_problems([waiver()], ["a"], {}, TODAY) == []


def test_a_waiver_that_ends_too_early() -> None:
    assert codes(waiver(), forecast=moving(TODAY, date(2026, 7, 1))) == ["XL532"]
    assert codes(waiver(), forecast=moving(TODAY, math.inf)) == ["XL532"]
    assert codes(waiver(), forecast=moving(TODAY, None)) == ["XL532"]
    [problem] = waiver_problems([waiver()], ["a"], {"a": moving(TODAY, date(2026, 7, 4))}, TODAY)
    assert "case-1" in problem.summary
    assert "2026-06-30" in problem.summary
    assert "2026-07-04" in problem.summary


def test_a_waiver_that_begins_too_late_or_is_approved_too_late() -> None:
    end = date(2026, 6, 30)
    assert codes(waiver(**{"from": "2026-06-11"}), forecast=moving(TODAY, end)) == ["XL532"]
    assert codes(waiver(approved_on="2026-06-10"), forecast=moving(date(2026, 6, 9), end)) == ["XL532"]


def test_a_waiver_nobody_approved_or_of_nowhere_or_too_small() -> None:
    soon = moving(TODAY, date(2026, 6, 20))
    assert codes(waiver(approved_by=""), forecast=soon) == ["XL531"]
    assert codes(waiver(approved_on=None), forecast=soon) == ["XL531"]
    assert codes(waiver(approved_on="2026-06-11"), forecast=soon) == ["XL531"]
    assert codes(waiver(place="c"), forecast=soon) == ["XL530"]
    assert codes(waiver(cap_gib=1), forecast=soon, remaining=GIB + 1) == ["XL533"]
    used = egress_report([day(1, 1)], {}, [waiver(cap_gib=1.5)])
    [problem] = waiver_problems([waiver(cap_gib=1.5)], ["a"], {"a": soon}, TODAY, {"a": GIB}, used)
    assert problem.code == "XL533"
    assert "0.5 GiB more" in problem.summary
