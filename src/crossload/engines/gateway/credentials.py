"""Credentials for upstreams: read from references, or asked of a callable and renewed before they expire."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from crossload.engines.gateway.config import Backend, Config
from crossload.engines.gateway.wire.sigv4 import SigningCredentials, credentials_of, sign

RENEW_BEFORE_SECONDS = 300
_PLAIN = ("region", "service", "source")


class Signer:
    """Adds what an upstream wants to see: a bearer key, a signature, or nothing. `renew` blocks (it may ask an
    identity service); `headers` never does."""

    def __init__(self, fetch: Callable[[], SigningCredentials | str]) -> None:
        self._fetch = fetch
        self._value: SigningCredentials | str = fetch()

    def due(self, now: float) -> bool:
        value = self._value
        return not isinstance(value, str) and value.expires_at is not None and now > (
            value.expires_at - RENEW_BEFORE_SECONDS
        )  # fmt: skip

    def renew(self) -> None:
        self._value = self._fetch()

    def headers(self, method: str, host: str, raw_path: str, body: bytes) -> dict[str, str]:
        value = self._value
        if isinstance(value, str):
            return {"authorization": f"Bearer {value}"} if value else {}
        return sign(value, method, host, raw_path, body)


def signer(config: Config, backend: Backend, environment: Mapping[str, str]) -> Signer:
    """Raises ReferenceUnresolved, and whatever the callable raises, so that a wrong key stops the start."""
    names = dict(backend.credentials)
    source = names.pop("source", "")
    if source:
        return Signer(lambda: _called(source, names, environment))

    def read() -> SigningCredentials | str:
        values = {name: text if name in _PLAIN else config.resolve(text, environment) for name, text in names.items()}
        if "access_key_id" in values:
            return credentials_of(values)
        return values.get("key", "")

    return Signer(read)


def _called(source: str, names: Mapping[str, str], environment: Mapping[str, str]) -> SigningCredentials:
    """`source` is `module:function`, called with the credential settings and the environment that references may
    use; it returns a mapping with the fields of SigningCredentials. This is how a provider's own sign-in chain serves
    the gateway without the gateway knowing the provider."""
    module, _, function = source.partition(":")
    return credentials_of(getattr(importlib.import_module(module), function)(names, environment))
