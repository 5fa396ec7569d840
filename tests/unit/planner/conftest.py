"""What the planner's tests share: an inventory as discovery gives it, and migration files made from parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossload.engines.planner.offers import Offer, parse_facts
from crossload.estate.asset import Asset, Edge, Inventory, Kind, KindReport
from crossload.estate.migration import Migration
from crossload.estate.reading import read_migration

FACTS = """
title = "Cheap"
features = ["store", "store.tags", "models"]
[[region]]
id = "north"
country = "SE"
[[region]]
id = "south"
country = "FR"
[[region]]
id = "west"
country = "US"
[[region]]
id = "dark"
country = "DE"
[[price]]
item = "storage"
per = "GiB"
source = "test list"
as_of = "2026-01-01"
usd = { north = 0.02, south = 0.03, west = 0.01 }
[[price]]
item = "disk"
per = "GiB"
source = "test list"
as_of = "2026-01-01"
usd = { north = 0.2, south = 0.2, west = 0.2 }
[[price]]
item = "egress"
per = "GiB"
source = "test list"
as_of = "2026-02-01"
usd = { "*" = 0.1 }
[[machine]]
name = "small"
vcpus = 2
memory_gib = 4
source = "test list"
as_of = "2026-01-01"
usd = { north = 0.1, south = 0.05, west = 0.2 }
[[machine]]
name = "large"
vcpus = 8
memory_gib = 32
source = "test list"
as_of = "2026-01-01"
usd = { north = 1.0, south = 1.0, west = 1.0 }
"""

GIB = 2**30
# Ports served by others: they count as offered, whatever a price list says.
SERVICES = {"vectors": {"provider": "pg"}, "store": {"provider": "x"}, "models": {"provider": "x"}}


@pytest.fixture
def offers() -> list[Offer]:
    return parse_facts("cheap", FACTS)


@pytest.fixture
def helpdesk_inventory() -> Inventory:
    """One of each kind that matters, with edges, as a source called `old` would give it."""
    docs = Asset(
        "dataset:docs",
        Kind.DATASET,
        "helpdesk-docs",
        "old",
        "arn:x:docs",
        {"bucket": "helpdesk-docs", "object_count": 2000, "size_bytes": 10 * GIB, "encryption": "AES256"},
        {"team": "docs"},
        {"sensitivity": "internal"},
    )
    model = Asset(
        "model:llm",
        Kind.MODEL,
        "llm",
        "old",
        "arn:x:llm",
        {"bucket": "models", "key": "llm.gguf", "size_bytes": GIB, "format": "gguf"},
    )
    index = Asset("index:chunks", Kind.INDEX, "chunks", "old", "old/chunks", {"rows": 1000, "dimension": 384})
    endpoint = Asset(
        "endpoint:chat", Kind.ENDPOINT, "vendor.big-v1:0", "old", "arn:x:big", {"model": "vendor.big-v1:0"}
    )
    agent = Asset("agent:desk", Kind.AGENT, "desk", "old", "arn:x:desk", {"model": "vendor.big-v1:0"})
    secret = Asset("secret:token", Kind.SECRET, "helpdesk/token", "old", "arn:x:token")
    edges = (Edge("agent:desk", "calls", "endpoint:chat", "model"), Edge("secret:token", "reads", "dataset:docs", ""))
    reports = (KindReport("old", "dataset", "found", 1), KindReport("old", "log", "denied", None, "not allowed"))
    assets = sorted((docs, model, index, endpoint, agent, secret), key=lambda asset: asset.id)
    return Inventory(tuple(assets), edges, reports)


@pytest.fixture
def make_migration(tmp_path: Path) -> Callable[..., Migration]:
    """`make_migration(goals=..., targets=..., ...)` replaces whole sections of a file that is valid as it stands."""

    def make(**sections: Any) -> Migration:
        file: dict[str, Any] = {
            "apiVersion": "crossload/v1",
            "kind": "Migration",
            "metadata": {"name": "desk", "owner": "team"},
            "goals": {
                "metrics": [
                    metric("slow", "latency_p95", "lower", 2, "s", 5),
                    metric("wrong", "error_rate", "lower", 0.01, "ratio", 0.05),
                    metric("bytes", "digest_mismatches", "lower", 0, "count", 1),
                ]
            },
            "sources": [{"id": "old", "provider": "cheap", "region": "south"}],
            "targets": {
                "allow": [
                    {"id": "n", "provider": "cheap", "region": "north", "services": SERVICES},
                    {"id": "s", "provider": "cheap", "region": "south", "services": SERVICES},
                    {"id": "w", "provider": "cheap", "region": "west", "services": SERVICES},
                ]
            },
            **sections,
        }
        path = tmp_path / "migration.yaml"
        path.write_text(yaml.safe_dump(file), encoding="utf-8")
        migration, problems = read_migration(path)
        assert migration is not None, [str(problem) for problem in problems]
        return migration

    return make


def metric(
    name: str, measure: str, direction: str, limit: float, unit: str, rollback_at: float | None = None
) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "measure": measure, "direction": direction, "limit": limit, "unit": unit}
    return entry if rollback_at is None else {**entry, "rollback_at": rollback_at}


@pytest.fixture
def make_metric() -> Callable[..., dict[str, Any]]:
    return metric
