"""Requests of the Converse wire: read, written, and passed on untouched."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from crossload.engines.gateway.errors import GatewayError
from crossload.engines.gateway.ir import (
    CallPart,
    ImagePart,
    Loss,
    Outgoing,
    Part,
    Request,
    ResultPart,
    Schema,
    TextPart,
    Tool,
    Turn,
)
from crossload.engines.gateway.wire.body import messages_of, object_of
from crossload.engines.gateway.wire.converse.answer import arguments_of

# Names that are fields of their own on the chat wire; a client of this wire can only send them as additional fields.
_ADDITIONAL = frozenset(
    (
        "seed",
        "top_k",
        "min_p",
        "cache_prompt",
        "presence_penalty",
        "frequency_penalty",
        "reasoning_effort",
    )
)
# Said on another wire, they change the answer itself: leaving them out must be refused.
_CHANGES_MEANING = frozenset(("n", "logit_bias", "functions", "function_call", "audio", "modalities", "prediction"))
_IMAGE_FORMATS = frozenset(("png", "jpeg", "gif", "webp"))


def parse_request(body: bytes, model: str, stream: bool) -> Request:
    value = object_of(body)
    messages = messages_of(value)
    losses: list[Loss] = []
    inference = value.get("inferenceConfig") or {}
    additional = dict(value.get("additionalModelRequestFields") or {})
    seed = additional.pop("seed", None)
    extras = {name: item for name, item in additional.items() if name in _ADDITIONAL}
    losses += [
        Loss(f"converse.additionalModelRequestFields.{name}", "warn") for name in additional if name not in extras
    ]
    for name in ("guardrailConfig", "promptVariables", "additionalModelResponseFieldPaths", "performanceConfig",
                 "serviceTier"):  # fmt: skip
        if value.get(name):
            extras[f"converse.{name}"] = value[name]
    tools, choice = _tools(value.get("toolConfig") or {}, losses)
    system = tuple(str(item["text"]) for item in value.get("system") or () if "text" in item)
    return Request(
        model=model,
        turns=tuple(_turn(item, position, losses) for position, item in enumerate(messages)),
        system=system,
        max_tokens=inference.get("maxTokens"),
        temperature=inference.get("temperature"),
        top_p=inference.get("topP"),
        stop=tuple(inference.get("stopSequences") or ()),
        seed=seed if isinstance(seed, int) else None,
        tools=tools,
        tool_choice=choice,
        schema=_schema(value.get("outputConfig") or {}),
        stream=stream,
        include_usage=True,
        extras=extras,
        input_losses=tuple(losses),
    )


def build_request(request: Request, model: str) -> Outgoing:
    losses = [*request.input_losses]
    value: dict[str, Any] = {"messages": [_render_turn(turn, losses) for turn in request.turns]}
    if request.system:
        value["system"] = [{"text": text} for text in request.system]
    inference = {
        "maxTokens": request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": list(request.stop) or None,
    }
    inference = {name: item for name, item in inference.items() if item is not None}
    if inference:
        value["inferenceConfig"] = inference
    if request.tools:
        if request.tool_choice == "none":
            losses.append(Loss("tool_choice.none", "warn"))  # said by leaving the tools out
        else:
            value["toolConfig"] = _render_tools(request)
    if request.schema is not None:
        text = orjson.dumps(request.schema.schema).decode()
        structure = {"jsonSchema": {"name": request.schema.name, "schema": text}}
        value["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
    additional: dict[str, Any] = {} if request.seed is None else {"seed": request.seed}
    for name, item in request.extras.items():
        if name.startswith("converse."):
            value[name.removeprefix("converse.")] = item
        elif name in _ADDITIONAL:
            additional[name] = item
        elif not (name == "n" and item == 1):
            losses.append(Loss(name, "refuse" if name in _CHANGES_MEANING else "warn"))
    if additional:
        value["additionalModelRequestFields"] = additional
    return Outgoing(_path(model, request.stream), orjson.dumps(value), tuple(losses))


def relay_request(body: bytes, request: Request, model: str) -> Outgoing:
    return Outgoing(_path(model, request.stream), body, ())


def add_parameters(outgoing: Outgoing, request: Request, model: str, parameters: Mapping[str, object]) -> Outgoing:
    value = orjson.loads(outgoing.body)
    additional = {**parameters, **(value.get("additionalModelRequestFields") or {})}
    body = orjson.dumps({**value, "additionalModelRequestFields": additional})
    return Outgoing(_path(model, request.stream), body, outgoing.losses)


def _path(model: str, stream: bool) -> str:
    return f"/model/{quote(model, safe='')}/converse{'-stream' if stream else ''}"


def _turn(item: Any, position: int, losses: list[Loss]) -> Turn:
    where = f"messages[{position}]"
    role = item.get("role") if isinstance(item, dict) else None
    content = item.get("content") if isinstance(item, dict) else None
    if role not in ("user", "assistant") or not isinstance(content, list):
        raise GatewayError("invalid", f"{where} needs a role (user or assistant) and a list of content", where)
    parts: list[Part] = []
    for block in content:
        if "text" in block:
            parts.append(TextPart(str(block["text"])))
        elif "toolUse" in block:
            call = block["toolUse"]
            parts.append(CallPart(str(call["toolUseId"]), str(call["name"]), orjson.dumps(call.get("input")).decode()))
        elif "toolResult" in block:
            parts.append(_result(block["toolResult"], where))
        elif "image" in block:
            parts.append(_image(block["image"], where))
        elif "cachePoint" in block:
            losses.append(Loss("cachePoint", "warn"))
        elif "reasoningContent" in block:
            losses.append(Loss("reasoningContent", "warn"))  # signed for its maker: another model must not see it
        else:
            kind = next(iter(block), "nothing")
            raise GatewayError("unsupported", f"{where}: content of kind {kind} is not supported", where)
    return Turn(role, tuple(parts))


def _result(value: dict[str, Any], where: str) -> ResultPart:
    texts: list[str] = []
    for block in value.get("content") or ():
        if "text" in block:
            texts.append(str(block["text"]))
        elif "json" in block:
            texts.append(orjson.dumps(block["json"]).decode())
        else:
            raise GatewayError("unsupported", f"{where}: a tool result may hold text or json here", where)
    return ResultPart(str(value.get("toolUseId", "")), "\n".join(texts), value.get("status") == "error")


def _image(value: dict[str, Any], where: str) -> ImagePart:
    data = (value.get("source") or {}).get("bytes")
    if not isinstance(data, str):
        raise GatewayError("unsupported", f"{where}: only images with their bytes inside are supported", where)
    try:
        base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise GatewayError("invalid", f"{where}: image bytes are not base64", where) from error
    return ImagePart(f"image/{value.get('format', 'png')}", data, "")


def _tools(config: dict[str, Any], losses: list[Loss]) -> tuple[tuple[Tool, ...], str]:
    tools: list[Tool] = []
    listed: list[Any] = config.get("tools") or []
    for position, item in enumerate(listed):
        spec = item.get("toolSpec")
        if spec is None:
            losses.append(Loss(f"converse.{next(iter(item), 'tool')}", "warn" if "cachePoint" in item else "refuse"))
            continue
        schema = (spec.get("inputSchema") or {}).get("json")
        if not spec.get("name") or not isinstance(schema, dict):
            raise GatewayError(
                "invalid", f"toolConfig.tools[{position}] needs a name and inputSchema.json", "toolConfig"
            )
        tools.append(Tool(str(spec["name"]), str(spec.get("description") or ""), schema))
    choice = config.get("toolChoice") or {}
    if "tool" in choice:
        return tuple(tools), str(choice["tool"]["name"])
    return tuple(tools), "any" if "any" in choice else "auto"


def _schema(config: dict[str, Any]) -> Schema | None:
    wanted = ((config.get("textFormat") or {}).get("structure") or {}).get("jsonSchema")
    if not wanted:
        return None
    try:
        schema = orjson.loads(wanted["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise GatewayError("invalid", "outputConfig.textFormat: the schema is not JSON", "outputConfig") from error
    return Schema(str(wanted.get("name") or "answer"), schema)


def _render_turn(turn: Turn, losses: list[Loss]) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    for part in turn.parts:
        if isinstance(part, TextPart):
            if part.text:  # this wire refuses empty text
                blocks.append({"text": part.text})
        elif isinstance(part, CallPart):
            blocks.append(
                {"toolUse": {"toolUseId": part.id, "name": part.name, "input": arguments_of(part.arguments)[0]}}
            )
        elif isinstance(part, ResultPart):
            result = {"toolUseId": part.call_id, "content": [{"text": part.text}]}
            blocks.append({"toolResult": {**result, "status": "error"} if part.is_error else result})
        elif part.url or part.media_type.removeprefix("image/") not in _IMAGE_FORMATS:
            losses.append(Loss("image_url" if part.url else f"image.{part.media_type}", "refuse"))
        else:
            source = {"bytes": part.data}
            blocks.append({"image": {"format": part.media_type.removeprefix("image/"), "source": source}})
    return {"role": turn.role, "content": blocks}


def _render_tools(request: Request) -> dict[str, Any]:
    specs: list[dict[str, Any]] = []
    for tool in request.tools:
        spec: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": tool.schema}}
        if tool.description:
            spec["description"] = tool.description
        specs.append({"toolSpec": spec})
    choice: dict[str, Any] = {"tool": {"name": request.tool_choice}}
    if request.tool_choice in ("auto", "any"):
        choice = {request.tool_choice: {}}
    return {"tools": specs, "toolChoice": choice}
