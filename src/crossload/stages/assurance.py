"""Step 9, assurance: is the target as safe as the source? Compared line by line, and attacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from crossload.engines.checks.attack import REQUESTS_MAX, run_attacks
from crossload.engines.checks.catalog import attacks, comparisons
from crossload.engines.checks.compare import compare, look, table, tally
from crossload.engines.checks.model import BLOCKED, ERROR, NOT_RUN, OPEN, UNKNOWN, WEAKER, Line, Pair, Scene, Side
from crossload.estate.asset import Asset, Kind
from crossload.estate.countries import expand
from crossload.estate.diagnostic import Diagnostic
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.errors import Invalid, NotFound, Unsupported
from crossload.ports.policy import Posture
from crossload.ports.probe import Probe
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "assurance"
_BUCKETS = frozenset({Kind.DATASET, Kind.MODEL})
_PROBE_KEYS = ".crossload/"  # what checks write is never what they look at
Port = TypeVar("Port")


def plan(migration: Migration, facts: Facts) -> Planned:
    """Compare every bucket and index that moves, ask where all that moves lies, attack every target place."""
    moved = [asset for asset in facts.inventory.assets if facts.choices.get(asset.id) in migration.places]
    steps: list[Step] = []
    problems: list[Diagnostic] = []
    scenes: dict[str, list[str]] = {}
    for asset in moved:
        params, after = _compared(asset, facts.choices[asset.id])
        if not params:
            continue
        if "port" not in params:
            scenes.setdefault(params["target"], []).append(params["bucket"])
        summary = f"compare the protection of {asset.id}"
        steps.append(_step(f"compare/{asset.id}", "compare", asset.id, summary, params, after))
    estate = f"estate:{migration.name}"
    if moved:
        params = {"assets": {asset.id: facts.choices[asset.id] for asset in moved}}
        after = tuple(step.after[0] for step in steps)
        steps.append(_step(f"residency/{estate}", "residency", estate, "check where everything lies", params, after))
        problems += _untagged(migration, moved)
    for place, buckets in sorted(scenes.items()):
        params = {"place": place, "buckets": sorted(set(buckets)), "requests_max": REQUESTS_MAX}
        after = tuple(step.after[0] for step in steps if step.params.get("target") == place)
        summary = f"attack {place}: {len(attacks())} attacks, at most {REQUESTS_MAX} requests"
        steps.append(_step(f"attack/{place}", "attack", estate, summary, params, after, risk="medium"))
    return Planned(tuple(steps), tuple(problems))


def _compared(asset: Asset, target: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(params, after) of the comparison of one asset; no params for what has no bucket and no table. `port` is there
    when another service of the place than its store is to be asked."""
    sides = {"source": asset.place, "target": target}
    if asset.kind is Kind.INDEX:
        table = str(asset.fact("table", asset.name))
        return {**sides, "bucket": table, "port": "vectors"}, (f"transfer/copy-index/{asset.id}",)
    bucket = asset.fact("bucket")
    if asset.kind not in _BUCKETS or not bucket:
        return {}, ()
    return {**sides, "bucket": str(bucket)}, (f"transfer/copy/{asset.id}",)


def _step(
    tail: str,
    action: str,
    asset: str,
    summary: str,
    params: Mapping[str, Any],
    after: tuple[str, ...],
    risk: str = "low",
) -> Step:
    return Step(f"{NAME}/{tail}", NAME, action, asset, summary, params, after, "nothing to undo: it only looks", risk)


def _untagged(migration: Migration, moved: list[Asset]) -> list[Diagnostic]:
    rules = migration.file.targets.residency
    if not rules:
        return []
    return [
        Diagnostic.warning(
            "XL850", "no sensitivity is set, so no residency rule applies to it", subject=asset.id,
            hint=f"set `sensitivity` under `overlays` to one of: {', '.join(sorted(rules))}",
        )
        for asset in moved
        if asset.kind in (*_BUCKETS, Kind.INDEX) and not asset.overlay.get("sensitivity")
    ]  # fmt: skip


def perform(step: Step, world: World) -> Outcome:
    """Ask everything. `unchanged` when every verdict is the one of last time."""
    outcome = {"compare": _compare, "residency": _residency, "attack": _attack}[step.action](step, world)
    if outcome.status == "done" and _verdicts(outcome.data) == _verdicts(world.outcome(step.id) or {}):
        return Outcome.unchanged(outcome.summary, **outcome.data)
    return outcome


def _verdicts(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    lines = [(item["subject"], item["source"], item["target"], item["verdict"]) for item in data.get("lines", ())]
    return lines + [(item["id"], item["verdict"]) for item in data.get("results", ())]


def verify(step: Step, world: World) -> Outcome:
    """Everything is asked again: protection is a fact of now, not of the day it was first looked at."""
    return perform(step, world)


def undo(step: Step, world: World) -> Outcome:
    del world
    return Outcome.unchanged(f"{step.id}: nothing to undo, it only looked; attacks took back what they wrote")


def _compare(step: Step, world: World) -> Outcome:
    asset = _asset(step.asset, world)
    places: tuple[str, str] = (step.params["source"], step.params["target"])
    probes = [_probe(world, place, step.params.get("port", "")) for place in places]
    # Those of both sides: one that only one side knows shows up as unknown on the other.
    names = {name for probe in probes if probe is not None for name in probe.identities()}
    source, target = (_side(step, world, place, probe, names) for place, probe in zip(places, probes, strict=True))
    lines = compare(Pair(asset, source, target), [rule for rule in comparisons() if rule.question == "protection"])
    postures = {"source": source.posture.to_json(), "target": target.posture.to_json()}
    return _judged(f"{step.asset} at {step.params['target']}", lines, postures=postures)


def _side(step: Step, world: World, place: str, probe: Probe | None, identities: set[str]) -> Side:
    bucket, port = step.params["bucket"], step.params.get("port", "")
    policy = _offered(lambda: world.policy(place, port))
    key = bucket if port else str(_asset(step.asset, world).fact("key") or "") or _first_key(world, place, bucket)
    return look(world.migration.places[place], policy, probe, bucket, key, identities)


def _probe(world: World, place: str, port: str) -> Probe | None:
    return _offered(lambda: world.probe(place, port))


def _residency(step: Step, world: World) -> Outcome:
    rules = [rule for rule in comparisons() if rule.question == "residency"]
    lines: list[Line] = []
    for asset_id, target in sorted(step.params["assets"].items()):
        asset = _asset(asset_id, world)
        lines += compare(Pair(asset, _placed(world, asset.place, ""), _placed(world, target, asset.fact("bucket", "")),
                              _allowed(asset, world.migration)), rules)  # fmt: skip
    return _judged("residency", lines)


def _judged(what: str, lines: list[Line], **data: Any) -> Outcome:
    counts = tally(lines)
    named = [f"{line.subject}: {line.source} -> {line.target}" for line in lines if line.verdict == WEAKER]
    named += [f"{line.subject}: unknown" for line in lines if line.verdict == UNKNOWN]
    summary = f"{what}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    if named:
        summary += f" ({'; '.join(named[:4])}{' ..' if len(named) > 4 else ''})"
    data |= {"lines": table(lines), "counts": dict(counts)}
    stops = [line for line in lines if line.blocks]
    if stops:
        return Outcome.refused(f"{summary}; stops here: {stops[0].hint}", **data)
    return Outcome.done(summary, **data)


def _attack(step: Step, world: World) -> Outcome:
    place = step.params["place"]
    probe = _probe(world, place, "")
    if probe is None:
        return Outcome.failed(f"{place} offers no probe, so no attack was run", results=[])
    scene = _scene(world, place, step.params["buckets"])
    if scene is None:
        return Outcome.failed(f"no object at {place} yet, so there is nothing to attack", results=[])
    results = run_attacks(attacks(), probe, scene, step.params["requests_max"])
    counts = {
        verdict: sum(1 for item in results if item.verdict == verdict) for verdict in (BLOCKED, OPEN, ERROR, NOT_RUN)
    }
    sent = sum(item.requests for item in results)
    data = {"results": [item.to_json() for item in results], "counts": counts, "requests": sent, "bucket": scene.bucket}
    summary = f"{place}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    summary += f" of {len(results)} attacks, {sent} requests"
    left = [name for item in results for name in item.left_behind]
    if left:
        return Outcome.failed(f"{summary}; LEFT BEHIND, remove by hand: {', '.join(left)}", **data)
    bad = next((item for item in results if item.verdict == OPEN), None)
    if bad is not None:
        return Outcome.refused(f"{summary}; open: {bad.title}: {bad.detail}", **data)
    broken = next((item for item in results if item.verdict == ERROR), None)
    if broken is not None:
        return Outcome.failed(f"{summary}; {broken.id}: {broken.detail}", **data)
    if not counts[BLOCKED]:
        return Outcome.failed(f"{summary}: none could be run", **data)
    return Outcome.done(summary, **data)


def _asset(asset_id: str, world: World) -> Asset:
    asset = world.inventory.get(asset_id)
    if asset is None:
        raise Invalid(f"{asset_id} is not in the inventory any more", hint="run `crossload plan` again")
    return asset


def _offered(ask: Callable[[], Port]) -> Port | None:
    """A port that a provider does not offer leaves its facts unknown; that is said in the table, not raised."""
    try:
        return ask()
    except Unsupported:
        return None


def _placed(world: World, place: str, bucket: str) -> Side:
    """Only where it is: no request beyond the bucket's own settings."""
    policy = _offered(lambda: world.policy(place)) if bucket else None
    posture = policy.posture(bucket) if policy and bucket else Posture(place, bucket)
    return Side(world.migration.places[place], posture, {})


def _allowed(asset: Asset, migration: Migration) -> frozenset[str] | None:
    rules = migration.file.targets.residency
    names = rules.get(asset.overlay.get("sensitivity", ""))
    return None if names is None else expand(names)


def _first_key(world: World, place: str, bucket: str) -> str:
    """Any object that is really there and holds a byte; "" when there is none."""
    try:
        found = (
            item for item in world.store(place).list(bucket) if item.size_bytes and not item.key.startswith(_PROBE_KEYS)
        )
        return next(found).key
    except (StopIteration, NotFound):
        return ""


def _scene(world: World, place: str, buckets: list[str]) -> Scene | None:
    held = [(bucket, key) for bucket in buckets if (key := _first_key(world, place, bucket))]
    if not held:
        return None
    bucket, key = held[0]
    other, other_key = held[1] if len(held) > 1 else ("", "")
    return Scene(bucket, key, other, other_key)
