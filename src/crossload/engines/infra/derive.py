"""From what was found at the source to what must stand at the target: buckets, keys, roles, secrets, logs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.place import Place
from crossload.ports.infra import (
    FoundationBucket,
    FoundationKey,
    FoundationRole,
    Foundations,
    FoundationSecret,
    Grant,
    LogSink,
)

_DATA = frozenset({Kind.DATASET, Kind.MODEL})
_CAPABILITIES = {"reads": ("objects.list", "objects.read"), "writes": ("objects.write",)}
_DATA_KEY = "data"
_LABEL = re.compile(r"[^a-z0-9_-]+")
RETENTION_DAYS = 400  # a year and a month: long enough to answer for a whole audit year


def derive(
    migration: str, place: Place, inventory: Inventory, choices: Mapping[str, str]
) -> tuple[Foundations, list[Diagnostic]]:
    """Everything the assets chosen for `place` need there. Roles and secrets follow the data they belong to."""
    moved = [asset for asset in inventory.assets if choices.get(asset.id) == place.id]
    buckets = _buckets(moved)
    roles, problems = _roles(inventory, moved, {bucket.name for bucket in buckets})
    keys = (FoundationKey(_DATA_KEY, reason=f"{len(buckets)} bucket(s)"),) if buckets else ()
    sink = LogSink(f"{migration}-access", RETENTION_DAYS) if buckets else None
    foundations = Foundations(
        migration,
        place.id,
        place.region,
        place.country,
        buckets,
        roles,
        keys,
        _secrets(inventory, moved, choices),
        sink,
        {"crossload_migration": label(migration), **_owner(moved)},
    )
    return foundations, problems


def label(text: str) -> str:
    """Lower-case letters, digits, `-` and `_`, at most 63: what every cloud takes as a label's value."""
    return _LABEL.sub("-", text.lower())[:63].strip("-")


def _owner(assets: Iterable[Asset]) -> dict[str, str]:
    """A label is only set when all assets agree: a bill must not be sent to the wrong team."""
    out: dict[str, str] = {}
    for name in ("app", "owner"):
        values = {asset.overlay[name] for asset in assets if asset.overlay.get(name)}
        if len(values) == 1:
            out[name] = label(values.pop())
    return out


def _buckets(assets: Iterable[Asset]) -> tuple[FoundationBucket, ...]:
    held: dict[str, list[Asset]] = {}
    for asset in assets:
        if asset.kind in _DATA and asset.fact("bucket"):
            held.setdefault(str(asset.fact("bucket")), []).append(asset)
    return tuple(
        FoundationBucket(
            name,
            tuple(sorted(asset.id for asset in group)),
            key=_DATA_KEY,
            # Versions are the way back from an overwrite; a target with fewer than the source would be weaker.
            versioning=True,
            sensitivity=",".join(sorted({asset.overlay.get("sensitivity", "") for asset in group} - {""})),
        )
        for name, group in sorted(held.items())
    )


def _roles(
    inventory: Inventory, moved: Iterable[Asset], buckets: set[str]
) -> tuple[tuple[FoundationRole, ...], list[Diagnostic]]:
    where = {asset.id: str(asset.fact("bucket")) for asset in moved if asset.kind in _DATA and asset.fact("bucket")}
    secrets = {asset.id: asset.name for asset in inventory.of(Kind.SECRET)}
    roles: list[FoundationRole] = []
    problems: list[Diagnostic] = []
    for asset in inventory.of(Kind.ROLE):
        grants: set[Grant] = set()
        for edge in inventory.edges:
            if edge.source != asset.id:
                continue
            if where.get(edge.target) in buckets:
                grants |= {Grant(name, where[edge.target]) for name in _CAPABILITIES.get(edge.relation, ())}
            elif edge.target in secrets and edge.relation == "reads":
                grants.add(Grant("secrets.read", secrets[edge.target]))
        if not any(grant.capability.startswith("objects.") for grant in grants):
            problems.append(
                Diagnostic.note(
                    "XL801",
                    "no right of this role on the carried data was found, so no role is written for it",
                    subject=asset.id,
                    hint="give it rights by hand at the target if the workload needs them",
                )
            )
            continue
        roles.append(FoundationRole(asset.name, asset.name, tuple(sorted(grants)), asset.id))
    return tuple(sorted(roles, key=lambda role: role.name)), problems


def _secrets(inventory: Inventory, moved: Iterable[Asset], choices: Mapping[str, str]) -> tuple[FoundationSecret, ...]:
    """A secret goes where it was sent; one without a choice goes where the data goes, when that is one place only."""
    places = set(choices.values())
    here = {asset.id for asset in moved}
    alone = len(places) == 1 and bool(here)
    return tuple(
        FoundationSecret(asset.name, asset.id)
        for asset in sorted(inventory.of(Kind.SECRET), key=lambda item: item.name)
        if asset.id in here or (alone and asset.id not in choices)
    )
