"""The seeded cloud A, looked at with the SDKs themselves: not with the code that wrote it."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import psycopg
import pytest

from crossload.lab.seed import SeedEvent, seed
from crossload.lab.seed_objects import MULTIPART_KEY, RETIRED_KEY, VERSIONED_KEY, awkward_objects, docs_objects
from crossload.lab.seed_store import MODEL_KEY

if TYPE_CHECKING:
    from crossload.lab import Lab

Client = Callable[..., Any]


@pytest.fixture(scope="module")
def client(helpdesk: Lab) -> Client:
    env = helpdesk.env()

    def make(service: str, profile: str = "lab-a-mover") -> Any:
        core = botocore.session.Session(profile=profile)
        core.set_config_variable("config_file", env["CROSSLOAD_LAB_AWS_CONFIG"])
        core.set_config_variable("credentials_file", env["CROSSLOAD_LAB_AWS_CREDENTIALS"])
        return boto3.Session(botocore_session=core).client(service)

    return make


def listing(s3: Any, bucket: str) -> dict[str, int]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}


def test_every_object_is_there_with_its_bytes(client: Client) -> None:
    s3 = client("s3")
    there = listing(s3, "helpdesk-docs")
    for item in docs_objects(small=True):
        data = b"".join(item.parts())
        assert there[item.key] == len(data), item.key
        assert s3.get_object(Bucket="helpdesk-docs", Key=item.key)["Body"].read() == data, item.key
    assert "router/topic-router.json" in there
    assert RETIRED_KEY not in there


def test_the_manual_is_there_as_this_python_has_it(client: Client) -> None:
    from pydoc_data.topics import topics

    s3 = client("s3")
    found = s3.get_object(Bucket="helpdesk-docs", Key="topics/for.txt")
    assert found["Body"].read().decode() == topics["for"]
    assert found["ContentType"] == "text/plain; charset=utf-8"
    assert found["CacheControl"] == "max-age=3600"
    assert found["Metadata"]["topic"] == "for"
    assert sum(key.startswith("topics/") for key in listing(s3, "helpdesk-docs")) == len(topics)


def test_awkward_objects_keep_headers_metadata_and_tags(client: Client) -> None:
    s3 = client("s3")
    for item in awkward_objects():
        head = s3.head_object(Bucket="helpdesk-docs", Key=item.key)
        assert head["ContentType"] == item.content_type, item.key
        assert head.get("ContentEncoding", "") == item.content_encoding, item.key
        assert head.get("ContentDisposition", "") == item.content_disposition, item.key
        assert head.get("ContentLanguage", "") == item.content_language, item.key
        assert head["Metadata"] == dict(item.metadata), item.key
        tags = s3.get_object_tagging(Bucket="helpdesk-docs", Key=item.key)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == dict(item.tags), item.key


def test_two_keys_that_look_the_same_are_two_objects(client: Client) -> None:
    there = [
        key for key in listing(client("s3"), "helpdesk-docs") if key.endswith("caf\u00e9.txt") or "cafe\u0301" in key
    ]
    assert len(there) == 2
    assert len({unicodedata.normalize("NFC", key) for key in there}) == 1


def test_an_object_has_three_versions_and_one_has_gone(client: Client) -> None:
    s3 = client("s3")
    assert s3.get_bucket_versioning(Bucket="helpdesk-docs")["Status"] == "Enabled"
    found = s3.list_object_versions(Bucket="helpdesk-docs", Prefix="policies/")
    mine = [item for item in found["Versions"] if item["Key"] == VERSIONED_KEY]
    texts = {
        s3.get_object(Bucket="helpdesk-docs", Key=VERSIONED_KEY, VersionId=item["VersionId"])["Body"].read()
        for item in mine
    }
    assert len(texts) == 3
    assert b"60 days" in s3.get_object(Bucket="helpdesk-docs", Key=VERSIONED_KEY)["Body"].read()
    assert [item["Key"] for item in found["DeleteMarkers"] if item["IsLatest"]] == [RETIRED_KEY]


def test_one_object_was_uploaded_in_parts(client: Client) -> None:
    head = client("s3").head_object(Bucket="helpdesk-docs", Key=MULTIPART_KEY)
    assert head["ETag"].strip('"').endswith("-2")
    assert client("s3", "lab-a-seed").list_multipart_uploads(Bucket="helpdesk-docs").get("Uploads", []) == []


def test_the_model_is_the_wheels_file(helpdesk: Lab, client: Client) -> None:
    from pathlib import Path

    found = client("s3").get_object(Bucket="helpdesk-models", Key=MODEL_KEY)
    moved = hashlib.sha256()
    for piece in found["Body"].iter_chunks(2**20):
        moved.update(piece)
    with Path(helpdesk.env()["CROSSLOAD_LAB_MODEL_FILE"]).open("rb") as source:
        assert hashlib.file_digest(source, "sha256").hexdigest() == moved.hexdigest()
    assert found["Metadata"]["architecture"] == "llama"


def test_the_index_finds_what_the_questions_ask_for(helpdesk: Lab) -> None:
    with psycopg.connect(helpdesk.env()["CROSSLOAD_LAB_PG_A"]) as connection:
        rows = connection.execute("SELECT count(*), min(vector_dims(embedding)) FROM docs_index").fetchone()
        assert rows == (240, 384)
        (how,) = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'docs_index_embedding'"
        ).fetchone()
        assert "hnsw" in how
        assert "vector_cosine_ops" in how
        (nearest,) = connection.execute(
            "SELECT id FROM docs_index ORDER BY embedding <=> "
            "(SELECT embedding FROM docs_index WHERE id = 'for#000') LIMIT 1"
        ).fetchone()
    assert nearest == "for#000"


def test_the_rest_of_the_account(helpdesk: Lab, client: Client) -> None:
    seeding = "lab-a-seed"
    orders = client("dynamodb", seeding).scan(TableName="orders")["Items"]
    assert len(orders) == 20
    assert client("dynamodb").get_item(TableName="orders", Key={"order_id": {"N": "1042"}})["Item"]["status"] == {
        "S": "shipped"
    }
    sqs = client("sqs", "lab-a-app")
    url = sqs.get_queue_url(QueueName="helpdesk-nightly")["QueueUrl"]
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert int(counts["ApproximateNumberOfMessages"]) + int(counts["ApproximateNumberOfMessagesNotVisible"]) == 1
    secret = json.loads(client("secretsmanager", "lab-a-app").get_secret_value(SecretId="helpdesk/db")["SecretString"])
    assert secret["password"] == helpdesk.secret("pg-a-app")
    with psycopg.connect(
        host=secret["host"],
        port=secret["port"],
        dbname=secret["dbname"],
        user=secret["username"],
        password=secret["password"],
    ) as connection:
        assert connection.execute("SELECT count(*) FROM docs_index").fetchone() == (240,)
    document = client("iam").get_role_policy(RoleName="helpdesk-app", PolicyName="helpdesk-app")["PolicyDocument"]
    assert {"s3:GetObject", "s3:PutObject", "s3:GetObjectTagging"} in [
        set(item["Action"]) for item in document["Statement"]
    ]
    agents = client("bedrock-agent")
    (agent,) = [item for item in agents.list_agents()["agentSummaries"] if item["agentName"] == "helpdesk"]
    assert agent["agentStatus"] == "PREPARED"
    where = {"agentId": agent["agentId"], "agentVersion": "DRAFT"}
    (group,) = agents.list_agent_action_groups(**where)["actionGroupSummaries"]
    held = agents.get_agent_action_group(**where, actionGroupId=group["actionGroupId"])["agentActionGroup"]
    assert held["functionSchema"]["functions"][0]["parameters"]["order_id"]["type"] == "integer"


def test_a_stranger_sees_nothing(client: Client) -> None:
    s3 = client("s3", "lab-a-stranger")
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.get_object(Bucket="helpdesk-docs", Key="topics/for.txt")


def test_a_second_seed_changes_nothing(helpdesk: Lab) -> None:
    told: list[SeedEvent] = []
    report = seed(helpdesk.home, told.append, small=True)
    assert not report.changed, [part.made for part in report.parts]
    assert report.part("docs").kept >= 150
    assert report.seconds < 10
    assert {event.part for event in told} == {"account", "index", "models", "docs"}


def test_damage_is_mended_and_nothing_else_is_touched(helpdesk: Lab, client: Client) -> None:
    s3 = client("s3", "lab-a-seed")
    s3.delete_object(Bucket="helpdesk-docs", Key="topics/if.txt")
    s3.put_object(Bucket="helpdesk-docs", Key="awkward/it's.txt", Body=b"other bytes")
    s3.put_object(Bucket="helpdesk-docs", Key=VERSIONED_KEY, Body=b"a fourth version")
    client("dynamodb", "lab-a-seed").delete_item(TableName="orders", Key={"order_id": {"N": "1042"}})
    with psycopg.connect(helpdesk.env()["CROSSLOAD_LAB_PG_A_SEED"]) as connection:
        connection.execute("UPDATE docs_index SET chunk = 'wrong' WHERE id = 'for#000'")
    report = seed(helpdesk.home, small=True)
    assert set(report.part("docs").made) == {"topics/if.txt", "awkward/it's.txt", VERSIONED_KEY}
    assert report.part("account").made == ("table orders",)
    assert report.part("index").made == ("docs_index",)
    assert report.part("models").made == ()
    assert not seed(helpdesk.home, small=True).changed


def test_a_seed_that_was_killed_goes_on(helpdesk: Lab, client: Client) -> None:
    s3 = client("s3", "lab-a-seed")
    keys = [item.key for item in docs_objects(small=True)]
    s3.delete_objects(Bucket="helpdesk-docs", Delete={"Objects": [{"Key": key} for key in keys]})
    s3.create_multipart_upload(Bucket="helpdesk-docs", Key=MULTIPART_KEY)
    script = (
        "import os, sys, pathlib, threading\n"
        "from crossload.lab.seed import seed\n"
        "def told(event):\n"
        "    if event.part == 'docs':\n"
        "        print('docs', flush=True)\n"
        "        threading.Event().wait(0.05)\n"
        "seed(pathlib.Path(sys.argv[1]), told, small=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(helpdesk.home)], stdout=subprocess.PIPE, env=_path())
    assert process.stdout is not None
    assert process.stdout.readline() == b"docs\n"
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    report = seed(helpdesk.home, small=True)
    docs = report.part("docs")
    assert docs.made, "the kill came too late to prove anything"
    assert docs.kept > 0, "what had arrived was sent again"
    assert set(listing(s3, "helpdesk-docs")) >= set(keys)
    assert s3.list_multipart_uploads(Bucket="helpdesk-docs").get("Uploads", []) == []
    assert not seed(helpdesk.home, small=True).changed


def _path() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
