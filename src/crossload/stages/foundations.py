"""Step 4, foundations: sign in on both sides, ask for every permission the plan needs, and measure the link."""

from __future__ import annotations

import secrets
import statistics
import time
from typing import Any

from crossload.estate.asset import Asset, Kind
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.errors import CrossloadError
from crossload.ports.identity import Permission
from crossload.ports.store import ObjectMeta, Store
from crossload.ports.world import World
from crossload.steps.step import Facts, Planned, Step

NAME = "foundations"
PROBE_SIZES_BYTES = (1 * 2**20, 4 * 2**20, 8 * 2**20)


def plan(migration: Migration, facts: Facts) -> Planned:
    """Sign in everywhere, then check access per asset, then probe the link of every pair of places."""
    assets = [asset for asset in facts.inventory.assets if asset.id in facts.choices]
    places = sorted({asset.place for asset in assets} | set(facts.choices.values()))
    steps = [
        Step(
            f"{NAME}/sign-in/place:{place}", NAME, "sign-in", "estate:places", f"sign in at {place}", {"place": place},
            undo="nothing to undo: no session is kept",
        )
        for place in places
    ]  # fmt: skip
    for asset in assets:
        target = facts.choices[asset.id]
        wanted = _wanted(asset, target)
        if wanted:
            after = (f"{NAME}/sign-in/place:{asset.place}", f"{NAME}/sign-in/place:{target}")
            steps.append(
                Step(
                    f"{NAME}/access/{asset.id}", NAME, "access", asset.id,
                    f"check {len(wanted)} permission(s) for {asset.id} by harmless calls", {"wanted": wanted}, after,
                    undo="nothing to undo: the calls leave nothing behind",
                )
            )  # fmt: skip
    for source, target, bucket in sorted(_links(assets, facts)):
        crossing = [a for a in assets if a.kind in (Kind.DATASET, Kind.MODEL) and facts.choices[a.id] == target]
        size = _total([a.fact("size_bytes") for a in crossing])
        count = _total([1 if a.kind is Kind.MODEL else a.fact("object_count") for a in crossing])
        after = (f"{NAME}/sign-in/place:{source}", f"{NAME}/sign-in/place:{target}")
        params = {"source": source, "target": target, "bucket": bucket, "size_bytes": size, "objects": count}
        steps.append(
            Step(
                f"{NAME}/probe/{source}-{target}", NAME, "probe", "estate:link", f"probe the link {source} - {target}",
                params, after, undo="nothing to undo: the probe removes its objects",
            )
        )  # fmt: skip
    return Planned(tuple(steps))


def _total(parts: list[int | None]) -> int | None:
    """None as soon as one part is unknown: half a size would make the forecast look short."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _links(assets: list[Asset], facts: Facts) -> set[tuple[str, str, str]]:
    found: dict[tuple[str, str], str] = {}
    for asset in assets:
        if asset.kind in (Kind.DATASET, Kind.MODEL):
            found.setdefault((asset.place, facts.choices[asset.id]), str(asset.fact("bucket", asset.name)))
    return {(source, target, bucket) for (source, target), bucket in found.items()}


def _wanted(asset: Asset, target: str) -> list[dict[str, str]]:
    """Neutral permissions, by place and port, that carrying this asset needs."""
    if asset.kind in (Kind.DATASET, Kind.MODEL):
        bucket = str(asset.fact("bucket", asset.name))
        return [
            {"place": asset.place, "port": "store", "capability": "objects.list", "resource": bucket},
            {"place": asset.place, "port": "store", "capability": "objects.read", "resource": bucket},
            {"place": asset.place, "port": "store", "capability": "objects.tags", "resource": bucket},
            {"place": target, "port": "store", "capability": "objects.list", "resource": bucket},
            {"place": target, "port": "store", "capability": "objects.read", "resource": bucket},
            {"place": target, "port": "store", "capability": "objects.write", "resource": bucket},
        ]
    if asset.kind is Kind.INDEX:
        table = str(asset.fact("table", asset.name))
        return [
            {"place": asset.place, "port": "vectors", "capability": "vectors.read", "resource": table},
            {"place": target, "port": "vectors", "capability": "vectors.write", "resource": table},
        ]
    if asset.kind is Kind.ENDPOINT:
        model = str(asset.fact("model", asset.name))
        return [{"place": asset.place, "port": "models", "capability": "models.invoke", "resource": model}]
    return []


def perform(step: Step, world: World) -> Outcome:
    if step.action == "sign-in":
        place = step.params["place"]
        who = world.identity(place).sign_in()
        data = {"subject": who.subject, "method": who.method, "issuer": who.issuer, "expires_at": who.expires_at}
        return Outcome.done(f"signed in at {place} as {who.subject} ({who.method})", **data)
    if step.action == "access":
        return _check_access(step, world)
    return _probe(step, world)


def verify(step: Step, world: World) -> Outcome:
    """Sign-in and permissions are asked again; a link is not probed again, its evidence says when it was."""
    if step.action == "probe":
        return Outcome.unchanged("a measurement is not verified, it is repeated by `apply --only`")
    return perform(step, world)


def undo(step: Step, world: World) -> Outcome:
    return Outcome.unchanged(step.undo)


def _check_access(step: Step, world: World) -> Outcome:
    checks: list[dict[str, str]] = []
    for item in step.params["wanted"]:
        permission = Permission(item["capability"], item["resource"])
        # The port's own provider answers: a bucket's cloud knows nothing about a database's roles.
        verdict = world.identity(item["place"], "vectors" if item["port"] == "vectors" else "").check(permission)
        checks.append({**item, "verdict": verdict.verdict, "how": verdict.how})
    denied = [item for item in checks if item["verdict"] == "denied"]
    unknown = [item for item in checks if item["verdict"] == "unknown"]
    if denied:
        listed = "; ".join(f"{c['capability']} on {c['resource']} at {c['place']}: {c['how']}" for c in denied)
        return Outcome.refused(f"{len(denied)} permission(s) missing: {listed}", checks=checks)
    words = f"{len(checks) - len(unknown)} permission(s) allowed" + (f", {len(unknown)} unknown" if unknown else "")
    return Outcome.done(words, checks=checks)


def _probe(step: Step, world: World) -> Outcome:
    """Small real objects written, read and removed at the target; real reads at the source."""
    bucket = step.params["bucket"]
    target = world.store(step.params["target"])
    source = world.store(step.params["source"])
    created = target.ensure_bucket(bucket)
    rates_up, latencies = _measure_target(target, bucket)
    rates_down = _measure_source(source, bucket)
    if created:
        target.remove_bucket(bucket)
    size, objects = step.params["size_bytes"], step.params["objects"]
    workers = world.migration.file.data.workers
    predicted: Any = "unknown"
    words = f"{statistics.median(rates_up) / 2**20:.0f} MiB/s up, {statistics.median(latencies) * 1000:.1f} ms per call"
    if size is None or objects is None or not rates_down:
        words += "; how long the transfer will take is unknown"
    else:
        low, mid, high = _predict(size, objects, rates_up, rates_down, latencies, workers)
        predicted = {"low": low, "value": mid, "high": high, "unit": "s", "source": "link probe"}
        words += f"; transfer will take {low:.0f}-{high:.0f} s"
    data: dict[str, Any] = {
        "latency_seconds": {"p50": statistics.median(latencies), "max": max(latencies), "unit": "s"},
        "write_bytes_per_second": sorted(rates_up), "read_bytes_per_second": sorted(rates_down) or "unknown",
        "predicted_seconds": predicted,
        "size_bytes": size, "objects": objects,
    }  # fmt: skip
    return Outcome.done(words, **data)


def _measure_target(target: Store, bucket: str) -> tuple[list[float], list[float]]:
    rates: list[float] = []
    latencies: list[float] = []
    for size in PROBE_SIZES_BYTES:
        key = f".crossload/probe-{secrets.token_hex(8)}"
        block = secrets.token_bytes(size)
        try:
            began = time.perf_counter()
            target.write(bucket, key, block, ObjectMeta(content_type="application/octet-stream"), if_absent=True)
            rates.append(size / (time.perf_counter() - began))
            target.head(bucket, key)  # the first call of a connection pays for its making
            for _ in range(4):
                began = time.perf_counter()
                target.head(bucket, key)
                latencies.append(time.perf_counter() - began)
        finally:
            target.delete(bucket, key)
    return rates, latencies


def _measure_source(source: Store, bucket: str) -> list[float]:
    """Reads the first MiB of up to three objects; empty when none was readable."""
    rates: list[float] = []
    for info in source.list(bucket):
        if info.size_bytes < 4096:
            continue
        length = min(info.size_bytes, 2**20)
        began = time.perf_counter()
        try:
            source.read(bucket, info.key, 0, length)
        except CrossloadError:
            continue
        rates.append(length / (time.perf_counter() - began))
        if len(rates) == 3:
            break
    return rates


def _predict(
    size_bytes: int, objects: int, up: list[float], down: list[float], latencies: list[float], workers: int
) -> tuple[float, float, float]:
    """T = bytes over the slower side + objects x 4 calls x latency / workers; the range from best and worst probe.
    Unknown concurrency gains are left out of the high end on purpose: a promise should be kept."""
    calls = 4 * objects / workers  # head, tags, read, write

    def seconds(rate_up: float, rate_down: float, latency: float) -> float:
        return size_bytes / min(rate_up, rate_down) + calls * latency

    mid = seconds(statistics.median(up), statistics.median(down), statistics.median(latencies))
    # Workers overlap, so the best case is better than one stream; other tenants make the worst one worse.
    low = seconds(max(up), max(down), min(latencies)) / 2
    high = seconds(min(up), min(down), sorted(latencies)[int(len(latencies) * 0.9)]) * 2
    return low, mid, max(high, mid * 1.5)
