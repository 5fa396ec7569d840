"""The three stages against a world with a scripted account: their verbs, their evidence, their refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from crossload.estate.asset import Asset, Edge, Inventory, Kind, KindReport
from crossload.estate.diagnostic import errors_in
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration
from crossload.ports.account import Discovery
from crossload.ports.errors import AccessDenied, Invalid, NotFound, NotSignedIn, Unsupported
from crossload.ports.vectors import IndexInfo
from crossload.stages import goals, inventory, placement
from crossload.steps.step import Facts, Step

Make = Callable[..., Migration]


class Silent:
    def start(self, task: str, total: float | None, unit: str) -> None: ...
    def advance(self, task: str, amount: float) -> None: ...
    def finish(self, task: str) -> None: ...
    def say(self, text: str) -> None: ...


@dataclass
class ScriptedAccount:
    place: str
    answer: Discovery | Exception

    def discover(self) -> Discovery:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def permissions(self) -> list[str]:
        return []


@dataclass
class ScriptedWorld:
    """Just what the planning stages may touch; anything else is an AttributeError."""

    migration: Migration
    workspace: Path
    answer: Discovery | Exception
    indexes: list[IndexInfo] | Exception = field(default_factory=list)
    inventory: Inventory = field(default_factory=Inventory)
    outcomes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    progress: Silent = field(default_factory=Silent)

    def account(self, place: str) -> ScriptedAccount:
        return ScriptedAccount(place, self.answer)

    def vectors(self, place: str) -> ScriptedWorld:
        if isinstance(self.indexes, Unsupported):
            raise self.indexes
        return _Indexes(self.indexes)  # type: ignore[return-value]

    def outcome(self, step: str) -> Mapping[str, Any] | None:
        return self.outcomes.get(step)


@dataclass
class _Indexes:
    answer: list[IndexInfo] | Exception

    def indexes(self) -> list[IndexInfo]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def account_of(found: Inventory) -> Discovery:
    assets = tuple(replace(a, id=f"{a.kind}:{a.name}", overlay={}) for a in found.assets if a.kind is not Kind.INDEX)
    return Discovery("old", assets, (), found.reports)


CHUNKS = IndexInfo("chunks", 384, 240, "cosine", "hnsw", {"m": "16"})
OVERLAYS = [{"match": {"kind": "dataset", "name": "helpdesk-docs"}, "set": {"id": "docs"}}]


@pytest.fixture
def world(make_migration: Make, tmp_path: Path, helpdesk_inventory: Inventory) -> ScriptedWorld:
    migration = make_migration(overlays=OVERLAYS)
    return ScriptedWorld(migration, tmp_path / "work", account_of(helpdesk_inventory), [CHUNKS])


def only(steps: tuple[Step, ...], action: str) -> Step:
    (step,) = [step for step in steps if step.action == action]
    return step


def discovered(world: ScriptedWorld) -> tuple[Step, Outcome]:
    step = only(inventory.plan(world.migration, Facts(Inventory())).steps, "discover")
    outcome = inventory.perform(step, world)  # type: ignore[arg-type]
    world.inventory = inventory.load(world.migration, inventory.lock_path(world))  # type: ignore[arg-type]
    return step, outcome


# -- inventory --------------------------------------------------------------------------------------------------------


def test_discovery_locks_what_it_found_and_repeats_to_the_same_bytes(world: ScriptedWorld) -> None:
    step, outcome = discovered(world)
    path = world.workspace / "inventory.lock.json"
    before = path.read_bytes()
    assert outcome.status == "done" and "dataset:docs" in outcome.data["assets"]
    index = world.inventory.get("index:chunks")
    assert index is not None and index.fact("vector_bytes") == 240 * 384 * 4 and index.fact("index_type") == "hnsw"
    assert inventory.perform(step, world).status == "unchanged"  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_verify_tells_growth_from_drift(world: ScriptedWorld, helpdesk_inventory: Inventory) -> None:
    step, _ = discovered(world)
    assert inventory.verify(step, world).status == "done"  # type: ignore[arg-type]
    docs = replace(helpdesk_inventory.assets[1], facts={**helpdesk_inventory.assets[1].facts, "object_count": 2001})
    assert docs.kind is Kind.DATASET
    assets = [docs if a.kind is Kind.DATASET else a for a in helpdesk_inventory.assets]
    world.answer = account_of(replace(helpdesk_inventory, assets=tuple(assets)))
    grown = inventory.verify(step, world)  # type: ignore[arg-type]
    assert grown.status == "done" and "dataset:docs" in grown.summary
    assert grown.data["drift"] == ["~ dataset:docs: object_count 2000 -> 2001"]
    world.answer = account_of(replace(helpdesk_inventory, assets=tuple(a for a in assets if a.kind is not Kind.SECRET)))
    gone = inventory.verify(step, world)  # type: ignore[arg-type]
    assert gone.status == "failed" and "- secret:helpdesk/token" in gone.data["drift"]
    assert "crossload inventory" in gone.summary


def test_a_source_that_does_not_let_us_in_is_one_error_and_no_lock(world: ScriptedWorld) -> None:
    world.answer = NotSignedIn("wrong key")
    step = only(inventory.plan(world.migration, Facts(Inventory())).steps, "discover")
    with pytest.raises(NotSignedIn):
        inventory.perform(step, world)  # type: ignore[arg-type]
    assert not (world.workspace / "inventory.lock.json").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [(Unsupported("no vectors"), "unsupported"), (AccessDenied("no"), "denied"), (Invalid("?"), "failed")],
)
def test_indexes_that_do_not_answer_are_told_and_stop_nothing(
    world: ScriptedWorld, error: Exception, status: str
) -> None:
    world.indexes = error
    discovered(world)
    assert KindReport("old", "index", status, None, str(error)) in world.inventory.reports
    assert world.inventory.get("dataset:docs") is not None


def test_two_assets_with_one_name_are_refused_before_anything_is_written(
    make_migration: Make, world: ScriptedWorld
) -> None:
    rules = [{"match": {"kind": "secret"}, "set": {"id": "x"}}]
    world.migration = make_migration(overlays=rules)
    assert isinstance(world.answer, Discovery)
    twin = Asset("secret:other", Kind.SECRET, "other", "old", "other")
    world.answer = replace(world.answer, assets=(*world.answer.assets, twin))
    step = only(inventory.plan(world.migration, Facts(Inventory())).steps, "discover")
    with pytest.raises(Invalid, match="secret:x"):
        inventory.perform(step, world)  # type: ignore[arg-type]
    assert not world.workspace.exists()


def test_every_asset_gets_a_record_whose_evidence_tells_it(world: ScriptedWorld) -> None:
    discovered(world)
    planned = inventory.plan(world.migration, Facts(world.inventory))
    assert [s.id for s in planned.steps if s.action == "record"] == [
        f"inventory/record/{asset.id}" for asset in world.inventory.assets
    ]
    step = next(step for step in planned.steps if step.asset == "dataset:docs" and step.action == "record")
    outcome = inventory.perform(step, world)  # type: ignore[arg-type]
    assert outcome.status == "done" and "2,000 objects" in outcome.summary
    world.outcomes[step.id] = outcome.data
    assert inventory.perform(step, world).status == "unchanged"  # type: ignore[arg-type]
    assert inventory.verify(step, world).status == "done"  # type: ignore[arg-type]
    docs = world.inventory.get("dataset:docs")
    assert docs is not None
    changed = replace(docs, facts={**docs.facts, "encryption": "none"})
    world.inventory = replace(world.inventory, assets=(changed,))
    assert inventory.verify(step, world).status == "failed"  # type: ignore[arg-type]


def test_the_app_is_read_and_what_it_names_becomes_part_of_the_estate(
    make_migration: Make, tmp_path: Path, world: ScriptedWorld
) -> None:
    code = tmp_path / "desk" / "app"
    (code / "__pycache__").mkdir(parents=True)
    (code / "main.py").write_text('MODEL = "vendor.small-v1:0"\nBUCKET = "helpdesk-docs"\n')
    (code / "__pycache__" / "main.py").write_text('"vendor.other-v1:0"')
    (code / "data.bin").write_bytes(b"vendor.other-v1:0")
    world.migration = make_migration(app={"path": "desk/app"}, overlays=OVERLAYS)
    assert isinstance(world.answer, Discovery)
    offered = tuple(
        Asset(f"endpoint:{name}", Kind.ENDPOINT, name, "old", f"arn:{name}", {"model": name})
        for name in ("vendor.small-v1:0", "vendor.other-v1:0")
    )
    world.answer = replace(world.answer, catalog=offered)
    discovered(world)
    app = world.inventory.get("app:desk")
    assert app is not None and app.facts == {"path": "desk/app", "language": "python"}
    assert world.inventory.get("endpoint:vendor.small-v1:0") is not None
    assert world.inventory.get("endpoint:vendor.other-v1:0") is None
    assert Edge("app:desk", "reads", "dataset:docs", "main.py:2 names helpdesk-docs") in world.inventory.edges


def test_a_missing_app_folder_is_told(make_migration: Make, world: ScriptedWorld) -> None:
    world.migration = make_migration(app={"path": "nowhere"})
    step = only(inventory.plan(world.migration, Facts(Inventory())).steps, "discover")
    with pytest.raises(NotFound, match="nowhere"):
        inventory.perform(step, world)  # type: ignore[arg-type]


def test_a_denied_kind_is_a_warning_of_the_plan(world: ScriptedWorld) -> None:
    discovered(world)
    planned = inventory.plan(world.migration, Facts(world.inventory))
    assert [p.code for p in planned.diagnostics] == ["XL301"] and planned.diagnostics[0].detail == "not allowed"


# -- placement --------------------------------------------------------------------------------------------------------


def test_choices_are_recorded_with_funnel_and_hold_on_verify(world: ScriptedWorld) -> None:
    discovered(world)
    planned = placement.plan(world.migration, Facts(world.inventory))
    assert errors_in(planned.diagnostics) == []
    step = next(step for step in planned.steps if step.asset == "dataset:docs")
    assert step.after == ("inventory/record/dataset:docs",)
    outcome = placement.perform(step, world)  # type: ignore[arg-type]
    assert outcome.status == "done" and outcome.data["place"] == "n"
    assert outcome.data["funnel"][0]["name"] == "offered"
    world.outcomes[step.id] = outcome.data
    assert placement.perform(step, world).status == "unchanged"  # type: ignore[arg-type]
    assert placement.verify(step, world).status == "done"  # type: ignore[arg-type]
    assert placement.undo(step, world).good  # type: ignore[arg-type]


def test_verify_notices_when_the_rules_would_choose_otherwise(make_migration: Make, world: ScriptedWorld) -> None:
    discovered(world)
    step = next(s for s in placement.plan(world.migration, Facts(world.inventory)).steps if s.asset == "dataset:docs")
    world.outcomes[step.id] = placement.perform(step, world).data  # type: ignore[arg-type]
    world.migration = make_migration(
        overlays=OVERLAYS,
        targets={
            "allow": [
                {"id": "n", "provider": "cheap", "region": "north"},
                {"id": "s", "provider": "gcp", "region": "europe-west4"},
            ],
            "forbid": ["n"],
            "regions": {"min": 1},
        },
    )
    changed = placement.verify(step, world)  # type: ignore[arg-type]
    assert changed.status == "failed" and "would go to" in changed.summary
    assert placement.perform(step, world).status == "failed"  # type: ignore[arg-type]


def test_an_asset_without_a_place_is_an_error_that_says_why(make_migration: Make, world: ScriptedWorld) -> None:
    world.migration = make_migration(
        overlays=[{"match": {"kind": "dataset"}, "set": {"sensitivity": "pii"}}],
        targets={
            "allow": [{"id": "n", "provider": "gcp", "region": "us-east1"}],
            "regions": {"min": 1},
            "residency": {"pii": ["EU"]},
        },
    )
    discovered(world)
    planned = placement.plan(world.migration, Facts(world.inventory))
    blocked = [p for p in errors_in(planned.diagnostics) if p.subject == "dataset:helpdesk-docs"]
    assert [p.code for p in blocked] == ["XL401"] and "US is not in EU" in blocked[0].detail
    step = next(step for step in planned.steps if step.asset == "dataset:helpdesk-docs")
    assert placement.perform(step, world).status == "refused"  # type: ignore[arg-type]


def test_a_residency_set_nobody_knows_is_an_error(make_migration: Make, helpdesk_inventory: Inventory) -> None:
    migration = make_migration(
        targets={
            "allow": [{"id": "n", "provider": "gcp", "region": "us-east1"}],
            "regions": {"min": 1},
            "residency": {"pii": ["Europe"]},
        }
    )
    planned = placement.plan(migration, Facts(helpdesk_inventory))
    assert planned.steps == () and [p.code for p in planned.diagnostics] == ["XL403"]
    goals.plan(migration, Facts(helpdesk_inventory))


# -- goals ------------------------------------------------------------------------------------------------------------


def test_triggers_are_wired_where_the_cutover_reads_them(world: ScriptedWorld) -> None:
    discovered(world)
    planned = goals.plan(world.migration, Facts(world.inventory, today="2026-01-01"))
    (step,) = planned.steps
    assert step.id == "goals/wire/estate:desk" == goals.step_id(world.migration)
    outcome = goals.perform(step, world)  # type: ignore[arg-type]
    assert outcome.data["triggers"][0] == {
        "metric": "slow",
        "measure": "latency_p95",
        "direction": "lower",
        "at": 5.0,
        "unit": "s",
    }
    world.outcomes[step.id] = outcome.data
    assert goals.perform(step, world).status == "unchanged"  # type: ignore[arg-type]
    assert goals.verify(step, world).status == "done"  # type: ignore[arg-type]


def test_goals_that_changed_after_wiring_fail_verify(
    make_migration: Make, make_metric: Callable[..., dict[str, Any]], world: ScriptedWorld
) -> None:
    (step,) = goals.plan(world.migration, Facts(Inventory())).steps
    world.outcomes[step.id] = goals.perform(step, world).data  # type: ignore[arg-type]
    world.migration = make_migration(
        goals={
            "metrics": [
                make_metric("slow", "latency_p95", "lower", 2, "s", 9),
                make_metric("wrong", "error_rate", "lower", 0.01, "ratio", 0.05),
                make_metric("bytes", "digest_mismatches", "lower", 0, "count", 1),
            ]
        }
    )
    assert goals.verify(step, world).status == "failed"  # type: ignore[arg-type]


def test_a_deadline_too_close_for_the_probed_link_is_an_error(
    make_migration: Make, helpdesk_inventory: Inventory
) -> None:
    migration = make_migration(metadata={"name": "desk", "owner": "team", "deadline": "2026-01-02"})
    slow = {
        "write_bytes_per_second": [1000.0],
        "read_bytes_per_second": [1e9],
        "latency_seconds": {"p50": 0.1, "max": 0.2},
    }
    facts = Facts(helpdesk_inventory, outcomes={"foundations/probe/old-n": slow}, today="2026-01-01")
    assert "XL202" in [p.code for p in goals.plan(migration, facts).diagnostics]
    fast = {**slow, "write_bytes_per_second": [1e9]}
    facts = replace(facts, outcomes={"foundations/probe/old-n": fast})
    assert "XL202" not in [p.code for p in goals.plan(migration, facts).diagnostics]


def test_planning_does_no_io(
    make_migration: Make, helpdesk_inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins
    import io
    import os
    import socket

    migration = make_migration()

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("plan() did I/O")

    for owner, name in ((builtins, "open"), (io, "open"), (os, "open"), (socket, "socket")):
        monkeypatch.setattr(owner, name, forbidden)
    for stage in (goals, inventory, placement):
        assert stage.plan(migration, Facts(helpdesk_inventory, today="2026-01-01")).steps
