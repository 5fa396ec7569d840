"""The Models port over Bedrock's Converse and ConverseStream."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from crossload.estate.place import Place
from crossload.ports.errors import CrossloadError, Invalid, Unsupported
from crossload.ports.models import ChatReply, ChatRequest, Deployment, Endpoint, Message, ModelInfo, ToolCall
from crossload.ports.provider import Settings
from crossload.providers.aws.errors import translated
from crossload.providers.aws.session import client, session

_FINISH = {
    "end_turn": "stop", "max_tokens": "length", "tool_use": "tool", "stop_sequence": "stopseq",
    "content_filtered": "filter", "guardrail_intervened": "filter", "malformed_model_output": "malformed",
    "malformed_tool_use": "malformed", "model_context_window_exceeded": "length",
}  # fmt: skip
_SETTINGS = ("config_file", "credentials_file", "profile")


def open_models(settings: Settings) -> BedrockModels:
    return BedrockModels(settings)


def signing_credentials(names: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, Any]:
    """What a gateway signs Converse requests with, out of the SDK's own chain (profile, role, web identity ...).

    `names` are this provider's connection settings plus `region`; values may be references. Raises NotSignedIn when
    the chain finds nothing. `expires_at` is epoch seconds, None for keys that stay."""
    region = names.get("region", "")
    place = Place("gateway", "aws", region, connection={key: names[key] for key in _SETTINGS if key in names})
    with translated():
        found = session(Settings(place, place.connection, environment)).get_credentials()
        if found is None:
            raise Invalid("no credentials found for the model endpoint", hint="name a profile that exists")
        frozen = found.get_frozen_credentials()
    expiry = getattr(found, "_expiry_time", None)
    return {
        "access_key_id": frozen.access_key,
        "secret_access_key": frozen.secret_key,
        "session_token": frozen.token or "",
        "region": region,
        "service": "bedrock",
        "expires_at": None if expiry is None else expiry.timestamp(),
    }


class BedrockModels:
    """Connection settings: `model` (a model id, profile id or ARN) beside the account's own."""

    def __init__(self, settings: Settings) -> None:
        self.place = settings.place.id
        self._settings = settings
        self._model = settings.require("model")

    @property
    def _runtime(self) -> Any:
        with translated():
            return client(self._settings, "bedrock-runtime")

    def describe(self) -> ModelInfo:
        """Bedrock tells no digest and no context length of its models."""
        return ModelInfo(self._model, None, "converse", None)

    def endpoint(self) -> Endpoint:
        chosen = {name: self._settings.written(name) or "" for name in _SETTINGS}
        credentials = {name: value for name, value in chosen.items() if value}
        credentials["region"] = self._settings.place.region
        return Endpoint(
            wire="converse",
            base_url=self._runtime.meta.endpoint_url,
            model=self._model,
            credentials=credentials,
            credential_source=f"{__name__}:signing_credentials",
        )

    def complete(self, request: ChatRequest) -> ChatReply:
        asked, losses = _arguments(request)
        begun = time.perf_counter()
        with translated():
            answer = self._runtime.converse(modelId=self._model, **asked)
        elapsed = time.perf_counter() - begun
        blocks = answer["output"]["message"]["content"]
        calls = [block["toolUse"] for block in blocks if "toolUse" in block]
        usage = answer.get("usage") or {}
        return ChatReply(
            text="".join(block.get("text", "") for block in blocks),
            finish=_FINISH.get(answer.get("stopReason", ""), "unknown"),
            input_tokens=_input_tokens(usage),
            output_tokens=usage.get("outputTokens"),
            latency_seconds=elapsed,
            tool_calls=tuple(ToolCall(call["toolUseId"], call["name"], json.dumps(call["input"])) for call in calls),
            losses=losses,
        )

    def stream(self, request: ChatRequest) -> Iterator[str]:
        asked, _ = _arguments(request)
        with translated():
            stream = self._runtime.converse_stream(modelId=self._model, **asked)["stream"]
            try:
                for event in stream:
                    text = event.get("contentBlockDelta", {}).get("delta", {}).get("text")
                    if text:
                        yield text
            finally:
                stream.close()

    def deploy(self, name: str, uri: str, digest: str) -> Deployment:
        raise Unsupported(
            f"{self.place}: this endpoint serves models of its catalogue and takes no artifact",
            hint="name a place whose model host has a model repository (setting `repository`)",
        )

    def deployed(self, name: str) -> Deployment:
        """Ready when the model answers one token; the model itself is the only witness here."""
        if name != self._model:
            return Deployment(name, "absent")
        try:
            self.complete(ChatRequest((Message("user", "ping"),), max_tokens=1))
        except CrossloadError as error:
            return Deployment(name, "failed", reason=str(error))
        return Deployment(name, "ready")

    def undeploy(self, name: str) -> None:
        raise Unsupported(f"{self.place}: a catalogue model cannot be taken down")


def _input_tokens(usage: Mapping[str, Any]) -> int | None:
    """This wire counts cached tokens beside `inputTokens`; the port's number includes them."""
    if usage.get("inputTokens") is None:
        return None
    return usage["inputTokens"] + usage.get("cacheReadInputTokens", 0) + usage.get("cacheWriteInputTokens", 0)


def _arguments(request: ChatRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Keyword arguments of `converse`, and what they could not say."""
    losses: list[str] = []
    inference = {"maxTokens": request.max_tokens, "temperature": request.temperature}
    asked: dict[str, Any] = {"messages": _messages(request.messages)}
    asked["inferenceConfig"] = {name: value for name, value in inference.items() if value is not None}
    if request.system:
        asked["system"] = [{"text": request.system}]
    if request.seed is not None:
        asked["additionalModelRequestFields"] = {"seed": request.seed}
    if request.cache is False:
        losses.append("cache")  # this wire can ask for a cache, not for none
    if request.tools and request.tool_choice != "none":
        specs = [
            {
                "toolSpec": {
                    "name": tool.name,
                    "description": tool.description or tool.name,
                    "inputSchema": {"json": dict(tool.schema)},
                }
            }
            for tool in request.tools
        ]
        plain = request.tool_choice in ("auto", "any")
        choice = {request.tool_choice: {}} if plain else {"tool": {"name": request.tool_choice}}
        asked["toolConfig"] = {"tools": specs, "toolChoice": choice}
    if request.response_schema is not None:
        schema = {"name": "answer", "schema": json.dumps(dict(request.response_schema))}
        asked["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
    return asked, tuple(losses)


def _messages(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Answers of tools that follow each other go into one user turn, as this wire wants them."""
    out: list[dict[str, Any]] = []
    previous = ""
    for message in messages:
        blocks: list[dict[str, Any]] = []
        if message.role == "tool":
            result: dict[str, Any] = {"toolUseId": message.tool_call_id, "content": [{"text": message.content}]}
            if message.failed:
                result["status"] = "error"
            blocks.append({"toolResult": result})
        elif message.content:
            blocks.append({"text": message.content})
        for call in message.tool_calls:
            use = {"toolUseId": call.id, "name": call.name, "input": json.loads(call.arguments or "{}")}
            blocks.append({"toolUse": use})
        if message.role == "tool" and previous == "tool":
            out[-1]["content"].extend(blocks)
        else:
            out.append({"role": "assistant" if message.role == "assistant" else "user", "content": blocks})
        previous = message.role
    return out
