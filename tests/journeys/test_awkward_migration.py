"""The journey of a dataset in clumsy hands: verbs in the wrong order, TERM in the middle, a journal that is lost, users
who work at the target, and two migrations with one target. No user's work may be lost by any of it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from crossload.lab.demo import target_client

if TYPE_CHECKING:
    from conftest import Shell
    from crossload.lab import Lab

DOCS = "helpdesk-docs"
COPY = "transfer/copy/dataset:docs"


@pytest.fixture(scope="module")
def dataset(shell: Shell, clouds: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A planned project that moves the dataset and nothing else; its folder has a space and an umlaut."""
    made = type(shell)(tmp_path_factory.mktemp("mein Projekt ü"))
    plan_dataset(made, clouds, "journey")
    return made


def plan_dataset(shell: Shell, clouds: Lab, name: str) -> None:
    shell("init", "--lab", str(clouds.home), "--name", name, "--owner", "tests")
    path = shell.folder / "migration.yaml"
    text = path.read_text(encoding="utf-8")
    stays = "  - {match: {name: '*'}, set: {move: 'no'}}\n"
    text = text.replace("overlays:\n", "overlays:\n" + stays)
    text = text.replace("name: helpdesk-docs}, set: {id: docs}", "name: helpdesk-docs}, set: {id: docs, move: 'yes'}")
    path.write_text(text, encoding="utf-8")
    shell("inventory", "-q")
    shell("plan")


def states(shell: Shell) -> dict[str, str]:
    return {item["step"]: item["state"] for item in shell("status", "--json").json()["steps"]}


def bucket(clouds: Lab) -> Any:
    return target_client(clouds, "app").bucket(DOCS)


def test_the_seed_verb_finds_everything_there(clouds: Lab, dataset: Shell) -> None:
    told = dataset("lab", "seed", "--home", str(clouds.home), "--small", "--json")
    report = told.json()
    assert report["changed"] is False
    assert {part["name"] for part in report["parts"]} == {"account", "index", "models", "docs"}
    assert "docs: " in told.talk  # progress is talk


def test_a_cutover_before_its_data_is_refused(dataset: Shell) -> None:
    early = dataset("cutover", "--json", expect=3)
    assert {item["status"] for item in early.json()["results"]} == {"waiting"}
    assert "crossload apply" in early.talk


def test_term_in_the_middle_and_the_same_command_again(dataset: Shell) -> None:
    process = dataset.start("apply", "-q")
    dataset.wait_for("dataset:docs", 5, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, 130)  # 0: it was quicker than we
    dataset("apply", "-q")
    assert dataset("verify", "--only", COPY, "-q").code == 0


def test_a_lost_journal_is_not_good_news(dataset: Shell) -> None:
    other = type(dataset)(dataset.folder.with_name("copy"))
    shutil.copytree(dataset.folder, other.folder)
    for path in (other.workspace / "transfer" / "dataset-docs").glob("journal.db*"):
        path.unlink()
    found = other("verify", "--only", COPY, "-q", "--json", expect=4).json()["results"][0]
    assert len(found["data"]["wrong"]) > 100
    other("apply", "-q")
    assert other("verify", "--only", COPY, "-q").code == 0


def test_a_second_migration_leaves_what_it_found(clouds: Lab, dataset: Shell, tmp_path: Path) -> None:
    second = type(dataset)(tmp_path)
    plan_dataset(second, clouds, "second")
    second("apply", "-q")
    second("rollback", "--to", "transfer", "-q")
    assert dataset("verify", "--only", COPY, "-q").code == 0  # every object of the first one is still there


def test_users_of_the_target_keep_their_work(clouds: Lab, dataset: Shell, s3: Any) -> None:
    dataset("cutover", "-q")
    target = bucket(clouds)
    names = sorted(blob.name for blob in target.list_blobs(prefix="tickets/"))
    changed, removed, made = names[0], names[1], "tickets/made-at-the-target.txt"
    target.blob(changed).upload_from_string(b"changed at the target", "text/plain")
    target.blob(removed).delete()
    target.blob(made).upload_from_string(b"made at the target", "text/plain")

    verified = dataset("verify", "--only", COPY, "-q", "--json").json()["results"][0]
    assert verified["data"]["changed_by_users"] == 2 and not verified["data"]["wrong"]
    dataset("apply", "-q")
    dataset("apply", "--again", "--only", COPY, "-q")
    dataset("cutover", "-q")
    assert target.blob(changed).download_as_bytes() == b"changed at the target"
    assert not target.blob(removed).exists()

    dataset("rollback", "-q")
    source = s3("lab-a-app")
    for key, content in ((changed, b"changed at the target"), (made, b"made at the target")):
        assert source.get_object(Bucket=DOCS, Key=key)["Body"].read() == content
    with pytest.raises(ClientError, match="NoSuchKey"):
        source.get_object(Bucket=DOCS, Key=removed)
    assert states(dataset)["cutover/freeze/dataset:docs"] == "undone"
    assert dataset("verify", "--only", COPY, "-q").code == 0


def test_the_way_back_needs_no_inventory(dataset: Shell) -> None:
    dataset("cutover", "-q")
    path = dataset.workspace / "inventory.lock.json"
    held = path.read_bytes()
    path.write_bytes(held.replace(b'"object_count"', b'"object_cuont"'))
    assert dataset("verify", "-q", expect=3).code == 3
    dataset("rollback", "-q")
    path.write_bytes(held)
    assert states(dataset)["cutover/freeze/dataset:docs"] == "undone"


def test_no_step_of_it_printed_or_kept_a_secret(clouds: Lab, dataset: Shell, secrets_in: Any) -> None:
    secrets = {path.name: path.read_text(encoding="utf-8").strip() for path in (clouds.home / "secrets").iterdir()}
    keys = json.loads(secrets.pop("aws-keys.json"))
    secrets |= {f"key {number}": value for number, value in enumerate(_texts(keys)) if len(value) > 20}
    assert secrets_in(dataset.folder, {name: value for name, value in secrets.items() if len(value) > 6}) == []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
