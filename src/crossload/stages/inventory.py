"""Step 2, inventory: discover what the sources hold, lock it, and tell later when the world has moved on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossload.engines.planner.lock import Drift, diff, inventory_hash, read_lock, write_lock
from crossload.engines.planner.mentions import language_of, mentions, through_roles
from crossload.engines.planner.merge import apply_overlays, merge, report_problems
from crossload.estate.asset import Asset, Edge, Inventory, Kind
from crossload.estate.diagnostic import Diagnostic, errors_in
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.account import DENIED, FAILED, UNSUPPORTED, Discovery, index_assets
from crossload.ports.errors import AccessDenied, CrossloadError, Invalid, NotFound, NotSignedIn, Unsupported
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "inventory"
LOCK = "inventory.lock.json"
_SKIPPED = frozenset({".git", ".venv", "__pycache__", "node_modules", ".crossload", "dist", "build"})
_TEXT = frozenset(
    {".py", ".ts", ".js", ".go", ".java", ".rs", ".toml", ".yaml", ".yml", ".json", ".cfg", ".ini", ".env"}
)
_FILE_BYTES_MAX = 512 * 1024  # a larger text file is data, not code


@dataclass(frozen=True, slots=True)
class Gathered:
    """What one look at all sources came to."""

    inventory: Inventory
    diagnostics: tuple[Diagnostic, ...]


def plan(migration: Migration, facts: Facts) -> Planned:
    """Discover once, then one record per asset, so that each asset's story begins with what it was."""
    estate = f"estate:{migration.name}"
    places = ", ".join(migration.source_ids)
    discover = Step(
        f"{NAME}/discover/{estate}", NAME, "discover", estate, f"discover what {places} hold(s), lock it in {LOCK}",
        {"places": list(migration.source_ids)}, undo="nothing to undo: discovery only reads",
    )  # fmt: skip
    records = [
        Step(
            f"{NAME}/record/{asset.id}", NAME, "record", asset.id, f"record {describe(asset)}", {}, (discover.id,),
            undo="nothing to undo: a record changes nothing",
        )
        for asset in facts.inventory.assets
    ]  # fmt: skip
    # The lock was made with the overlays of then; what the file says now is checked again.
    _, problems = apply_overlays(facts.inventory, migration.file.overlays)
    if not facts.inventory.assets:
        problems = []
    return Planned((discover, *records), (*problems, *report_problems(facts.inventory)))


def perform(step: Step, world: World) -> Outcome:
    if step.action == "record":
        return _record(step, world)
    gathered = gather(world)
    errors = errors_in(gathered.diagnostics)
    if errors:
        hint = "; ".join(item.hint for item in errors if item.hint)
        raise Invalid("; ".join(item.summary for item in errors), hint=hint)
    changed = write_lock(lock_path(world), gathered.inventory)
    data = _summary(gathered)
    words = (
        f"{len(gathered.inventory.assets)} assets, {len(gathered.inventory.edges)} edges; {_kinds(gathered.inventory)}"
    )
    return Outcome.done(words, **data) if changed else Outcome.unchanged(f"same as before: {words}", **data)


def verify(step: Step, world: World) -> Outcome:
    """Discover again. Other assets or settings are drift and fail; other counts are the source being in use."""
    if step.action == "record":
        return _check_record(step, world)
    held = read_lock(lock_path(world))
    drift = diff(held, gather(world).inventory)
    lines = drift.lines()
    data: dict[str, Any] = {"hash": str(inventory_hash(held)), "drift": lines[:200]}
    if drift.structural:
        shown = "; ".join(lines[:5])
        return Outcome.failed(
            f"the source is not what was locked: {shown}. Run `crossload inventory` and plan again", **data
        )
    if drift.counts:
        return Outcome.done(f"same assets and settings; {_moved(drift)}", **data)
    return Outcome.done(f"{len(held.assets)} assets as locked", **data)


def undo(step: Step, world: World) -> Outcome:
    return Outcome.unchanged(
        "nothing to undo: discovery only reads, and removes nothing from any cloud; the lock stays"
    )


def lock_path(world: World) -> Path:
    return world.workspace / LOCK


def load(migration: Migration, path: Path) -> Inventory:
    """The locked inventory with the overlays the migration file has now. Raises NotFound, Invalid."""
    inventory, _ = apply_overlays(read_lock(path), migration.file.overlays)
    return inventory


def gather(world: World) -> Gathered:
    """Discover every source, read the app's code, merge, apply overlays. Raises when a source cannot be reached."""
    discoveries: list[Discovery] = []
    for place in world.migration.source_ids:
        world.progress.start(f"discover {place}", None, "kinds")
        found = world.account(place).discover()
        discoveries += [found, _indexes(place, world)]
        world.progress.finish(f"discover {place}")
    inventory, edges = merge(discoveries), []
    app, files = _app(world)
    if app is not None:
        known = [*inventory.assets, *(asset for found in discoveries for asset in found.catalog)]
        edges = mentions(app.id, files, known)
        edges += _without(through_roles(app.id, app.name, inventory.assets, inventory.edges), edges)
        inventory = merge(discoveries, [app], edges)
    inventory, problems = apply_overlays(inventory, world.migration.file.overlays)
    return Gathered(inventory, (*problems, *report_problems(inventory)))


def describe(asset: Asset) -> str:
    """One line on an asset, for plans and evidence."""
    parts = [f"{asset.name} at {asset.place}"]
    for name, unit in (
        ("object_count", "objects"),
        ("rows", "rows"),
        ("dimension", "dimensions"),
        ("depth", "waiting"),
    ):
        if name in asset.facts:
            value = asset.fact(name)
            parts.append(f"{'unknown' if value is None else f'{value:,}'} {unit}")
    if "size_bytes" in asset.facts:
        size = asset.fact("size_bytes")
        parts.append("unknown size" if size is None else f"{size / 2**20:,.1f} MiB")
    parts += [f"{name} {asset.fact(name)}" for name in ("model", "encryption", "versioning") if asset.fact(name)]
    return f"{asset.kind} " + ", ".join(parts)


def _indexes(place: str, world: World) -> Discovery:
    """The place's vector indexes. A place without the service says so; a refusing one does not stop the rest."""
    try:
        return index_assets(place, world.vectors(place).indexes())
    except (AccessDenied, NotSignedIn) as error:
        return index_assets(place, [], DENIED, str(error))
    except Unsupported as error:
        return index_assets(place, [], UNSUPPORTED, str(error))
    except CrossloadError as error:
        return index_assets(place, [], FAILED, str(error))


def _app(world: World) -> tuple[Asset | None, dict[str, str]]:
    """The app as an asset, and its texts by path relative to its folder."""
    section = world.migration.file.app
    if section is None:
        return None, {}
    folder = world.migration.folder / section.path
    if not folder.is_dir():
        raise NotFound(f"the app's folder {section.path} is not there", hint="correct `app.path` in the migration file")
    files = dict(_texts(folder))
    # `app`, `src` and `code` say nothing; the folder around them is what people call it.
    name = folder.resolve().name
    name = folder.resolve().parent.name if name in ("app", "src", "code") else name
    facts = {"path": section.path, "language": language_of(files)}
    return Asset(f"app:{name}", Kind.APP, name, world.migration.source_ids[0], section.path, facts), files


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if _SKIPPED & set(relative.parts) or path.suffix not in _TEXT or not path.is_file():
            continue
        if path.stat().st_size <= _FILE_BYTES_MAX:
            yield relative.as_posix(), path.read_text(encoding="utf-8", errors="replace")


def _without(more: Sequence[Edge], edges: Sequence[Edge]) -> list[Edge]:
    """Those of `more` that say something new: the code's own word is better evidence than a role's."""
    told = {(edge.source, edge.relation, edge.target) for edge in edges}
    return [edge for edge in more if (edge.source, edge.relation, edge.target) not in told]


def _summary(gathered: Gathered) -> dict[str, Any]:
    reports = gathered.inventory.reports
    return {
        "hash": str(inventory_hash(gathered.inventory)),
        "assets": [asset.id for asset in gathered.inventory.assets],
        "edges": len(gathered.inventory.edges),
        "kinds": [
            {"place": r.place, "kind": r.kind, "status": r.status, "count": "unknown" if r.count is None else r.count}
            for r in reports
        ],
        "problems": [str(item) for item in gathered.diagnostics],
    }


def _kinds(inventory: Inventory) -> str:
    counts: dict[str, int] = {}
    for report in inventory.reports:
        counts[report.status] = counts.get(report.status, 0) + 1
    return ", ".join(f"{count} kind(s) {status}" for status, count in sorted(counts.items()))


def _moved(drift: Drift) -> str:
    return f"counts of {', '.join(sorted(drift.counts))} have moved since"


def _record(step: Step, world: World) -> Outcome:
    asset = world.inventory.get(step.asset)
    if asset is None:
        return Outcome.failed(f"{step.asset} is no longer in the inventory; plan again")
    near = [edge.to_json() for edge in world.inventory.edges if step.asset in (edge.source, edge.target)]
    data = {"asset": asset.to_json(), "edges": near}
    words = describe(asset)
    return Outcome.unchanged(words, **data) if world.outcome(step.id) == data else Outcome.done(words, **data)


def _check_record(step: Step, world: World) -> Outcome:
    """The record still says what the lock says; the source itself is asked once, by the discovery's own check."""
    held = (world.outcome(step.id) or {}).get("asset")
    asset = world.inventory.get(step.asset)
    if held is None or asset is None:
        return Outcome.failed(f"{step.asset} is not in the inventory any more")
    drift = diff(Inventory((Asset.from_json(held),)), Inventory((asset,)))
    if drift.structural:
        return Outcome.failed(f"recorded otherwise: {'; '.join(drift.lines()[:5])}", drift=drift.lines())
    return Outcome.done(describe(asset), drift=drift.lines())
