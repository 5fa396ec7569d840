"""boto3 clients from a place's settings. The SDK's own chain finds the credentials; we only name file and profile."""

from __future__ import annotations

import functools
import threading
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from crossload.ports.errors import Invalid
from crossload.ports.provider import Settings
from crossload.providers.aws.vendors import Vendor, endpoint_url, quirks_of, vendor_named, vendor_of
from crossload.providers.aws.versions import keep_order

_SIGN_IN = ("profile", "config_file", "credentials_file")
_S3 = ("vendor", "endpoint", "account")
_lock = threading.Lock()
_clients: dict[tuple[str, ...], Any] = {}
_servers: dict[str, str] = {}  # endpoint -> what whoever answers there calls itself


@functools.lru_cache(maxsize=64)
def _shared(region: str, profile: str, config_file: str, credentials_file: str) -> boto3.Session:
    """One session for all clients of an identity: each new one reads the SDK's service tables again (0.1 s)."""
    core = botocore.session.Session(profile=profile or None)
    for option, value in (("config_file", config_file), ("credentials_file", credentials_file)):
        if value:
            core.set_config_variable(option, value)
    return boto3.Session(botocore_session=core, region_name=region or None)


def session(settings: Settings) -> boto3.Session:
    """A session for `config_file`, `credentials_file` and `profile`; what is missing is left to the SDK's chain."""
    return _shared(settings.place.region, *(settings.get(name) for name in _SIGN_IN))


def client(settings: Settings, service: str) -> Any:
    """A shared client: building one costs 0.2-3 s of model loading, and clients are safe to share between threads.

    The client for S3 speaks to `endpoint`, else to the one of the SDK's configuration, else to that of `vendor`."""
    vendor = settings.get("vendor") if service == "s3" else ""
    wanted = tuple(settings.get(name) for name in _S3) if service == "s3" else ()
    at = settings.get("endpoint") if service == "s3" else ""
    key = (service, settings.place.region, *(settings.get(name) for name in _SIGN_IN), *wanted)
    with _lock:
        if key not in _clients:
            named = vendor_named(vendor) if vendor else None
            made = _new_client(settings, service, at, named)
            if named is not None and named.name != "aws" and _is_amazon(made.meta.endpoint_url):
                # Nobody named an endpoint: the SDK would bring this vendor's data to Amazon.
                own = endpoint_url(named, settings.place.region, settings.get("account"))
                made = _new_client(settings, service, own, named)
            elif service == "s3" and named is None and not at:
                found = vendor_of(made.meta.endpoint_url)
                if found is not None and found.name != "aws":  # the SDK's configuration leads to it
                    made = _new_client(settings, service, made.meta.endpoint_url, found)
            _clients[key] = made
        return _clients[key]


def _new_client(settings: Settings, service: str, endpoint: str, vendor: Vendor | None) -> Any:
    vendor = vendor or (vendor_of(endpoint) if endpoint else None)
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=64,
        connect_timeout=5,
        read_timeout=120,
        # A bucket name in the host part needs DNS that S3-compatible servers seldom have.
        s3={"addressing_style": vendor.addressing if vendor is not None else "path"},
        # A server that is not known to check our digest may refuse a request that carries one.
        request_checksum_calculation=(
            "when_required" if vendor is not None and not quirks_of(vendor).digests_verified else "when_supported"
        ),
        user_agent_extra="crossload",
    )
    try:
        made: Any = session(settings).client(service, config=config, endpoint_url=endpoint or None)
    except ValueError as error:  # botocore's word for an address that is none
        raise Invalid(
            f"place {settings.place.id}: {error}", hint="write `endpoint` as https://host or https://host:port"
        ) from error
    if service == "s3":
        made.meta.events.register("before-parse.s3.ListObjectVersions", keep_order)
        made.meta.events.register("after-call.s3", functools.partial(_heard, made.meta.endpoint_url))
    return made


def _heard(endpoint: str, http_response: Any, **_: Any) -> None:
    headers = getattr(http_response, "headers", None) or {}
    if endpoint not in _servers and headers.get("server"):
        _servers[endpoint] = str(headers["server"])


def server_at(endpoint: str) -> str:
    """What whoever answers there calls itself; "" before the SDK's first answer."""
    return _servers.get(endpoint, "")


def vendor_at(settings: Settings, endpoint: str, server: str) -> Vendor | None:
    """Who answers at an endpoint: the vendor that is named, else the one that its host or its first answer tells. None
    when nobody knows."""
    name = settings.get("vendor")
    return vendor_named(name) if name else vendor_of(endpoint, server)


def _is_amazon(endpoint: str) -> bool:
    found = vendor_of(endpoint)
    return found is not None and found.name == "aws"


def credentials(settings: Settings) -> Any:
    """botocore's credentials of these settings, which renew themselves; None when the chain finds none."""
    key = ("credentials", *(settings.get(name) for name in _SIGN_IN))
    with _lock:
        if key not in _clients:
            _clients[key] = session(settings).get_credentials()
        return _clients[key]
