"""What the bytes that left each place cost, day by day, with and without the waivers that were approved.

Prices are handed in per place (usd/byte), from the price lists that placement uses. A price that nobody wrote down
makes its cost unknown, with a waiver and without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from crossload.engines.mover.finish import Forecast
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.migration import EgressWaiver
from crossload.estate.quantity import Quantity
from crossload.ledger.egress import EgressDay

_GIB = 2**30
_NO_PRICE = Quantity.unknown("usd/byte", "no price list names this place")


@dataclass(frozen=True, slots=True)
class DayCost:
    """One place on one day (ISO, UTC). `size_bytes` is an upper bound, `size_bytes_min` the lower one; `waived` maps
    the waivers' references to the bytes they cover. Costs are in usd: `cost` is the bill without waivers."""

    day: str
    size_bytes: int
    size_bytes_min: int
    waived: Mapping[str, int]
    cost: Quantity
    cost_with_waivers: Quantity

    @property
    def waived_bytes(self) -> int:
        return sum(self.waived.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "day": self.day, "size_bytes": self.size_bytes, "size_bytes_min": self.size_bytes_min,
            "waived_bytes": self.waived_bytes, "waived": dict(sorted(self.waived.items())),
            "cost": self.cost.to_json(), "cost_with_waivers": self.cost_with_waivers.to_json(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlaceCost:
    """All days of one place; `price` is in usd/byte."""

    place: str
    price: Quantity
    days: tuple[DayCost, ...]

    @property
    def size_bytes(self) -> int:
        return sum(day.size_bytes for day in self.days)

    @property
    def size_bytes_min(self) -> int:
        return sum(day.size_bytes_min for day in self.days)

    @property
    def waived_bytes(self) -> int:
        return sum(day.waived_bytes for day in self.days)

    @property
    def cost(self) -> Quantity:
        return _total(day.cost for day in self.days)

    @property
    def cost_with_waivers(self) -> Quantity:
        return _total(day.cost_with_waivers for day in self.days)

    def to_json(self) -> dict[str, Any]:
        return {
            "place": self.place, "price": self.price.to_json(), "size_bytes": self.size_bytes,
            "size_bytes_min": self.size_bytes_min, "waived_bytes": self.waived_bytes, "cost": self.cost.to_json(),
            "cost_with_waivers": self.cost_with_waivers.to_json(), "days": [day.to_json() for day in self.days],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class EgressReport:
    """Every place that bytes left, sorted by id."""

    places: tuple[PlaceCost, ...]

    @property
    def cost(self) -> Quantity:
        return _total(place.cost for place in self.places)

    @property
    def cost_with_waivers(self) -> Quantity:
        return _total(place.cost_with_waivers for place in self.places)

    def to_json(self) -> dict[str, Any]:
        return {
            "cost": self.cost.to_json(), "cost_with_waivers": self.cost_with_waivers.to_json(),
            "places": [place.to_json() for place in self.places],
        }  # fmt: skip


def egress_report(
    days: Iterable[EgressDay], prices: Mapping[str, Quantity], waivers: Sequence[EgressWaiver] = ()
) -> EgressReport:
    """The bill of what was counted. `prices` maps place id -> usd/byte.

    A waiver covers what leaves its place from its first day, or the day of its approval if that is later, to its last
    day (UTC), up to its cap; where several cover a day, the one that is written first is used up first."""
    left = [None if waiver.cap_gib is None else int(waiver.cap_gib * _GIB) for waiver in waivers]
    found: dict[str, list[DayCost]] = {}
    for item in sorted(days, key=lambda item: (item.day, item.place)):
        waived: dict[str, int] = {}
        rest = item.size_bytes
        for number, waiver in enumerate(waivers):
            room = left[number]
            if not rest or room == 0 or not _covers(waiver, item.place, date.fromisoformat(item.day)):
                continue
            covered = rest if room is None else min(rest, room)
            waived[waiver.reference] = waived.get(waiver.reference, 0) + covered
            left[number] = None if room is None else room - covered
            rest -= covered
        price = prices.get(item.place, _NO_PRICE)
        lowest = max(0, item.size_bytes - item.open_bytes)
        found.setdefault(item.place, []).append(
            DayCost(
                item.day, item.size_bytes, lowest, waived, _cost(item.size_bytes, lowest, price),
                _cost(rest, max(0, lowest - sum(waived.values())), price),
            )
        )  # fmt: skip
    return EgressReport(
        tuple(PlaceCost(name, prices.get(name, _NO_PRICE), tuple(found[name])) for name in sorted(found))
    )


def waiver_problems(
    waivers: Sequence[EgressWaiver], places: Iterable[str], forecasts: Mapping[str, Forecast], today: date,
    remaining_bytes: Mapping[str, int | None] | None = None, used: EgressReport | None = None,
) -> list[Diagnostic]:  # fmt: skip
    """What is wrong with the waivers, for the move as it is forecast.

    `places` are the ids in the migration file; `forecasts` maps a place to when all that leaves it is out, and
    `remaining_bytes` to how much that is still; `used` is what was counted so far, against caps."""
    known = set(places)
    spent = _spent(used)
    found: list[Diagnostic] = []
    for waiver in waivers:
        name = f"waiver {waiver.reference}"
        if waiver.place not in known:
            found.append(
                Diagnostic.error(
                    "XL530", f"{name} is for `{waiver.place}`, which is no place of this migration",
                    subject=waiver.place, hint=f"name one of: {', '.join(sorted(known))}",
                )
            )  # fmt: skip
            continue
        if not _approved(waiver) or (waiver.approved_on or today) > today:
            found.append(
                Diagnostic.warning(
                    "XL531", f"{name} is not approved, so it does not count", subject=waiver.place,
                    detail="the cost is given as if it were not there",
                    hint="ask the provider first, then fill in approved_by and approved_on",
                )
            )  # fmt: skip
            continue
        moving = forecasts.get(waiver.place)
        if moving is not None:
            found += _uncovered(waiver, name, moving)
        rest = (remaining_bytes or {}).get(waiver.place)
        cap = None if waiver.cap_gib is None else waiver.cap_gib * _GIB - spent.get(waiver.reference, 0)
        if cap is not None and rest is not None and rest > cap:
            found.append(
                Diagnostic.warning(
                    "XL533",
                    f"{name} covers {max(0.0, cap) / _GIB:,.1f} GiB more, and {rest / _GIB:,.1f} GiB are to leave",
                    subject=waiver.place, hint="ask the provider for a higher cap_gib, or plan for that bill",
                )
            )  # fmt: skip
    return found


def _uncovered(waiver: EgressWaiver, name: str, moving: Forecast) -> list[Diagnostic]:
    """What of the move lies before and after the waiver's days. Of two waivers in a row each is looked at alone."""
    found: list[Diagnostic] = []
    first = max(waiver.begins, waiver.approved_on or waiver.begins)
    if datetime.fromtimestamp(moving.start, UTC).date() < first:
        found.append(
            Diagnostic.warning(
                "XL532", f"{name} covers nothing before {first}, and the move is under way", subject=waiver.place,
                hint="wait for that day, or ask the provider for an earlier one",
            )
        )  # fmt: skip
    if moving.p90 is None:
        found.append(
            Diagnostic.warning(
                "XL532", f"whether {name} lasts until the move is done is unknown", detail=moving.basis,
                subject=waiver.place, hint="probe the link, or let the move run for some seconds",
            )
        )  # fmt: skip
    elif moving.never or datetime.fromtimestamp(moving.p90, UTC).date() > waiver.ends:
        late = "not within five years" if moving.never else f"{datetime.fromtimestamp(moving.p90, UTC):%Y-%m-%d}"
        found.append(
            Diagnostic.warning(
                "XL532", f"{name} ends on {waiver.ends}, before the late end (p90) of the move: {late}",
                subject=waiver.place, detail=moving.basis,
                hint="ask the provider for a later end, widen data.windows, or raise the bandwidth",
            )
        )  # fmt: skip
    return found


def _covers(waiver: EgressWaiver, place: str, day: date) -> bool:
    return (
        waiver.place == place and _approved(waiver) and waiver.begins <= day <= waiver.ends
        and (waiver.approved_on is None or waiver.approved_on <= day)
    )  # fmt: skip


def _approved(waiver: EgressWaiver) -> bool:
    return bool(waiver.approved_by.strip()) and waiver.approved_on is not None


def _spent(used: EgressReport | None) -> dict[str, int]:
    spent: dict[str, int] = {}
    for place in used.places if used is not None else ():
        for day in place.days:
            for reference, size_bytes in day.waived.items():
                spent[reference] = spent.get(reference, 0) + size_bytes
    return spent


def _cost(size_bytes: int, lowest: int, price: Quantity) -> Quantity:
    if price.value is None:
        return Quantity.unknown("usd", price.source)
    cost = size_bytes * price.value
    low = None if lowest == size_bytes else lowest * price.value
    return Quantity(cost, "usd", price.source, price.as_of, low, None if low is None else cost)


def _total(costs: Iterable[Quantity]) -> Quantity:
    """With the lowest it may be, where a count is an upper bound."""
    listed = list(costs)
    total = Quantity.total(listed, "usd")
    if total.value is None or all(item.low is None for item in listed):
        return total
    low = sum(item.value if item.low is None else item.low for item in listed if item.value is not None)
    return Quantity(total.value, "usd", total.source, total.as_of, low, total.value)
