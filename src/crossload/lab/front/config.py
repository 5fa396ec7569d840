"""Envoy's configuration: cloud B's front (tokens, rights, preconditions), the two model roads with faults at 0 %, and
side roads to stores that others reach directly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossload.lab.cloud_b import AUDIENCE, issuer_url
from crossload.lab.front.slowdown import slowdown_filters, slowdown_words
from crossload.lab.site import Site

_MIB = 1024 * 1024
_HTTP = "envoy.extensions.filters.http"
_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
# The Google client sends up to 8 MiB in one multipart request; the front reads the key inside before it lets it pass.
_MULTIPART_BYTES_MAX = 16 * _MIB
MODEL_ROADS = ("llm-a", "llm-b")
# Server -> the port of it that a side road leads to.
STORE_ROADS = {"seaweedfs": "s3", "azurite": "blob"}


def envoy_config(site: Site) -> dict[str, Any]:
    """The whole bootstrap as one JSON value."""
    listeners = [_gcs_front(site)]
    clusters = [
        _cluster("fake_gcs", site.port("api", "fake-gcs")),
        _cluster("issuer", site.port("oidc", "issuer")),
    ]
    for road in MODEL_ROADS:
        listeners.append(_model_road(site, road))
        clusters.append(_cluster(road, site.port("api", road)))
    for server, port_name in STORE_ROADS.items():
        listeners.append(_store_road(site, server))
        clusters.append(_cluster(server, site.port(port_name, server)))
    return {
        "node": {"id": "lab", "cluster": "lab"},
        "admin": {"address": _address(site.port("admin"))},
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {
            "thresholds": [{"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}]
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _listener(
    name: str, port: int, filters: list[dict[str, Any]], routes: list[dict[str, Any]], **manager: Any
) -> dict[str, Any]:
    chain = [*filters, _filter("router", f"{_HTTP}.router.v3.Router", {})]
    config = {
        "@type": _MANAGER,
        "stat_prefix": name,
        "http_filters": chain,
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
        "normalize_path": True,
        # A key may hold "%2F"; turning it into "/" would name another object.
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "use_remote_address": True,
        "generate_request_id": False,
        "stream_idle_timeout": "300s",
        **manager,
    }
    return {
        "name": name,
        "address": _address(port),
        "per_connection_buffer_limit_bytes": _MIB,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]}
        ],
    }


def _filter(name: str, kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    typed = {"@type": f"type.googleapis.com/{kind}", **config}
    return {"name": f"envoy.filters.http.{name}", "typed_config": typed}


def _gcs_front(site: Site) -> dict[str, Any]:
    provider = {
        "issuer": issuer_url(site),
        "audiences": [AUDIENCE],
        "payload_in_metadata": "claims",
        "clock_skew_seconds": 1,
        "remote_jwks": {
            "http_uri": {"uri": issuer_url(site) + "/jwks", "cluster": "issuer", "timeout": "5s"},
            "cache_duration": "300s",
        },
    }
    rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "lab"}}]
    lua = {"default_source_code": {"filename": str(Path(__file__).with_name("gcs.lua"))}}
    filters = [
        *slowdown_filters(site.folder, "fake-gcs"),
        _filter(
            "jwt_authn", f"{_HTTP}.jwt_authn.v3.JwtAuthentication", {"providers": {"lab": provider}, "rules": rules}
        ),
        _filter("rbac", f"{_HTTP}.rbac.v3.RBAC", {"rules": {"action": "ALLOW", "policies": _rights()}}),
        _filter("lua", f"{_HTTP}.lua.v3.Lua", lua),
    ]
    # Long transfers must not be cut off: no time limit for a whole request, only for silence.
    to_store = {"cluster": "fake_gcs", "timeout": "0s"}
    multipart = {"name": "uploadType", "string_match": {"exact": "multipart"}}
    routes = [
        {
            "match": {"prefix": "/", "query_parameters": [multipart]},
            "route": to_store,
            "request_body_buffer_limit": _MULTIPART_BYTES_MAX,
        },
        {"match": {"prefix": "/"}, "route": to_store},
    ]
    error = {"error": {"code": "%RESPONSE_CODE%", "message": "%LOCAL_REPLY_BODY%"}}
    # "Not modified" must have no body: a client would read it as the next answer.
    without_body = {
        "filter": {
            "status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 304, "runtime_key": "x"}}}
        },
        "body_format_override": {"text_format_source": {"inline_string": ""}},
    }
    replies = {"mappers": [without_body, *slowdown_words("fake-gcs")], "body_format": {"json_format": error}}
    return _listener("gcs", site.port("gcs"), filters, routes, local_reply_config=replies)


def _rights() -> dict[str, Any]:
    """What each identity may do, by method and path. Who is not named here may do nothing."""
    inside_server = {"url_path": {"path": {"prefix": "/_internal"}}}
    everything = {"not_rule": inside_server}
    reading = {
        "and_rules": {
            "rules": [{"not_rule": inside_server}, {"or_rules": {"rules": [_method("GET"), _method("HEAD")]}}]
        }
    }
    objects = {
        "url_path": {
            "path": {"safe_regex": {"regex": r"^/(upload/|download/|resumable/upload/)?storage/v1/b/[^/]+/o(/.*)?$"}}
        }
    }
    return {
        "mover": _policy("mover", [everything]),
        "app": _policy("app", [reading, objects]),
        "auditor": _policy("auditor", [reading]),
        "model-host": _policy("model-host", [reading]),
    }


def _method(method: str) -> dict[str, Any]:
    return {"header": {"name": ":method", "string_match": {"exact": method}}}


def _policy(subject: str, permissions: list[dict[str, Any]]) -> dict[str, Any]:
    path = [{"key": "claims"}, {"key": "sub"}]
    claim = {"filter": "envoy.filters.http.jwt_authn", "path": path, "value": {"string_match": {"exact": subject}}}
    return {"permissions": permissions, "principals": [{"sourced_metadata": {"metadata_matcher": claim}}]}


def runtime_key(road: str, setting: str) -> str:
    return f"{road.replace('-', '_')}.{setting}"


def _model_road(site: Site, road: str) -> dict[str, Any]:
    hundred = "HUNDRED"
    fault = {
        "abort": {"http_status": 503, "percentage": {"numerator": 0, "denominator": hundred}},
        "delay": {"fixed_delay": "0.001s", "percentage": {"numerator": 0, "denominator": hundred}},
        "abort_percent_runtime": runtime_key(road, "abort_percent"),
        "abort_http_status_runtime": runtime_key(road, "abort_status"),
        "delay_percent_runtime": runtime_key(road, "delay_percent"),
        "delay_duration_runtime": runtime_key(road, "delay_ms"),
    }
    filters = [_filter("fault", f"{_HTTP}.fault.v3.HTTPFault", fault)]
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": road, "timeout": "0s"}}]
    return _listener(road.replace("-", "_"), site.port(road), filters, routes)


def _store_road(site: Site, server: str) -> dict[str, Any]:
    """Nothing of the request may change on the way, or its signature would not hold; bodies are not held back."""
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": server, "timeout": "0s"}}]
    return _listener(
        server,
        site.port(server),
        slowdown_filters(site.folder, server),
        routes,
        normalize_path=False,
        use_remote_address=False,
        skip_xff_append=True,
        server_header_transformation="PASS_THROUGH",
        # A client that asks before it sends its body hears the refusal instead of "go on".
        proxy_100_continue=True,
        local_reply_config={"mappers": slowdown_words(server)},
    )
