"""A small OpenID Connect issuer: client credentials in, RS256 tokens out. Its key lives in its folder.

    GET  /.well-known/openid-configuration    GET /jwks
    POST /token   grant_type=client_credentials client_id client_secret [audience] [expires_in]

`expires_in` may be negative, so that tests can hold a token that was good once.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import secrets
import time
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from crossload.lab.programs.serving import JsonHandler, serve
from crossload.lab.site import write_private

_LIFETIME_SECONDS = 600


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Issuer:
    """Signs tokens with one key. `clients` is the folder with one secret file per identity."""

    def __init__(self, url: str, folder: Path, clients: Path, audience: str) -> None:
        self.url = url
        self._clients = clients
        self._audience = audience
        self._key = _load_or_make(folder / "key.pem")
        public = self._key.public_key()
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._key_id = base64url(hashlib.sha256(der).digest())[:16]
        numbers = public.public_numbers()
        self.jwks: dict[str, Any] = {
            "keys": [
                {
                    "kty": "RSA",
                    "use": "sig",
                    "alg": "RS256",
                    "kid": self._key_id,
                    "n": base64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
                    "e": base64url(numbers.e.to_bytes(3, "big")),
                }
            ]
        }
        self.configuration: dict[str, Any] = {
            "issuer": url,
            "jwks_uri": f"{url}/jwks",
            "token_endpoint": f"{url}/token",
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def knows(self, client: str, secret: str) -> bool:
        if not client or any(mark in client for mark in "/\\.\0"):
            return False
        try:
            wanted = (self._clients / f"oidc-{client}").read_text().strip()
        except OSError:
            wanted = ""
        return hmac.compare_digest(wanted.encode(), secret.encode()) and wanted != ""

    def token(self, subject: str, audience: str | None, lifetime_seconds: int) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": subject,
            "aud": audience or self._audience,
            "iat": min(now, now + lifetime_seconds),
            "nbf": min(now, now + lifetime_seconds),
            "exp": now + lifetime_seconds,
            "jti": secrets.token_hex(8),
        }
        header = {"alg": "RS256", "typ": "JWT", "kid": self._key_id}
        signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        return f"{signed}.{base64url(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _load_or_make(path: Path) -> rsa.RSAPrivateKey:
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError(f"{path} holds no RSA key")
        return key
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(path, pem.decode())
    return key


class _Handler(JsonHandler):
    issuer: Issuer

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/.well-known/openid-configuration":
                self.reply(HTTPStatus.OK, self.issuer.configuration)
            case "/jwks":
                self.reply(HTTPStatus.OK, self.issuer.jwks)
            case _:
                self.reply(HTTPStatus.NOT_FOUND, {"error": "not_found"})

    def do_POST(self) -> None:
        if self.path.partition("?")[0] != "/token":
            self.reply(HTTPStatus.NOT_FOUND, {"error": "not_found"})
            return
        form = dict(urllib.parse.parse_qsl(self.body().decode(errors="replace")))
        client, secret = self._credentials(form)
        if not self.issuer.knows(client, secret):
            self.reply(HTTPStatus.UNAUTHORIZED, {"error": "invalid_client"})
            return
        if form.get("grant_type") != "client_credentials":
            self.reply(HTTPStatus.BAD_REQUEST, {"error": "unsupported_grant_type"})
            return
        try:
            lifetime_seconds = int(form.get("expires_in", _LIFETIME_SECONDS))
        except ValueError:
            self.reply(HTTPStatus.BAD_REQUEST, {"error": "invalid_request"})
            return
        token = self.issuer.token(client, form.get("audience"), lifetime_seconds)
        self.reply(HTTPStatus.OK, {"access_token": token, "token_type": "Bearer", "expires_in": lifetime_seconds})

    def _credentials(self, form: Mapping[str, str]) -> tuple[str, str]:
        header = self.headers.get("Authorization", "")
        if header.startswith("Basic "):
            try:
                client, _, secret = base64.b64decode(header[6:]).decode().partition(":")
            except ValueError:
                return "", ""
            return urllib.parse.unquote(client), urllib.parse.unquote(secret)
        return form.get("client_id", ""), form.get("client_secret", "")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clients", type=Path, required=True)
    parser.add_argument("--audience", required=True)
    arguments = parser.parse_args()
    _Handler.issuer = Issuer(
        f"http://127.0.0.1:{arguments.port}", arguments.folder, arguments.clients, arguments.audience
    )
    serve(_Handler, arguments.port)


if __name__ == "__main__":
    main()
