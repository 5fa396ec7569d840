"""Offered places: regions with country, features and prices, each price with its source and date.

The tables are data beside each provider (`providers/<name>/facts.toml`). A price that nobody wrote down is unknown."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from crossload.estate.countries import SETS
from crossload.estate.quantity import Quantity

GIB = 2**30
# Bytes in the unit a price is per. Object storage is billed per 2^30 bytes though price lists write GB.
_UNIT_BYTES = {"GiB": GIB, "GB": 10**9}


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine type of a price list. `gpu_memory_gib` is 0 without a GPU."""

    name: str
    vcpus: int
    memory_gib: float
    gpu_memory_gib: float
    usd_per_hour: Quantity

    def holds(self, size_bytes: int) -> bool:
        """Weights, a fifth on top for the key-value cache and buffers, and 1 GiB for the server itself."""
        needed_gib = size_bytes * 1.2 / GIB + 1
        return needed_gib <= (self.gpu_memory_gib or self.memory_gib)


@dataclass(frozen=True, slots=True)
class Offer:
    """One region of one provider. Prices are per byte (and month); None where the price list is silent."""

    provider: str
    region: str
    country: str
    title: str = ""
    features: frozenset[str] = frozenset()
    storage: Quantity = field(default_factory=lambda: Quantity.unknown("usd/byte/month", "no price list"))
    disk: Quantity = field(default_factory=lambda: Quantity.unknown("usd/byte/month", "no price list"))
    egress: Quantity = field(default_factory=lambda: Quantity.unknown("usd/byte", "no price list"))
    machines: tuple[Machine, ...] = ()

    def machine_for(self, size_bytes: int | None) -> Machine | None:
        """The cheapest machine that holds a model of this size, None when unknown or none does."""
        if size_bytes is None:
            return None
        fitting = [m for m in self.machines if m.usd_per_hour.known and m.holds(size_bytes)]
        return min(fitting, key=lambda machine: (machine.usd_per_hour.value or 0.0, machine.name), default=None)


def countries(names: Iterable[str]) -> frozenset[str]:
    """ISO codes and sets (EU, EEA, US) as one set of ISO codes. Raises KeyError for a set nobody defined."""
    found: set[str] = set()
    for name in names:
        if name in SETS:
            found |= SETS[name]
        elif len(name) == 2 and name.isalpha() and name.isupper():
            found.add(name)
        else:
            raise KeyError(name)
    return frozenset(found)


def parse_facts(provider: str, text: str) -> list[Offer]:
    """A facts.toml as offers, sorted by region. Raises ValueError naming what is wrong in it."""
    table = tomllib.loads(text)
    regions: list[dict[str, Any]] = table.get("region", [])
    known = {str(region["id"]) for region in regions}
    prices: dict[str, dict[str, Quantity]] = {"storage": {}, "disk": {}, "egress": {}}
    for price in table.get("price", []):
        per_byte = _UNIT_BYTES[price["per"]]
        unit = "usd/byte" if price["item"] == "egress" else "usd/byte/month"
        for region, usd in price["usd"].items():
            _check(provider, region, known, usd)
            quantity = Quantity(usd / per_byte, unit, _source(price), str(price["as_of"]))
            for name in known if region == "*" else (region,):
                prices[price["item"]].setdefault(name, quantity)
    machines: dict[str, list[Machine]] = {}
    for item in table.get("machine", []):
        for region, usd in item["usd"].items():
            _check(provider, region, known, usd)
            hourly = Quantity(usd, "usd/h", _source(item), str(item["as_of"]))
            machine = Machine(item["name"], item["vcpus"], item["memory_gib"], item.get("gpu_memory_gib", 0), hourly)
            machines.setdefault(region, []).append(machine)
    features = frozenset(table.get("features", ()))
    return [
        Offer(
            provider, str(r["id"]), str(r.get("country", "")), str(r.get("title", "")), features,
            prices["storage"].get(r["id"], Quantity.unknown("usd/byte/month", f"{provider} price list")),
            prices["disk"].get(r["id"], Quantity.unknown("usd/byte/month", f"{provider} price list")),
            prices["egress"].get(r["id"], Quantity.unknown("usd/byte", f"{provider} price list")),
            tuple(machines.get(r["id"], ())),
        )
        for r in sorted(regions, key=lambda item: str(item["id"]))
    ]  # fmt: skip


def _check(provider: str, region: str, known: set[str], usd: float) -> None:
    if region != "*" and region not in known:
        raise ValueError(f"{provider}: a price for region {region}, which is not in the table")
    if usd <= 0:
        raise ValueError(f"{provider}: price {usd} in {region}; leave a price out when it is unknown")


def _source(item: Mapping[str, Any]) -> str:
    return str(item["source"])


@cache
def shipped() -> tuple[Offer, ...]:
    """Every provider's facts.toml in this installation, sorted. Read once, when placement is first imported."""
    found: list[Offer] = []
    for folder in sorted(files("crossload").joinpath("providers").iterdir(), key=lambda item: item.name):
        facts = folder.joinpath("facts.toml")
        if facts.is_file():
            found += parse_facts(folder.name, facts.read_text(encoding="utf-8"))
    return tuple(found)
