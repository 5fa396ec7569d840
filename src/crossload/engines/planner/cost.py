"""What an asset costs at a place: storage per month, compute per month, egress once. Unknown stays unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crossload.engines.planner.offers import GIB, Offer
from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.quantity import Quantity

HOURS_PER_MONTH = 730
# An index beside its vectors: graph links, row headers, free pages. Measured factors of HNSW indexes lie around 2.
INDEX_FACTOR = 2.0
PRICED = frozenset({Kind.DATASET, Kind.MODEL, Kind.INDEX, Kind.ENDPOINT})


@dataclass(frozen=True, slots=True)
class Costs:
    """`components` maps storage | compute (per month) and egress (once) to USD; what does not apply is not in it."""

    components: Mapping[str, Quantity]
    machine: str = ""

    @property
    def one_time(self) -> Quantity:
        return Quantity.total([q for name, q in self.components.items() if name == "egress"], "usd")

    @property
    def monthly(self) -> Quantity:
        return Quantity.total([q for name, q in self.components.items() if name != "egress"], "usd/month")

    @property
    def first_year(self) -> Quantity:
        """What the choice is made by: moving once and twelve months of running."""
        once, monthly = self.one_time, self.monthly
        if once.value is None or monthly.value is None:
            return Quantity.unknown("usd", f"{once.source}; {monthly.source}")
        return Quantity(once.value + 12 * monthly.value, "usd", f"{once.source}; {monthly.source}", once.as_of)

    @property
    def known(self) -> bool:
        return all(quantity.known for quantity in self.components.values())

    @property
    def unknown(self) -> list[str]:
        return sorted(name for name, quantity in self.components.items() if not quantity.known)


def size_of(asset: Asset) -> Quantity:
    """Bytes at the source; unknown when it was not counted. An index is counted by its float32 vectors."""
    if asset.kind is Kind.INDEX:
        rows, dimension = asset.fact("rows"), asset.fact("dimension")
        if rows is None or dimension is None:
            return Quantity.unknown("bytes", "inventory")
        return Quantity(float(rows * dimension * 4), "bytes", "inventory (rows x dimension x 4)")
    value = asset.fact("size_bytes")
    return Quantity.unknown("bytes", "inventory") if value is None else Quantity(float(value), "bytes", "inventory")


def cost_of(asset: Asset, inventory: Inventory, source: Offer | None, target: Offer | None) -> Costs:
    """Cost of `asset` at `target` when it comes from `source`. An offer of None is a region no price list names."""
    size = size_of(asset)
    components: dict[str, Quantity] = {}
    machine = ""
    if asset.kind in (Kind.DATASET, Kind.MODEL):
        components["storage"] = _times(size, target.storage if target else None, "usd/month")
        components["egress"] = _times(size, source.egress if source else None, "usd")
    elif asset.kind is Kind.INDEX:
        components["storage"] = _times(_scaled(size, INDEX_FACTOR), target.disk if target else None, "usd/month")
        components["egress"] = _times(size, source.egress if source else None, "usd")
    elif asset.kind is Kind.ENDPOINT:
        components["compute"], machine = _compute(served_bytes(asset, inventory), target)
    return Costs(components, machine)


def served_bytes(endpoint: Asset, inventory: Inventory) -> int | None:
    """Size of the artifact an endpoint will be served from: the one an edge names, or the only one there is."""
    linked = {e.target for e in inventory.edges if e.source == endpoint.id} | {
        e.source for e in inventory.edges if e.target == endpoint.id
    }
    models = inventory.of(Kind.MODEL)
    named = [model for model in models if model.id in linked]
    served = named or [model for model in models if servable(model)]
    if len(served) != 1:
        return None
    return served[0].fact("size_bytes")


def servable(model: Asset) -> bool:
    """A format that language model servers load; a small classifier beside it (onnx) is not what is served."""
    return model.fact("format") in ("gguf", "safetensors")


def _compute(size_bytes: int | None, target: Offer | None) -> tuple[Quantity, str]:
    if target is None:
        return Quantity.unknown("usd/month", "no price list names this region"), ""
    if size_bytes is None:
        return Quantity.unknown("usd/month", "size of the served model is unknown"), ""
    machine = target.machine_for(size_bytes)
    if machine is None:
        return Quantity.unknown(
            "usd/month", f"no priced machine in {target.region} holds {size_bytes / GIB:.1f} GiB"
        ), ""
    hourly = machine.usd_per_hour
    monthly = None if hourly.value is None else hourly.value * HOURS_PER_MONTH
    return Quantity(
        monthly, "usd/month", f"{machine.name} x {HOURS_PER_MONTH} h: {hourly.source}", hourly.as_of
    ), machine.name


def _scaled(size: Quantity, factor: float) -> Quantity:
    return Quantity(None if size.value is None else size.value * factor, size.unit, size.source, size.as_of)


def _times(size: Quantity, price: Quantity | None, unit: str) -> Quantity:
    if price is None:
        return Quantity.unknown(unit, "no price list names this region")
    if size.value is None or price.value is None:
        return Quantity.unknown(unit, f"{size.source}; {price.source}")
    return Quantity(size.value * price.value, unit, price.source, price.as_of)
