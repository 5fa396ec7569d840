"""Native settings in neutral words: what is told is known, what is not told is unknown, and never the other way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crossload.estate.place import Place
from crossload.ports.errors import NotFound
from crossload.ports.policy import FACTS
from crossload.ports.provider import Settings
from crossload.providers.aws import policy as aws
from crossload.providers.gcp import policy as gcp

GOOGLE_SAFE = {
    "location": "EUROPE-WEST3", "versioning": {"enabled": True}, "logging": {"logBucket": "l"},
    "iamConfiguration": {"publicAccessPrevention": "enforced", "uniformBucketLevelAccess": {"enabled": True}},
    "encryption": {"defaultKmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"},
}  # fmt: skip


class _Answer:
    def __init__(self, value: Any) -> None:
        self._value = value

    def json(self) -> Any:
        return self._value


def google(
    monkeypatch: pytest.MonkeyPatch, bucket: dict[str, Any], bindings: Any, endpoint: str = ""
) -> dict[str, Any]:
    def request(_settings: Any, _method: str, path: str, **_more: Any) -> _Answer:
        if not path.endswith("/iam"):
            return _Answer(bucket)
        if bindings is None:
            raise NotFound("GET /iam: HTTP 404 Not Found")
        return _Answer({"bindings": bindings})

    monkeypatch.setattr(gcp, "request", request)
    settings = Settings(Place("b", "gcp", "europe-west3"), {"endpoint": endpoint} if endpoint else {}, {})
    posture = gcp.open_policy(settings).posture("docs")
    assert set(posture.facts) == set(FACTS)
    return {name: fact.value for name, fact in posture.facts.items()}


def test_google_bucket_that_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = google(monkeypatch, GOOGLE_SAFE, [{"role": "roles/storage.objectViewer", "members": ["user:a"]}])
    assert facts == {
        "encryption": "customer-key", "encryption_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "public_access": "blocked", "versioning": "on", "transport": "tls-only", "access_logs": "on",
        "region": "europe-west3", "grants": {"objects.list": ["user:a"], "objects.read": ["user:a"]},
    }  # fmt: skip


@pytest.mark.parametrize("member", ["allUsers", "allAuthenticatedUsers"])
def test_google_bucket_that_everybody_may_read(monkeypatch: pytest.MonkeyPatch, member: str) -> None:
    raw = {**GOOGLE_SAFE, "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}}
    facts = google(monkeypatch, raw, [{"role": "roles/storage.objectViewer", "members": [member]}])
    assert facts["public_access"] == "open"
    assert facts["grants"]["objects.read"] == ["*"]
    closed = google(monkeypatch, raw, [{"role": "roles/storage.objectViewer", "members": ["user:a"]}])
    assert closed["public_access"] == "blocked"


def test_google_bucket_with_nothing_set_uses_the_providers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = google(monkeypatch, {"location": "EU", "iamConfiguration": {}}, None)
    assert (facts["encryption"], facts["versioning"]) == ("provider-key", "off")
    assert facts["grants"] is None
    assert facts["public_access"] is None


def test_a_server_that_does_not_model_protection_leaves_it_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is absent from such an answer says nothing; `provider-key` or `blocked` would be a lie."""
    facts = google(monkeypatch, {"name": "docs"}, None, "http://127.0.0.1:1")
    known = {name: value for name, value in facts.items() if value is not None}
    assert known == {"transport": "plain-possible"}


class _S3:
    """A client that answers from a table; what is not in it, the server does not know."""

    def __init__(self, answers: dict[str, Any], url: str = "https://s3.example") -> None:
        from botocore.exceptions import ClientError

        self._answers = answers
        self._error = ClientError
        self.exceptions = type("E", (), {"ClientError": ClientError})
        self.meta = type("M", (), {"endpoint_url": url})

    def __getattr__(self, name: str) -> Any:
        def call(**_: Any) -> Any:
            value = self._answers.get(name, "NotImplemented")
            if isinstance(value, str):
                raise self._error({"Error": {"Code": value}, "ResponseMetadata": {"HTTPStatusCode": 400}}, name)
            return value

        return call


class _Iam:
    def __init__(self, page: dict[str, Any] | None) -> None:
        self._page = page

    def get_paginator(self, _name: str) -> Any:
        from botocore.exceptions import ClientError

        page = self._page

        class Pages:
            def paginate(self) -> list[dict[str, Any]]:
                if page is None:
                    raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetAccountAuthorizationDetails")
                return [page]

        return Pages()


def amazon(
    monkeypatch: pytest.MonkeyPatch, s3: dict[str, Any], iam: dict[str, Any] | None, **more: str
) -> dict[str, Any]:
    clients = {"s3": _S3({"head_bucket": {}, **s3}, **more), "iam": _Iam(iam)}
    monkeypatch.setattr(aws, "client", lambda _settings, service: clients[service])
    posture = aws.open_policy(Settings(Place("a", "aws", "eu-central-1"), {}, {})).posture("docs")
    assert set(posture.facts) == set(FACTS)
    return {name: fact.value for name, fact in posture.facts.items()}


def _policy(*statements: dict[str, Any]) -> dict[str, str]:
    return {"Policy": json.dumps({"Version": "2012-10-17", "Statement": list(statements)})}


_ALL_BLOCKED = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)
_TLS = {
    "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::docs/*",
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}  # fmt: skip
AMAZON_SAFE: dict[str, Any] = {
    "get_bucket_policy": _policy(_TLS),
    "get_bucket_acl": {"Grants": []},
    "get_bucket_encryption": {"ServerSideEncryptionConfiguration": {"Rules": [{"ApplyServerSideEncryptionByDefault": {
        "SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:eu-central-1:1:key/k"}}]}},
    "get_bucket_versioning": {"Status": "Enabled"},
    "get_bucket_logging": {"LoggingEnabled": {"TargetBucket": "l"}},
    "get_bucket_location": {"LocationConstraint": "eu-central-1"},
    "get_public_access_block": {"PublicAccessBlockConfiguration": _ALL_BLOCKED},
}  # fmt: skip
IAM_PAGE: dict[str, Any] = {
    "UserDetailList": [
        {"UserName": "app", "UserPolicyList": [{"PolicyName": "p", "PolicyDocument": {"Statement": [
            {"Effect": "Allow", "Action": ["s3:Get*", "s3:PutObject"], "Resource": "arn:aws:s3:::docs/*"},
            {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"}]}}], "GroupList": ["readers"]},
        {"UserName": "other", "UserPolicyList": [{"PolicyName": "p", "PolicyDocument": {"Statement": {
            "Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::elsewhere/*"}}}]},
    ],
    "RoleDetailList": [{"RoleName": "batch", "AttachedManagedPolicies": [{"PolicyArn": "arn:p"}]}],
    "GroupDetailList": [{"GroupName": "readers", "GroupPolicyList": [{"PolicyDocument": json.dumps({"Statement": [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::docs"}]})}]}],
    "Policies": [{"Arn": "arn:p", "PolicyVersionList": [
        {"IsDefaultVersion": False, "Document": {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}},
        {"IsDefaultVersion": True, "Document": {"Statement": {
            "Effect": "Allow", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::do?s/*"}}}]}],
}  # fmt: skip


def test_amazon_bucket_that_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = amazon(monkeypatch, AMAZON_SAFE, IAM_PAGE)
    assert facts == {
        "encryption": "customer-key", "encryption_key": "arn:aws:kms:eu-central-1:1:key/k", "public_access": "blocked",
        "versioning": "on", "transport": "tls-only", "access_logs": "on", "region": "eu-central-1",
        "grants": {"objects.list": ["user/app"], "objects.read": ["user/app"], "objects.write": [],
                   "objects.delete": ["role/batch"]},
    }  # fmt: skip


def test_amazon_bucket_policy_that_lets_everybody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    allow = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::docs/*"}
    raw = {
        **AMAZON_SAFE,
        "get_bucket_policy": _policy(allow),
        "get_public_access_block": "NoSuchPublicAccessBlockConfiguration",
    }
    facts = amazon(monkeypatch, raw, IAM_PAGE)
    assert facts["public_access"] == "open"
    assert "*" in facts["grants"]["objects.read"]
    assert facts["transport"] == "plain-possible"
    narrowed = {
        **raw,
        "get_bucket_policy": _policy({**allow, "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}),
    }
    assert amazon(monkeypatch, narrowed, IAM_PAGE)["public_access"] == "blocked"


def test_amazon_acl_that_lets_everybody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    grant = {
        "Grantee": {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"},
        "Permission": "READ",
    }
    raw = {**AMAZON_SAFE, "get_bucket_acl": {"Grants": [grant]}, "get_public_access_block": "NotImplemented"}
    assert amazon(monkeypatch, raw, IAM_PAGE)["public_access"] == "open"
    assert (
        amazon(monkeypatch, {**raw, "get_public_access_block": AMAZON_SAFE["get_public_access_block"]}, IAM_PAGE)[
            "public_access"
        ]
        == "blocked"
    ), "the block wins over the ACL"


def test_amazon_server_that_answers_little_leaves_the_rest_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {"get_bucket_location": {"LocationConstraint": None}}
    facts = amazon(monkeypatch, silent, None, url="http://127.0.0.1:1")
    assert {name: value for name, value in facts.items() if value is not None} == {"transport": "plain-possible"}


def test_amazon_absent_settings_are_known_to_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {
        "get_bucket_encryption": "ServerSideEncryptionConfigurationNotFoundError",
        "get_bucket_policy": "NoSuchBucketPolicy",
        "get_bucket_acl": {"Grants": []}, "get_bucket_versioning": {}, "get_bucket_logging": {},
    }  # fmt: skip
    facts = amazon(monkeypatch, raw, IAM_PAGE)
    assert (facts["encryption"], facts["versioning"], facts["access_logs"]) == ("none", "off", "off")
    assert facts["public_access"] == "blocked"
    assert facts["region"] is None, "an answer without a region is believed only where it means one"


def test_unconditional_deny_for_everybody_beats_every_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::docs/*"}
    facts = amazon(monkeypatch, {**AMAZON_SAFE, "get_bucket_policy": _policy(deny)}, IAM_PAGE)
    assert facts["grants"]["objects.read"] == []


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ({"Action": "s3:GET*", "Resource": "arn:aws:s3:::docs/*"}, True),
        ({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::Docs/*"}, False),
        ({"NotAction": "s3:PutObject", "Resource": "*"}, True),
        ({"NotAction": "s3:Get*", "Resource": "*"}, False),
        ({"Action": "*", "NotResource": "arn:aws:s3:::docs/*"}, False),
        ({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::docs"}, False),
        ({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::[d]ocs/*"}, False),
    ],
)
def test_statements(statement: dict[str, Any], answer: bool) -> None:
    assert aws.covers(statement, "s3:GetObject", "arn:aws:s3:::docs/any-key") is answer
