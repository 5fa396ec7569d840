"""An account of this test's own: one real control plane in its own home, planted and looked at through boto3.

The session's lab holds the sample workload and is shared; planting dozens of resources there would disturb others."""

from __future__ import annotations

import configparser
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossload.estate.place import Place
from crossload.lab import Lab
from crossload.ports.provider import Settings
from crossload.providers.aws.account import AwsAccount, open_account
from crossload.providers.aws.session import client

REGION = "eu-central-1"
MODEL = "amazon.nova-lite-v1:0"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with SDK config files whose profiles all point at this one server, object store included."""
    lab = Lab(tmp_path_factory.mktemp("account"))
    states = [state for state in lab.up(only=["ministack"]) if state.name == "ministack"]
    if states[0].state == "not-installed":
        pytest.skip(f"the control plane is not installed: {states[0].hint}")
    try:
        assert states[0].state == "up", lab.logs("ministack")
        folder = tmp_path_factory.mktemp("aws")
        endpoint = f"http://127.0.0.1:{lab.port('ministack', 'api')}"
        names = configparser.RawConfigParser()
        names.read(Path(lab.env()["CROSSLOAD_LAB_AWS_CREDENTIALS"]))
        profiles = [*names.sections(), "narrow", "wrong"]
        lines = [f"[profile {name}]\nregion = {REGION}\nendpoint_url = {endpoint}\n" for name in profiles]
        (folder / "config").write_text("\n".join(lines))
        (folder / "credentials").write_text(Path(lab.env()["CROSSLOAD_LAB_AWS_CREDENTIALS"]).read_text())
        yield folder
    finally:
        lab.down(purge=True)


@pytest.fixture(scope="session")
def account(control_plane: Path) -> Callable[[str], AwsAccount]:
    return lambda profile: open_account(settings(control_plane, profile))


def settings(folder: Path, profile: str) -> Settings:
    connection = {
        "config_file": str(folder / "config"),
        "credentials_file": str(folder / "credentials"),
        "profile": profile,
    }
    return Settings(Place("planted", "aws", REGION, "DE", connection), connection, {})


@pytest.fixture(scope="session")
def planted(control_plane: Path) -> dict[str, Any]:
    """One of everything discovery knows, tied together as teams tie them; returns what was planted."""
    admin = settings(control_plane, "lab-a-seed")

    def of(service: str) -> Any:
        return client(admin, service)

    s3 = of("s3")
    for bucket in ("desk-docs", "desk-models", "desk-mixed"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for number in range(25):
        s3.put_object(Bucket="desk-docs", Key=f"topics/ü {number}.txt", Body=b"x" * number)
    s3.put_bucket_versioning(Bucket="desk-docs", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="desk-docs", Key="topics/ü 1.txt", Body=b"newer")
    s3.delete_object(Bucket="desk-docs", Key="topics/ü 2.txt")
    s3.put_bucket_tagging(Bucket="desk-docs", Tagging={"TagSet": [{"Key": "sensitivity", "Value": "pii"}]})
    s3.put_object(Bucket="desk-models", Key="llm-1b/model.gguf", Body=b"G" * 1000)
    s3.put_object(Bucket="desk-mixed", Key="router.onnx", Body=b"O" * 10)
    s3.put_object(Bucket="desk-mixed", Key="readme.txt", Body=b"hello")
    key = of("kms").create_key(Description="desk data")["KeyMetadata"]
    of("kms").create_alias(AliasName="alias/desk", TargetKeyId=key["KeyId"])
    of("sqs").create_queue(QueueName="desk-jobs", tags={"team": "desk"})
    url = of("sqs").get_queue_url(QueueName="desk-jobs")["QueueUrl"]
    for _ in range(3):
        of("sqs").send_message(QueueUrl=url, MessageBody="x")
    of("secretsmanager").create_secret(Name="desk/token", SecretString="value-that-must-not-appear")
    of("dynamodb").create_table(
        TableName="desk-orders",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        SSESpecification={"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": key["Arn"]},
    )
    for number in range(7):
        of("dynamodb").put_item(TableName="desk-orders", Item={"id": {"S": str(number)}})
    role = plant_role(of("iam"), "desk-app")
    of("logs").create_log_group(logGroupName="/desk/app")
    plant_agent(of("bedrock-agent"), role)
    plant_narrow_user(of("iam"), control_plane)
    return {"role": role, "key": key["Arn"]}


def plant_role(iam: Any, name: str) -> str:
    """A role with one inline and one attached policy."""
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))["Role"]["Arn"]
    inline = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::desk-docs/*"}
    iam.put_role_policy(RoleName=name, PolicyName="documents", PolicyDocument=policy(inline))
    attached = {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": "arn:aws:dynamodb:*:*:table/desk-orders"}
    made = iam.create_policy(PolicyName="orders-reader", PolicyDocument=policy(attached))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName=name, PolicyArn=made)
    return arn


def plant_agent(agents: Any, role: str) -> None:
    agent = agents.create_agent(
        agentName="desk-agent",
        foundationModel=MODEL,
        agentResourceRoleArn=role,
        instruction="Answer questions about orders, and nothing else, in one short sentence.",
    )["agent"]["agentId"]
    agents.create_agent_action_group(
        agentId=agent,
        agentVersion="DRAFT",
        actionGroupName="orders",
        actionGroupExecutor={"customControl": "RETURN_CONTROL"},
        functionSchema={"functions": [{"name": "order_status", "description": "status of an order"}]},
    )


def plant_narrow_user(iam: Any, folder: Path) -> None:
    """A user who may list buckets and queues and read little else: most kinds must be reported as denied."""
    iam.create_user(UserName="narrow")
    rights = {
        "Effect": "Allow",
        "Resource": "*",
        "Action": ["s3:ListAllMyBuckets", "s3:ListBucket", "s3:GetBucketVersioning", "sqs:ListQueues"],
    }
    iam.put_user_policy(UserName="narrow", PolicyName="little", PolicyDocument=policy(rights))
    made = iam.create_access_key(UserName="narrow")["AccessKey"]
    with (folder / "credentials").open("a") as file:
        for name, secret in (("narrow", made["SecretAccessKey"]), ("wrong", "not-the-secret")):
            file.write(f"\n[{name}]\naws_access_key_id = {made['AccessKeyId']}\naws_secret_access_key = {secret}\n")


def policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
