"""`inventory.lock.json`: the inventory as a file that is sorted, hashed and the same bytes each time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from crossload.estate.asset import Asset, Edge, Inventory, KindReport
from crossload.estate.digest import Digest, digest_of_json
from crossload.estate.whole import write_whole
from crossload.ports.errors import Invalid, NotFound

VERSION = 1
# Facts that move while the source is in use. A change here is no surprise: deltas carry it.
COUNTS = frozenset({
    "object_count", "size_bytes", "largest_bytes", "older_versions", "delete_markers", "rows", "depth",
    "in_flight", "vector_bytes",
})  # fmt: skip


def inventory_hash(inventory: Inventory) -> Digest:
    """SHA-256 over assets, edges and what each kind came to. A server's wording is not part of it."""
    return digest_of_json(_hashed(inventory))


def lock_bytes(inventory: Inventory) -> bytes:
    """The whole file: no time, no machine, so that two runs over the same source give the same bytes."""
    value = _hashed(inventory)
    value["hash"] = str(digest_of_json(value))
    value["reports"] = [asdict(report) for report in inventory.reports]
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def write_lock(path: Path, inventory: Inventory) -> bool:
    """Write it in one move; False when the file had these bytes already."""
    data = lock_bytes(inventory)
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
    return True


def read_lock(path: Path) -> Inventory:
    """Raises NotFound without a file, Invalid when it is no lock or was edited by hand."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{path.name} is not there", hint="run `crossload inventory`") from None
    try:
        value = json.loads(text)
        if value["version"] != VERSION:
            raise Invalid(f"{path.name} has version {value['version']}, this is {VERSION}",
                          hint="run `crossload inventory` again")  # fmt: skip
        inventory = Inventory(
            tuple(Asset.from_json(item) for item in value["assets"]),
            tuple(Edge(**item) for item in value["edges"]),
            tuple(KindReport(**item) for item in value["reports"]),
        )
        held = str(value["hash"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{path.name} is no inventory lock: {error}", hint="run `crossload inventory` again") from error
    if held != str(inventory_hash(inventory)):
        raise Invalid(
            f"{path.name} was changed by hand: its hash does not fit",
            hint="put your changes under `overlays:` in the migration file and run `crossload inventory` again",
        )
    return inventory


def _hashed(inventory: Inventory) -> dict[str, Any]:
    reports = [{"place": r.place, "kind": r.kind, "status": r.status, "count": r.count} for r in inventory.reports]
    return {
        "version": VERSION,
        "assets": [asset.to_json() for asset in sorted(inventory.assets, key=lambda item: item.id)],
        "edges": [edge.to_json() for edge in sorted(inventory.edges)],
        "reports": sorted(reports, key=lambda item: (item["place"], item["kind"])),
    }


@dataclass(frozen=True, slots=True)
class Drift:
    """What changed between two inventories. `changed` and `counts` map asset id -> fact -> (before, after); `counts`
    are the facts that move while the source is in use."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, tuple[Any, Any]]] = field(default_factory=dict)
    edges_added: tuple[Edge, ...] = ()
    edges_removed: tuple[Edge, ...] = ()
    reports: tuple[str, ...] = ()

    @property
    def none(self) -> bool:
        return not (self.structural or self.counts)

    @property
    def structural(self) -> bool:
        """True when what there is changed, not only how much of it."""
        return bool(
            self.added or self.removed or self.changed or self.edges_added or self.edges_removed or self.reports
        )

    def lines(self) -> list[str]:
        """One line per change, sorted."""
        out = [f"+ {name}" for name in self.added] + [f"- {name}" for name in self.removed]
        for group in (self.changed, self.counts):
            for name, facts in sorted(group.items()):
                out += [f"~ {name}: {fact} {_shown(a)} -> {_shown(b)}" for fact, (a, b) in sorted(facts.items())]
        out += [f"+ {edge.source} {edge.relation} {edge.target}" for edge in self.edges_added]
        out += [f"- {edge.source} {edge.relation} {edge.target}" for edge in self.edges_removed]
        return out + [f"! {text}" for text in self.reports]


def diff(before: Inventory, after: Inventory) -> Drift:
    """What changed from `before` to `after`."""
    old, new = {a.id: a for a in before.assets}, {a.id: a for a in after.assets}
    changed: dict[str, dict[str, tuple[Any, Any]]] = {}
    counts: dict[str, dict[str, tuple[Any, Any]]] = {}
    for name in sorted(old.keys() & new.keys()):
        for fact, pair in _differences(_flat(old[name]), _flat(new[name])).items():
            (counts if fact in COUNTS else changed).setdefault(name, {})[fact] = pair
    was = {(r.place, r.kind): r.status for r in before.reports}
    now = {(r.place, r.kind): r.status for r in after.reports}
    reports = [
        f"{place} {kind}: {was.get((place, kind), 'not asked')} -> {now.get((place, kind), 'not asked')}"
        for place, kind in sorted(was.keys() | now.keys())
        if was.get((place, kind)) != now.get((place, kind))
    ]
    # Evidence names lines of code, which move whenever somebody edits above them: an edge is its two ends.
    edges_old = {replace(edge, evidence="") for edge in before.edges}
    edges_new = {replace(edge, evidence="") for edge in after.edges}
    return Drift(
        tuple(sorted(new.keys() - old.keys())), tuple(sorted(old.keys() - new.keys())), changed, counts,
        tuple(sorted(edges_new - edges_old)), tuple(sorted(edges_old - edges_new)), tuple(reports),
    )  # fmt: skip


def _flat(asset: Asset) -> dict[str, Any]:
    flat: dict[str, Any] = {"place": asset.place, "native": asset.native, **asset.facts}
    flat |= {f"tag {name}": value for name, value in asset.tags.items()}
    return flat | {f"overlay {name}": value for name, value in asset.overlay.items()}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) or (name in old) != (name in new)
    }


def _shown(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
