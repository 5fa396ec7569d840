"""The stage over a small application whose tests look at nothing but the environment they are given."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from crossload.estate.asset import Asset, Inventory, Kind
from crossload.estate.evidence import Outcome
from crossload.estate.migration import Migration, MigrationFile
from crossload.ports.code import Reading, Writing
from crossload.ports.world import World
from crossload.stages import conversion
from crossload.steps.step import Facts, Step

APP = {
    "svc/__init__.py": "",
    "svc/store.py": "import boto3\n\n\ndef read(key):\n    s3 = boto3.client('s3', region_name='eu-central-1')\n"
    "    return s3.get_object(Bucket='b', Key=key)['Body'].read()\n",
    "tests/test_store.py": "import os\n\n\ndef test_sides():\n"
    "    assert os.environ['SIDE'] == os.environ['CROSSLOAD_CLOUD']\n\n\ndef test_two():\n    pass\n\n\n"
    "if __name__ == '__main__':\n    test_sides()\n    print('2 passed')\n",
    "requirements.txt": "boto3\n",
    "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['.']\n",
}


@dataclass
class FakeCode:
    place: str
    reading: Reading | None = None
    writing: Writing | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return self.variables

    def inherited(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment.items() if name != "LEFTOVER"}

    def cut_off(self, services: Collection[str]) -> dict[str, str]:
        return {"CUT_OFF": ",".join(services)}

    def redact(self, text: str) -> str:
        return text.replace("s3cr3t", "***")


class FakeWorld:
    """Keeps the data of good performs, as the ledger does."""

    def __init__(self, migration: Migration, codes: dict[tuple[str, str], FakeCode]) -> None:
        self.migration, self.inventory, self.progress = migration, Inventory(), self
        self.workspace = migration.folder / ".crossload"
        self.codes, self.data, self.said = codes, {}, list[str]()

    def say(self, text: str) -> None:
        self.said.append(text)

    def code(self, place: str, port: str = "store") -> FakeCode:
        return self.codes[place, port]

    def outcome(self, step: str) -> Mapping[str, Any] | None:
        return self.data.get(step)

    def perform(self, step: Step) -> Outcome:
        outcome = conversion.perform(step, cast(World, self))
        if outcome.good:
            self.data[step.id] = dict(outcome.data)
        return outcome


def place(name: str, provider: str) -> dict[str, Any]:
    return {"id": name, "provider": provider, "region": f"r-{name}", "country": "DE"}


@pytest.fixture
def world(tmp_path: Path, reading: Reading, writings: list[Writing], monkeypatch: pytest.MonkeyPatch) -> FakeWorld:
    # The plugins of our own tests take longer to load than the application's tests to run.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name, text in APP.items():
        (tmp_path / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "app" / name).write_text(text)
    metrics = [{"name": n, "measure": "error_rate", "direction": "lower", "limit": 1, "unit": "ratio"} for n in "abc"]
    file = MigrationFile.model_validate({
        "apiVersion": "crossload/v1", "kind": "Migration", "metadata": {"name": "m", "owner": "o"},
        "goals": {"metrics": metrics}, "sources": [place("here", "one")],
        "targets": {"allow": [place("there", "two"), place("there-2", "two")]},
        "app": {"path": "app", "test": ["python", "tests/test_store.py"]},
    })  # fmt: skip
    codes = {
        ("here", "store"): FakeCode("here", reading=reading, variables={"SIDE": "source"}),
        ("there", "store"): FakeCode("there", writing=writings[0], variables={"SIDE": "target"}),
        ("there", "models"): FakeCode("there", writing=writings[1]),
    }
    return FakeWorld(Migration(file, tmp_path / "migration.yaml"), codes)


def planned(world: FakeWorld) -> dict[str, Step]:
    return {step.action: step for step in conversion.plan(world.migration, Facts(Inventory())).steps}


def with_pytest(step: Step) -> Step:
    """The command that most applications have; the plain one above starts faster."""
    return replace(step, params={**step.params, "test": ["python", "-m", "pytest", "-q"]})


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, check=True, text=True).stdout.strip()


@pytest.fixture
def tracked(world: FakeWorld) -> FakeWorld:
    top = world.migration.folder
    git(top, "init", "-q", "-b", "trunk")
    (top / ".gitignore").write_text(".crossload/\n")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "one")
    return world


def test_the_plan_waits_for_data_and_model(world: FakeWorld) -> None:
    assets = (
        Asset("app:desk", Kind.APP, "desk", "here", "app", {"path": "app"}),
        Asset("dataset:docs", Kind.DATASET, "docs", "here", "docs"),
        Asset("dataset:stays", Kind.DATASET, "stays", "here", "stays"),
        Asset("endpoint:llm", Kind.ENDPOINT, "llm", "here", "llm"),
    )
    choices = {"dataset:docs": "there-2", "endpoint:llm": "there"}
    steps = conversion.plan(world.migration, Facts(Inventory(assets), choices)).steps
    assert [step.id for step in steps] == [f"conversion/{verb}/app:desk" for verb in ("scan", "rewrite", "branch")]
    assert steps[1].after == (
        "conversion/scan/app:desk",
        "transfer/copy/dataset:docs",
        "portability/gateway/endpoint:llm",
    )
    assert (steps[1].params["store"], steps[1].params["models"]) == ("there-2", "there")


def test_no_application_no_steps(world: FakeWorld) -> None:
    bare = Migration(world.migration.file.model_copy(update={"app": None}), world.migration.path)
    found = conversion.plan(bare, Facts(Inventory()))
    assert found.steps == () and [item.code for item in found.diagnostics] == ["XL700"]


def test_the_whole_way_on_a_branch(tracked: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEFTOVER", "x")
    test = tracked.migration.folder / "app/tests/test_store.py"
    test.write_text(f"import svc.store\n{test.read_text()}")  # so that the adapter is imported, too
    git(tracked.migration.folder, "commit", "-qam", "two")
    top, steps = tracked.migration.folder, planned(tracked)
    scanned = tracked.perform(steps["scan"])
    assert (scanned.data["calls"], scanned.data["carried"], scanned.data["operations"]) == (1, 1, ["objects.get"])
    done = tracked.perform(with_pytest(steps["rewrite"]))
    assert done.status == "done", done.summary
    assert done.data["source"]["passed"] == done.data["target"]["passed"] == 2
    assert done.data["bytes_changed_outside_edits"] == 0 and done.data["services"] == ["s3"]
    assert set(done.data["files"]) == {"svc/store.py", "svc/crossload_portable.py", "requirements.txt"}
    branched = tracked.perform(steps["branch"])
    assert branched.status == "done", branched.summary
    assert git(top, "status", "--porcelain") == "" and git(top, "symbolic-ref", "--short", "HEAD") == "trunk"
    assert "crossload_portable.client" in git(top, "show", "crossload/portable:app/svc/store.py")
    assert all(conversion.verify(step, cast(World, tracked)).status == "done" for step in steps.values())
    # Repeated: nothing is run or written again.
    assert [tracked.perform(steps[name]).status for name in ("rewrite", "branch")] == ["unchanged", "unchanged"]
    # Undone, twice: last first.
    for _ in range(2):
        for name in ("branch", "rewrite", "scan"):
            assert conversion.undo(steps[name], cast(World, tracked)).good
    assert git(top, "branch", "--list", "crossload/*") == "" and not (tracked.workspace / "conversion/app").exists()


def test_red_tests_at_the_source_prove_nothing(world: FakeWorld) -> None:
    world.codes["here", "store"].variables["SIDE"] = "s3cr3t"
    refused = world.perform(with_pytest(planned(world)["rewrite"]))
    assert refused.status == "refused" and "1 failed, 1 passed" in refused.summary
    assert "***" in refused.summary and "s3cr3t" not in refused.summary
    assert "import boto3" in (world.workspace / "conversion").rglob("store.py").__next__().read_text()


def test_red_tests_at_the_target_fail_the_step(tracked: FakeWorld) -> None:
    tracked.codes["there", "store"].variables["SIDE"] = "elsewhere"
    steps = planned(tracked)
    failed = tracked.perform(with_pytest(steps["rewrite"]))
    assert failed.status == "failed" and failed.data["source"]["passed"] == 2 and failed.data["target"]["failed"] == 1
    with pytest.raises(Exception, match="not those that were tested"):
        tracked.perform(steps["branch"])
    assert git(tracked.migration.folder, "branch", "--list", "crossload/*") == ""


def test_a_call_that_cannot_be_carried_is_refused(tracked: FakeWorld) -> None:
    path = tracked.migration.folder / "app/svc/store.py"
    path.write_text(
        path.read_text() + "\n\ndef tags():\n    return boto3.client('s3').get_object_tagging(Bucket='b', Key='k')\n"
    )
    refused = tracked.perform(planned(tracked)["rewrite"])
    assert refused.status == "refused" and "XL701" in refused.summary
    assert [item["code"] for item in refused.data["diagnostics"]] == ["XL701"]


def test_services_that_moved_are_cut_off(tracked: FakeWorld) -> None:
    test = tracked.migration.folder / "app/tests/test_store.py"
    test.write_text(
        "import os\n\n\ndef test_it():\n    at_target = os.environ['CROSSLOAD_CLOUD'] == 'target'\n"
        "    assert os.environ.get('CUT_OFF') == ('s3' if at_target else None)\n"
        "    assert 'LEFTOVER' not in os.environ\n\n\ntest_it()\n"
    )
    assert tracked.perform(planned(tracked)["rewrite"]).status == "done"


def test_without_git_it_stays_in_the_workspace(world: FakeWorld) -> None:
    steps = planned(world)
    world.perform(steps["rewrite"])
    done = world.perform(steps["branch"])
    assert done.status == "done" and "no git repository" in done.summary
    assert conversion.verify(steps["branch"], cast(World, world)).good
    assert conversion.undo(steps["branch"], cast(World, world)).status == "unchanged"


def test_verify_names_what_changed(tracked: FakeWorld) -> None:
    top, steps = tracked.migration.folder, planned(tracked)
    for step in steps.values():
        tracked.perform(step)
    adapter = next(tracked.workspace.rglob("crossload_portable.py"))
    adapter.write_text(adapter.read_text() + "# changed\n")
    (top / "app/svc/store.py").write_text("# changed\n")
    git(top, "update-ref", "refs/heads/crossload/portable", "HEAD")
    for step in steps.values():
        assert conversion.verify(step, cast(World, tracked)).status == "failed", step.id


def test_write_only_into_an_unchanged_tree(tracked: FakeWorld) -> None:
    top, steps = tracked.migration.folder, planned(tracked)
    seen = cast(World, tracked)
    assert conversion.write(steps["rewrite"], seen).status == "refused"
    tracked.perform(steps["scan"])
    tracked.perform(steps["rewrite"])
    (top / "app/svc/store.py").write_text(APP["svc/store.py"] + "# mine\n")
    assert conversion.write(steps["rewrite"], seen).status == "refused"
    (top / "app/svc/store.py").write_text(APP["svc/store.py"])
    assert conversion.write(steps["rewrite"], seen).status == "done"
    assert "crossload_portable" in (top / "app/svc/store.py").read_text()
    assert conversion.write(steps["rewrite"], seen).status == "unchanged"
    assert conversion.verify(steps["scan"], seen).status == "done"


def test_uncommitted_work_is_tested_and_named(tracked: FakeWorld) -> None:
    top, steps = tracked.migration.folder, planned(tracked)
    (top / "app/svc/__init__.py").write_text("VERSION = 2\n")
    tracked.perform(steps["rewrite"])
    done = tracked.perform(steps["branch"])
    assert done.data["uncommitted_of_yours"] == ["svc/__init__.py"]
    assert git(top, "show", "crossload/portable:app/svc/__init__.py") == "VERSION = 2"
    assert git(top, "status", "--porcelain") == "M app/svc/__init__.py"
