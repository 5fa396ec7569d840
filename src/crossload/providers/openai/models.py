"""The Models port over any OpenAI-compatible endpoint, and over a model repository beside it where there is one.

Connection settings: `base_url` (with /v1), `key` (a reference), `model`; optional `repository`, the address of a host
that speaks the Open Inference Protocol's model-repository extension and loads artifacts itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from crossload.ports.errors import (
    AccessDenied,
    CrossloadError,
    DigestMismatch,
    Invalid,
    NotFound,
    NotSignedIn,
    Throttled,
    Unavailable,
    Unsupported,
)
from crossload.ports.models import ChatReply, ChatRequest, Deployment, Endpoint, ModelInfo, ToolCall
from crossload.ports.provider import Settings

_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool", "content_filter": "filter"}
_ERRORS: dict[int, type[CrossloadError]] = {
    400: Invalid, 401: NotSignedIn, 403: AccessDenied, 404: NotFound, 409: DigestMismatch, 429: Throttled,
}  # fmt: skip
_STATES = {"READY": "ready", "LOADING": "loading", "UNAVAILABLE": "failed"}
_LOAD_SECONDS_MAX = 900.0


def open_models(settings: Settings) -> OpenAiModels:
    return OpenAiModels(settings)


class OpenAiModels:
    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        self._model = settings.require("model")
        self._base = settings.require("base_url").rstrip("/")
        self._repository = settings.get("repository").rstrip("/")
        self._http = httpx.Client(timeout=httpx.Timeout(120, connect=5), trust_env=False)

    # ---- answers

    def describe(self) -> ModelInfo:
        """The digest comes from the repository, the context length from the endpoint, where they tell."""
        context: int | None = None
        for item in self._ask("GET", f"{self._base}/models").get("data", ()):
            if item.get("id") == self._model:
                meta = item.get("meta") or {}
                context = item.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train")
        digest = self.deployed(self._model).digest if self._repository else None
        return ModelInfo(self._model, digest, "chat", context)

    def endpoint(self) -> Endpoint:
        key = self._settings.written("key") or ""
        return Endpoint("chat", self._base, self._model, {"key": key} if key else {})

    def complete(self, request: ChatRequest) -> ChatReply:
        begun = time.perf_counter()
        value = self._ask("POST", f"{self._base}/chat/completions", self._body(request))
        elapsed = time.perf_counter() - begun
        try:
            choice = value["choices"][0]
            message = choice["message"]
            usage = value.get("usage") or {}
            calls = tuple(
                ToolCall(item["id"], item["function"]["name"], item["function"]["arguments"])
                for item in message.get("tool_calls") or ()
            )
        except (KeyError, IndexError, TypeError) as error:
            raise Invalid(f"{self.place}: the endpoint's answer is no chat completion") from error
        return ChatReply(
            text=message.get("content") or "",
            finish=_FINISH.get(choice.get("finish_reason"), "unknown"),
            input_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            latency_seconds=elapsed,
            tool_calls=calls,
        )

    def stream(self, request: ChatRequest) -> Iterator[str]:
        body = {**self._body(request), "stream": True}
        with (
            self._translated(),
            self._http.stream("POST", f"{self._base}/chat/completions", json=body, headers=self._headers()) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise self._error(answer)
            for line in answer.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    return
                value = json.loads(data)
                if value.get("error"):
                    raise Unavailable(f"{self.place}: {value['error']}")
                choices = value.get("choices")
                text = (choices[0].get("delta") or {}).get("content") if choices else None
                if text:
                    yield text
            raise Unavailable(f"{self.place}: the stream ended without its end mark")

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model, "messages": _messages(request)}
        plain = {"max_tokens": request.max_tokens, "temperature": request.temperature, "seed": request.seed}
        body.update({name: value for name, value in plain.items() if value is not None})
        if request.cache is False:
            body["cache_prompt"] = False  # llama.cpp's word; hosts that do not know it ignore it or say so
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
            named = request.tool_choice not in ("auto", "any", "none")
            word = {"any": "required"}.get(request.tool_choice, request.tool_choice)
            body["tool_choice"] = {"type": "function", "function": {"name": word}} if named else word
        return body

    # ---- the model repository

    def deploy(self, name: str, uri: str, digest: str) -> Deployment:
        sha256 = digest.removeprefix("sha256:")
        parameters = {"parameters": {"uri": uri, "sha256": sha256}}
        path = f"{self._repository_or_refuse()}/v2/repository/models/{quote(name, safe='')}/load"
        self._ask("POST", path, parameters, timeout_seconds=_LOAD_SECONDS_MAX)
        found = self.deployed(name)
        # The host's word is checked against ours: "loaded" is not enough, it must be these bytes.
        if found.digest is not None and found.digest != f"sha256:{sha256}":
            raise DigestMismatch(f"{self.place}: {name} is served from {found.digest}, not from sha256:{sha256}")
        return found

    def deployed(self, name: str) -> Deployment:
        rows = self._ask("POST", f"{self._repository_or_refuse()}/v2/repository/index", {})
        for row in rows:
            if row.get("name") == name:
                sha256 = row.get("sha256")
                return Deployment(
                    name,
                    _STATES.get(str(row.get("state", "")).upper(), "failed"),
                    str(row.get("uri") or ""),
                    f"sha256:{sha256}" if sha256 else None,
                    str(row.get("reason") or ""),
                )
        return Deployment(name, "absent")

    def undeploy(self, name: str) -> None:
        path = f"{self._repository_or_refuse()}/v2/repository/models/{quote(name, safe='')}/unload"
        try:
            self._ask("POST", path, {})
        except NotFound:
            return

    def _repository_or_refuse(self) -> str:
        if not self._repository:
            raise Unsupported(
                f"{self.place}: this endpoint has no model repository, so it cannot be told what to serve",
                hint="set `repository` under the place's models connection, or start the model by hand",
            )
        return self._repository

    # ---- HTTP

    def _headers(self) -> dict[str, str]:
        key = self._settings.get("key")
        return {"authorization": f"Bearer {key}"} if key else {}

    def _ask(self, method: str, url: str, body: Any = None, timeout_seconds: float | None = None) -> Any:
        with self._translated():
            more: dict[str, Any] = {} if timeout_seconds is None else {"timeout": timeout_seconds}
            answer = self._http.request(method, url, json=body, headers=self._headers(), **more)
            if answer.status_code != 200:
                raise self._error(answer)
            return answer.json()

    def _error(self, answer: httpx.Response) -> CrossloadError:
        try:
            value: Any = answer.json()
            error = value.get("error", value) if isinstance(value, Mapping) else value
            message = error.get("message") if isinstance(error, Mapping) else error
        except ValueError:
            message = answer.reason_phrase
        kind = _ERRORS.get(answer.status_code, Unavailable if answer.status_code >= 500 else Invalid)
        after = answer.headers.get("retry-after", "")
        return kind(
            f"{self.place}: HTTP {answer.status_code} {message}",
            retry_after_seconds=float(after) if after.isdigit() else None,
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Invalid(f"{self.place}: {error}") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.place}: {type(error).__name__} {error}".rstrip()) from error
        except json.JSONDecodeError as error:
            raise Invalid(f"{self.place}: the endpoint answered something that is not JSON") from error


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": request.system}] if request.system else []
    for message in request.messages:
        item: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "tool":
            item["tool_call_id"] = message.tool_call_id
            item["content"] = f"ERROR: {message.content}" if message.failed else message.content
        if message.tool_calls:
            item["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in message.tool_calls
            ]
        messages.append(item)
    return messages
