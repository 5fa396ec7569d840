"""A client of the gateway's chat door in the words of the Models port: what a mirror and a canary send through."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from crossload.engines.gateway.route import ARMS
from crossload.ports.errors import AccessDenied, CrossloadError, Invalid, NotFound, NotSignedIn, Throttled, Unavailable
from crossload.ports.models import ChatReply, ChatRequest, ToolCall

_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool", "content_filter": "filter"}
_ERRORS: dict[int, type[CrossloadError]] = {
    401: NotSignedIn, 403: AccessDenied, 404: NotFound, 429: Throttled, 502: Unavailable, 503: Unavailable,
    504: Unavailable,
}  # fmt: skip


class GatewayClient:
    """Blocking, safe from many threads. `model` is the name the app uses."""

    def __init__(self, url: str, key: str, model: str, timeout_seconds: float = 120.0) -> None:
        self._model = model
        self._http = httpx.Client(
            base_url=url, timeout=timeout_seconds, headers={"authorization": f"Bearer {key}"}, trust_env=False
        )

    def close(self) -> None:
        self._http.close()

    def complete(self, request: ChatRequest, *, session: str = "", arm: str = "") -> ChatReply:
        """`arm` names the side (the key must be allowed to); without it the weights decide, sticky by `session`.
        The reply's `arm` says who answered. Raises ports.errors."""
        _, found = self.send(request, session=session, arm=arm)
        if isinstance(found, CrossloadError):
            raise found
        return found

    def send(self, request: ChatRequest, *, session: str = "", arm: str = "") -> tuple[str, ChatReply | CrossloadError]:
        """The arm the request was routed to ("" when nobody said) and the reply, or the error as a value."""
        headers: dict[str, str] = {}
        if session:
            headers["x-session-id"] = session
        if arm in ARMS:
            headers["x-crossload-arm"] = arm
        begun = time.perf_counter()
        try:
            answer = self._http.post("/v1/chat/completions", json=self._body(request), headers=headers)
        except httpx.HTTPError as error:
            return "", Unavailable(f"gateway: {type(error).__name__}")
        elapsed = time.perf_counter() - begun
        failed_over_from = answer.headers.get("x-crossload-failed-over", "")
        answered = answer.headers.get("x-crossload-arm", "")
        if answer.status_code != 200:
            kind = _ERRORS.get(answer.status_code, Unavailable if answer.status_code >= 500 else Invalid)
            return failed_over_from or answered, kind(f"gateway: HTTP {answer.status_code} {_message(answer)}")
        return failed_over_from or answered, _reply(answer, elapsed, answered, failed_over_from)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "system", "content": request.system}] if request.system else []
        for message in request.messages:
            item: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.tool_calls:
                item["tool_calls"] = [
                    {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                    for call in message.tool_calls
                ]
            if message.role == "tool":
                item["tool_call_id"] = message.tool_call_id
            messages.append(item)
        body: dict[str, Any] = {"model": self._model, "messages": messages}
        plain = {"max_tokens": request.max_tokens, "temperature": request.temperature, "seed": request.seed}
        body.update({name: value for name, value in plain.items() if value is not None})
        if request.cache is not None:
            body["cache_prompt"] = request.cache
        if request.response_schema is not None:
            schema = {"name": "answer", "schema": dict(request.response_schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.schema)},
                }
                for tool in request.tools
            ]
        return body


def _reply(answer: httpx.Response, elapsed: float, arm: str, failed_over_from: str) -> ChatReply:
    value = answer.json()
    choice = value["choices"][0]
    usage = value.get("usage") or {}
    calls = tuple(
        ToolCall(item["id"], item["function"]["name"], item["function"]["arguments"])
        for item in choice["message"].get("tool_calls") or ()
    )
    return ChatReply(
        text=choice["message"].get("content") or "",
        finish=_FINISH.get(choice.get("finish_reason"), "unknown"),
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
        latency_seconds=elapsed,
        tool_calls=calls,
        losses=tuple(item for item in answer.headers.get("x-crossload-loss", "").split(", ") if item),
        arm=arm,
        failed_over_from=failed_over_from,
    )


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return answer.reason_phrase
