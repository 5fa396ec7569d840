"""Whole answers and errors of the Converse wire."""

from __future__ import annotations

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
    "end_turn": "stop", "max_tokens": "length", "tool_use": "tool", "stop_sequence": "stopseq",
    "content_filtered": "filter", "guardrail_intervened": "filter", "malformed_model_output": "malformed",
    "malformed_tool_use": "malformed", "model_context_window_exceeded": "length",
}  # fmt: skip
FROM_NEUTRAL = {
    "stop": "end_turn", "length": "max_tokens", "tool": "tool_use", "stopseq": "stop_sequence",
    "filter": "content_filtered", "malformed": "malformed_model_output", "unknown": "end_turn",
}  # fmt: skip


def parse_response(body: bytes) -> list[Event]:
    events: list[Event] = [Start()]
    try:
        value = orjson.loads(body)
        for index, block in enumerate(value["output"]["message"]["content"]):
            if "text" in block:
                events.append(Text(block["text"]))
            elif "toolUse" in block:
                call = block["toolUse"]
                events.append(CallStart(index, str(call["toolUseId"]), str(call["name"])))
                events.append(CallArgs(index, orjson.dumps(call.get("input") or {}).decode()))
            elif "reasoningContent" in block:
                events.append(Think(str((block["reasoningContent"].get("reasoningText") or {}).get("text") or "")))
        stop = stop_of(value["stopReason"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GatewayError("bad_upstream", "the model host's answer is not a Converse answer") from error
    events.append(stop)
    if isinstance(value.get("usage"), dict):
        events.append(usage_of(value["usage"]))
    return events


def stop_of(raw: Any) -> Stop:
    name = str(raw)
    return Stop(TO_NEUTRAL.get(name, "unknown"), name)


def usage_of(usage: dict[str, Any]) -> Usage:
    """`inputTokens` excludes cached tokens on this wire; the neutral count includes them."""
    tokens = usage.get("inputTokens")
    read, written = usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")
    total = None if tokens is None else tokens + (read or 0) + (written or 0)
    return Usage(total, usage.get("outputTokens"), read, written)


def render_usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    fresh = usage.input_tokens - (usage.cached_read or 0) - (usage.cached_write or 0)
    out = {
        "inputTokens": fresh,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_read is not None:
        out["cacheReadInputTokens"] = usage.cached_read
    if usage.cached_write is not None:
        out["cacheWriteInputTokens"] = usage.cached_write
    return out


def render_response(answer: Collected, request: Request, answer_id: str, elapsed_seconds: float) -> bytes:
    del request, answer_id
    blocks: list[dict[str, Any]] = []
    reason = answer.stop.reason if answer.stop else "unknown"
    stop_reason = FROM_NEUTRAL[reason]
    if answer.thinking:
        blocks.append({"reasoningContent": {"reasoningText": {"text": answer.thinking}}})
    if answer.text or not answer.calls:
        blocks.append({"text": answer.text})
    for call in answer.calls:
        arguments, good = arguments_of(call.arguments)
        blocks.append({"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments}})
        if not good:
            stop_reason = "malformed_tool_use"
    value: dict[str, Any] = {
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": stop_reason,
        "metrics": {"latencyMs": int(elapsed_seconds * 1000)},
    }
    usage = render_usage(answer.usage)
    if usage is not None:
        value["usage"] = usage
    return orjson.dumps(value)


def parse_error(status: int, headers: dict[str, str], body: bytes) -> str:
    try:
        value = orjson.loads(body)
        message = value.get("message") or value.get("Message")
        kind = headers.get("x-amzn-errortype") or value.get("__type") or ""
    except (ValueError, AttributeError):
        message, kind = None, ""
    text = str(message) if message else f"the model host answered HTTP {status}"
    return f"{kind.split(':')[0]}: {text}" if kind else text


def render_error(code: str, message: str, param: str | None) -> tuple[bytes, dict[str, str]]:
    del param
    return orjson.dumps({"message": message}), {"x-amzn-errortype": CODES[code].converse_type}


def arguments_of(text: str) -> tuple[dict[str, Any], bool]:
    """This wire wants arguments as an object. Text that is none is kept under `raw`, and the stop reason says so."""
    try:
        value = orjson.loads(text or "{}")
    except ValueError:
        return {"raw": text}, False
    return (value, True) if isinstance(value, dict) else ({"raw": text}, False)
