"""The landing stage: written once, kept when edited, verified from disk, undone without taking somebody's work."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossload.estate.asset import Inventory
from crossload.estate.place import Place
from crossload.ports.errors import Unsupported
from crossload.ports.provider import Settings
from crossload.stages import landing
from crossload.steps.step import Facts, Step

CHOICES = {"dataset:helpdesk-docs": "target", "model:smol": "target"}
STEP = "landing/write/estate:helpdesk"


class Estate:
    """A World of files: no cloud is asked in this step."""

    def __init__(self, folder: Path, inventory: Inventory) -> None:
        places = {
            "source": Place("source", "aws", "eu-central-1", "DE"),
            "target": Place("target", "gcp", "europe-west3", "DE"),
            "other": Place("other", "azure", "germanywestcentral", "DE"),
        }  # fmt: skip
        self.migration = SimpleNamespace(name="helpdesk", places=places)
        self.inventory = inventory
        self.workspace = folder
        self.outcomes: dict[str, Any] = {}
        self.unoffered: set[str] = set()

    def infra(self, place: str) -> Any:
        if place in self.unoffered:
            raise Unsupported(f"provider of {place} offers no infra")
        chosen = self.migration.places[place]
        return import_module(f"crossload.providers.{chosen.provider}.infra").open_infra(Settings(chosen, {}, {}))

    def outcome(self, step: str) -> Any:
        return self.outcomes.get(step)


@pytest.fixture
def estate(tmp_path: Path, inventory: Inventory) -> Estate:
    return Estate(tmp_path, inventory)


def step_of(estate: Estate, choices: dict[str, str] = CHOICES) -> Step:
    (step,) = landing.plan(estate.migration, Facts(estate.inventory, choices)).steps  # type: ignore[arg-type]
    return step


def perform(estate: Estate, step: Step | None = None) -> Any:
    outcome = landing.perform(step or step_of(estate), estate)  # type: ignore[arg-type]
    json.dumps(outcome.data)
    estate.outcomes[STEP] = outcome.data
    return outcome


def test_plan_writes_nothing_and_says_what_will_be(estate: Estate) -> None:
    step = step_of(estate)
    assert (step.id, step.asset) == (STEP, "estate:helpdesk")
    assert step.summary == "write Terraform for target: 2 bucket(s), 1 role(s)"
    assert not list(estate.workspace.iterdir())
    nothing = landing.plan(estate.migration, Facts(estate.inventory))  # type: ignore[arg-type]
    assert not nothing.steps
    assert [item.code for item in nothing.diagnostics] == ["XL800"]


def test_perform_repeat_verify_undo(estate: Estate) -> None:
    first = perform(estate)
    assert first.status == "done", first.summary
    data = first.data["places"]["target"]
    assert data["check"].startswith("checked against hashicorp/google 8.7.0 schema")
    assert data["counts"] == {"buckets": 2, "keys": 1, "roles": 1, "secrets": 1, "log_sinks": 1}
    assert data["terraform"]
    folder = estate.workspace / "landing" / "target"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"main.tf", "variables.tf", "outputs.tf", "collector.yaml"} == set(data["files"])
    assert perform(estate).status == "unchanged"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert landing.verify(step_of(estate), estate).good  # type: ignore[arg-type]
    assert landing.undo(step_of(estate), estate).good  # type: ignore[arg-type]
    assert not folder.exists()
    assert landing.undo(step_of(estate), estate).status == "unchanged"  # type: ignore[arg-type]
    assert landing.verify(step_of(estate), estate).status == "failed"  # type: ignore[arg-type]
    assert perform(estate).status == "done"


def test_verify_names_a_changed_a_missing_and_a_wrong_file(estate: Estate) -> None:
    perform(estate)
    folder = estate.workspace / "landing" / "target"
    main = folder / "main.tf"
    main.write_text(main.read_text().replace("force_destroy  ", "force_destroi  "))
    (folder / "outputs.tf").unlink()
    outcome = landing.verify(step_of(estate), estate)  # type: ignore[arg-type]
    assert outcome.status == "failed"
    told = "\n".join(outcome.data["problems"])
    assert "target/main.tf was changed" in told
    assert "target/outputs.tf is gone" in told
    assert "unknown argument `force_destroi`" in told


def test_an_edited_file_is_kept_by_perform_and_by_undo(estate: Estate) -> None:
    perform(estate)
    folder = estate.workspace / "landing" / "target"
    edited = (folder / "main.tf").read_text() + "\n# ours now\n"
    (folder / "main.tf").write_text(edited)
    again = perform(estate)
    assert again.status == "failed"
    assert "target/main.tf" in again.summary
    assert (folder / "main.tf").read_text() == edited
    outcome = landing.undo(step_of(estate), estate)  # type: ignore[arg-type]
    assert outcome.data["kept"] == ["target/main.tf"]
    assert [path.name for path in folder.iterdir()] == ["main.tf"]


def test_a_file_that_was_there_before_us_is_never_overwritten(estate: Estate) -> None:
    folder = estate.workspace / "landing" / "target"
    folder.mkdir(parents=True)
    (folder / "variables.tf").write_text("# mine\n")
    (folder / "extra.tf").write_text("# mine too\n")
    assert perform(estate).status == "failed"
    assert (folder / "variables.tf").read_text() == "# mine\n"
    landing.undo(step_of(estate), estate)  # type: ignore[arg-type]
    assert {path.name for path in folder.iterdir()} == {"variables.tf", "extra.tf"}


def test_a_missing_file_is_written_again(estate: Estate) -> None:
    perform(estate)
    (estate.workspace / "landing" / "target" / "main.tf").unlink()
    assert perform(estate).status == "done"
    assert landing.verify(step_of(estate), estate).good  # type: ignore[arg-type]


def test_two_places_two_folders_and_one_that_cannot(estate: Estate) -> None:
    step = step_of(estate, {"dataset:helpdesk-docs": "target", "model:smol": "other"})
    assert perform(estate, step).status == "done"
    assert {path.name for path in (estate.workspace / "landing").iterdir()} == {"target", "other"}
    estate.unoffered = {"other"}
    outcome = perform(estate, step)
    assert outcome.status == "failed"
    assert "offers no infra" in outcome.summary
