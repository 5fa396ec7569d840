"""An HTTP client for Google's JSON APIs, with a bearer token from the settings' OIDC issuer or google-auth's chain."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from crossload.ports import errors
from crossload.ports.provider import Settings
from crossload.providers.keepalive import Answer, Body, send

PUBLIC_ENDPOINT = "https://storage.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_EARLY_SECONDS = 60.0  # a token this close to its end is renewed, so that no request starts with a dying one


@dataclass(frozen=True, slots=True)
class Token:
    """`value` is never printed. `expires_at` is epoch seconds."""

    value: str
    subject: str
    issuer: str
    method: str
    expires_at: float

    def __repr__(self) -> str:
        return f"Token(subject={self.subject!r}, issuer={self.issuer!r}, expires_at={self.expires_at:.0f})"


_lock = threading.Lock()
_tokens: dict[tuple[str, ...], Token] = {}


def access_token(settings: Settings) -> Token:
    """A token that lives at least a minute more. Raises NotSignedIn naming the chain that was tried."""
    key = (settings.place.id, settings.get("issuer"), settings.get("client_id"), settings.identity)
    with _lock:
        token = _tokens.get(key)
    if token is None or token.expires_at - time.time() < _EARLY_SECONDS:
        token = _federated(settings) if settings.get("issuer") else _default_chain(settings)
        with _lock:
            _tokens[key] = token
    return token


def forget_tokens() -> None:
    """Drop cached tokens, so that the next call signs in anew."""
    with _lock:
        _tokens.clear()


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a JWT (RFC 7519), unverified: the server judges it, we only read our own expiry."""
    try:
        return jwt_part(token, 1)
    except (IndexError, ValueError):
        return {}


def jwt_part(token: str, number: int) -> dict[str, Any]:
    """Header (0) or claims (1) of a JWT. Raises IndexError or ValueError for a token that is none."""
    text = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def client_form(settings: Settings) -> dict[str, str]:
    """OIDC client credentials (RFC 6749 section 4.4), as the issuer's token endpoint asks for them."""
    return {
        "grant_type": "client_credentials",
        "client_id": settings.require("client_id"),
        "client_secret": settings.require("client_secret"),
        "audience": settings.get("audience"),
    }


def _federated(settings: Settings) -> Token:
    """A token of the workload's own issuer."""
    issuer = settings.require("issuer").rstrip("/")
    form = client_form(settings)
    chain = f"OIDC client {form['client_id']} at {issuer}"
    body = urlencode({name: value for name, value in form.items() if value}).encode()
    try:
        answer = send("POST", f"{issuer}/token", {"content-type": "application/x-www-form-urlencoded"}, content=body)
    except errors.Unavailable as error:
        raise errors.Unavailable(f"place {settings.place.id}: {chain}: {error}") from error
    if answer.status_code >= 500:
        raise errors.Unavailable(f"place {settings.place.id}: {chain}: HTTP {answer.status_code}")
    if answer.status_code != 200:
        raise errors.NotSignedIn(
            f"place {settings.place.id}: {chain} refused: HTTP {answer.status_code} {answer.text[:200]}",
            hint="check client_id and the reference client_secret of this place",
        )
    found = answer.json()
    value = str(found["access_token"])
    claims = claims_of(value)
    expires_at = float(claims.get("exp") or time.time() + float(found.get("expires_in", 300)))
    return Token(value, str(claims.get("sub", form["client_id"])), issuer, "oidc-federation", expires_at)


def _default_chain(settings: Settings) -> Token:
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests

    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        credentials.refresh(google.auth.transport.requests.Request())
    except google.auth.exceptions.GoogleAuthError as error:
        raise errors.NotSignedIn(
            f"place {settings.place.id}: Application Default Credentials: {error}",
            hint="run `gcloud auth application-default login`, or set issuer and client_id for federation",
        ) from error
    expiry = credentials.expiry.timestamp() if credentials.expiry else time.time() + 300
    subject = str(getattr(credentials, "service_account_email", "") or "application default")
    return Token(str(credentials.token), subject, "", "application-default", expiry)


def request(
    settings: Settings,
    method: str,
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    content: Body | None = None,
    into: memoryview | None = None,
    accept: frozenset[int] = frozenset({200, 201, 204, 206}),
) -> Answer:
    """One request to the place's endpoint (`url` may be absolute). Statuses outside `accept` become our errors."""
    endpoint = settings.get("endpoint", PUBLIC_ENDPOINT).rstrip("/")
    full = url if url.startswith("http") else endpoint + url
    sent = dict(headers or {})
    # An absolute address comes from an answer or a journal: our token goes to our endpoint and nowhere else.
    if settings.identity != "anonymous" and urlsplit(full).netloc == urlsplit(endpoint).netloc:
        sent["authorization"] = f"Bearer {access_token(settings).value}"
    answer = send(method, full, sent, params, content, into)
    if answer.status_code in accept:
        return answer
    raise translate(method, answer)


def bucket_path(bucket: str) -> str:
    return f"/storage/v1/b/{quote(bucket, safe='')}"


def object_path(bucket: str, key: str) -> str:
    return f"{bucket_path(bucket)}/o/{quote(key, safe='')}"


def upload_path(bucket: str) -> str:
    return f"/upload{bucket_path(bucket)}/o"


def items(ask: Callable[..., Answer], path: str, params: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Everything a list method has, page by page. `ask` is `request` for one place."""
    asked = dict(params)
    while True:
        page = ask("GET", path, params=asked).json()
        yield from page.get("items", ())
        if not page.get("nextPageToken"):
            return
        asked["pageToken"] = page["nextPageToken"]


def translate(method: str, answer: Answer) -> errors.CrossloadError:
    """Google's status codes (AIP-193, Cloud Storage JSON API) in our words."""
    status = answer.status_code
    text = f"{method} {answer.path}: HTTP {status} {_message(answer)}".strip()
    after = answer.headers.get("retry-after", "")
    wait = float(after) if after.isdigit() else None
    kinds: dict[int, type[errors.CrossloadError]] = {
        401: errors.NotSignedIn,
        403: errors.AccessDenied,
        404: errors.NotFound,
        409: errors.PreconditionFailed,
        410: errors.NotFound,
        412: errors.PreconditionFailed,
        408: errors.Unavailable,
        429: errors.Throttled,
        501: errors.Unsupported,
    }
    kind = kinds.get(status) or (errors.Unavailable if status >= 500 else errors.Invalid)
    return kind(text, retry_after_seconds=wait)


def _message(answer: Answer) -> str:
    try:
        body = answer.json()
        return str(body["error"]["message"])[:300]
    except (errors.Invalid, KeyError, TypeError):
        return answer.text[:200].strip()
