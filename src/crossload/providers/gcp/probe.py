"""The Probe port over Cloud Storage's JSON and XML APIs: raw requests with good, wrong and no tokens."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from crossload.ports.errors import CrossloadError, Invalid
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
from crossload.providers.credentials import identities_of
from crossload.providers.gcp.session import (
    PUBLIC_ENDPOINT,
    access_token,
    claims_of,
    client_form,
    jwt_part,
    object_path,
)
from crossload.providers.raw import exchange, post_form

_NEVER = "1"  # a generation no object has: the condition is never met
_METHODS = {LIST: "GET", READ: "GET", WRITE: "POST", DELETE: "DELETE"}
_FOREIGN_AUDIENCE = "urn:crossload:another-service"
_LIVES_SECONDS_MAX = 5.0


def open_probe(settings: Settings) -> GcpProbe:
    return GcpProbe(settings)


class GcpProbe:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        self._endpoint = settings.get("endpoint", PUBLIC_ENDPOINT).rstrip("/")
        self._tokens: dict[str, tuple[str, str]] = {}

    def identities(self) -> tuple[str, ...]:
        return identities_of(self._settings, "client_id")

    def credentials(self) -> Mapping[str, str]:
        return {name: self._token(name)[1] for name in (*CREDENTIALS, *self.identities())}

    def request(
        self, operation: str, bucket: str, key: str, credential: str, *, raw_path: str = "", body: bytes = b"",
        harmless: bool = False,
    ) -> ProbeAnswer:  # fmt: skip
        if operation == DELETE and not harmless:
            raise Invalid("a probe never deletes what it did not write; use remove()")
        token, reason = self._token(credential)
        if reason:
            raise Invalid(f"credential {credential} cannot be made here: {reason}")
        path = raw_path or self.doors(operation, bucket, key)[0]
        if harmless and operation in (WRITE, DELETE):
            path += f"{'&' if '?' in path else '?'}ifGenerationMatch={_NEVER}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if operation == READ:
            headers["Range"] = "bytes=0-0"
        answer = exchange(self._endpoint, _METHODS[operation], path, headers, body if operation == WRITE else b"")
        if operation == WRITE and answer.granted:
            return replace(answer, version=_generation(answer.body))
        return answer

    def doors(self, operation: str, bucket: str, key: str) -> tuple[str, ...]:
        """JSON API, its download and upload roads, and the XML API (see Google's "Request endpoints")."""
        place, name = quote(bucket, safe=""), quote(key, safe="")
        if operation == LIST:
            return (f"/storage/v1/b/{place}/o?maxResults=1", f"/{place}?list-type=2&max-keys=1", f"/{place}/")
        if operation == READ:
            return (
                f"/storage/v1/b/{place}/o/{name}?alt=media", f"/download/storage/v1/b/{place}/o/{name}?alt=media",
                f"/{place}/{quote(key)}",
            )  # fmt: skip
        if operation == WRITE:
            upload = f"storage/v1/b/{place}/o?uploadType=media&name={name}"
            return (f"/upload/{upload}", f"/resumable/upload/{upload}")
        return (f"/storage/v1/b/{place}/o/{name}",)

    def detours(self, bucket: str, other: str, key: str) -> tuple[Detour, ...]:
        here, there, name = quote(bucket, safe=""), quote(other, safe=""), quote(key, safe="")
        target = f"storage/v1/b/{there}/o/{name}?alt=media"
        objects = f"/storage/v1/b/{here}/o"
        reach = f"an object of bucket {other}"
        return (
            Detour(f"{objects}/../../{there}/o/{name}?alt=media", reach),
            Detour(f"{objects}/%2e%2e/%2e%2e/{there}/o/{name}?alt=media", reach),
            Detour(f"{objects}/..%2f..%2f{there}%2fo%2f{name}?alt=media", reach),
            Detour(f"{objects}/%252e%252e%252f%252e%252e%252f{there}?alt=media", reach),
            Detour(f"/storage/v1/b/{here}%2f..%2f{there}/o/{name}?alt=media", reach),
            Detour(f"{objects}/..%5c..%5c{there}%5co?alt=media", reach),
            Detour(f"/_internal/../{target}", f"{reach}, past the check of tokens"),
            Detour(f"/_internal/%2e%2e/{target}", f"{reach}, past the check of tokens"),
            Detour(f"//{target}", f"{reach}, past the check of tokens"),
            Detour(f"/./{target}", f"{reach}, past the check of tokens"),
            Detour(f"/%73torage/v1/b/{there}/o/{name}?alt=media", f"{reach}, past the check of tokens"),
            Detour(f"/STORAGE/v1/b/{there}/o/{name}?alt=media", f"{reach}, past the check of tokens"),
        )

    def remove(self, bucket: str, key: str, version: str = "") -> bool:
        token, _ = self._token(OWN)
        path = object_path(bucket, key)
        if version:
            path += f"?generation={version}"  # a named generation is removed for good, also where versions are kept
        answer = exchange(self._endpoint, "DELETE", path, {"Authorization": f"Bearer {token}"}, b"")
        return answer.granted or answer.status == 404

    def _token(self, credential: str) -> tuple[str, str]:
        """(token, reason why there is none). Good ones come from the session's cache, bad ones are made once."""
        if credential == NONE:
            return "", ""
        if credential not in self._tokens or credential == OWN or credential in self.identities():
            try:
                self._tokens[credential] = self._make(credential)
            except CrossloadError as error:
                return "", str(error)
        return self._tokens[credential]

    def _make(self, credential: str) -> tuple[str, str]:
        if credential == OWN:
            return access_token(self._settings).value, ""
        if credential in self.identities():
            return access_token(replace(self._settings, identity=credential)).value, ""
        if credential == EXPIRED:
            return self._expired()
        if credential == WRONG_AUDIENCE:
            return self._foreign_audience()
        own = access_token(self._settings).value
        claims = claims_of(own)
        if credential == FORGED:
            return (_forged(own, claims) if claims else _tampered(own)), ""
        if credential == UNSIGNED:
            return (
                (_unsigned(own), "")
                if claims
                else ("", "our own token is opaque, it carries no signature to leave out")
            )
        return "", f"this place has no identity called {credential}"

    def _expired(self) -> tuple[str, str]:
        if not self._settings.get("issuer"):
            return "", "no issuer of our own that would sign a token that ends at once"
        for seconds in ("-120", "1"):
            try:
                value = self._ask_issuer({"expires_in": seconds})
            except CrossloadError:
                continue
            left = float(claims_of(value).get("exp") or 0) - time.time()
            if left <= _LIVES_SECONDS_MAX:
                time.sleep(max(0.0, left + 2.0) if left > -30 else 0.0)
                return value, ""
        return "", "the issuer signs no token that ends within seconds"

    def _foreign_audience(self) -> tuple[str, str]:
        if not self._settings.get("issuer"):
            return "", "no issuer of our own that would sign a token for another service"
        value = self._ask_issuer({"audience": _FOREIGN_AUDIENCE})
        if _FOREIGN_AUDIENCE not in str(claims_of(value).get("aud")):
            return "", "the issuer does not sign for the audience asked for"
        return value, ""

    def _ask_issuer(self, extra: Mapping[str, str]) -> str:
        form = {**client_form(self._settings), **extra}
        return post_form(self._settings.require("issuer").rstrip("/") + "/token", form)


def _encoded(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _forged(own: str, claims: Mapping[str, Any]) -> str:
    """Our own claims under the issuer's key id (RFC 7515), signed with a key made a moment ago."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    header = {**jwt_part(own, 0), "alg": "RS256"}
    signed = f"{_encoded(header)}.{_encoded({**claims, 'jti': secrets.token_hex(8)})}"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _unsigned(own: str) -> str:
    """RFC 7519 section 6: an unsecured token, `alg` none and an empty signature."""
    return f"{_encoded({'alg': 'none', 'typ': 'JWT'})}.{own.split('.')[1]}."


def _tampered(own: str) -> str:
    last = "A" if own[-1] != "A" else "B"
    return own[:-1] + last


def _generation(body: bytes) -> str:
    try:
        return str(json.loads(body).get("generation", ""))
    except (ValueError, AttributeError):
        return ""
