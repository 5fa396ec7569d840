"""`init`'s file: valid as it stands, and its overlays do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossload.engines.planner.draft import common_prefix, draft_migration, short_names
from crossload.engines.planner.merge import apply_overlays, merge
from crossload.estate.asset import Asset, Edge, Inventory, Kind
from crossload.estate.migration import Migration
from crossload.estate.reading import read_migration
from crossload.ports.account import Discovery

SOURCE: dict[str, Any] = {
    "id": "old",
    "provider": "aws",
    "region": "eu-central-1",
    "connection": {"profile": "env:PROFILE"},
}
TARGETS: list[dict[str, Any]] = [
    {"id": "fra", "provider": "gcp", "region": "europe-west3"},
    {"id": "ams", "provider": "gcp", "region": "europe-west4"},
]


def found(*assets: Asset) -> Discovery:
    edges = (Edge("agent:helpdesk", "calls", "endpoint:m:0", ""),)
    return Discovery("old", tuple(sorted(assets, key=lambda asset: asset.id)), edges)


def asset(kind: Kind, name: str, **facts: Any) -> Asset:
    return Asset(f"{kind}:{name}", kind, name, "old", name, facts)


FULL = (
    asset(Kind.AGENT, "helpdesk"), asset(Kind.DATASET, "helpdesk-docs", object_count=2000, size_bytes=2**28),
    asset(Kind.ENDPOINT, "m:0", model="m:0"), asset(Kind.MODEL, "llm", bucket="helpdesk-models", size_bytes=2**26),
    asset(Kind.QUEUE, "helpdesk-jobs"), asset(Kind.SECRET, "helpdesk/api-key"), asset(Kind.ROLE, "other-role"),
    asset(Kind.TABLE, "helpdesk_orders", rows=7),
)  # fmt: skip


def drafted(tmp_path: Path, discoveries: list[Discovery], **more: Any) -> tuple[str, Migration]:
    text = draft_migration(discoveries, "desk", "team", SOURCE, more.pop("targets", TARGETS), **more)
    path = tmp_path / "migration.yaml"
    path.write_text(text, encoding="utf-8")
    migration, problems = read_migration(path)
    assert migration is not None and problems == [], [str(problem) for problem in problems]
    return text, migration


def test_a_full_account_gives_a_valid_file_that_renames(tmp_path: Path) -> None:
    text, migration = drafted(tmp_path, [found(*FULL)])
    assert text.startswith("# yaml-language-server: $schema=migration.schema.json\n")
    inventory, problems = apply_overlays(merge([found(*FULL)]), migration.file.overlays)
    assert problems == []
    assert {item.id for item in inventory.assets} == {
        "agent:helpdesk",
        "dataset:docs",
        "endpoint:chat",
        "model:llm",
        "queue:jobs",
        "secret:api-key",
        "role:other-role",
        "table:orders",
    }
    docs = inventory.get("dataset:docs")
    assert docs is not None and docs.overlay == {"sensitivity": "internal", "app": "helpdesk"}
    assert inventory.edges == (
        Edge("agent:helpdesk", "calls", "endpoint:chat", ""),
        Edge("endpoint:chat", "serves", "model:llm", "overlay"),
    )
    assert "2,000 objects" in text


def test_the_goals_fit_what_was_found(tmp_path: Path) -> None:
    _, full = drafted(tmp_path, [found(*FULL)])
    assert {m.measure for m in full.file.goals.metrics} >= {"latency_p95", "digest_mismatches", "answer_agreement"}
    _, data = drafted(tmp_path, [found(asset(Kind.DATASET, "docs"))])
    assert [m.measure for m in data.file.goals.metrics if m.rollback_at is not None] == ["digest_mismatches"]


@pytest.mark.parametrize("discoveries", [[], [Discovery("old")], [found(asset(Kind.QUEUE, "q"))]])
def test_little_or_nothing_found_is_still_valid(tmp_path: Path, discoveries: list[Discovery]) -> None:
    _, migration = drafted(tmp_path, discoveries)
    assert migration.source.connection == {"profile": "env:PROFILE"}


def test_one_region_is_valid_and_told(tmp_path: Path) -> None:
    text, migration = drafted(tmp_path, [found(*FULL)], targets=TARGETS[:1])
    assert migration.file.targets.regions.min == 1 and "allow a second one" in text


def test_the_optional_parts(tmp_path: Path) -> None:
    _, migration = drafted(tmp_path, [found(*FULL)], environment="lab/env", app_path="app", questions="data/q.jsonl")
    assert migration.file.environment == "lab/env"
    assert migration.file.app is not None and migration.file.app.path == "app"
    assert migration.file.cutover.questions == "data/q.jsonl"


def test_names_that_yaml_or_globs_would_misread(tmp_path: Path) -> None:
    odd = [asset(Kind.SECRET, name) for name in ("team-a: b", "team-#x", "team-[1]*", "team-ünï", "team-yes")]
    _, migration = drafted(tmp_path, [found(*odd)])
    inventory, problems = apply_overlays(merge([found(*odd)]), migration.file.overlays)
    assert problems == []
    assert {item.id for item in inventory.assets} == {
        "secret:a: b",
        "secret:#x",
        "secret:[1]*",
        "secret:ünï",
        "secret:yes",
    }


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["a-docs", "a-jobs"], "a"),
        (["a-docs", "a/jobs"], "a"),
        (["a-b-c", "a-b-d"], "a-b"),
        (["docs", "jobs"], ""),
        (["ab-c", "abd-c"], ""),
        (["a-docs"], ""),
        ([], ""),
        (["a", "a-b"], ""),
    ],
)
def test_common_prefix(names: list[str], prefix: str) -> None:
    assert common_prefix(names) == prefix


def test_two_that_would_get_the_same_name_keep_theirs() -> None:
    clash = Inventory((asset(Kind.QUEUE, "x-jobs"), asset(Kind.QUEUE, "x/jobs"), asset(Kind.TABLE, "x-t")))
    assert short_names(clash) == {"table:x-t": "t"}
