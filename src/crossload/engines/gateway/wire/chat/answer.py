"""Whole answers and errors of the chat-completions wire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from crossload.engines.gateway.errors import CODES, GatewayError
from crossload.engines.gateway.ir import (
    CallArgs,
    CallStart,
    Collected,
    Event,
    Request,
    Start,
    Stop,
    Text,
    Think,
    Usage,
)

TO_NEUTRAL = {
    "stop": "stop", "length": "length", "tool_calls": "tool", "function_call": "tool", "content_filter": "filter",
}  # fmt: skip
FROM_NEUTRAL = {
    "stop": "stop", "length": "length", "tool": "tool_calls", "stopseq": "stop", "filter": "content_filter",
    "malformed": "stop", "unknown": "stop",
}  # fmt: skip


def parse_response(body: bytes) -> list[Event]:
    try:
        value = orjson.loads(body)
        choice = value["choices"][0]
        message = choice["message"]
        events: list[Event] = [Start(str(value.get("id") or ""))]
        if message.get("reasoning_content"):
            events.append(Think(message["reasoning_content"]))
        if message.get("content"):
            events.append(Text(message["content"]))
        for index, call in enumerate(message.get("tool_calls") or ()):
            events.append(CallStart(index, str(call.get("id") or f"call_{index}"), str(call["function"]["name"])))
            events.append(CallArgs(index, str(call["function"].get("arguments") or "")))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise GatewayError("bad_upstream", "the model host's answer is not a chat completion") from error
    events.append(stop_of(choice.get("finish_reason")))
    if isinstance(value.get("usage"), dict):
        events.append(usage_of(value["usage"]))
    return events


def stop_of(raw: Any) -> Stop:
    return Stop(TO_NEUTRAL.get(raw, "unknown"), str(raw))


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """`prompt_tokens` includes cached tokens on this wire."""
    details = usage.get("prompt_tokens_details") or {}
    return Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"), details.get("cached_tokens"))


def render_usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    out: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_read is not None:
        out["prompt_tokens_details"] = {"cached_tokens": usage.cached_read}
    return out


def render_response(answer: Collected, request: Request, answer_id: str, elapsed_seconds: float) -> bytes:
    del elapsed_seconds
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or (None if answer.calls else "")}
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
            for call in answer.calls
        ]
    finish = FROM_NEUTRAL[answer.stop.reason if answer.stop else "unknown"]
    value: dict[str, Any] = {
        "id": f"chatcmpl-{answer_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
    }
    usage = render_usage(answer.usage)
    if usage is not None:
        value["usage"] = usage
    return orjson.dumps(value)


def parse_error(status: int, headers: dict[str, str], body: bytes) -> str:
    del headers
    try:
        value = orjson.loads(body)
        error = value.get("error", value)
        message = error.get("message", error) if isinstance(error, Mapping) else error
    except (ValueError, AttributeError):
        message = None
    return str(message) if message else f"the model host answered HTTP {status}"


def render_error(code: str, message: str, param: str | None) -> tuple[bytes, dict[str, str]]:
    error = {"message": message, "type": CODES[code].chat_type, "param": param, "code": code}
    return orjson.dumps({"error": error}), {}
