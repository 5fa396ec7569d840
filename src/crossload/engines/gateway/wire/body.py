"""A request's body, as far as every wire has the same in it: a JSON object that holds messages."""

from __future__ import annotations

from typing import Any

import orjson

from crossload.engines.gateway.errors import GatewayError


def object_of(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except ValueError as error:
        raise GatewayError("invalid", f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise GatewayError("invalid", "the body must be a JSON object")
    return value


def messages_of(value: dict[str, Any]) -> list[Any]:
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise GatewayError("invalid", "messages must be a list with at least one message", "messages")
    return messages
