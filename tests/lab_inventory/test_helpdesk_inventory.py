"""The sample workload, discovered by the product as a user would: init, inventory, plan, verify, spreadsheet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from crossload import api
from crossload.engines.planner.csv import from_csv, to_csv
from crossload.engines.planner.placement import choose
from crossload.estate.asset import Asset, Inventory, Kind

if TYPE_CHECKING:
    from crossload.lab import Lab


@pytest.fixture(scope="module")
def project(helpdesk: Lab, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Project:
    """A migration file as `init` drafts it, with the sample app beside it."""
    folder = tmp_path_factory.mktemp("helpdesk-project")
    shutil.copytree(repository / "examples" / "helpdesk" / "app", folder / "helpdesk" / "app")
    home, source, targets = api.lab_places(helpdesk.home)
    text = api.draft_file(
        "helpdesk",
        "support",
        source,
        targets,
        environment=os.path.relpath(home / "env", folder),
        app="helpdesk/app",
        folder=folder,
    )
    path = folder / "migration.yaml"
    path.write_text(text, encoding="utf-8")
    return api.open_project(path)


@pytest.fixture(scope="module")
def inventory(project: api.Project) -> Inventory:
    report = project.take_inventory()
    assert report.failed == [], [item.summary for item in report.failed]
    return project.inventory()


def the(inventory: Inventory, asset_id: str) -> Asset:
    asset = inventory.get(asset_id)
    assert asset is not None, f"{asset_id} is not among {[item.id for item in inventory.assets]}"
    return asset


def test_init_drafts_short_names(inventory: Inventory) -> None:
    ids = {asset.id for asset in inventory.assets}
    assert {"dataset:docs", "model:smollm2-135m-instruct", "endpoint:chat", "agent:helpdesk", "app:helpdesk",
            "queue:jobs", "secret:api-key", "table:orders"} <= ids  # fmt: skip
    assert the(inventory, "dataset:docs").name == "helpdesk-docs"


def test_counts_equal_what_the_sdk_says(helpdesk: Lab, inventory: Inventory) -> None:
    """Counted again without our code, as the administrator."""
    env = helpdesk.env()
    os_env = {"AWS_CONFIG_FILE": env["CROSSLOAD_LAB_AWS_CONFIG"],
              "AWS_SHARED_CREDENTIALS_FILE": env["CROSSLOAD_LAB_AWS_CREDENTIALS"]}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in os_env.items():
            patch.setenv(name, value)
        s3: Any = boto3.Session(profile_name="lab-a-seed").client("s3")
        pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="helpdesk-docs"))
        versions = list(s3.get_paginator("list_object_versions").paginate(Bucket="helpdesk-docs"))
    sizes = [item["Size"] for page in pages for item in page.get("Contents", ())]
    older = sum(1 for page in versions for item in page.get("Versions", ()) if not item["IsLatest"])
    markers = sum(len(page.get("DeleteMarkers", ())) for page in versions)
    docs = the(inventory, "dataset:docs")
    assert (docs.fact("object_count"), docs.fact("size_bytes")) == (len(sizes), sum(sizes))
    assert (docs.fact("older_versions"), docs.fact("delete_markers")) == (older, markers)
    assert older > 0 and docs.fact("versioning") == "Enabled"


def test_the_model_the_index_and_the_queue(inventory: Inventory) -> None:
    model = the(inventory, "model:smollm2-135m-instruct")
    assert model.fact("bucket") == "helpdesk-models" and model.fact("format") == "gguf"
    assert model.fact("size_bytes") > 90_000_000
    (index,) = inventory.of(Kind.INDEX)
    assert index.fact("dimension") == 384 and index.fact("rows") > 0 and index.fact("metric") == "cosine"
    assert the(inventory, "queue:jobs").fact("depth") is not None
    assert the(inventory, "table:orders").fact("rows") > 0


def test_tags_at_the_provider_speak(inventory: Inventory) -> None:
    assert the(inventory, "dataset:docs").overlay["sensitivity"] == "internal"


def test_edges_join_agent_app_role_and_data(inventory: Inventory) -> None:
    edges = {(edge.source, edge.relation, edge.target) for edge in inventory.edges}
    assert ("agent:helpdesk", "calls", "endpoint:chat") in edges
    assert ("app:helpdesk", "reads", "dataset:docs") in edges
    assert ("endpoint:chat", "serves", "model:smollm2-135m-instruct") in edges
    role = next(asset.id for asset in inventory.of(Kind.ROLE) if asset.name == "helpdesk-app")
    assert (role, "writes", "dataset:docs") in edges and ("app:helpdesk", "writes", "dataset:docs") in edges


def test_every_kind_answers(inventory: Inventory) -> None:
    statuses = {report.kind: report.status for report in inventory.reports}
    assert set(statuses.values()) <= {"found", "denied", "unsupported"}
    for kind in ("bucket", "dataset", "model", "index", "agent", "queue", "secret", "role", "table", "key"):
        assert statuses[kind] == "found", kind
    assert statuses["dedicated endpoint"] == "unsupported"


def test_the_second_run_writes_the_same_bytes(project: api.Project, inventory: Inventory) -> None:
    before = project.inventory_path.read_bytes()
    report = project.take_inventory()
    assert [item.status for item in report.results] == ["unchanged"]
    assert project.inventory_path.read_bytes() == before
    assert b"http://127.0.0.1" not in before, "a queue is known by its path: ports differ between labs"


def test_the_spreadsheet_round_trips(inventory: Inventory) -> None:
    text = to_csv(inventory)
    sheet = from_csv(text)
    assert sheet.diagnostics == () and list(sheet.assets) == list(inventory.assets)
    assert to_csv(Inventory(sheet.assets)) == text


def test_a_stranger_is_told_no_and_finds_nothing(helpdesk: Lab, tmp_path: Path) -> None:
    home, source, targets = api.lab_places(helpdesk.home)
    source["connection"]["profile"] = "lab-a-stranger"
    text = api.draft_file(
        "x", "x", source, targets, environment=os.path.relpath(home / "env", tmp_path), folder=tmp_path
    )
    (tmp_path / "migration.yaml").write_text(text)
    stranger = api.open_project(tmp_path / "migration.yaml")
    assert stranger.take_inventory().failed == []
    found = stranger.inventory()
    denied = {report.kind: report.detail for report in found.reports if report.status == "denied"}
    assert {"agent", "queue", "role", "secret", "table", "key"} <= set(denied)
    assert "lab-a-stranger is not authorized" in denied["role"]
    assert found.of(Kind.DATASET) == [] and found.of(Kind.SECRET) == []


def test_every_asset_gets_a_place_with_a_funnel(project: api.Project, inventory: Inventory) -> None:
    choices = choose(project.migration, inventory)
    assert set(choices) == {asset.id for asset in inventory.assets}
    docs = choices["dataset:docs"]
    assert docs.place in project.migration.target_ids and docs.runner_up
    assert docs.costs is not None and docs.costs.known
    assert [sieve.name for sieve in docs.funnel] == [
        "offered", "allowed", "residency", "features", "two regions", "price known",
    ]  # fmt: skip
    chat = choices["endpoint:chat"]
    assert chat.place == choices["model:smollm2-135m-instruct"].place == choices["agent:helpdesk"].place
    assert chat.costs is not None and chat.costs.machine


def test_the_plan_has_no_error_and_shows_its_estimates(project: api.Project, inventory: Inventory) -> None:
    plan = project.make_plan(save=False)
    assert [str(item) for item in plan.diagnostics if str(item.severity) == "error"] == []
    assert plan.estimates["one-time cost"]["value"] > 0
    assert plan.estimates["transfer time"]["value"] == "unknown", "the link was not probed yet"
    first = {step.stage for step in plan.steps}
    assert {"goals", "inventory", "placement"} <= first


def test_planning_stages_leave_evidence_under_the_assets_id(project: api.Project, inventory: Inventory) -> None:
    project.make_plan()
    for stage in ("goals", "inventory", "placement"):
        assert project.apply(stage=stage).failed == []
    story = project.trace("dataset:docs")
    assert [item.step for item in story] == ["inventory/record/dataset:docs", "placement/choose/dataset:docs"]
    assert "objects" in story[0].summary and story[1].data["place"] in project.migration.target_ids
    wired = next(item for item in project.evidence() if item.step == "goals/wire/estate:helpdesk")
    assert wired.data["triggers"], "a drafted file has a way back"
    checked = project.verify(only="dataset:docs")
    assert checked.failed == []
