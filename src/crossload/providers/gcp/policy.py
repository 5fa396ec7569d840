"""The Policy port over Cloud Storage's bucket resource and its IAM policy (JSON API v1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from crossload.ports.errors import AccessDenied, CrossloadError, Invalid, NotFound, NotSignedIn, Unsupported
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
from crossload.providers.gcp.session import PUBLIC_ENDPOINT, bucket_path, request

_EVERYBODY = frozenset({"allUsers", "allAuthenticatedUsers"})
# Predefined roles (cloud.google.com/storage/docs/access-control/iam-roles); custom roles are read by their name only.
_ROLES = {
    "roles/storage.admin": ("objects.list", "objects.read", "objects.write", "objects.delete"),
    "roles/storage.objectAdmin": ("objects.list", "objects.read", "objects.write", "objects.delete"),
    "roles/storage.objectUser": ("objects.list", "objects.read", "objects.write", "objects.delete"),
    "roles/storage.objectViewer": ("objects.list", "objects.read"),
    "roles/storage.objectCreator": ("objects.write",),
    "roles/storage.legacyBucketReader": ("objects.list",),
    "roles/storage.legacyBucketWriter": ("objects.list", "objects.write", "objects.delete"),
    "roles/storage.legacyBucketOwner": ("objects.list", "objects.write", "objects.delete"),
    "roles/storage.legacyObjectReader": ("objects.read",),
    "roles/storage.legacyObjectOwner": ("objects.read",),
}


def open_policy(settings: Settings) -> GcpPolicy:
    # The auditor reads settings and no data: the least that can do this work.
    return GcpPolicy(replace(settings, identity="audit") if settings.connection.get("client_id@audit") else settings)


class GcpPolicy:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings

    def posture(self, bucket: str) -> Posture:
        path = bucket_path(bucket)
        raw: dict[str, Any] = request(self._settings, "GET", path, params={"projection": "full"}).json()
        grants, how = self._grants(path)
        facts = {
            **_settings_of(raw),
            REGION: Fact(str(raw["location"]).lower(), "buckets.get location") if raw.get("location") else
            Fact.unknown("buckets.get gives no location"),
            GRANTS: Fact(grants, how),
            PUBLIC_ACCESS: _public(raw, grants),
            TRANSPORT: self._transport(),
        }  # fmt: skip
        return Posture(self.place, bucket, facts)

    def _grants(self, path: str) -> tuple[dict[str, list[str]] | None, str]:
        try:
            answer = request(self._settings, "GET", f"{path}/iam", params={"optionsRequestedPolicyVersion": "3"})
            return grants_of(answer.json().get("bindings", [])), "buckets.getIamPolicy"
        except (NotFound, Unsupported, Invalid) as error:
            return None, f"this server has no IAM policy of buckets ({_short(error)})"
        except (AccessDenied, NotSignedIn) as error:
            return None, f"buckets.getIamPolicy refused ({_short(error)})"

    def _transport(self) -> Fact:
        scheme = urlsplit(self._settings.get("endpoint", PUBLIC_ENDPOINT)).scheme
        return Fact("tls-only" if scheme == "https" else "plain-possible", f"the endpoint is {scheme}")


def _settings_of(raw: Mapping[str, Any]) -> dict[str, Fact]:
    """Google answers `iamConfiguration` for every bucket. A server that leaves it out does not model protection, so
    that what is absent from its answer says nothing."""
    speaks = "iamConfiguration" in raw
    silent = Fact.unknown("buckets.get is silent on protection here")
    key = str(raw.get("encryption", {}).get("defaultKmsKeyName", ""))
    versioning = raw.get("versioning", {}).get("enabled")
    return {
        ENCRYPTION: Fact("customer-key", "buckets.get encryption") if key else
        Fact("provider-key", "buckets.get encryption: none set, the provider's keys apply") if speaks else silent,
        ENCRYPTION_KEY: Fact(key, "buckets.get encryption") if key else Fact.unknown("no key of the team is set"),
        VERSIONING: silent if versioning is None and not speaks else
        Fact("on" if versioning else "off", "buckets.get versioning"),
        ACCESS_LOGS: Fact("on", "buckets.get logging") if raw.get("logging") else
        Fact.unknown("bucket logging is off; audit logs of the project are not visible here") if speaks else silent,
    }  # fmt: skip


def _public(raw: Mapping[str, Any], grants: Mapping[str, list[str]] | None) -> Fact:
    if grants is not None and any("*" in members for members in grants.values()):
        return Fact("open", "buckets.getIamPolicy grants to everybody")
    configuration = raw.get("iamConfiguration", {})
    if configuration.get("publicAccessPrevention") == "enforced":
        return Fact("blocked", "buckets.get publicAccessPrevention enforced")
    if grants is not None and configuration.get("uniformBucketLevelAccess", {}).get("enabled"):
        return Fact("blocked", "uniform access, and no grant to everybody")
    return Fact.unknown("buckets.get is silent on public access here")


def grants_of(bindings: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    """capability -> sorted members. A binding with a condition counts as granted: it errs to reporting."""
    out: dict[str, set[str]] = {}
    for binding in bindings:
        members = {"*" if member in _EVERYBODY else str(member) for member in binding.get("members", ())}
        for capability in _ROLES.get(str(binding.get("role")), ()):
            out.setdefault(capability, set()).update(members)
    return {capability: sorted(members) for capability, members in sorted(out.items())}


def _short(error: CrossloadError) -> str:
    return str(error).rpartition(": ")[2][:80]
