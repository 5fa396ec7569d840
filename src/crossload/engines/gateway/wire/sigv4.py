"""Signature version 4 over one HTTP request: made for upstreams of the converse wire, checked at the converse door.

Only hashlib and hmac; the key of the day is cached, because deriving it costs four HMACs. Source: AWS Signature
Version 4; the tests hold both directions against the official SDK's own signer."""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_SECONDS_MAX = 900
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<credential>[^,\s]+),\s*SignedHeaders=(?P<signed>[^,\s]+),\s*"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_STAMP = re.compile(r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z\Z")
_SPACES = re.compile(r"\s+")


class SigningCredentials(NamedTuple):
    """`expires_at` is epoch seconds, None for keys that do not expire."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""
    region: str = "us-east-1"
    service: str = "bedrock"
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"SigningCredentials({self.access_key_id}, ...)"  # so that no log ever shows the secret


def credentials_of(values: Mapping[str, Any]) -> SigningCredentials:
    """From a mapping with some of its fields; the others keep their defaults. Raises ValueError on an unknown one."""
    unknown = set(values) - set(SigningCredentials._fields)
    if unknown:
        raise ValueError(f"unknown credential settings: {', '.join(sorted(unknown))}")
    return SigningCredentials(**values)


def profile_text(name: str, key_id: str, secret: str) -> str:
    """A profile of a shared-credentials file, as the official SDKs of this wire read it."""
    return f"[{name}]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n"


class SignatureWrong(Exception):
    """`code` is not_signed_in (unknown key, malformed, too old) or denied (the signature does not fit)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@lru_cache(maxsize=256)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _canonical(
    method: str, raw_path: str, query: str, headers: Mapping[str, str], signed: Iterable[str], body_hash: str
) -> bytes:
    """`raw_path` is percent-encoded as sent; it is encoded once more here, as every service but object storage does."""
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in parse_qsl(query, True))
    names = sorted(signed)
    lines = [
        method,
        quote(raw_path, safe="/-_.~"),
        "&".join(f"{name}={value}" for name, value in pairs),
        *(f"{name}:{_SPACES.sub(' ', headers.get(name, '')).strip()}" for name in names),
        "",
        ";".join(names),
        body_hash,
    ]
    return "\n".join(lines).encode()


def _signature(canonical: bytes, stamp: str, scope: str, key: bytes) -> str:
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
    return hmac.digest(key, text.encode(), "sha256").hex()


def sign(
    credentials: SigningCredentials, method: str, host: str, raw_path: str, body: bytes, now: float | None = None
) -> dict[str, str]:
    """The headers to add to a request: x-amz-date, authorization and, for temporary keys, the session token."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now if now is not None else time.time()))
    headers = {"host": host, "x-amz-date": stamp}
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token
    scope = f"{stamp[:8]}/{credentials.region}/{credentials.service}/aws4_request"
    canonical = _canonical(method, raw_path, "", headers, headers, hashlib.sha256(body).hexdigest())
    key = _signing_key(credentials.secret_access_key, stamp[:8], credentials.region, credentials.service)
    signature = _signature(canonical, stamp, scope, key)
    signed = ";".join(sorted(headers))
    headers["authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={signed}, Signature={signature}"
    )
    del headers["host"]
    return headers


def verify(
    secrets: Mapping[str, str], method: str, target: str, headers: Mapping[str, str], body: bytes, now: float
) -> str:
    """The access key id that signed this request. `target` is path and query as received; header names are lower-case.

    Raises SignatureWrong. Within the allowed clock skew a request can be replayed: the signature has no nonce."""
    match = _AUTHORIZATION.match(headers.get("authorization", ""))
    if match is None:
        raise SignatureWrong("not_signed_in", "the request is not signed (Signature Version 4 expected)")
    parts = match["credential"].split("/")
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise SignatureWrong("not_signed_in", "the credential scope cannot be read")
    key_id, date, region, service, _ = parts
    secret = secrets.get(key_id)
    if secret is None:
        raise SignatureWrong("not_signed_in", "the security token included in the request is invalid")
    stamp = headers.get("x-amz-date", "")
    signed = match["signed"].split(";")
    if "host" not in signed or "x-amz-date" not in signed:
        raise SignatureWrong("not_signed_in", "host and x-amz-date must be signed")
    try:
        sent_at = calendar.timegm(tuple(int(part) for part in _STAMP.findall(stamp)[0]))
    except (IndexError, ValueError) as error:
        raise SignatureWrong("not_signed_in", "x-amz-date cannot be read") from error
    if abs(now - sent_at) > SKEW_SECONDS_MAX or stamp[:8] != date:
        raise SignatureWrong("not_signed_in", "signature expired: check the clock")
    path, _, query = target.partition("?")
    body_hash = hashlib.sha256(body).hexdigest()
    canonical = _canonical(method, path, query, headers, signed, body_hash)
    wanted = _signature(
        canonical, stamp, f"{date}/{region}/{service}/aws4_request", _signing_key(secret, date, region, service)
    )
    if not hmac.compare_digest(wanted, match["signature"]):
        raise SignatureWrong("denied", "the request signature we calculated does not match the signature you provided")
    return key_id
