"""The lock: same world, same bytes; every change told; a hand edit refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from crossload.engines.planner.lock import diff, inventory_hash, lock_bytes, read_lock, write_lock
from crossload.estate.asset import Asset, Edge, Inventory, Kind, KindReport
from crossload.ports.errors import Invalid, NotFound


def test_bytes_do_not_depend_on_order(helpdesk_inventory: Inventory) -> None:
    shuffled = Inventory(
        tuple(reversed(helpdesk_inventory.assets)),
        tuple(reversed(helpdesk_inventory.edges)),
        helpdesk_inventory.reports,
    )
    assert lock_bytes(shuffled) == lock_bytes(helpdesk_inventory)


def test_a_round_trip_keeps_everything(tmp_path: Path, helpdesk_inventory: Inventory) -> None:
    path = tmp_path / "deep" / "inventory.lock.json"
    assert write_lock(path, helpdesk_inventory) is True
    before = path.read_bytes()
    assert write_lock(path, helpdesk_inventory) is False
    assert path.read_bytes() == before
    assert read_lock(path) == helpdesk_inventory
    assert [p.name for p in path.parent.iterdir()] == ["inventory.lock.json"], "no temporary file is left"


def test_a_servers_wording_is_in_the_file_but_not_in_the_hash(helpdesk_inventory: Inventory) -> None:
    other = tuple(replace(report, detail="other words") for report in helpdesk_inventory.reports)
    reworded = Inventory(helpdesk_inventory.assets, helpdesk_inventory.edges, other)
    assert inventory_hash(reworded) == inventory_hash(helpdesk_inventory)
    assert b"other words" in lock_bytes(reworded)


def test_a_status_is_in_the_hash(helpdesk_inventory: Inventory) -> None:
    changed = tuple(replace(report, status="found") for report in helpdesk_inventory.reports)
    assert inventory_hash(replace(helpdesk_inventory, reports=changed)) != inventory_hash(helpdesk_inventory)


def test_unknown_stays_null_and_never_becomes_zero(tmp_path: Path) -> None:
    asset = Asset("dataset:a", Kind.DATASET, "a", "p", "a", {"size_bytes": None})
    path = tmp_path / "lock.json"
    write_lock(path, Inventory((asset,)))
    assert json.loads(path.read_text())["assets"][0]["facts"] == {"size_bytes": None}
    assert read_lock(path).assets[0].fact("size_bytes", 7) is None


def test_an_edit_by_hand_is_refused(tmp_path: Path, helpdesk_inventory: Inventory) -> None:
    path = tmp_path / "lock.json"
    write_lock(path, helpdesk_inventory)
    path.write_text(path.read_text().replace('"object_count": 2000', '"object_count": 3'), encoding="utf-8")
    with pytest.raises(Invalid, match="changed by hand") as caught:
        read_lock(path)
    assert "overlays" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 9, "assets": []}', "no json"])
def test_other_files_are_no_locks(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(Invalid):
        read_lock(path)


def test_a_missing_lock_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        read_lock(tmp_path / "lock.json")
    assert "crossload inventory" in caught.value.hint


def test_no_change_is_no_drift(helpdesk_inventory: Inventory) -> None:
    drift = diff(helpdesk_inventory, helpdesk_inventory)
    assert drift.none and not drift.structural and drift.lines() == []


def test_counts_that_move_are_not_structure(helpdesk_inventory: Inventory) -> None:
    grown = tuple(
        replace(a, facts={**a.facts, "object_count": 2001, "size_bytes": 1}) if a.kind is Kind.DATASET else a
        for a in helpdesk_inventory.assets
    )
    drift = diff(helpdesk_inventory, replace(helpdesk_inventory, assets=grown))
    assert not drift.structural and not drift.none
    assert drift.counts["dataset:docs"]["object_count"] == (2000, 2001)


def test_every_other_change_is_named(helpdesk_inventory: Inventory) -> None:
    docs = helpdesk_inventory.get("dataset:docs")
    assert docs is not None
    changed = replace(docs, facts={**docs.facts, "encryption": "none"}, tags={}, overlay={"sensitivity": "pii"})
    fresh = Asset("queue:new", Kind.QUEUE, "new", "old", "new")
    kept = [a for a in helpdesk_inventory.assets if a.id not in ("dataset:docs", "secret:token")]
    after = Inventory(
        tuple(sorted([*kept, changed, fresh], key=lambda a: a.id)),
        (Edge("agent:desk", "runs-as", "role:x"),),
        (KindReport("old", "dataset", "denied"),),
    )
    drift = diff(helpdesk_inventory, after)
    assert (drift.added, drift.removed) == (("queue:new",), ("secret:token",))
    assert drift.changed["dataset:docs"] == {
        "encryption": ("AES256", "none"),
        "tag team": ("docs", None),
        "overlay sensitivity": ("internal", "pii"),
    }
    assert len(drift.edges_added) == 1 and len(drift.edges_removed) == 2
    assert drift.reports == ("old dataset: found -> denied", "old log: denied -> not asked")
    assert "~ dataset:docs: encryption AES256 -> none" in drift.lines()


def test_a_count_that_becomes_unknown_is_told(helpdesk_inventory: Inventory) -> None:
    blind = tuple(
        replace(a, facts={**a.facts, "size_bytes": None}) if a.id == "model:llm" else a
        for a in helpdesk_inventory.assets
    )
    lines = diff(helpdesk_inventory, replace(helpdesk_inventory, assets=blind)).lines()
    assert lines == [f"~ model:llm: size_bytes {2**30} -> unknown"]


def test_an_edge_whose_evidence_moved_is_the_same_edge(helpdesk_inventory: Inventory) -> None:
    moved = tuple(replace(edge, evidence="main.py:99") for edge in helpdesk_inventory.edges)
    assert diff(helpdesk_inventory, replace(helpdesk_inventory, edges=moved)).none
