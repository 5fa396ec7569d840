"""Cloud A's identities: one access key per profile, the same on the object store and on the control plane.

The profiles are real least-privilege users. Only the seed is an administrator; the product never is.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossload.lab.site import Site, write_private, write_public

REGION = "eu-central-1"
ACCOUNT = "111122223333"
DOCS = "helpdesk-docs"
MODELS = "helpdesk-models"
BUCKETS = (DOCS, MODELS)

# Every client of the control plane that the product or the seed opens. S3 is the object store and stands apart.
CONTROL_SERVICES = (
    "bedrock", "bedrock_agent", "bedrock_agent_runtime", "bedrock_runtime", "cloudformation", "cloudtrail",
    "cloudwatch", "cloudwatch_logs", "config_service", "dynamodb", "ec2", "ecr", "eventbridge", "iam", "kms", "lambda",
    "organizations",
    "resource_groups_tagging_api", "secrets_manager", "service_quotas", "sns", "sqs", "ssm", "sfn", "sts",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """One user of cloud A: what it may do on the object store's buckets, and its policy on the control plane."""

    name: str
    about: str
    store: Mapping[str, tuple[str, ...]]
    allow: tuple[str, ...]


_LIST = ("s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation")
_READ = (
    *_LIST,
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:GetObjectTagging",
    "s3:GetObjectVersionTagging",
    "s3:GetObjectAttributes",
)
_WRITE = (
    "s3:PutObject", "s3:PutObjectTagging", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts",
    "s3:ListBucketMultipartUploads",
)  # fmt: skip
_SETTINGS = (
    "s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:GetEncryptionConfiguration", "s3:GetBucketPolicy",
    "s3:GetBucketAcl", "s3:GetBucketTagging", "s3:GetLifecycleConfiguration", "s3:GetBucketOwnershipControls",
    "s3:GetBucketCORS", "s3:GetBucketLogging", "s3:GetBucketNotification", "s3:GetReplicationConfiguration",
    "s3:GetBucketObjectLockConfiguration", "s3:GetBucketPublicAccessBlock", "s3:GetBucketPolicyStatus",
)  # fmt: skip


def _both(*actions: str) -> Mapping[str, tuple[str, ...]]:
    return dict.fromkeys(BUCKETS, actions)


_READ_FACTS = (
    "bedrock:Get*", "bedrock:List*", "cloudformation:Describe*", "cloudformation:List*", "cloudformation:GetTemplate",
    "cloudtrail:Describe*", "cloudtrail:Get*", "cloudtrail:List*", "cloudwatch:Describe*", "cloudwatch:Get*",
    "cloudwatch:List*", "dynamodb:DescribeTable", "dynamodb:ListTables", "dynamodb:ListTagsOfResource",
    "ec2:Describe*", "ecr:Describe*", "events:Describe*", "events:List*", "iam:Get*", "iam:List*",
    "iam:SimulatePrincipalPolicy", "kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:List*",
    "lambda:Get*", "lambda:List*", "logs:Describe*", "logs:ListTagsForResource", "s3:GetBucket*", "s3:ListAllMyBuckets",
    "secretsmanager:DescribeSecret", "secretsmanager:GetResourcePolicy", "secretsmanager:ListSecrets",
    "sns:Get*", "sns:List*", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ListQueueTags", "sqs:ListQueues",
    "ssm:DescribeParameters", "states:Describe*", "states:List*", "sts:GetCallerIdentity", "tag:GetResources",
)  # fmt: skip
# The lab's control plane asks for `bedrock:Converse` where AWS asks for `bedrock:InvokeModel`: grant both.
_CALL_MODELS = (
    "bedrock:InvokeModel",
    "bedrock:InvokeModelWithResponseStream",
    "bedrock:Converse",
    "bedrock:ConverseStream",
)
_BE_SOMEBODY = ("sts:GetCallerIdentity",)

PROFILES = (
    Profile("lab-a-seed", "administrator, used only by the seed", {"*": ("s3:*",)}, ("*",)),
    Profile(
        "lab-a-app",
        "the helpdesk application",
        {DOCS: (*_READ, *_WRITE), MODELS: _READ},
        (
            *_CALL_MODELS, *_BE_SOMEBODY, "sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage",
            "sqs:GetQueueUrl", "sqs:GetQueueAttributes", "secretsmanager:GetSecretValue", "dynamodb:GetItem",
            "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem", "kms:Decrypt", "kms:Encrypt",
            "kms:GenerateDataKey", "logs:PutLogEvents", "logs:CreateLogStream", "bedrock:InvokeAgent",
        ),
    ),
    Profile(
        "lab-a-mover",
        "reads what is to be carried, writes nothing",
        _both(*_READ, *_SETTINGS),
        (
            *_READ_FACTS, *_CALL_MODELS, "secretsmanager:GetSecretValue", "dynamodb:Scan", "dynamodb:GetItem",
            "dynamodb:Query", "sqs:ReceiveMessage",
        ),
    ),
    Profile(
        "lab-a-returner",
        "may write objects back to the source; used only by rollback",
        _both(*_READ, *_WRITE),
        (*_BE_SOMEBODY, "sqs:SendMessage", "dynamodb:PutItem"),
    ),
    Profile(
        "lab-a-freezer",
        "may set and lift a bucket policy; used only to freeze writes before the switch",
        _both("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
        _BE_SOMEBODY,
    ),
    Profile("lab-a-auditor", "reads settings and policies, no data", _both(*_LIST, *_SETTINGS), _READ_FACTS),
    Profile("lab-a-stranger", "a valid identity without any right on the data", {}, _BE_SOMEBODY),
)  # fmt: skip


def access_keys(site: Site) -> dict[str, tuple[str, str]]:
    """Profile -> (access key id, secret), made once per lab and kept in a private file."""
    text = site.secret("aws-keys.json", lambda: json.dumps({profile.name: _new_key() for profile in PROFILES}))
    held: dict[str, list[str]] = json.loads(text)
    return {name: (pair[0], pair[1]) for name, pair in held.items()}


def _new_key() -> tuple[str, str]:
    letters = string.ascii_uppercase + "234567"
    return "AKIA" + "".join(secrets.choice(letters) for _ in range(16)), secrets.token_hex(20)


def aws_exports(site: Site) -> Mapping[str, str]:
    return {
        "CROSSLOAD_LAB_AWS_CONFIG": str(site.home / "aws" / "config"),
        "CROSSLOAD_LAB_AWS_CREDENTIALS": str(site.home / "aws" / "credentials"),
    }


def write_aws_files(site: Site) -> None:
    """The config and credentials files in AWS's own formats: SDKs find the lab by `endpoint_url`, no code knows it."""
    config: list[str] = []
    credentials: list[str] = []
    for name, (key, secret) in access_keys(site).items():
        config += [f"[profile {name}]", f"region = {REGION}", "output = json", "services = lab-a"]
        # The lab's clouds have no host names: buckets go in the path. One attempt more than the default hides nothing.
        config += ["s3 =", "    addressing_style = path", "retry_mode = standard", ""]
        credentials += [f"[{name}]", f"aws_access_key_id = {key}", f"aws_secret_access_key = {secret}", ""]
    config += ["[services lab-a]", "s3 =", f"    endpoint_url = {site.url('s3', 'seaweedfs')}"]
    for service in CONTROL_SERVICES:
        config += [f"{service} =", f"    endpoint_url = {site.url('api', 'ministack')}"]
    write_public(site.home / "aws" / "config", "\n".join(config) + "\n")
    write_private(site.home / "aws" / "credentials", "\n".join(credentials))


def store_identities(site: Site) -> str:
    """The object store's identity file: the same users and account as on the control plane, one policy each."""
    keys = access_keys(site)
    account = {"id": ACCOUNT, "displayName": "lab-a"}
    identities: list[dict[str, Any]] = []
    policies: list[dict[str, str]] = []
    for profile in PROFILES:
        key, secret = keys[profile.name]
        identity: dict[str, Any] = {
            "name": profile.name,
            "account": account,
            "credentials": [{"accessKey": key, "secretKey": secret}],
        }
        if "*" in profile.store:
            identity["actions"] = ["Admin"]
        elif profile.store:
            identity["policyNames"] = [profile.name]
            policies.append({"name": profile.name, "content": json.dumps(_store_policy(profile))})
        identities.append(identity)
    return json.dumps({"accounts": [account], "identities": identities, "policies": policies}, indent=1)


def _store_policy(profile: Profile) -> dict[str, Any]:
    statements: list[dict[str, Any]] = [
        {
            "Effect": "Allow",
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        }
        for bucket, actions in profile.store.items()
    ]
    return {"Version": "2012-10-17", "Statement": statements}
