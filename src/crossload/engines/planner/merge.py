"""From what was discovered and what people say about it to one inventory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from crossload.estate.asset import Asset, Edge, Inventory, Kind
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.migration import Overlay
from crossload.ports.account import DENIED, FAILED, UNSUPPORTED, Discovery, distinct

# Words of the migration file that teams often keep as tags at the provider already; the file's word wins.
_SAID = "overlay"  # evidence of an edge that a person said: it is made anew each time
TAG_WORDS = ("sensitivity", "uptime", "app", "owner")


def merge(discoveries: Sequence[Discovery], more: Sequence[Asset] = (), edges: Sequence[Edge] = ()) -> Inventory:
    """One inventory of all places, sorted, with every id unique.

    `more` and `edges` come from reading the team's code; a catalog entry that such an edge names becomes an asset.
    The same name at two places gets the place in front of it, at both, so that adding a source renames predictably."""
    assets: list[Asset] = []
    renamed: dict[tuple[str, str], str] = {}
    named = {edge.target for edge in edges}
    for discovery in discoveries:
        assets += discovery.assets
        assets += [asset for asset in discovery.catalog if asset.id in named]
    assets += more
    unique = distinct(assets)
    before = {(asset.place, asset.native, asset.kind): asset.id for asset in assets}
    for asset in unique:
        renamed[(asset.place, before[(asset.place, asset.native, asset.kind)])] = asset.id
    kept = set(edges)
    for discovery in discoveries:
        for edge in discovery.edges:
            source = renamed.get((discovery.place, edge.source), edge.source)
            target = renamed.get((discovery.place, edge.target), edge.target)
            kept.add(replace(edge, source=source, target=target))
    reports = sorted((r for d in discoveries for r in d.reports), key=lambda item: (item.place, item.kind))
    return Inventory(tuple(unique), tuple(sorted(kept)), tuple(reports))


def apply_overlays(inventory: Inventory, overlays: Sequence[Overlay]) -> tuple[Inventory, list[Diagnostic]]:
    """Give every asset what the migration file says of it. Repeating it, with the same or other overlays, starts from
    the discovered names each time, so that the result depends on nothing but the arguments. Later overlays win."""
    problems: list[Diagnostic] = []
    hits = [0] * len(overlays)
    assets: list[Asset] = []
    renamed: dict[str, str] = {}
    for asset in inventory.assets:
        said = {name: asset.tags[name] for name in TAG_WORDS if asset.tags.get(name)}
        for index, overlay in enumerate(overlays):
            if _matches(asset, overlay):
                hits[index] += 1
                said |= {str(name): value for name, value in overlay.set.items()}
        name = said.pop("id", asset.name).removeprefix(f"{asset.kind}:")
        renamed[asset.id] = f"{asset.kind}:{name}"
        assets.append(replace(asset, id=f"{asset.kind}:{name}", overlay=said))
    for overlay, count in zip(overlays, hits, strict=True):
        problems += _check(overlay, count)
    problems += _doubles(assets)
    edges = {
        replace(edge, source=renamed.get(edge.source, edge.source), target=renamed.get(edge.target, edge.target))
        for edge in inventory.edges
        if edge.evidence != _SAID
    }
    ids = {asset.id for asset in assets}
    names = {f"{asset.kind}:{asset.name}": asset.id for asset in assets}  # people may use the discovered name too
    for asset in assets:
        served = asset.overlay.get("serves", "")
        if not served:
            continue
        edges.add(Edge(asset.id, "serves", names.get(served, served), _SAID))
        if names.get(served, served) not in ids:
            text = f"`{asset.id}` serves `{served}`, which is no asset"
            known = ", ".join(sorted(name for name in ids if name.startswith("model:"))) or "none was found"
            problems.append(Diagnostic.error("XL307", text, subject=asset.id, hint=f"model artifacts: {known}"))
    assets.sort(key=lambda item: item.id)
    return Inventory(tuple(assets), tuple(sorted(edges)), inventory.reports), problems


def _matches(asset: Asset, overlay: Overlay) -> bool:
    kind, name = overlay.match.kind, overlay.match.name
    return (kind is None or kind == asset.kind) and (name is None or fnmatchcase(asset.name, name))


def _check(overlay: Overlay, count: int) -> list[Diagnostic]:
    shown = ", ".join(f"{part}: {value}" for part, value in overlay.match.model_dump().items() if value) or "everything"
    if overlay.match.kind is not None and overlay.match.kind not in set(Kind):
        return [
            Diagnostic.error(
                "XL304", f"overlay matches kind `{overlay.match.kind}`, which is no kind of asset",
                hint=f"kinds: {', '.join(sorted(Kind))}",
            )
        ]  # fmt: skip
    if count == 0:
        return [
            Diagnostic.warning(
                "XL303", f"overlay ({shown}) matches no asset", hint="run `crossload inventory` and look at the names"
            )
        ]
    return []


def _doubles(assets: Iterable[Asset]) -> list[Diagnostic]:
    owners: dict[str, list[Asset]] = {}
    for asset in assets:
        owners.setdefault(asset.id, []).append(asset)
    return [
        Diagnostic.error(
            "XL302", f"{len(group)} assets would be called `{asset_id}`", subject=asset_id,
            detail=", ".join(sorted(asset.name for asset in group)), hint="give each its own `id` in overlays",
        )
        for asset_id, group in sorted(owners.items()) if len(group) > 1
    ]  # fmt: skip


def report_problems(inventory: Inventory) -> list[Diagnostic]:
    """What discovery could not see, as warnings: a denied kind may hide assets that the move then forgets."""
    found: list[Diagnostic] = []
    for report in inventory.reports:
        subject = f"{report.place} {report.kind}"
        if report.status == DENIED:
            hint = "grant the action to this place's identity, or accept that this kind is not carried"
            found.append(Diagnostic.warning("XL301", f"{subject}: denied", detail=report.detail, hint=hint))
        elif report.status == FAILED:
            hint = "run `crossload inventory` again when the server answers"
            found.append(Diagnostic.warning("XL305", f"{subject}: no answer", detail=report.detail, hint=hint))
        elif report.status == UNSUPPORTED:
            found.append(Diagnostic.note("XL306", f"{subject}: not offered by this place", detail=report.detail))
    return found
