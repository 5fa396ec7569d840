"""Discovery of a real, planted account: everything found, nothing silent, the same bytes twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossload.engines.planner.lock import diff, lock_bytes
from crossload.engines.planner.merge import merge
from crossload.estate.asset import Kind, KindReport
from crossload.estate.place import Place
from crossload.ports.account import Discovery
from crossload.ports.errors import NotSignedIn, Unavailable
from crossload.ports.provider import Settings
from crossload.providers.aws.account import AwsAccount, open_account
from crossload.providers.aws.session import client

Open = Callable[[str], AwsAccount]
MODEL = "amazon.nova-lite-v1:0"


@pytest.fixture(scope="module")
def found(account: Open, planted: dict[str, Any]) -> Discovery:
    return account("lab-a-seed").discover()


def ours(discovery: Discovery) -> set[str]:
    """Roles the control plane comes with; everything else was planted."""
    return {asset.id for asset in discovery.assets if asset.kind is Kind.ROLE and asset.name.startswith("lab-")}


def report(discovery: Discovery, kind: str) -> KindReport:
    return next(item for item in discovery.reports if item.kind == kind)


def fact(discovery: Discovery, asset_id: str, name: str) -> Any:
    return next(asset for asset in discovery.assets if asset.id == asset_id).fact(name)


def test_everything_planted_is_found(found: Discovery) -> None:
    assert {asset.id for asset in found.assets} - ours(found) == {
        "agent:desk-agent",
        "dataset:desk-docs",
        "dataset:desk-mixed",
        f"endpoint:{MODEL}",
        "key:desk",
        "log:/desk/app",
        "model:llm-1b",
        "model:router",
        "queue:desk-jobs",
        "role:desk-app",
        "secret:desk/token",
        "table:desk-orders",
    }


def test_counts_are_the_servers(found: Discovery) -> None:
    facts = next(asset for asset in found.assets if asset.id == "dataset:desk-docs").facts
    # 25 objects of 0..24 bytes, one overwritten with 5 bytes, one deleted under versioning
    assert (facts["object_count"], facts["size_bytes"]) == (24, sum(range(25)) - 1 + 5 - 2)
    assert (facts["versioning"], facts["older_versions"], facts["delete_markers"]) == ("Enabled", 2, 1)
    assert facts["encryption"] == "AES256" and facts["region"] == "eu-central-1"
    assert fact(found, "dataset:desk-mixed", "object_count") == 1
    assert fact(found, "model:llm-1b", "size_bytes") == 1000 and fact(found, "model:llm-1b", "bucket") == "desk-models"
    assert fact(found, "queue:desk-jobs", "depth") == 3
    assert fact(found, "table:desk-orders", "rows") == 7
    assert next(a for a in found.assets if a.id == "dataset:desk-docs").tags == {"sensitivity": "pii"}


def test_the_agent_brings_its_model_and_its_tools(found: Discovery) -> None:
    assert fact(found, "agent:desk-agent", "action_groups") == ["orders"]
    assert fact(found, "agent:desk-agent", "tools") == ["order_status"]
    assert fact(found, f"endpoint:{MODEL}", "wire") == "converse"
    offered = {asset.name for asset in found.catalog}
    assert len(offered) > 10 and MODEL not in offered
    assert report(found, "hosted model").count == 1


def test_edges_tell_who_reads_writes_calls(found: Discovery) -> None:
    edges = {(edge.source, edge.relation, edge.target) for edge in found.edges}
    assert edges == {
        ("agent:desk-agent", "calls", f"endpoint:{MODEL}"),
        ("agent:desk-agent", "runs-as", "role:desk-app"),
        ("role:desk-app", "reads", "dataset:desk-docs"),
        ("role:desk-app", "writes", "dataset:desk-docs"),
        ("role:desk-app", "reads", "table:desk-orders"),
        ("key:desk", "encrypts", "table:desk-orders"),
    }
    assert all(edge.evidence for edge in found.edges)


def test_a_roles_policies_are_told(found: Discovery) -> None:
    assert fact(found, "role:desk-app", "policies") == ["orders-reader"]
    assert fact(found, "role:desk-app", "inline_policies") == ["documents"]
    assert fact(found, "role:desk-app", "trust") == [{"Service": "lambda.amazonaws.com"}]
    assert "Allow s3:PutObject on arn:aws:s3:::desk-docs/*" in fact(found, "role:desk-app", "grants")


def test_every_kind_says_found_denied_or_unsupported(found: Discovery) -> None:
    assert {item.kind: (item.status, item.count) for item in found.reports} == {
        "agent": ("found", 1),
        "bucket": ("found", 3),
        "custom model": ("found", 0),
        "dataset": ("found", 2),
        "dedicated endpoint": ("unsupported", None),
        "function": ("found", 0),
        "hosted model": ("found", 1),
        "key": ("found", 1),
        "log": ("found", 1),
        "model": ("found", 2),
        "provisioned endpoint": ("found", 0),
        "queue": ("found", 1),
        "role": ("found", 1 + len(ours(found))),
        "secret": ("found", 1),
        "table": ("found", 1),
    }


def test_no_secrets_value_is_anywhere(found: Discovery) -> None:
    assert b"value-that-must-not-appear" not in lock_bytes(merge([found]))


def test_a_second_run_gives_the_same_bytes(account: Open, found: Discovery) -> None:
    again = account("lab-a-seed").discover()
    assert lock_bytes(merge([again])) == lock_bytes(merge([found]))


def test_a_change_at_the_source_is_named(account: Open, control_plane: Path, found: Discovery) -> None:
    connection = {
        "config_file": str(control_plane / "config"),
        "credentials_file": str(control_plane / "credentials"),
        "profile": "lab-a-seed",
    }
    sqs = client(Settings(Place("planted", "aws", "eu-central-1", "DE", connection), connection, {}), "sqs")
    url = sqs.create_queue(QueueName="desk-late")["QueueUrl"]
    try:
        drift = diff(merge([found]), merge([account("lab-a-seed").discover()]))
        assert drift.structural and drift.added == ("queue:desk-late",)
    finally:
        sqs.delete_queue(QueueUrl=url)


def test_a_narrow_user_sees_little_and_is_told_so(account: Open, planted: dict[str, Any]) -> None:
    narrow = account("narrow").discover()
    denied = {item.kind for item in narrow.reports if item.status == "denied"}
    assert {"agent", "hosted model", "secret", "role", "table", "key", "function", "log"} <= denied
    assert {"bucket.GetBucketEncryption", "bucket.GetBucketTagging", "queue.GetQueueAttributes"} <= denied
    words = report(narrow, "role").detail
    assert "iam:ListRoles" in words and "narrow is not authorized" in words, "the server's own words"
    docs = next(asset for asset in narrow.assets if asset.id == "dataset:desk-docs")
    assert docs.fact("object_count") == 24, "what may be read is read"
    assert docs.fact("encryption") == "unknown"
    queue = next(asset for asset in narrow.assets if asset.kind is Kind.QUEUE)
    assert queue.facts["depth"] is None and queue.native.endswith("/desk-jobs") and "127.0.0.1" not in queue.native
    assert lock_bytes(merge([narrow])) == lock_bytes(merge([account("narrow").discover()]))


def test_wrong_keys_are_one_clear_error(account: Open, planted: dict[str, Any]) -> None:
    with pytest.raises(NotSignedIn, match="signature"):
        account("wrong").discover()


def test_a_server_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile p]\nregion = eu-central-1\nendpoint_url = http://127.0.0.1:9\n")
    (tmp_path / "credentials").write_text("[p]\naws_access_key_id = a\naws_secret_access_key = b\n")
    connection = {
        "config_file": str(tmp_path / "config"),
        "credentials_file": str(tmp_path / "credentials"),
        "profile": "p",
    }
    with pytest.raises(Unavailable):
        open_account(Settings(Place("p", "aws", "eu-central-1", "DE", connection), connection, {})).discover()


def test_the_permissions_it_names_are_enough(
    account: Open, control_plane: Path, planted: dict[str, Any], found: Discovery
) -> None:
    """A user with exactly those actions sees all that the administrator sees."""
    import json

    connection = {
        "config_file": str(control_plane / "config"),
        "credentials_file": str(control_plane / "credentials"),
        "profile": "lab-a-seed",
    }
    iam = client(Settings(Place("planted", "aws", "eu-central-1", "DE", connection), connection, {}), "iam")
    iam.create_user(UserName="exact")
    rights = {"Effect": "Allow", "Action": account("lab-a-seed").permissions(), "Resource": "*"}
    iam.put_user_policy(
        UserName="exact", PolicyName="all", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [rights]})
    )
    made = iam.create_access_key(UserName="exact")["AccessKey"]
    with (control_plane / "credentials").open("a") as file:
        file.write(
            f"\n[exact]\naws_access_key_id = {made['AccessKeyId']}\naws_secret_access_key = {made['SecretAccessKey']}\n"
        )
    with (control_plane / "config").open("a") as file:
        endpoint = client(Settings(Place("planted", "aws", "eu-central-1", "DE", connection), connection, {}), "iam")
        file.write(f"\n[profile exact]\nregion = eu-central-1\nendpoint_url = {endpoint.meta.endpoint_url}\n")
    exact = account("exact").discover()
    assert [item for item in exact.reports if item.status == "denied"] == []
    assert lock_bytes(merge([exact])) == lock_bytes(merge([found]))


def test_a_large_account_is_discovered_in_seconds(account: Open, control_plane: Path, found: Discovery) -> None:
    """200 more resources: queues, tables, roles, secrets. The bound is loose, for busy machines."""
    connection = {
        "config_file": str(control_plane / "config"),
        "credentials_file": str(control_plane / "credentials"),
        "profile": "lab-a-seed",
    }
    place = Settings(Place("planted", "aws", "eu-central-1", "DE", connection), connection, {})
    sqs, tables, secrets = client(place, "sqs"), client(place, "dynamodb"), client(place, "secretsmanager")
    urls: list[str] = []
    try:
        for number in range(70):
            urls.append(sqs.create_queue(QueueName=f"many-{number:03}")["QueueUrl"])
            secrets.create_secret(Name=f"many/{number:03}", SecretString="x")
            tables.create_table(
                TableName=f"many-{number:03}",
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            )
        started = time.perf_counter()
        large = account("lab-a-seed").discover()
        assert time.perf_counter() - started < 20
        assert len(large.assets) == len(found.assets) + 210
    finally:
        for number, url in enumerate(urls):
            sqs.delete_queue(QueueUrl=url)
            secrets.delete_secret(SecretId=f"many/{number:03}", ForceDeleteWithoutRecovery=True)
            tables.delete_table(TableName=f"many-{number:03}")
