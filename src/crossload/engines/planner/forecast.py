"""How long the move takes and what it costs: ranges with sources, unknown as soon as one part is unknown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from crossload.engines.planner.cost import size_of
from crossload.engines.planner.placement import Choice, choose
from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.migration import Migration
from crossload.estate.quantity import Quantity

MOVED = frozenset({Kind.DATASET, Kind.MODEL, Kind.INDEX})
# Requests per small object: a ranged read, a write, and the head that the digest is compared by.
REQUESTS_PER_OBJECT = 3
# p10 and p90 of a link whose probe gave one number only: spread of the cloud-to-cloud grid of Skyplane (January 2022),
# where the slow tenth ran at 0.73 of the median.
SPREAD_LOW, SPREAD_HIGH = 0.73, 1.25


@dataclass(frozen=True, slots=True)
class Link:
    """A probed link. `throughput` in bytes/s, `latency` in s per request; `low` and `high` are p10 and p90."""

    throughput: Quantity
    latency: Quantity
    workers: int = 8

    @classmethod
    def unknown(cls) -> Link:
        return cls(Quantity.unknown("bytes/s", "link not probed yet"), Quantity.unknown("s", "link not probed yet"))


@dataclass(frozen=True, slots=True)
class Estimate:
    """`time` in s (p50, low p10, high p90); `one_time` in usd, `monthly` in usd/month."""

    size: Quantity
    objects: Quantity
    time: Quantity
    one_time: Quantity
    monthly: Quantity

    def to_json(self) -> dict[str, Any]:
        return {
            "size": self.size.to_json(), "objects": self.objects.to_json(), "time": self.time.to_json(),
            "one_time": self.one_time.to_json(), "monthly": self.monthly.to_json(),
        }  # fmt: skip


def transfer_time(size: Quantity, objects: Quantity, link: Link) -> Quantity:
    """Seconds to move `size` bytes in `objects` objects: bytes over throughput plus requests over parallel latency.

    p10 is the fast end (high throughput, low latency), p90 the slow one."""
    parts = (size, objects, link.throughput, link.latency)
    source = ", ".join(sorted({part.source for part in parts}))
    if size.value is None or objects.value is None or link.throughput.value is None or link.latency.value is None:
        return Quantity.unknown("s", source)
    if link.throughput.value <= 0:
        return Quantity.unknown("s", f"{source} (no bytes came through)")
    slow = link.throughput.low if link.throughput.low is not None else link.throughput.value * SPREAD_LOW
    fast = link.throughput.high if link.throughput.high is not None else link.throughput.value * SPREAD_HIGH
    near = link.latency.low if link.latency.low is not None else link.latency.value
    far = link.latency.high if link.latency.high is not None else link.latency.value
    requests = objects.value * REQUESTS_PER_OBJECT / max(1, link.workers)

    def seconds(rate: float, wait: float) -> float:
        return (size.value or 0.0) / max(rate, 1e-9) + requests * wait

    return Quantity(
        seconds(link.throughput.value, link.latency.value), "s", source, link.throughput.as_of,
        low=seconds(fast, near), high=seconds(slow, far),
    )  # fmt: skip


def moved_assets(inventory: Inventory, choices: Mapping[str, Choice]) -> list[Asset]:
    """The assets whose bytes travel; without choices all that could."""
    return [
        asset for asset in inventory.assets
        if asset.kind in MOVED and (not choices or (asset.id in choices and choices[asset.id].place))
    ]  # fmt: skip


def objects_of(asset: Asset) -> Quantity:
    """Requests' worth of an asset: its objects, or one for an artifact or an index."""
    if asset.kind is not Kind.DATASET:
        return Quantity(1.0, "objects", "inventory")
    count = asset.fact("object_count")
    return Quantity(None if count is None else float(count), "objects", "inventory")


def estimate(inventory: Inventory, choices: Mapping[str, Choice], link: Link) -> Estimate:
    """Of the whole move. Costs come from the choices; an asset without a priced choice makes them unknown."""
    assets = moved_assets(inventory, choices)
    size = Quantity.total([size_of(asset) for asset in assets], "bytes")
    objects = Quantity.total([objects_of(asset) for asset in assets], "objects")
    costs = [choice.costs for choice in choices.values() if choice.costs is not None]
    blocked = sorted(choice.asset for choice in choices.values() if choice.blocked)
    if blocked:
        gap = f"no place for {', '.join(blocked)}"
        return Estimate(size, objects, transfer_time(size, objects, link), Quantity.unknown("usd", gap),
                        Quantity.unknown("usd/month", gap))  # fmt: skip
    return Estimate(
        size, objects, transfer_time(size, objects, link),
        Quantity.total([q for cost in costs for name, q in cost.components.items() if name == "egress"], "usd"),
        Quantity.total([q for cost in costs for name, q in cost.components.items() if name != "egress"], "usd/month"),
    )  # fmt: skip


def finishes(today: str, time: Quantity) -> tuple[date, date] | None:
    """(p50 day, p90 day) of a move that starts on `today`; None when either is unknown."""
    try:
        start = date.fromisoformat(today)
    except ValueError:
        return None
    if time.value is None:
        return None
    slow = time.high if time.high is not None else time.value
    begin = datetime(start.year, start.month, start.day)
    try:
        return (begin + timedelta(seconds=time.value)).date(), (begin + timedelta(seconds=slow)).date()
    except OverflowError:
        return date.max, date.max


def link_from(outcomes: Mapping[str, Mapping[str, Any]], workers: int) -> Link:
    """The slowest link among the probes' outcomes, unknown when none was probed.

    A probe's data holds `write_bytes_per_second` and `read_bytes_per_second` (lists of measurements of one worker) and
    `latency_seconds` with `p50` and `max`. Of the two sides the slower one counts."""
    found: list[Link] = []
    for name in sorted(outcomes):
        data = outcomes[name]
        if not name.startswith("foundations/probe/"):
            continue
        sides = [_numbers(data.get(side)) for side in ("write_bytes_per_second", "read_bytes_per_second")]
        rates = min((side for side in sides if side), key=statistics.median, default=[])
        latency = data.get("latency_seconds")
        if not rates or not isinstance(latency, Mapping):
            continue
        spread = Quantity(statistics.median(rates), "bytes/s", "link probe", low=min(rates), high=max(rates))
        wait = Quantity(float(latency["p50"]), "s", "link probe", high=float(latency.get("max", latency["p50"])))
        found.append(Link(spread, wait, workers))
    return min(found, key=lambda link: link.throughput.value or 0.0, default=Link.unknown())


def _numbers(value: Any) -> list[float]:
    """The finite numbers of a JSON list; a side that could not be measured reads infinite, and does not count."""
    listed = value if isinstance(value, list | tuple) else ()
    return [float(n) for n in listed if isinstance(n, int | float) and math.isfinite(n)]


def forecast(
    migration: Migration, inventory: Inventory, choices: Mapping[str, str], outcomes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What a plan says of time and cost, as quantities in JSON form. `choices` maps asset id -> place id."""
    made = {name: choice for name, choice in choose(migration, inventory).items() if name in choices or choice.blocked}
    found = estimate(inventory, made, link_from(outcomes, migration.file.data.workers))
    return {
        "bytes to move": found.size.to_json(), "objects to move": found.objects.to_json(),
        "transfer time": found.time.to_json(), "one-time cost": found.one_time.to_json(),
        "monthly cost": found.monthly.to_json(),
    }  # fmt: skip
