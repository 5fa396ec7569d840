"""The roads on which a store can be made to say "slow down" in its cloud's own words, for a share of the requests or
above a rate. The share is a runtime value; the rate is a file that Envoy watches, since its token bucket has no runtime
value. Both start at nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossload.lab.site import write_public

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_RATE_KIND = f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit"
# What the rate filter answers before the words below make it the cloud's status: a status that nothing else here says.
_OVER_RATE = 508


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a cloud refuses a request that comes too fast. `%...%` are Envoy's words for values of the request."""

    prefix: str
    status: int
    content_type: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


# Server -> its refusal, as the service documents it; `prefix` names the road in Envoy's counters and runtime.
SLOW_ROADS = {
    "seaweedfs": Refusal(
        "seaweedfs",
        503,
        "application/xml",
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
        "<Message>Please reduce your request rate.</Message>"
        "<RequestId>%RESP(x-amz-request-id)%</RequestId><HostId>%RESP(x-amz-id-2)%</HostId></Error>",
        {"x-amz-request-id": "%UNIQUE_ID%", "x-amz-id-2": "%UNIQUE_ID%"},
    ),
    "fake-gcs": Refusal(
        "gcs",
        429,
        "application/json; charset=UTF-8",
        '{"error": {"code": %RESPONSE_CODE%, "message": "The request rate exceeds the limit. Reduce the rate.", '
        '"errors": [{"message": "The request rate exceeds the limit. Reduce the rate.", "domain": "usageLimits",'
        ' "reason": "rateLimitExceeded"}]}}',
    ),
    "azurite": Refusal(
        "azurite",
        503,
        "application/xml",
        '<?xml version="1.0" encoding="utf-8"?><Error><Code>ServerBusy</Code><Message>'
        "Operations per second is over the account limit.\nRequestId:%RESP(x-ms-request-id)%</Message></Error>",
        {"x-ms-error-code": "ServerBusy", "x-ms-request-id": "%UNIQUE_ID%"},
    ),
}
RETRY_AFTER_SECONDS = 1


def share_key(server: str) -> str:
    """Runtime: how many of 100 requests are refused."""
    return f"{SLOW_ROADS[server].prefix}.slowdown_percent"


def retry_after_key(server: str) -> str:
    """Runtime: 100 when refusals say `Retry-After`, else 0."""
    return f"{SLOW_ROADS[server].prefix}.slowdown_retry_after"


def counters(server: str) -> tuple[str, str, str]:
    """Envoy's counters of a road: refused by share, refused by rate, all requests that came."""
    prefix = SLOW_ROADS[server].prefix
    return (
        f"http.{prefix}.fault.aborts_injected",
        f"{prefix}.http_local_rate_limit.rate_limited",
        f"http.{prefix}.downstream_rq_total",
    )


def rate_version_counter(server: str) -> str:
    """Envoy's text of the rate file that is in force."""
    return f"extension_config_discovery.http_filter.{_rate_name(server)}.version_text"


def _rate_name(server: str) -> str:
    return f"rate-{SLOW_ROADS[server].prefix}"


def write_rate(folder: Path, server: str, requests_per_second: int | None, version: str) -> None:
    """Let this many requests a second through (in bursts of a tenth of it), None for all. In force a moment later."""
    rate = requests_per_second
    limit = {
        "@type": _RATE_KIND,
        "stat_prefix": SLOW_ROADS[server].prefix,
        "status": {"code": _OVER_RATE},
        "token_bucket": {"max_tokens": max(1, (rate or 1) // 10), "tokens_per_fill": rate or 1, "fill_interval": "1s"},
        "filter_enabled": {"default_value": {"numerator": 0 if rate is None else 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
    }
    resource = {
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": _rate_name(server),
        "typed_config": limit,
    }
    write_public(_rate_file(folder, server), json.dumps({"version_info": version, "resources": [resource]}, indent=1))


def _rate_file(folder: Path, server: str) -> Path:
    return folder / f"{_rate_name(server)}.json"


def slowdown_filters(folder: Path, server: str) -> list[dict[str, Any]]:
    """The two filters, to be first on the road; `folder` holds the rate files."""
    share = {
        "@type": f"{_FILTERS}.fault.v3.HTTPFault",
        "abort": {"http_status": SLOW_ROADS[server].status, "percentage": {"numerator": 0, "denominator": "HUNDRED"}},
        "abort_percent_runtime": share_key(server),
    }
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(_rate_file(folder, server))}}
    return [
        {"name": "envoy.filters.http.fault", "typed_config": share},
        {"name": _rate_name(server), "config_discovery": {"config_source": source, "type_urls": [_RATE_KIND]}},
    ]


def slowdown_words(server: str) -> list[dict[str, Any]]:
    """What makes the two filters' answers the cloud's own, for a road's `local_reply_config.mappers`."""
    refusal = SLOW_ROADS[server]
    told = {"runtime_filter": {"runtime_key": retry_after_key(server), "percent_sampled": {"numerator": 0}}}
    by_share = {"response_flag_filter": {"flags": ["FI"]}}
    # Only a comparison with a runtime key is accepted; nobody sets this one.
    over = {"value": {"default_value": _OVER_RATE, "runtime_key": f"{refusal.prefix}.slowdown_status"}}
    by_rate = {"status_code_filter": {"comparison": {"op": "EQ", **over}}}
    words: list[dict[str, Any]] = []
    for more in ({"retry-after": str(RETRY_AFTER_SECONDS)}, {}):
        for sign in (by_share, by_rate):
            headers = {**refusal.headers, **more}
            words.append(
                {
                    "filter": {"and_filter": {"filters": [sign, told]}} if more else sign,
                    "status_code": refusal.status,
                    "headers_to_add": [
                        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                        for key, value in headers.items()
                    ],
                    "body_format_override": {
                        "text_format_source": {"inline_string": refusal.body},
                        "content_type": refusal.content_type,
                    },
                }
            )
    return words
