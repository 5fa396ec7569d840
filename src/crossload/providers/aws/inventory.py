"""What AWS holds, as a table: one row per kind, and one runner for all rows.

A row names an SDK operation, where the resources are in its answer and which calls add detail (JMESPath, as in the
SDK's own paginators). Nothing of an answer is kept except the facts a row names, because an answer may hold values of
secrets (a function's environment does). Operations and shapes: botocore's service models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jmespath
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from crossload.ports.account import DENIED, FAILED, UNSUPPORTED

Raw = dict[str, Any]
ClientFor = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Detail:
    """One more call for each resource. `params` maps parameter names to JMESPath over what is known so far; `path`
    picks what to keep of the answer, under the name `into`. `each` is a JMESPath list: the call is made once per
    element (named `each`), and the answers are kept as a list. `absent` are error codes for "there is none"."""

    operation: str
    params: Mapping[str, str]
    path: str
    into: str
    each: str = ""
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Row:
    """One kind. `id` and `name` are JMESPath over a resource with its details; `facts` maps fact names likewise.

    `keep` is a JMESPath test: what fails it is not the team's own. `offers` says that the rows are a catalog open to
    everybody. `actions` are the IAM actions the calls need."""

    kind: str
    service: str
    operation: str
    path: str
    id: str
    name: str
    facts: Mapping[str, str]
    actions: tuple[str, ...]
    details: tuple[Detail, ...] = ()
    tags: str = ""
    keep: str = ""
    offers: bool = False
    title: str = ""

    @property
    def label(self) -> str:
        """The kind's name in reports; two rows of one kind differ here."""
        return self.title or self.kind


@dataclass(frozen=True, slots=True)
class Trouble:
    """One call that did not answer: `what` is the operation, `status` denied | unsupported | failed."""

    what: str
    status: str
    detail: str


_AGENT = {"agentId": "agentId", "agentVersion": "'DRAFT'"}
_SSE = "ServerSideEncryptionConfiguration.Rules[].ApplyServerSideEncryptionByDefault"

BUCKETS = Row(
    "bucket", "s3", "ListBuckets", "Buckets[]", "join('', ['arn:aws:s3:::', Name])", "Name",
    {
        "region": "region || (public && region_answered && 'us-east-1') || `null`",
        "versioning": "versioning || (versioning_answered && 'off') || 'unknown'",
        "encryption": "encryption[0].SSEAlgorithm || (encryption_answered && 'none') || 'unknown'",
        "encryption_key": "encryption[0].KMSMasterKeyID",
    },
    ("s3:ListAllMyBuckets", "s3:GetBucketVersioning", "s3:GetEncryptionConfiguration", "s3:GetBucketTagging",
     "s3:GetBucketLocation", "s3:GetBucketPolicy", "s3:ListBucket", "s3:ListBucketVersions"),
    details=(
        Detail("GetBucketVersioning", {"Bucket": "Name"}, "Status", "versioning"),
        Detail("GetBucketEncryption", {"Bucket": "Name"}, _SSE, "encryption",
               absent=frozenset({"ServerSideEncryptionConfigurationNotFoundError"})),
        Detail("GetBucketTagging", {"Bucket": "Name"}, "TagSet", "tags", absent=frozenset({"NoSuchTagSet"})),
        Detail("GetBucketLocation", {"Bucket": "Name"}, "LocationConstraint", "region"),
        Detail("GetBucketPolicy", {"Bucket": "Name"}, "Policy", "policy",
               absent=frozenset({"NoSuchBucketPolicy", "NoSuchPolicy"})),
    ),
    tags="tags",
)  # fmt: skip

ROWS: tuple[Row, ...] = (
    Row(
        "endpoint", "bedrock", "ListFoundationModels", "modelSummaries[]", "modelArn", "modelId",
        {"model": "modelId", "wire": "'converse'", "vendor": "providerName", "streaming": "responseStreamingSupported",
         "hosting": "'on demand'"},
        ("bedrock:ListFoundationModels",), offers=True, title="hosted model",
    ),
    Row(
        "endpoint", "bedrock", "ListProvisionedModelThroughputs", "provisionedModelSummaries[]",
        "provisionedModelArn", "provisionedModelName",
        {"model": "foundationModelArn", "wire": "'converse'", "hosting": "'provisioned'", "units": "modelUnits"},
        ("bedrock:ListProvisionedModelThroughputs",), title="provisioned endpoint",
    ),
    Row(
        "endpoint", "bedrock", "ListCustomModels", "modelSummaries[]", "modelArn", "modelName",
        {"model": "modelName", "wire": "'converse'", "hosting": "'custom'", "base": "baseModelName"},
        ("bedrock:ListCustomModels",), title="custom model",
    ),
    Row(
        "endpoint", "sagemaker", "ListEndpoints", "Endpoints[]", "EndpointArn", "EndpointName",
        {"model": "config.ProductionVariants[0].ModelName", "wire": "'invoke'", "hosting": "'dedicated'",
         "machine": "config.ProductionVariants[0].InstanceType"},
        ("sagemaker:ListEndpoints", "sagemaker:DescribeEndpoint", "sagemaker:DescribeEndpointConfig"),
        title="dedicated endpoint",
        details=(
            Detail("DescribeEndpoint", {"EndpointName": "EndpointName"}, "EndpointConfigName", "config_name"),
            Detail("DescribeEndpointConfig", {"EndpointConfigName": "config_name"}, "@", "config"),
        ),
    ),
    Row(
        "agent", "bedrock-agent", "ListAgents", "agentSummaries[]", "agent.agentArn", "agentName",
        {"model": "agent.foundationModel", "agent_id": "agentId", "instruction": "agent.instruction",
         "status": "agent.agentStatus", "role": "agent.agentResourceRoleArn",
         "action_groups": "groups[].actionGroupName", "tools": "groups[].functionSchema.functions[].name",
         "guardrail": "agent.guardrailConfiguration.guardrailIdentifier"},
        ("bedrock:ListAgents", "bedrock:GetAgent", "bedrock:ListAgentActionGroups", "bedrock:GetAgentActionGroup"),
        details=(
            Detail("GetAgent", {"agentId": "agentId"}, "agent", "agent"),
            Detail("ListAgentActionGroups", _AGENT, "actionGroupSummaries[].actionGroupId", "group_ids"),
            Detail("GetAgentActionGroup", {**_AGENT, "actionGroupId": "each"}, "agentActionGroup", "groups",
                   each="group_ids"),
        ),
    ),
    Row(
        "queue", "sqs", "ListQueues", "QueueUrls[]", "attributes.QueueArn || value", "value",
        {"depth": "to_number(attributes.ApproximateNumberOfMessages)",
         "in_flight": "to_number(attributes.ApproximateNumberOfMessagesNotVisible)",
         "retention_seconds": "to_number(attributes.MessageRetentionPeriod)",
         "visibility_seconds": "to_number(attributes.VisibilityTimeout)",
         "encryption_key": "attributes.KmsMasterKeyId", "dead_letters": "attributes.RedrivePolicy"},
        ("sqs:ListQueues", "sqs:GetQueueAttributes", "sqs:ListQueueTags"),
        details=(
            Detail("GetQueueAttributes", {"QueueUrl": "value", "AttributeNames": "['All']"}, "Attributes",
                   "attributes"),
            Detail("ListQueueTags", {"QueueUrl": "value"}, "Tags", "tags"),
        ),
        tags="tags",
    ),
    Row(
        "secret", "secretsmanager", "ListSecrets", "SecretList[]", "ARN", "Name",
        {"encryption_key": "KmsKeyId", "rotation": "RotationEnabled"},
        ("secretsmanager:ListSecrets",), tags="Tags",
    ),
    Row(
        "role", "iam", "ListRoles", "Roles[]", "Arn", "RoleName",
        {"trust": "AssumeRolePolicyDocument.Statement[].Principal", "policies": "attached[].PolicyName",
         "inline_policies": "inline_names", "grants": "grants", "description": "Description",
         "ours": "ours || `null`"},
        ("iam:ListRoles", "iam:ListRolePolicies", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies",
         "iam:GetPolicy", "iam:GetPolicyVersion", "iam:ListRoleTags"),
        details=(
            Detail("ListRolePolicies", {"RoleName": "RoleName"}, "PolicyNames", "inline_names"),
            Detail("GetRolePolicy", {"RoleName": "RoleName", "PolicyName": "each"}, "PolicyDocument", "inline",
                   each="inline_names"),
            Detail("ListAttachedRolePolicies", {"RoleName": "RoleName"}, "AttachedPolicies", "attached"),
            Detail("GetPolicy", {"PolicyArn": "each"}, "Policy.{arn: Arn, version: DefaultVersionId}", "versions",
                   each="attached[].PolicyArn"),
            Detail("GetPolicyVersion", {"PolicyArn": "each.arn", "VersionId": "each.version"},
                   "PolicyVersion.Document", "managed", each="versions"),
            Detail("ListRoleTags", {"RoleName": "RoleName"}, "Tags", "tags"),
        ),
        tags="tags", keep="!starts_with(Path, '/aws-service-role/')",
    ),
    Row(
        "table", "dynamodb", "ListTables", "TableNames[]", "table.TableArn || value", "value",
        {"rows": "table.ItemCount", "size_bytes": "table.TableSizeBytes",
         "key": "table.KeySchema[].AttributeName", "billing": "table.BillingModeSummary.BillingMode",
         "encryption_key": "table.SSEDescription.KMSMasterKeyArn"},
        ("dynamodb:ListTables", "dynamodb:DescribeTable", "dynamodb:ListTagsOfResource"),
        details=(
            Detail("DescribeTable", {"TableName": "value"}, "Table", "table"),
            Detail("ListTagsOfResource", {"ResourceArn": "table.TableArn"}, "Tags", "tags"),
        ),
        tags="tags",
    ),
    Row(
        "key", "kms", "ListKeys", "Keys[]", "KeyArn", "alias_name || KeyId",
        {"state": "key.KeyState", "usage": "key.KeyUsage", "spec": "key.KeySpec", "rotation": "rotation",
         "description": "key.Description"},
        ("kms:ListKeys", "kms:DescribeKey", "kms:ListAliases", "kms:GetKeyRotationStatus", "kms:ListResourceTags"),
        details=(
            Detail("DescribeKey", {"KeyId": "KeyId"}, "KeyMetadata", "key"),
            Detail("ListAliases", {"KeyId": "KeyId"}, "Aliases[?starts_with(AliasName, 'alias/')] | [0].AliasName",
                   "alias_name"),
            Detail("GetKeyRotationStatus", {"KeyId": "KeyId"}, "KeyRotationEnabled", "rotation"),
            Detail("ListResourceTags", {"KeyId": "KeyId"}, "Tags", "tags"),
        ),
        tags="tags", keep="key == null || key.KeyManager != 'AWS'",
    ),
    Row(
        "function", "lambda", "ListFunctions", "Functions[]", "FunctionArn", "FunctionName",
        {"runtime": "Runtime", "handler": "Handler", "memory_mib": "MemorySize", "timeout_seconds": "Timeout",
         "size_bytes": "CodeSize", "role": "Role", "environment_names": "keys(Environment.Variables || `{}`)",
         "log_group": "LoggingConfig.LogGroup"},
        ("lambda:ListFunctions", "lambda:ListEventSourceMappings"),
        details=(
            Detail("ListEventSourceMappings", {"FunctionName": "FunctionName"},
                   "EventSourceMappings[].EventSourceArn", "sources"),
        ),
    ),
    Row(
        "log", "logs", "DescribeLogGroups", "logGroups[]", "logGroupArn || arn", "logGroupName",
        {"size_bytes": "storedBytes", "retention_days": "retentionInDays", "encryption_key": "kmsKeyId"},
        ("logs:DescribeLogGroups",),
    ),
)  # fmt: skip


def list_resources(row: Row, client_for: ClientFor) -> Iterator[Raw]:
    """The row's resources, page by page. A bare string (a queue's URL, a table's name) becomes {"value": it}."""
    client = client_for(row.service)
    method = _method(row.operation)
    search = jmespath.compile(row.path)
    if client.can_paginate(method):
        pages: Any = client.get_paginator(method).paginate()
    else:
        pages = [getattr(client, method)()]
    for page in pages:
        for item in search.search(page) or ():
            yield dict(item) if isinstance(item, dict) else {"value": item}


def add_details(row: Row, raw: Raw, client_for: ClientFor) -> list[Trouble]:
    """Make the row's further calls for one resource; what did not answer is left out and told."""
    troubles: list[Trouble] = []
    for detail in row.details:
        try:
            answered = _ask(detail, raw, client_for(row.service))
        except (ClientError, BotoCoreError) as error:
            if _code(error) not in detail.absent:
                troubles.append(Trouble(detail.operation, status_of(error), words(error)))
                continue
            answered = None
        raw[detail.into] = answered
        raw[f"{detail.into}_answered"] = True
    return troubles


def _ask(detail: Detail, raw: Raw, client: Any) -> Any:
    method = getattr(client, _method(detail.operation))
    found: list[Any] = []
    rounds = jmespath.search(detail.each, raw) or [] if detail.each else [None]
    for each in rounds:
        known = {**raw, "each": each}
        params = {name: jmespath.search(path, known) for name, path in detail.params.items()}
        if any(value is None for value in params.values()):
            continue  # an earlier call of this resource was refused, and has been told already
        found.append(jmespath.search(detail.path, method(**params)))
    if detail.each:
        return found
    return found[0] if found else None


def tags_of(raw: Any) -> dict[str, str]:
    """The four spellings of a tag list in AWS's APIs, as one mapping."""
    if isinstance(raw, Mapping):
        return {str(name): str(value) for name, value in raw.items()}
    out: dict[str, str] = {}
    for item in raw or ():
        name = item.get("Key", item.get("TagKey", item.get("key")))
        out[str(name)] = str(item.get("Value", item.get("TagValue", item.get("value", ""))))
    return out


def _method(operation: str) -> str:
    """botocore's own rule for method names (`ListBuckets` -> `list_buckets`)."""
    return xform_name(operation)


_DENIED = (
    "AccessDenied", "UnauthorizedOperation", "Forbidden", "AllAccessDisabled", "InvalidAccessKeyId",
    "SignatureDoesNotMatch", "InvalidClientTokenId", "UnrecognizedClient", "ExpiredToken", "NotAuthorized",
)  # fmt: skip
_UNSUPPORTED = (
    "UnknownOperation", "InvalidAction", "NotImplemented", "Unsupported", "MethodNotAllowed", "UnknownService",
    "InvalidMethod",
)  # fmt: skip


def status_of(error: BaseException) -> str:
    """denied | unsupported | failed, from the server's own code."""
    code = _code(error)
    if any(code.startswith(known) for known in _DENIED) or code == "403":
        return DENIED
    if any(code.startswith(known) for known in _UNSUPPORTED) or code in ("400", "404", "405", "501"):
        return UNSUPPORTED  # a bare status without an error code: the server knows no such operation
    return FAILED


def _code(error: BaseException) -> str:
    if isinstance(error, ClientError):
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        return code or str(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return type(error).__name__


_VOLATILE = re.compile(r"\s*\(?\b(request ?id|host ?id)\b\s*[:=]?\s*[\w./+=-]*\)?", re.IGNORECASE)
_ADDRESS = re.compile(r'"?https?://\S+"?')


def words(error: BaseException) -> str:
    """The server's own words, without what changes from call to call (request ids, ports), so that locks are stable."""
    if isinstance(error, ClientError):
        message = str(error.response.get("Error", {}).get("Message", ""))
        text = f"{error.operation_name}: {_code(error)} {message}"
    else:
        text = _ADDRESS.sub("the endpoint", str(error))
    return _VOLATILE.sub("", text).strip()[:300]
