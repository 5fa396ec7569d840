"""boto3 clients from a place's settings. The SDK's own chain finds the credentials; we only name file and profile."""

from __future__ import annotations

import functools
import threading
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from crossload.ports.provider import Settings

_SIGN_IN = ("profile", "config_file", "credentials_file")
_lock = threading.Lock()
_clients: dict[tuple[str, ...], Any] = {}


@functools.lru_cache(maxsize=64)
def _shared(region: str, profile: str, config_file: str, credentials_file: str) -> boto3.Session:
    """One session for all clients of an identity: each new one reads the SDK's service tables again (0.1 s)."""
    core = botocore.session.Session(profile=profile or None)
    for option, value in (("config_file", config_file), ("credentials_file", credentials_file)):
        if value:
            core.set_config_variable(option, value)
    return boto3.Session(botocore_session=core, region_name=region)


def session(settings: Settings) -> boto3.Session:
    """A session for `config_file`, `credentials_file` and `profile`; what is missing is left to the SDK's chain."""
    return _shared(settings.place.region, *(settings.get(name) for name in _SIGN_IN))


def client(settings: Settings, service: str) -> Any:
    """A shared client: building one costs 0.2-3 s of model loading, and clients are safe to share between threads."""
    key = (service, settings.place.region, *(settings.get(name) for name in _SIGN_IN))
    with _lock:
        if key not in _clients:
            config = Config(
                retries={"mode": "standard", "total_max_attempts": 3},
                max_pool_connections=64,
                connect_timeout=5,
                read_timeout=120,
                # A bucket name in the host part needs DNS that S3-compatible servers seldom have.
                s3={"addressing_style": "path"},
                user_agent_extra="crossload",
            )
            _clients[key] = session(settings).client(service, config=config)
        return _clients[key]


def credentials(settings: Settings) -> Any:
    """botocore's credentials of these settings, which renew themselves; None when the chain finds none."""
    key = ("credentials", *(settings.get(name) for name in _SIGN_IN))
    with _lock:
        if key not in _clients:
            _clients[key] = session(settings).get_credentials()
        return _clients[key]
