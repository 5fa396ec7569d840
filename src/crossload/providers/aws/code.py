"""boto3 in neutral words: how its clients are made, what each call means, and what does not carry over."""

from __future__ import annotations

import configparser
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from crossload.ports.code import Constructor, Front, Reading, ReadRow
from crossload.ports.provider import Settings

_CLIENT = Constructor("client", "service_name", 0)
_RESOURCE = Constructor("resource", "service_name", 0)
_SESSION = Constructor("session")
_SUB = Constructor("sub-resource")

CONSTRUCTORS: Mapping[str, Constructor] = {
    "boto3.client": _CLIENT,
    "boto3.resource": _RESOURCE,
    "boto3.Session": _SESSION,
    "boto3.session.Session": _SESSION,
}
MEMBERS: Mapping[tuple[str, str], Constructor] = {
    ("session", "client"): _CLIENT,
    ("session", "resource"): _RESOURCE,
    ("client", "get_paginator"): Constructor("paginator", "operation_name", 0),
    ("client", "get_waiter"): Constructor("waiter", "waiter_name", 0),
    **{("resource", name): _SUB for name in ("Bucket", "Object", "Table", "Queue", "Topic", "ObjectSummary")},
    **{("sub-resource", name): _SUB for name in ("Object", "Bucket")},
}
# Class names of the published type stubs (boto3-stubs, mypy_boto3_*, types_boto3_*).
ANNOTATIONS: Mapping[str, str] = {
    "S3Client": "s3",
    "BedrockRuntimeClient": "bedrock-runtime",
    "BedrockAgentRuntimeClient": "bedrock-agent-runtime",
    "SQSClient": "sqs",
    "SecretsManagerClient": "secretsmanager",
    "SSMClient": "ssm",
    "DynamoDBClient": "dynamodb",
    "LambdaClient": "lambda",
    "SNSClient": "sns",
    "STSClient": "sts",
}
HINTS: Mapping[str, str] = {
    "s3": "s3",
    "s3_client": "s3",
    "s3client": "s3",
    "bedrock": "bedrock-runtime",
    "bedrock_client": "bedrock-runtime",
    "bedrock_runtime": "bedrock-runtime",
    "brt": "bedrock-runtime",
    "sqs": "sqs",
    "sqs_client": "sqs",
    "secrets": "secretsmanager",
    "secrets_client": "secretsmanager",
    "secretsmanager": "secretsmanager",
}

_PLACE = {"Bucket": "bucket", "Key": "key"}
_WRITTEN = {
    "ContentType": "content_type",
    "ContentEncoding": "content_encoding",
    "ContentLanguage": "content_language",
    "ContentDisposition": "content_disposition",
    "CacheControl": "cache_control",
    "Metadata": "metadata",
}
_DESCRIBED = frozenset({
    "ETag", "ContentLength", "ContentType", "LastModified", "Metadata", "AcceptRanges", "ResponseMetadata",
    "ContentEncoding", "ContentLanguage", "ContentDisposition", "CacheControl",
})  # fmt: skip
_ENCRYPTED = "the target encrypts every object with its own or the bucket's key"
_CLASS = "the bucket's default class is used"
_TRANSFER = "the target's client decides about parts and threads"
_CHAT = {"modelId": "model", "messages": "messages", "system": "system", "inferenceConfig": "settings"}
_PER_MODEL = "its body is per model; converse and converse_stream have a portable form"
_STAYS = "queues and secrets have no target in this version"

READ: Mapping[tuple[str, str], ReadRow] = {
    ("s3", "get_object"): ReadRow("objects.get", {**_PLACE, "Range": "range"}, {}, _DESCRIBED | {"Body"}),
    ("s3", "put_object"): ReadRow(
        "objects.put", {**_PLACE, "Body": "data", **_WRITTEN},
        {"ContentLength": "the target counts the bytes", "ServerSideEncryption": _ENCRYPTED, "StorageClass": _CLASS},
        frozenset({"ETag", "ResponseMetadata"}),
    ),
    ("s3", "head_object"): ReadRow("objects.head", _PLACE, {}, _DESCRIBED),
    ("s3", "delete_object"): ReadRow("objects.delete", _PLACE, {}, frozenset({"ResponseMetadata"})),
    ("s3", "delete_objects"): ReadRow(
        "objects.delete_many", {"Bucket": "bucket", "Delete": "keys"}, {},
        frozenset({"Deleted", "Errors", "ResponseMetadata"}),
    ),
    ("s3", "copy_object"): ReadRow(
        "objects.copy", {**_PLACE, "CopySource": "source"}, {}, frozenset({"CopyObjectResult"})
    ),
    ("s3", "list_objects_v2"): ReadRow(
        "objects.list",
        {
            "Bucket": "bucket", "Prefix": "prefix", "Delimiter": "delimiter", "StartAfter": "after",
            "ContinuationToken": "token", "MaxKeys": "count", "PaginationConfig": "paging",
        },
        {},
        frozenset({
            "Contents", "CommonPrefixes", "KeyCount", "IsTruncated", "NextContinuationToken", "Name", "Prefix",
            "MaxKeys", "ResponseMetadata",
        }),
    ),
    ("s3", "upload_file"): ReadRow(
        "objects.put", {"Filename": "file", **_PLACE, "ExtraArgs": "headers"}, {"Config": _TRANSFER},
        positions=("Filename", "Bucket", "Key", "ExtraArgs", "Callback", "Config"),
    ),
    ("s3", "upload_fileobj"): ReadRow(
        "objects.put", {"Fileobj": "stream", **_PLACE, "ExtraArgs": "headers"}, {"Config": _TRANSFER},
        positions=("Fileobj", "Bucket", "Key", "ExtraArgs", "Callback", "Config"),
    ),
    ("s3", "download_file"): ReadRow(
        "objects.get", {**_PLACE, "Filename": "file"}, {"Config": _TRANSFER},
        positions=("Bucket", "Key", "Filename", "ExtraArgs", "Callback", "Config"),
    ),
    ("s3", "download_fileobj"): ReadRow(
        "objects.get", {**_PLACE, "Fileobj": "stream"}, {"Config": _TRANSFER},
        positions=("Bucket", "Key", "Fileobj", "ExtraArgs", "Callback", "Config"),
    ),
    ("s3", "generate_presigned_url"): ReadRow("", why="signing for the target needs a private key of its own"),
    ("s3", "list_objects"): ReadRow("", why="use list_objects_v2, which has a portable form"),
    ("bedrock-runtime", "converse"): ReadRow(
        "chat.complete", _CHAT, {}, frozenset({"output", "stopReason", "usage", "metrics", "ResponseMetadata"})
    ),
    ("bedrock-runtime", "converse_stream"): ReadRow(
        "chat.stream", _CHAT, {}, frozenset({"stream", "ResponseMetadata"})
    ),
    ("bedrock-runtime", "invoke_model"): ReadRow("", why=_PER_MODEL),
    ("bedrock-runtime", "invoke_model_with_response_stream"): ReadRow("", why=_PER_MODEL),
    ("sqs", "send_message"): ReadRow("queue.send", {"QueueUrl": "queue", "MessageBody": "body"}, why=_STAYS),
    ("sqs", "receive_message"): ReadRow(
        "queue.receive",
        {"QueueUrl": "queue", "MaxNumberOfMessages": "count", "WaitTimeSeconds": "wait", "VisibilityTimeout": "hidden"},
        why=_STAYS,
    ),
    ("sqs", "delete_message"): ReadRow("queue.ack", {"QueueUrl": "queue", "ReceiptHandle": "receipt"}, why=_STAYS),
    ("secretsmanager", "get_secret_value"): ReadRow("secret.get", {"SecretId": "name"}, why=_STAYS),
}  # fmt: skip

FRONTS: Mapping[str, Front] = {
    "objects": Front("s3", "ObjectsClient", "get_paginator"),
    "chat": Front("bedrock-runtime", "ChatClient"),
}

# Variables that outrank a profile or a configuration file; a leftover one would send the child somewhere else.
_OUTRANK = re.compile(
    r"AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|SECURITY_TOKEN|PROFILE|DEFAULT_PROFILE|CONFIG_FILE"
    r"|SHARED_CREDENTIALS_FILE|REGION|DEFAULT_REGION|ENDPOINT_URL(_\w+)?|WEB_IDENTITY_TOKEN_FILE|ROLE_ARN)"
)
_NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


def source_part() -> str:
    return Path(__file__).with_name("portable.py").read_text(encoding="utf-8")


def _errors() -> dict[tuple[str, str], str]:
    """ERRORS of this dialect; read from the part that uses them, so that they are written once."""
    from crossload.providers.aws.portable import CHAT_ERRORS, OBJECT_ERRORS

    groups = (("objects", OBJECT_ERRORS), ("chat", CHAT_ERRORS))
    return {
        (f"{group}:{operation}", kind): code for group, table in groups for (operation, kind), code in table.items()
    }


READING = Reading(
    name="boto3",
    modules=frozenset({"boto3", "botocore"}),
    constructors=CONSTRUCTORS,
    members=MEMBERS,
    annotations=ANNOTATIONS,
    plain_members=frozenset({"exceptions", "meta", "close", "can_paginate", "waiter_names"}),
    hints=HINTS,
    rows=READ,
    paginate="paginate",
    fronts=FRONTS,
    dispatch="client",
    session_dispatch="of",
    table="PORTABLE",
    errors=_errors,
    part=source_part,
)


def open_code(settings: Settings) -> AwsCode:
    return AwsCode(settings)


class AwsCode:
    """The Code port of a place that applications leave."""

    reading = READING
    writing = None

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = replace(settings, identity="app")

    def environment(self) -> dict[str, str]:
        """The SDK's own files and profile: keys stay in the credentials file."""
        named = {
            "AWS_CONFIG_FILE": self._settings.get("config_file"),
            "AWS_SHARED_CREDENTIALS_FILE": self._settings.get("credentials_file"),
            "AWS_PROFILE": self._settings.get("profile"),
            "AWS_DEFAULT_REGION": self._settings.place.region,
            "AWS_EC2_METADATA_DISABLED": "true" if self._settings.get("profile") else "",
        }
        return {name: value for name, value in named.items() if value}

    def inherited(self, environment: Mapping[str, str]) -> dict[str, str]:
        if not self._settings.get("profile"):
            return dict(environment)  # the SDK's chain is all there is: leave it
        return {name: value for name, value in environment.items() if not _OUTRANK.fullmatch(name)}

    def cut_off(self, services: Collection[str]) -> dict[str, str]:
        return {f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}": _NOWHERE for service in services}

    def redact(self, text: str) -> str:
        path = self._settings.get("credentials_file")
        if not path:
            return text
        parser = configparser.RawConfigParser()
        try:
            parser.read(Path(path).expanduser(), encoding="utf-8")
        except (OSError, configparser.Error):
            return text
        for section in parser.sections():
            for name in ("aws_secret_access_key", "aws_session_token"):
                value = parser.get(section, name, fallback="")
                text = text.replace(value, "***") if value else text
        return text
