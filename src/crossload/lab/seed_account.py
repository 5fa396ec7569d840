"""Everything of cloud A that is not an object or a vector: key, secrets, role, queues, table.

Each function asks first, writes only what differs, and says whether it wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from crossload.lab.cloud_a import ACCOUNT, DOCS, MODELS
from crossload.lab.seed_agent import ensure_action_group, ensure_agent, ensure_guardrail, ensure_knowledge_base
from crossload.lab.seed_clients import Clients, SeedError, Tally, code_of
from crossload.lab.site import Site

KEY_ALIAS = "alias/helpdesk"
ROLE = "helpdesk-app"
TABLE = "orders"
NIGHTLY_QUEUE = "helpdesk-nightly"
JOBS_QUEUE = "helpdesk-jobs"
DB_SECRET = "helpdesk/db"  # noqa: S105  # its name, not its value
API_SECRET = "helpdesk/api-key"  # noqa: S105  # its name, not its value

TAGS = {"app": "helpdesk", "owner": "support-team"}
_TAG_LIST = [{"Key": key, "Value": text} for key, text in TAGS.items()]
_NIGHTLY_JOB = {"id": "nightly-001", "kind": "answer", "question": "What is the for statement used for?"}


def seed_account(clients: Clients, home: Path, env: Mapping[str, str], workload: Path, tally: Tally) -> None:
    """Key, secrets, role, queues, table, guardrail, knowledge base, agent: what is referred to comes first."""
    definition: dict[str, Any] = _read(workload / "agent.json")
    site = Site(home, "seed", {}, {})
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("key", lambda: ensure_key(clients)),
        (f"secret {DB_SECRET}", lambda: ensure_secret(clients, DB_SECRET, _database_secret(home, env))),
        (f"secret {API_SECRET}", lambda: ensure_secret(clients, API_SECRET, site.secret("helpdesk-api-key"))),
        (f"role {ROLE}", lambda: ensure_role(clients)),
        (f"queue {NIGHTLY_QUEUE}", lambda: ensure_queue(clients, NIGHTLY_QUEUE, [_NIGHTLY_JOB])),
        (f"queue {JOBS_QUEUE}", lambda: ensure_queue(clients, JOBS_QUEUE, [])),
        (f"table {TABLE}", lambda: ensure_table(clients, _read(workload / "orders.json"))),
        ("guardrail", lambda: ensure_guardrail(clients, definition)),
        ("knowledge base", lambda: ensure_knowledge_base(clients, definition, role_arn(), DB_SECRET)),
        ("agent", lambda: ensure_agent(clients, definition, role_arn(), KEY_ALIAS, TAGS)),
        ("action group", lambda: ensure_action_group(clients, definition)),
    )
    tally.total = len(steps)
    for name, step in steps:
        tally.add(name, made=step())


def role_arn() -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{ROLE}"


def ensure_key(clients: Clients) -> bool:
    kms = clients.get("kms")
    aliases = [item["AliasName"] for page in kms.get_paginator("list_aliases").paginate() for item in page["Aliases"]]
    if KEY_ALIAS in aliases:
        return False
    tags = [{"TagKey": name, "TagValue": value} for name, value in TAGS.items()]
    made = kms.create_key(Description="helpdesk data", KeyUsage="ENCRYPT_DECRYPT", Tags=tags)
    kms.create_alias(AliasName=KEY_ALIAS, TargetKeyId=made["KeyMetadata"]["KeyId"])
    return True


def ensure_secret(clients: Clients, name: str, value: str) -> bool:
    secrets = clients.get("secretsmanager")
    try:
        if secrets.get_secret_value(SecretId=name)["SecretString"] == value:
            return False
        secrets.put_secret_value(SecretId=name, SecretString=value)
    except secrets.exceptions.ResourceNotFoundException:
        secrets.create_secret(Name=name, SecretString=value, KmsKeyId=KEY_ALIAS, Tags=_TAG_LIST)
    return True


def ensure_role(clients: Clients) -> bool:
    iam = clients.get("iam")
    made = False
    try:
        iam.get_role(RoleName=ROLE)
    except iam.exceptions.NoSuchEntityException:
        who = {"Service": ["ecs-tasks.amazonaws.com", "lambda.amazonaws.com", "bedrock.amazonaws.com"]}
        trust = _policy([{"Effect": "Allow", "Principal": who, "Action": "sts:AssumeRole"}])
        iam.create_role(
            RoleName=ROLE,
            AssumeRolePolicyDocument=json.dumps(trust),
            Description="what the helpdesk runs as",
            Tags=_TAG_LIST,
        )
        made = True
    wanted = _policy(_role_statements(clients.region))
    try:
        held: Any = iam.get_role_policy(RoleName=ROLE, PolicyName=ROLE)["PolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        held = None
    if held != wanted:
        iam.put_role_policy(RoleName=ROLE, PolicyName=ROLE, PolicyDocument=json.dumps(wanted))
        made = True
    return made


def _policy(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}


def _role_statements(region: str) -> list[dict[str, Any]]:
    def allow(actions: list[str], *resources: str) -> dict[str, Any]:
        return {"Effect": "Allow", "Action": actions, "Resource": list(resources)}

    here = f"{region}:{ACCOUNT}"
    return [
        allow(["s3:GetObject", "s3:PutObject", "s3:GetObjectTagging"], f"arn:aws:s3:::{DOCS}/*"),
        allow(["s3:ListBucket"], f"arn:aws:s3:::{DOCS}"),
        allow(["s3:GetObject"], f"arn:aws:s3:::{MODELS}/*"),
        allow(
            ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
            f"arn:aws:bedrock:{region}::foundation-model/*",
        ),
        allow(["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage"], f"arn:aws:sqs:{here}:helpdesk-*"),
        allow(["secretsmanager:GetSecretValue"], f"arn:aws:secretsmanager:{here}:secret:helpdesk/*"),
        allow(["dynamodb:GetItem", "dynamodb:Query"], f"arn:aws:dynamodb:{here}:table/{TABLE}"),
        allow(["kms:Decrypt", "kms:GenerateDataKey"], f"arn:aws:kms:{here}:{KEY_ALIAS}"),
    ]


def ensure_queue(clients: Clients, name: str, jobs: list[dict[str, str]]) -> bool:
    """The queue, and its jobs when it is empty: a job that somebody is working on still counts as there."""
    sqs = clients.get("sqs")
    made = False
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except sqs.exceptions.ClientError as error:
        if "NonExistentQueue" not in code_of(error) and "QueueDoesNotExist" not in code_of(error):
            raise
        settings = {"VisibilityTimeout": "300", "MessageRetentionPeriod": "345600"}
        url = sqs.create_queue(QueueName=name, Attributes=settings, tags=TAGS)["QueueUrl"]
        made = True
    counts = sqs.get_queue_attributes(
        QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    )["Attributes"]
    if jobs and not any(int(value) for value in counts.values()):
        for job in jobs:
            sqs.send_message(QueueUrl=url, MessageBody=json.dumps(job, sort_keys=True))
        made = True
    return made


def ensure_table(clients: Clients, orders: list[dict[str, Any]]) -> bool:
    """Table `orders`, key `order_id` (a number); rows that the workload does not name are left alone."""
    dynamodb = clients.get("dynamodb")
    try:
        dynamodb.describe_table(TableName=TABLE)
    except dynamodb.exceptions.ResourceNotFoundException:
        dynamodb.create_table(
            TableName=TABLE,
            AttributeDefinitions=[{"AttributeName": "order_id", "AttributeType": "N"}],
            KeySchema=[{"AttributeName": "order_id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            SSESpecification={"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY_ALIAS},
            Tags=_TAG_LIST,
        )
        dynamodb.get_waiter("table_exists").wait(TableName=TABLE, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    held = {
        row["order_id"]["N"]: row
        for page in dynamodb.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True)
        for row in page["Items"]
    }
    wanted = [_attributes(order) for order in orders]
    missing = [row for row in wanted if held.get(row["order_id"]["N"]) != row]
    for row in missing:
        dynamodb.put_item(TableName=TABLE, Item=row)
    return bool(missing)


def _attributes(order: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    def one(value: Any) -> dict[str, Any]:
        if value is None:
            return {"NULL": True}
        return {"N": str(value)} if isinstance(value, int) else {"S": str(value)}

    return {name: one(value) for name, value in order.items()}


def _database_secret(home: Path, env: Mapping[str, str]) -> str:
    """What teams keep for a database: host, port, name, user, password. The password is the lab's own app user's."""
    url = env.get("CROSSLOAD_LAB_PG_A_APP") or env.get("CROSSLOAD_LAB_PG_A_SEED", "")
    if not url:
        raise SeedError("cloud A's database is not up here (CROSSLOAD_LAB_PG_A_APP is missing): crossload lab up")
    parts = urlsplit(url)
    password = parts.password or ""
    if not password:
        held = home / "secrets" / f"pg-a-{parts.username}"
        password = held.read_text(encoding="utf-8").strip()
    content = {
        "engine": "postgres", "host": parts.hostname, "port": parts.port, "dbname": unquote(parts.path.lstrip("/")),
        "username": parts.username, "password": password,
    }  # fmt: skip
    return json.dumps(content, sort_keys=True)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SeedError(f"the workload's {path.name} cannot be read: {error}") from error
