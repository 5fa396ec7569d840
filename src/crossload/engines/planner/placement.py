"""Placement: a funnel of filters per asset, the cheapest of what is left, and what the runner-up would cost more.

Assets that serve together (a model, its endpoint, the agent that calls it) are placed together; kinds without a price
of their own follow the data they are used with. A solver that weighs everything at once comes later; the filters, the
reasons and the shape of a Choice stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossload.engines.planner.cost import PRICED, Costs, cost_of, size_of
from crossload.engines.planner.offers import Offer, countries, shipped
from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.migration import Migration
from crossload.estate.place import Place
from crossload.estate.quantity import Quantity

NEEDS: Mapping[Kind, str] = {
    Kind.DATASET: "store", Kind.MODEL: "store", Kind.INDEX: "vectors", Kind.ENDPOINT: "models",
}  # fmt: skip
_TOGETHER = frozenset({Kind.MODEL, Kind.ENDPOINT, Kind.AGENT})
_SHIPPED = shipped()  # read here, once, so that planning itself does no I/O
_STAYS = frozenset({"no", "false", "stay", "never"})


@dataclass(frozen=True, slots=True)
class Sieve:
    """One step of the funnel: how many places were left after it, and why each of the others fell out."""

    name: str
    left: int
    lost: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """Where one asset goes. `place` is "" when no place is left (`blocked`) or when it stays.

    `delta` maps cost components to what the runner-up would cost more (USD; per month, egress once). `reasons` are
    sentences; `losses` name what the chosen place cannot hold."""

    asset: str
    place: str
    funnel: tuple[Sieve, ...] = ()
    costs: Costs | None = None
    runner_up: str = ""
    delta: Mapping[str, Quantity] = field(default_factory=dict)
    standby: str = ""
    reasons: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    blocked: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON for evidence and reports; unknown prices read "unknown"."""
        return {
            "asset": self.asset, "place": self.place, "blocked": self.blocked, "runner_up": self.runner_up,
            "standby": self.standby, "reasons": list(self.reasons), "losses": list(self.losses),
            "funnel": [{"name": s.name, "left": s.left, "lost": dict(s.lost)} for s in self.funnel],
            "costs": {n: q.to_json() for n, q in self.costs.components.items()} if self.costs else {},
            "machine": self.costs.machine if self.costs else "",
            "delta": {name: quantity.to_json() for name, quantity in self.delta.items()},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Market:
    """What may be chosen: allowed places in the file's order, the offers behind all places, and the rules.

    `origins` maps source place id -> Place. `residency` maps sensitivity -> ISO countries or set names."""

    targets: Sequence[Place]
    origins: Mapping[str, Place]
    offers: Sequence[Offer]
    forbid: frozenset[str] = frozenset()
    residency: Mapping[str, Sequence[str]] = field(default_factory=dict)
    regions_min: int = 2

    def offer(self, place: Place) -> Offer | None:
        return next((o for o in self.offers if o.provider == place.provider and o.region == place.region), None)

    def country(self, place: Place) -> str:
        """The file's word, else the price list's; "" when neither knows."""
        offer = self.offer(place)
        return place.country or (offer.country if offer else "")

    def features(self, place: Place) -> frozenset[str]:
        """What the provider offers everywhere, and the ports this place has served by somebody else."""
        offered = {f for o in self.offers if o.provider == place.provider for f in o.features}
        return frozenset(offered | set(place.services))


def choose(migration: Migration, inventory: Inventory, offers: Sequence[Offer] | None = None) -> dict[str, Choice]:
    """Asset id -> Choice, for every asset, sorted by id. Pure: the offers are those shipped, unless given."""
    return choose_in(inventory, market_of(migration, offers))


def market_of(migration: Migration, offers: Sequence[Offer] | None = None) -> Market:
    """The migration file's rules and places, with the offers behind them."""
    targets = migration.file.targets
    return Market(
        [migration.places[name] for name in migration.target_ids],
        {name: migration.places[name] for name in migration.source_ids},
        _SHIPPED if offers is None else offers,
        frozenset(targets.forbid), targets.residency, targets.regions.min,
    )  # fmt: skip


def choose_in(inventory: Inventory, market: Market) -> dict[str, Choice]:
    """As `choose`, from the pieces."""
    choices: dict[str, Choice] = {}
    for unit in _units(inventory):
        choices |= _choose_unit(unit, inventory, market)
    sizes = {asset.id: size_of(asset) for asset in inventory.assets}
    for asset in inventory.assets:
        if asset.id not in choices:
            choices[asset.id] = _follow(asset, inventory, market, choices, sizes)
    return dict(sorted(choices.items()))


def _units(inventory: Inventory) -> list[list[Asset]]:
    """Priced assets in groups that must stay together, heaviest group first."""
    known = {a.id: a for a in inventory.assets if a.kind in PRICED or a.kind is Kind.AGENT}
    leader = {name: name for name in known}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for edge in inventory.edges:
        pair = known.get(edge.source), known.get(edge.target)
        if pair[0] and pair[1] and pair[0].kind in _TOGETHER and pair[1].kind in _TOGETHER:
            leader[find(edge.source)] = find(edge.target)
    groups: dict[str, list[Asset]] = {}
    for name, asset in known.items():
        groups.setdefault(find(name), []).append(asset)
    return [group for _, group in sorted(groups.items()) if any(a.kind in PRICED for a in group)]


def _choose_unit(unit: Sequence[Asset], inventory: Inventory, market: Market) -> dict[str, Choice]:
    moving = [asset for asset in unit if not _stays(asset)]
    sieves = {asset.id: _sieve(asset, market) for asset in moving}
    common = [p for p in market.targets if all(p in left for left, _ in sieves.values())]
    together = len(moving) > 1 and bool(common)
    out = {asset.id: _staying(asset) for asset in unit if _stays(asset)}
    for asset in moving:
        left, funnel = sieves[asset.id]
        group = moving if together else [asset]
        places = common if together else left
        out[asset.id] = _pick(asset, group, places, funnel, inventory, market)
    return out


def _sieve(asset: Asset, market: Market) -> tuple[list[Place], list[Sieve]]:
    """The places that pass every filter for this asset, and the funnel that tells how."""
    offered = {(o.provider, o.region) for o in market.offers} | {(p.provider, p.region) for p in market.targets}
    left = [p for p in market.targets if p.id not in market.forbid and p.region not in market.forbid]
    forbidden = {p.id: "forbidden in the migration file" for p in market.targets if p not in left}
    funnel = [Sieve("offered", len(offered)), Sieve("allowed", len(left), forbidden)]
    for name, test in (("residency", _residency), ("features", _features)):
        lost = {place.id: why for place in left if (why := test(asset, place, market))}
        left = [place for place in left if place.id not in lost]
        funnel.append(Sieve(name, len(left), lost))
    lost = {}
    if asset.overlay.get("uptime") == "tier1" and market.regions_min > 1:
        regions = {(place.provider, place.region) for place in left}
        if len(regions) < market.regions_min:
            why = f"tier1 needs {market.regions_min} regions, {len(regions)} left"
            lost = {place.id: why for place in left}
            left = []
    funnel.append(Sieve("two regions", len(left), lost))
    return left, funnel


def _residency(asset: Asset, place: Place, market: Market) -> str:
    rule = market.residency.get(asset.overlay.get("sensitivity", ""))
    if rule is None:
        return ""
    country = market.country(place)
    if not country:
        return f"its country is unknown, {asset.overlay['sensitivity']} data must stay in {', '.join(rule)}"
    try:
        allowed = countries(rule)
    except KeyError as error:
        return f"{error} is no country and no known set"
    return "" if country in allowed else f"{country} is not in {', '.join(rule)}"


def _features(asset: Asset, place: Place, market: Market) -> str:
    need = NEEDS.get(asset.kind, "")
    if not need or need in market.features(place):
        return ""
    listed = any(offer.provider == place.provider for offer in market.offers)
    return f"offers no {need}" if listed else f"offers no {need}: nothing is known of provider {place.provider}"


def _pick(
    asset: Asset,
    group: Sequence[Asset],
    places: Sequence[Place],
    funnel: list[Sieve],
    inventory: Inventory,
    market: Market,
) -> Choice:
    """The cheapest place for the whole group; ties go to the place the migration file lists first."""
    origin = market.origins.get(asset.place)
    source = market.offer(origin) if origin else None

    def costs(item: Asset, place: Place) -> Costs:
        return cost_of(item, inventory, source, market.offer(place))

    priced = [p for p in places if all(costs(item, p).known for item in group)]
    lost = {
        p.id: f"unknown: {', '.join(costs(asset, p).unknown or ['of what it serves with'])}"
        for p in places
        if p not in priced
    }
    funnel = [*funnel, Sieve("price known", len(priced), lost)]
    if not places:
        return _blocked(asset, funnel)

    def total(place: Place) -> float:
        return sum(costs(item, place).first_year.value or 0.0 for item in group)

    ranked = sorted(priced, key=lambda place: (total(place), market.targets.index(place)))
    ranked += [place for place in places if place not in priced]
    chosen, others = ranked[0], ranked[1:]
    runner = others[0] if others else None
    mine = costs(asset, chosen)
    reasons = [_why(asset, group, chosen, runner, bool(priced), total)]
    if mine.machine:
        reasons.append(f"served on {mine.machine}")
    if asset.overlay.get("sensitivity", "") not in market.residency and market.residency:
        reasons.append("no residency rule for its sensitivity tag")
    return Choice(
        asset.id, chosen.id, tuple(funnel), mine if mine.components else None, runner.id if runner else "",
        _delta(mine, costs(asset, runner)) if runner else {}, _standby(asset, chosen, ranked, market), tuple(reasons),
        _losses(asset, chosen, market),
    )  # fmt: skip


def _why(asset: Asset, group: Sequence[Asset], chosen: Place, runner: Place | None, priced: bool, total: Any) -> str:
    if not priced:
        return f"{chosen.id} is listed first; no price is known for it or the others"
    with_ = f" for it and {len(group) - 1} it serves with" if len(group) > 1 else ""
    cost = total(chosen)
    text = f"{chosen.id} costs {cost:,.4g} usd in the first year{with_}"
    if runner is None:
        return f"{text}; it is the only place left"
    more = total(runner) - cost
    return f"{text}; {runner.id} would cost {more:,.4g} more" if more > 0 else f"{text}; {runner.id} is no cheaper"


def _delta(chosen: Costs, runner: Costs) -> dict[str, Quantity]:
    out: dict[str, Quantity] = {}
    for name in sorted(chosen.components.keys() | runner.components.keys()):
        mine, theirs = chosen.components.get(name), runner.components.get(name)
        if mine is None or theirs is None or mine.value is None or theirs.value is None:
            out[name] = Quantity.unknown((mine or theirs or Quantity.unknown("usd", "")).unit, "a price is unknown")
        else:
            out[name] = Quantity(theirs.value - mine.value, mine.unit, theirs.source, theirs.as_of)
    return out


def _standby(asset: Asset, chosen: Place, ranked: Sequence[Place], market: Market) -> str:
    """The next best place in another region, for assets that may not be down with a region."""
    if asset.overlay.get("uptime") != "tier1" or market.regions_min < 2:
        return ""
    here = (chosen.provider, chosen.region)
    return next((place.id for place in ranked if (place.provider, place.region) != here), "")


def _losses(asset: Asset, place: Place, market: Market) -> tuple[str, ...]:
    features = market.features(place)
    lost: list[str] = []
    if asset.kind is Kind.DATASET and "store.tags" not in features:
        lost.append("object tags have no place of their own there; they travel as user metadata or are reported")
    if asset.kind is Kind.DATASET and asset.fact("older_versions") and "store.versions" not in features:
        lost.append(f"{asset.fact('older_versions')} older versions stay at the source")
    return tuple(lost)


def _stays(asset: Asset) -> bool:
    return asset.overlay.get("move", "").lower() in _STAYS


def _staying(asset: Asset) -> Choice:
    return Choice(
        asset.id, "", reasons=(f"stays at {asset.place}: the migration file says `move: {asset.overlay['move']}`",)
    )


def _blocked(asset: Asset, funnel: Sequence[Sieve]) -> Choice:
    blocker = next(s for s in funnel if s.left == 0)
    return Choice(asset.id, "", tuple(funnel), reasons=(f"no place is left after {blocker.name}",), blocked=True)


def _follow(
    asset: Asset, inventory: Inventory, market: Market, choices: Mapping[str, Choice], sizes: Mapping[str, Quantity]
) -> Choice:
    """Where an asset without a price goes: to the data it is used with, else to where most bytes go."""
    if _stays(asset):
        return _staying(asset)
    left, funnel = _sieve(asset, market)
    if not left:
        return _blocked(asset, funnel)
    near = {e.target for e in inventory.edges if e.source == asset.id}
    near |= {e.source for e in inventory.edges if e.target == asset.id}
    ids = {place.id for place in left}
    for names, why in (
        (near, "goes with {}, which it is used with"),
        (choices.keys(), "goes with {}, the heaviest asset"),
    ):
        leader = _heaviest(sizes, names, choices, ids)
        if leader:
            chosen = next(place for place in left if place.id == choices[leader].place)
            standby = _standby(asset, chosen, left, market)
            reason = why.format(leader)
            return Choice(
                asset.id, chosen.id, tuple(funnel), standby=standby, reasons=(reason, "it has no price of its own")
            )
    standby = _standby(asset, left[0], left, market)
    return Choice(
        asset.id, left[0].id, tuple(funnel), standby=standby, reasons=("first place the migration file lists",)
    )


def _heaviest(
    sizes: Mapping[str, Quantity], names: Iterable[str], choices: Mapping[str, Choice], places: set[str]
) -> str:
    placed = [n for n in names if n in choices and choices[n].place in places and choices[n].costs is not None]
    return max(sorted(placed), key=lambda name: sizes[name].value or 0.0, default="")
