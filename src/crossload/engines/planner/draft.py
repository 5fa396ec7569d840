"""A first migration file from what was discovered: valid as it stands, with comments that say what to decide."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from crossload.engines.planner.merge import merge
from crossload.estate.asset import Asset, Inventory, Kind
from crossload.ports.account import Discovery

_CARRIED = (
    Kind.DATASET,
    Kind.MODEL,
    Kind.INDEX,
    Kind.ENDPOINT,
    Kind.AGENT,
    Kind.QUEUE,
    Kind.SECRET,
    Kind.TABLE,
    Kind.ROLE,
)
_SEPARATORS = "-_./"

# What a goal may be, by what has to be there for somebody to measure it. A value teaches the form; the team decides.
_Example = tuple[str, str, str, float, str, float | None, str]
_ENDPOINT_METRICS: tuple[_Example, ...] = (
    ("slow-answers", "latency_p95", "lower", 2.0, "s", 5.0, "95 of 100 answers come within this time"),
    ("failed-answers", "error_rate", "lower", 0.01, "ratio", 0.05, "share of requests that fail"),
    ("same-answers", "answer_agreement", "higher", 0.95, "ratio", 0.8, "share of mirrored answers that agree"),
)
_DATA_METRICS: tuple[_Example, ...] = (
    ("same-bytes", "digest_mismatches", "lower", 0, "count", 1, "objects whose digest differs from the source"),
    ("fresh-data", "data_lag", "lower", 60, "s", None, "how far the target may be behind before the cutover"),
)
# The file wants three; without an endpoint the third stays unmeasured until one is added.
_FILLER: tuple[_Example, ...] = (
    ("failed-answers", "error_rate", "lower", 0.01, "ratio", None, "measured once there is a model endpoint"),
    ("fresh-data", "data_lag", "lower", 60, "s", None, "measured once there is a dataset"),
)


def draft_migration(
    discoveries: Sequence[Discovery], name: str, owner: str, source: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]], *, environment: str = "", app_path: str = "", questions: str = "",
) -> str:  # fmt: skip
    """YAML text of a migration file.

    `source` and each of `targets` are place sections as in the file (id, provider, region, country, connection,
    services); values of connections should be references (`env:`, `file:`), because the file is meant for git.
    `environment`, `app_path` and `questions` are paths relative to the file, left out when empty."""
    inventory = merge(discoveries)
    regions = {(str(place["provider"]), str(place["region"])) for place in targets}
    parts = [
        "# yaml-language-server: $schema=migration.schema.json",
        "# Written by `crossload init` from what was discovered; everything below is yours to change.",
        "# Check it with `crossload validate`; `crossload schema > migration.schema.json` gives your editor its help.",
        _block({"apiVersion": "crossload/v1", "kind": "Migration"}),
        _block({"metadata": {"name": name, "owner": owner}}),
        "  # deadline: 2027-03-31   # last day on which the cutover must be committed; checked against the forecast",
    ]
    if environment:
        parts += ["", "# KEY=VALUE lines that `env:` below may name, beside the process's own environment.",
                  _block({"environment": environment})]  # fmt: skip
    parts += ["", *_goals(inventory), "", *_source(source), "", *_targets(targets, len(regions)), "",
              *_overlays(inventory), "", *_rest(app_path, questions)]  # fmt: skip
    return "\n".join(parts) + "\n"


def common_prefix(names: Iterable[str]) -> str:
    """The words all names begin with, up to and with a separator; "" when they share none or it would leave nothing.

    `helpdesk-docs`, `helpdesk/token` share `helpdesk` whatever the separator: the prefix comes without it."""
    listed = sorted(set(names))
    if len(listed) < 2:
        return ""
    first, last = listed[0], listed[-1]  # sorted: what these two share, all share
    shared = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
    while shared and not all(len(name) > len(shared) and name[len(shared)] in _SEPARATORS for name in listed):
        shared = shared[:-1]
    return shared.rstrip(_SEPARATORS)


def short_names(inventory: Inventory) -> dict[str, str]:
    """Asset id -> shorter name, for assets that have one; never two of a kind with the same."""
    named = [a for a in inventory.assets if a.kind in _CARRIED and a.kind not in (Kind.MODEL, Kind.ENDPOINT)]
    prefix = _shared_prefix(inventory)
    wanted = {a.id: a.name[len(prefix) :].lstrip(_SEPARATORS) for a in named if prefix and a.name.startswith(prefix)}
    endpoints = inventory.of(Kind.ENDPOINT)
    if len(endpoints) == 1:
        wanted[endpoints[0].id] = "chat"
    taken: dict[tuple[Kind, str], list[str]] = {}
    for asset in inventory.assets:
        taken.setdefault((asset.kind, wanted.get(asset.id) or asset.name), []).append(asset.id)
    lonely = {ids[0] for ids in taken.values() if len(ids) == 1}
    return {name: short for name, short in wanted.items() if short and name in lonely}


def _shared_prefix(inventory: Inventory) -> str:
    """What the team puts in front of its names: a model's bucket counts, its file name does not."""
    names = [a.name for a in inventory.assets if a.kind in _CARRIED and a.kind not in (Kind.MODEL, Kind.ENDPOINT)]
    return _majority_prefix([*names, *(str(a.fact("bucket")) for a in inventory.of(Kind.MODEL))])


def _majority_prefix(names: Sequence[str]) -> str:
    """The first word that more than half of the names (and at least two) begin with, extended as far as they agree."""
    groups: dict[str, list[str]] = {}
    for name in set(names):
        word = name
        for separator in _SEPARATORS:
            word = word.split(separator)[0]
        groups.setdefault(word, []).append(name)
    word, group = max(sorted(groups.items()), key=lambda item: len(item[1]), default=("", []))
    if len(group) < 2 or len(group) * 2 <= len(set(names)):
        return ""
    return common_prefix([name for name in group if name != word]) or word


def _goals(inventory: Inventory) -> list[str]:
    served = bool(inventory.of(Kind.ENDPOINT))
    data = bool(inventory.of(Kind.DATASET))
    chosen: list[_Example] = [*(_ENDPOINT_METRICS if served else ()), *(_DATA_METRICS[: 2 if data else 1])]
    chosen += _FILLER[: max(0, 3 - len(chosen))]
    lines = [
        "# Three to five metrics decide whether the move is a success. `limit` is the worst good value; at",
        "# `rollback_at`, which must be worse than the limit, traffic goes back to the source by itself.",
        "# Measures: latency_p95 (s), error_rate (ratio), answer_agreement (ratio, higher is better),",
        "# cost_per_1k_tokens (usd), digest_mismatches (count), data_lag (s).",
        "goals:",
        "  metrics:",
    ]
    for name, measure, direction, limit, unit, back, why in chosen:
        entry: dict[str, Any] = {"name": name, "measure": measure, "direction": direction, "limit": limit, "unit": unit}
        if back is not None:
            entry["rollback_at"] = back
        lines.append(f"    - {_flow(entry)}  # {why}")
    return [
        *lines,
        "  # Ceilings in USD; a cost above them is an error of the plan, an unknown cost a warning.",
        "  # budget: {one_time_usd: 500, monthly_usd: 2000}",
    ]


def _source(source: Mapping[str, Any]) -> list[str]:
    return [
        "# Where the workload lives. Values under `connection` may be references (`env:NAME`, `file:PATH`); secrets",
        "# must be. `profile@freeze` names a narrower user for one kind of work.",
        _block({"sources": [dict(source)]}),
    ]


def _targets(targets: Sequence[Mapping[str, Any]], regions: int) -> list[str]:
    lines = ["# Places that may be chosen, best first where prices are equal."]
    if regions < 2:
        lines.append("# Only one region is allowed yet: allow a second one and raise `regions.min` to have a standby.")
    return [
        *lines,
        _block({"targets": {"allow": [dict(place) for place in targets], "regions": {"min": min(2, max(1, regions))}}}),
        "  # Which countries data of a sensitivity may be in: ISO codes, or EU, EEA, US.",
        "  # residency: {pii: [EU], internal: [EU, US]}",
        "  # forbid: [some-region]",
    ]


def _overlays(inventory: Inventory) -> list[str]:
    lines = [
        "# What discovery cannot know. `match` takes a kind and a name (globs allowed), `set` takes id, sensitivity,",
        "# uptime (tier1 asks for a standby region), app, owner, move (no: it stays), risk, serves (model:NAME).",
    ]
    short = short_names(inventory)
    prefix = _shared_prefix(inventory)
    entries: list[tuple[dict[str, Any], str]] = []
    for asset in inventory.assets:
        if asset.kind not in _CARRIED:
            continue
        said: dict[str, str] = {"id": short[asset.id]} if asset.id in short else {}
        if asset.kind in (Kind.DATASET, Kind.INDEX) and not asset.tags.get("sensitivity"):
            said["sensitivity"] = "internal"
        if asset.kind is Kind.ENDPOINT and len(inventory.of(Kind.ENDPOINT)) == len(inventory.of(Kind.MODEL)) == 1:
            said["serves"] = inventory.of(Kind.MODEL)[0].id  # the only artifact; a person corrects it if it is not
        if asset.fact("ours"):
            said = {"move": "no"}  # what the migration itself looks with
        elif prefix and asset.name.startswith(prefix) and not asset.tags.get("app"):
            said["app"] = prefix
        if said:
            entry = {"match": {"kind": str(asset.kind), "name": glob.escape(asset.name)}, "set": said}
            told = "the only artifact found: correct it if another one is served" if "serves" in said else _tell(asset)
            entries.append((entry, told))
    if not entries:
        return [*lines, "# overlays:", "#   - {match: {kind: dataset, name: docs}, set: {sensitivity: internal}}"]
    lines.append("overlays:")
    return lines + [f"  - {_flow(entry)}{f'  # {told}' if told else ''}" for entry, told in entries]


def _rest(app_path: str, questions: str) -> list[str]:
    lines = [
        "# How data moves and how traffic is shifted; the defaults are good, see `crossload schema` for all settings.",
        _block({"data": {"workers": 8, "part_size_mib": 16}}),
        "cutover:",
        "  canary_weights: [5, 25, 50, 100]  # percent of traffic at the target, step by step",
        "  drill: true  # roll back once on purpose before the ramp",
        *([f"  {_block({'questions': questions})}"] if questions else []),
    ]
    if app_path:
        return [*lines, "", "# The code whose cloud calls become portable; `test` must pass before and after.",
                _block({"app": {"path": app_path}})]  # fmt: skip
    return [*lines, "", "# app: {path: app}   # folder of the code whose cloud calls should become portable"]


def _tell(asset: Asset) -> str:
    count, size = asset.fact("object_count"), asset.fact("size_bytes")
    parts: list[str] = []
    if count is not None:
        parts.append(f"{count:,} objects")
    if size is not None:
        parts.append(f"{size / 2**20:,.1f} MiB")
    if asset.fact("rows") is not None:
        parts.append(f"{asset.fact('rows'):,} rows")
    return ", ".join(parts)


def _block(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(
        dict(value), sort_keys=False, allow_unicode=True, default_flow_style=False, width=110
    ).rstrip()


def _flow(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(
        dict(value), sort_keys=False, allow_unicode=True, default_flow_style=True, width=10_000
    ).strip()
