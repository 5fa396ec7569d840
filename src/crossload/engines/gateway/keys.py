"""Who may use the gateway: bearer keys at the chat door, and for the same key a pair to sign with at the converse door.

The pair is derived from the key (HMAC), so one reference in the configuration serves both doors and an unmodified
SDK of that wire can sign over plain HTTP, where it refuses to send a bearer key."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crossload.engines.gateway.errors import GatewayError
from crossload.engines.gateway.wire.sigv4 import SignatureWrong, verify

# A shorter key could be found by trying from the pair's public half, which is a hash of it.
KEY_LENGTH_MIN = 16


@dataclass(frozen=True, slots=True)
class Client:
    """`may_choose_arm`: may name the arm itself with the header x-crossload-arm (for mirrors, never for users)."""

    name: str
    may_choose_arm: bool = False


def signing_pair(key: str) -> tuple[str, str]:
    """The access key id (20 characters) and secret (40 characters) that belong to a gateway key."""
    digest = hmac.digest(key.encode(), b"crossload gateway key id", "sha256")
    key_id = "CLGW" + base64.b32encode(digest).decode()[:16]
    secret = base64.b64encode(hmac.digest(key.encode(), f"crossload gateway secret {key_id}".encode(), "sha256"))
    return key_id, secret.decode()[:40]


class KeyRing:
    """Bearer keys are kept as SHA-256 only. `open_door` lets everybody in as the client `anyone`."""

    def __init__(self, keys: Iterable[tuple[Client, str]], open_door: bool = False) -> None:
        self._bearers: dict[bytes, Client] = {}
        self._secrets: dict[str, str] = {}
        self._owners: dict[str, Client] = {}
        self._anyone = Client("anyone", may_choose_arm=True) if open_door else None
        for client, key in keys:
            key_id, secret = signing_pair(key)
            self._bearers[hashlib.sha256(key.encode()).digest()] = client
            self._secrets[key_id] = secret
            self._owners[key_id] = client

    def admit(self, method: str, target: str, headers: Mapping[str, str], body: bytes, now: float) -> Client:
        """The client behind a request. Raises GatewayError (not_signed_in, denied)."""
        authorization = headers.get("authorization", "")
        if authorization[:7].lower() == "bearer ":
            client = self._bearers.get(hashlib.sha256(authorization[7:].strip().encode()).digest())
            if client is not None:
                return client
            if self._anyone is None:
                raise GatewayError("not_signed_in", "this key is not known here")
        elif authorization and self._anyone is None:
            try:
                return self._owners[verify(self._secrets, method, target, headers, body, now)]
            except SignatureWrong as error:
                raise GatewayError(error.code, str(error)) from error
        if self._anyone is not None:
            return self._anyone
        raise GatewayError("not_signed_in", "no key was sent: use a bearer key, or sign the request")
