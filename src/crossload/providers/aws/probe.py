"""The Probe port over S3: requests signed by hand (Signature Version 4), so that each part can be wrong on purpose."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from crossload.ports.errors import Invalid, NotSignedIn
from crossload.ports.probe import (
    CREDENTIALS,
    DELETE,
    EXPIRED,
    FORGED,
    LIST,
    NONE,
    OWN,
    READ,
    UNSIGNED,
    WRITE,
    WRONG_AUDIENCE,
    Detour,
    ProbeAnswer,
)
from crossload.ports.provider import Settings
from crossload.providers.aws.errors import translated
from crossload.providers.aws.session import client, session
from crossload.providers.credentials import identities_of, makeable
from crossload.providers.raw import exchange

_METHODS = {LIST: "GET", READ: "GET", WRITE: "PUT", DELETE: "DELETE"}
_NEVER = '"0"'  # an etag no object has: the condition is never met
_OURS = frozenset({"return", "freeze"})  # identities of the migration itself, not of the workload


@dataclass(frozen=True, slots=True)
class Keys:
    """One access key. `repr` hides the secret."""

    id: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Keys(id={self.id!r})"


@dataclass(frozen=True, slots=True)
class Signing:
    """What a signature is made of. `drop` leaves the signature itself empty."""

    keys: Keys
    region: str
    service: str = "s3"
    at: datetime | None = None
    drop: bool = False


def open_probe(settings: Settings) -> AwsProbe:
    return AwsProbe(settings)


class AwsProbe:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        with translated():
            self._endpoint = str(client(settings, "s3").meta.endpoint_url).rstrip("/")

    def identities(self) -> tuple[str, ...]:
        return tuple(name for name in identities_of(self._settings, "profile") if name not in _OURS)

    def credentials(self) -> Mapping[str, str]:
        return makeable((*CREDENTIALS, *self.identities()), self._signing)

    def request(
        self, operation: str, bucket: str, key: str, credential: str, *, raw_path: str = "", body: bytes = b"",
        harmless: bool = False,
    ) -> ProbeAnswer:  # fmt: skip
        if operation == DELETE and not harmless:
            raise Invalid("a probe never deletes what it did not write; use remove()")
        path = raw_path or self.doors(operation, bucket, key)[0]
        headers = {"Range": "bytes=0-0"} if operation == READ else {}
        if harmless and operation in (WRITE, DELETE):
            headers["If-Match"] = _NEVER
        return self._send(
            _METHODS[operation], path, self._signing(credential), body if operation == WRITE else b"", headers
        )

    def doors(self, operation: str, bucket: str, key: str) -> tuple[str, ...]:
        """Path-style addresses; a list has two versions (S3 API reference: ListObjects, ListObjectsV2)."""
        place, name = quote(bucket, safe=""), quote(key)
        if operation == LIST:
            return (f"/{place}?list-type=2&max-keys=1", f"/{place}?max-keys=1", f"/{place}?max-keys=1&versions=")
        return (f"/{place}/{name}",)

    def detours(self, bucket: str, other: str, key: str) -> tuple[Detour, ...]:
        here, there, name = quote(bucket, safe=""), quote(other, safe=""), quote(key)
        reach = f"an object of bucket {other}"
        return (
            Detour(f"/{here}/../{there}/{name}", reach),
            Detour(f"/{here}/%2e%2e/{there}/{name}", reach),
            Detour(f"/{here}/..%2f{there}%2f{name}", reach),
            Detour(f"/{here}/%252e%252e%252f{there}%252f{name}", reach),
            Detour(f"/{here}%2f..%2f{there}/{name}", reach),
            Detour(f"/{here}/..%5c{there}%5c{name}", reach),
            Detour(f"//{there}/{name}", f"{reach}, past the check of keys"),
            Detour(f"/./{there}/{name}", f"{reach}, past the check of keys"),
            Detour(f"/{there}/./{name}", f"{reach}, past the check of keys"),
        )

    def remove(self, bucket: str, key: str, version: str = "") -> bool:
        path = self.doors(DELETE, bucket, key)[0] + (f"?versionId={quote(version, safe='')}" if version else "")
        answer = self._send("DELETE", path, self._signing(OWN), b"", {})
        return answer.granted or answer.status == 404

    def _send(
        self, method: str, path: str, signing: Signing | None, body: bytes, headers: Mapping[str, str]
    ) -> ProbeAnswer:
        host = urlsplit(self._endpoint).netloc
        signed = sign(method, path, host, hashlib.sha256(body).hexdigest(), signing) if signing else {}
        answer = exchange(self._endpoint, method, path, {**headers, **signed}, body, "x-amz-version-id")
        return replace(answer, version="") if answer.version == "null" else answer

    def _signing(self, credential: str) -> Signing | None:
        region = self._settings.place.region
        if credential == NONE:
            return None
        if credential in self.identities():
            return Signing(self._keys(replace(self._settings, identity=credential)), region)
        own = self._keys(self._settings)
        if credential == OWN:
            return Signing(own, region)
        if credential == EXPIRED:  # a signature is good for 15 minutes
            return Signing(own, region, at=datetime.now(UTC) - timedelta(hours=1))
        if credential == FORGED:
            return Signing(replace(own, secret=secrets.token_hex(20)), region)
        if credential == UNSIGNED:
            return Signing(own, region, drop=True)
        if credential == WRONG_AUDIENCE:
            return Signing(own, region, service="sqs")
        raise Invalid(f"place {self.place} has no identity called {credential}")

    def _keys(self, settings: Settings) -> Keys:
        with translated():
            found: Any = session(settings).get_credentials()
            if found is None:
                raise NotSignedIn(f"place {self.place}: no access key for {settings.identity or 'our own identity'}")
            frozen = found.get_frozen_credentials()
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or "")


def sign(method: str, path: str, host: str, body_sha256: str, signing: Signing) -> dict[str, str]:
    """Headers of Signature Version 4 for S3 (IAM user guide, "Create a signed AWS API request"). The path is signed as
    it is sent: S3 does not normalise it."""
    when = signing.at or datetime.now(UTC)
    stamp, day = when.strftime("%Y%m%dT%H%M%SZ"), when.strftime("%Y%m%d")
    road, _, query = path.partition("?")
    pairs = sorted(part.partition("=")[::2] for part in query.split("&") if part)
    headers = {"host": host, "x-amz-content-sha256": body_sha256, "x-amz-date": stamp}
    if signing.keys.token:
        headers["x-amz-security-token"] = signing.keys.token
    names = ";".join(sorted(headers))
    canonical = "\n".join((
        method, road, "&".join(f"{name}={value}" for name, value in pairs),
        "".join(f"{name}:{headers[name]}\n" for name in sorted(headers)), names, body_sha256,
    ))  # fmt: skip
    scope = f"{day}/{signing.region}/{signing.service}/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{signing.keys.secret}".encode()
    for part in (day, signing.region, signing.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = "" if signing.drop else hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    del headers["host"]  # the connection sends it
    credential = f"{signing.keys.id}/{scope}"
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers
