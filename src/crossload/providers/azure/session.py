"""A Blob service client from a place's settings.

Settings: `account`; `endpoint` (default: the account's public address); `key`, a reference to an account key, or none
for azure-identity's default chain (environment, workload identity, managed identity, `az login`)."""

from __future__ import annotations

import threading
from typing import Any

import requests
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ExponentialRetry
from requests.adapters import HTTPAdapter

from crossload.ports.provider import Settings

_CONNECTIONS = 64
_lock = threading.Lock()
_services: dict[tuple[str, ...], BlobServiceClient] = {}


def endpoint(settings: Settings) -> str:
    account = settings.require("account")
    return settings.get("endpoint", f"https://{account}.blob.core.windows.net").rstrip("/")


def credential(settings: Settings) -> Any:
    """A named key, the default chain, or None for the identity `anonymous`."""
    if settings.identity == "anonymous":
        return None
    key = settings.get("key")
    if key:
        return AzureNamedKeyCredential(settings.require("account"), key)
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def service(settings: Settings) -> BlobServiceClient:
    """A shared client: it is safe to share between threads, and keeps its connections."""
    key = (endpoint(settings), settings.require("account"), settings.get("key"), settings.identity)
    with _lock:
        if key not in _services:
            session = requests.Session()
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS))
            _services[key] = BlobServiceClient(
                endpoint(settings),
                credential=credential(settings),
                transport=RequestsTransport(session=session, session_owner=True),
                # Whoever is patient wraps this store; the SDK's own default would wait 15 s before its first retry.
                retry_policy=ExponentialRetry(0, 1, retry_total=1, random_jitter_range=0),
                connection_timeout=5,
                read_timeout=120,
                # One write is one request, and one read too: who wants parts says so.
                max_single_put_size=2**31,
                max_single_get_size=2**31,
                user_agent="crossload",
            )
        return _services[key]


def close_services() -> None:
    """Close all shared clients and their connections."""
    with _lock:
        for client in _services.values():
            client.close()
        _services.clear()
