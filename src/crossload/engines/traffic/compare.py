"""Compare two answers to the same request: the contract each must keep, then facts, then the text itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossload.engines.traffic.facts import differences
from crossload.estate.digest import canonical_json
from crossload.ports.models import ChatReply, ChatRequest

TEXT_HASH_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Side:
    """One answer as it is kept: no text, only its hash. `error` is a stable code, "" for an answer; `broken` names the
    parts of the contract it does not keep. Seconds and tokens are None when unknown."""

    ok: bool
    error: str = ""
    latency_seconds: float | None = None
    first_token_seconds: float | None = None
    finish: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    text_sha256: str = ""
    length_chars: int = 0
    broken: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        return not self.ok or bool(self.broken)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok, "error": self.error, "latency_seconds": self.latency_seconds,
            "first_token_seconds": self.first_token_seconds, "finish": self.finish, "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens, "text_sha256": self.text_sha256, "length_chars": self.length_chars,
            "broken": list(self.broken),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Side:
        made: dict[str, Any] = {**value, "broken": tuple(value["broken"])}
        return cls(**made)


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:TEXT_HASH_DIGITS]


def request_hash(request: ChatRequest) -> str:
    """The same for the same question with the same settings, so that rows of two runs can be matched."""
    value = {
        "messages": [[item.role, item.content, item.tool_call_id] for item in request.messages],
        "system": request.system,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "schema": request.response_schema,
        "tools": [tool.name for tool in request.tools],
    }
    return hashlib.sha256(canonical_json(value)).hexdigest()[:TEXT_HASH_DIGITS]


def contract(reply: ChatReply, request: ChatRequest) -> tuple[str, ...]:
    """What every answer must keep, whoever gives it: something said, a known end, JSON where JSON was asked for, only
    tools that exist, arguments that are JSON, and no more tokens than allowed."""
    broken: list[str] = []
    if not reply.text.strip() and not reply.tool_calls:
        broken.append("empty")
    if reply.finish in ("unknown", "malformed"):
        broken.append(f"finish-{reply.finish}")
    if request.response_schema is not None and reply.finish != "length" and not _is_json(reply.text):
        broken.append("json")
    names = {tool.name for tool in request.tools}
    if any(call.name not in names for call in reply.tool_calls):
        broken.append("unknown-tool")
    if any(not _is_json(call.arguments) for call in reply.tool_calls):
        broken.append("tool-arguments")
    if request.max_tokens and reply.output_tokens is not None and reply.output_tokens > request.max_tokens:
        broken.append("too-many-tokens")
    return tuple(broken)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def side_of(reply: ChatReply, request: ChatRequest) -> Side:
    return Side(
        True, "", reply.latency_seconds, reply.first_token_seconds, reply.finish, reply.input_tokens,
        reply.output_tokens, short_hash(reply.text), len(reply.text), contract(reply, request),
    )  # fmt: skip


def reply_differences(first: ChatReply, second: ChatReply, request: ChatRequest) -> tuple[str, ...]:
    """Where two good answers differ in substance, sorted: kinds of fact, `finish`, `tools`, `json` (as values, so that
    the order of keys does not count)."""
    found: set[str] = set()
    if first.finish != second.finish:
        found.add("finish")
    if _calls(first) != _calls(second):
        found.add("tools")
    if request.response_schema is not None and _is_json(first.text) and _is_json(second.text):
        if json.loads(first.text) != json.loads(second.text):
            found.add("json")
    else:
        found.update(differences(first.text, second.text))
    return tuple(sorted(found))


def _calls(reply: ChatReply) -> list[tuple[str, Any]]:
    return [
        (call.name, json.loads(call.arguments) if _is_json(call.arguments) else call.arguments)
        for call in reply.tool_calls
    ]
