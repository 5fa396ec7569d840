"""The Policy port over S3's bucket settings, bucket policy, ACL and IAM's identity policies."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from crossload.ports.errors import AccessDenied, CrossloadError, NotSignedIn
from crossload.ports.policy import (
    ACCESS_LOGS,
    ENCRYPTION,
    ENCRYPTION_KEY,
    GRANTS,
    PUBLIC_ACCESS,
    REGION,
    TRANSPORT,
    VERSIONING,
    Fact,
    Posture,
)
from crossload.ports.provider import Settings
from crossload.providers.aws.errors import translate, translated
from crossload.providers.aws.references import many, statements
from crossload.providers.aws.session import client

# What stands for each neutral capability (Service Authorization Reference, Amazon S3), and on what it is asked.
_ACTIONS = {
    "objects.list": ("s3:ListBucket", "{bucket}"),
    "objects.read": ("s3:GetObject", "{bucket}/any-key"),
    "objects.write": ("s3:PutObject", "{bucket}/any-key"),
    "objects.delete": ("s3:DeleteObject", "{bucket}/any-key"),
}
_ABSENT = {
    "ServerSideEncryptionConfigurationNotFoundError",
    "NoSuchBucketPolicy",
    "NoSuchPolicy",
    "NoSuchPublicAccessBlockConfiguration",
}
_EVERYBODY_GROUPS = ("/AllUsers", "/AuthenticatedUsers")


def open_policy(settings: Settings) -> AwsPolicy:
    # The auditor reads settings and no data: the least that can do this work.
    return AwsPolicy(replace(settings, identity="audit") if settings.connection.get("profile@audit") else settings)


class AwsPolicy:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        with translated():
            self._s3: Any = client(settings, "s3")
        self._identities: tuple[list[tuple[str, list[dict[str, Any]]]] | None, str] | None = None

    def posture(self, bucket: str) -> Posture:
        try:
            with translated():
                self._s3.head_bucket(Bucket=bucket)
        except AccessDenied:
            pass  # it is there, or not for us to know: each setting below says for itself what it tells
        document, how_policy = self._ask("get_bucket_policy", bucket, lambda answer: answer["Policy"])
        policy = statements(json.loads(document)) if document else []
        acl, how_acl = self._ask("get_bucket_acl", bucket, lambda answer: answer["Grants"])
        facts = {
            **self._encryption(bucket),
            **self._simple(bucket),
            PUBLIC_ACCESS: self._public(bucket, policy, how_policy, acl, how_acl),
            TRANSPORT: self._transport(policy, how_policy),
            GRANTS: self._grants(bucket, policy, how_policy),
        }
        return Posture(self.place, bucket, facts)

    def _ask(self, operation: str, bucket: str, pick: Callable[[Any], Any]) -> tuple[Any, str]:
        """(what was asked for or None, how). An answer "there is none" gives (None, "absent: ..")."""
        name = "".join(part.title() for part in operation.split("_"))
        try:
            return pick(getattr(self._s3, operation)(Bucket=bucket)), name
        except KeyError:
            return None, f"{name} answered without it"
        except self._s3.exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _ABSENT:
                return None, f"absent: {name} says there is none"
            ours = translate(error)
            if isinstance(ours, NotSignedIn):
                raise ours from error
            return None, f"{name} gave no answer ({code})"

    def _encryption(self, bucket: str) -> dict[str, Fact]:
        rules, how = self._ask(
            "get_bucket_encryption", bucket, lambda a: a["ServerSideEncryptionConfiguration"]["Rules"]
        )
        if rules is None:
            value = Fact("none", how) if how.startswith("absent") else Fact.unknown(how)
            return {ENCRYPTION: value, ENCRYPTION_KEY: Fact.unknown(how)}
        default = next((rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules), {})
        key = str(default.get("KMSMasterKeyID", ""))
        kind = "customer-key" if key and "alias/aws/" not in key else "provider-key"
        return {
            ENCRYPTION: Fact(kind, f"{how}: {default.get('SSEAlgorithm', '')}"),
            ENCRYPTION_KEY: Fact(key, how) if key else Fact.unknown("no key of the team is set"),
        }

    def _simple(self, bucket: str) -> dict[str, Fact]:
        status, how = self._ask("get_bucket_versioning", bucket, lambda answer: answer.get("Status", "never enabled"))
        logs, how_logs = self._ask("get_bucket_logging", bucket, lambda answer: "LoggingEnabled" in answer)
        place, how_place = self._ask(
            "get_bucket_location", bucket, lambda answer: answer.get("LocationConstraint") or "us-east-1"
        )
        region = self._settings.place.region
        # AWS says "none" for us-east-1; other servers say it for everything. Only an answer that agrees is believed.
        believed = place is not None and (place != "us-east-1" or region == "us-east-1")
        return {
            VERSIONING: Fact.unknown(how) if status is None else Fact("on" if status == "Enabled" else "off", how),
            ACCESS_LOGS: Fact.unknown(how_logs) if logs is None else Fact("on" if logs else "off", how_logs),
            REGION: Fact(place, how_place) if believed else Fact.unknown(f"{how_place} names no region"),
        }

    def _public(self, bucket: str, policy: list[Any], how_policy: str, acl: Any, how_acl: str) -> Fact:
        granted = [
            item.get("Permission", "")
            for item in acl or ()
            if str(item.get("Grantee", {}).get("URI", "")).endswith(_EVERYBODY_GROUPS)
        ]
        block, how = self._ask(
            "get_public_access_block", bucket, lambda answer: answer["PublicAccessBlockConfiguration"]
        )
        if block and all(block.get(name) for name in ("IgnorePublicAcls", "RestrictPublicBuckets")):
            return Fact("blocked", how)
        if granted:
            return Fact("open", f"{how_acl} grants {', '.join(granted)} to everybody")
        if any(_to_everybody(statement) for statement in policy):
            return Fact("open", f"{how_policy} allows everybody")
        told = (policy or how_policy.startswith("absent")) and acl is not None
        return (
            Fact("blocked", "no grant to everybody in policy and ACL")
            if told
            else Fact.unknown(f"{how_policy}; {how_acl}")
        )

    def _transport(self, policy: Iterable[Any], how_policy: str) -> Fact:
        for statement in policy:
            secure = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
            if statement.get("Effect") == "Deny" and str(secure).lower() == "false":
                return Fact("tls-only", how_policy)
        scheme = urlsplit(str(self._s3.meta.endpoint_url)).scheme
        if scheme == "http":
            return Fact("plain-possible", "the endpoint is http")
        known = how_policy.startswith(("absent", "GetBucketPolicy"))
        return Fact("plain-possible", "no statement denies requests without TLS") if known else Fact.unknown(how_policy)

    def _grants(self, bucket: str, policy: list[Any], how_policy: str) -> Fact:
        """Who the settings let in: the bucket's policy and every IAM identity's own policies. Conditions are taken as
        met and Deny as met too, so that the answer errs to neither side silently: a name with both is left out."""
        identities, how = self._iam()
        if identities is None:
            return Fact.unknown(how)
        out: dict[str, list[str]] = {}
        for capability, (action, pattern) in _ACTIONS.items():
            resource = f"arn:aws:s3:::{pattern.format(bucket=bucket)}"
            members = {name for name, allowed in identities if decide(allowed, action, resource)}
            for statement in policy:
                if statement.get("Effect") == "Allow" and covers(statement, action, resource):
                    members.update(_principals(statement))
            denied = {
                text
                for statement in policy
                if statement.get("Effect") == "Deny"
                and covers(statement, action, resource)
                and not statement.get("Condition")
                for text in _principals(statement)
            }
            out[capability] = [] if "*" in denied else sorted(members - denied)
        return Fact(out, f"{how}; {how_policy}")

    def _iam(self) -> tuple[list[tuple[str, list[dict[str, Any]]]] | None, str]:
        if self._identities is None:
            try:
                with translated():
                    self._identities = (
                        list(_authorizations(client(self._settings, "iam"))),
                        "IAM users' and roles' policies",
                    )
            except AccessDenied as error:
                self._identities = (None, f"IAM refused to tell ({error})"[:120])
            except CrossloadError as error:
                self._identities = (None, f"IAM gave no answer ({error})"[:120])
        return self._identities


def _authorizations(iam: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(principal, statements) of every user and role with its inline, attached and group policies."""
    users: list[Any] = []
    roles: list[Any] = []
    groups: dict[str, Any] = {}
    managed: dict[str, Any] = {}
    for page in iam.get_paginator("get_account_authorization_details").paginate():
        users += page.get("UserDetailList", ())
        roles += page.get("RoleDetailList", ())
        groups |= {item["GroupName"]: item for item in page.get("GroupDetailList", ())}
        for item in page.get("Policies", ()):
            version = next((v for v in item.get("PolicyVersionList", ()) if v.get("IsDefaultVersion")), {})
            managed[item["Arn"]] = version.get("Document")
    for prefix, items, inline in (("user", users, "UserPolicyList"), ("role", roles, "RolePolicyList")):
        for item in items:
            holders = [
                (item, inline),
                *((groups.get(name, {}), "GroupPolicyList") for name in item.get("GroupList", ())),
            ]
            documents = [policy.get("PolicyDocument") for holder, name in holders for policy in holder.get(name, ())]
            documents += [
                managed.get(policy["PolicyArn"])
                for holder, _ in holders
                for policy in holder.get("AttachedManagedPolicies", ())
            ]
            yield (
                f"{prefix}/{item.get('UserName') or item.get('RoleName')}",
                [s for d in documents for s in _statements(d)],
            )


def _statements(document: Any) -> list[dict[str, Any]]:
    value = json.loads(document) if isinstance(document, str) else document or {}
    return [item for item in many(value.get("Statement")) if isinstance(item, dict)]


def decide(statements: Iterable[Mapping[str, Any]], action: str, resource: str) -> bool:
    """Deny overrides allow (IAM policy evaluation logic, identity policies of one account)."""
    effects = {statement.get("Effect") for statement in statements if covers(statement, action, resource)}
    return "Allow" in effects and "Deny" not in effects


def covers(statement: Mapping[str, Any], action: str, resource: str) -> bool:
    """Actions match without case, resources with it; `*` and `?` as IAM reads them."""
    if "NotAction" in statement:
        named = not any(_glob(action.lower(), str(item).lower()) for item in many(statement["NotAction"]))
    else:
        named = any(_glob(action.lower(), str(item).lower()) for item in many(statement.get("Action")))
    if "NotResource" in statement:
        return named and not any(_glob(resource, str(item)) for item in many(statement["NotResource"]))
    return named and any(_glob(resource, str(item)) for item in many(statement.get("Resource")))


def _glob(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _principals(statement: Mapping[str, Any]) -> list[str]:
    principal = statement.get("Principal")
    if isinstance(principal, Mapping):
        return [str(text) for value in principal.values() for text in many(value)]
    return [str(text) for text in many(principal)]


def _to_everybody(statement: Mapping[str, Any]) -> bool:
    """Everybody, with no condition that narrows it."""
    return statement.get("Effect") == "Allow" and "*" in _principals(statement) and not statement.get("Condition")
