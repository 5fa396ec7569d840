"""Requests of the chat-completions wire: read, written, and passed on untouched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

PATH = "/v1/chat/completions"
_NEUTRAL_FIELDS = frozenset(
    ("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "tools",
     "tool_choice", "response_format", "stream", "stream_options")
)  # fmt: skip


def parse_request(body: bytes, model: str, stream: bool) -> Request:
    del model, stream  # both are in the body
    value = object_of(body)
    name = value.get("model")
    if not isinstance(name, str) or not name:
        raise GatewayError("invalid", "model must be a string", "model")
    system, turns = _turns(messages_of(value))
    limit = value.get("max_completion_tokens")
    options = value.get("stream_options") or {}
    stop = value.get("stop") or ()
    return Request(
        model=name,
        turns=turns,
        system=system,
        max_tokens=_number(value, "max_tokens", int) if limit is None else _number(value, "max_completion_tokens", int),
        temperature=_number(value, "temperature", float),
        top_p=_number(value, "top_p", float),
        stop=(stop,) if isinstance(stop, str) else tuple(str(item) for item in stop),
        seed=_number(value, "seed", int),
        tools=_tools(value.get("tools")),
        tool_choice=_choice(value.get("tool_choice")),
        schema=_schema(value.get("response_format")),
        stream=bool(value.get("stream")),
        include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        extras={key: item for key, item in value.items() if key not in _NEUTRAL_FIELDS and item is not None},
    )


def build_request(request: Request, model: str) -> Outgoing:
    value: dict[str, Any] = {"model": model, "messages": _messages(request)}
    settings = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "seed": request.seed,
    }
    value.update({key: item for key, item in settings.items() if item is not None})
    if request.tools and request.tool_choice != "none":
        value["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
            }
            for tool in request.tools
        ]
        value["tool_choice"] = _render_choice(request.tool_choice)
    if request.schema is not None:
        wanted = {"name": request.schema.name, "schema": request.schema.schema, "strict": True}
        value["response_format"] = {"type": "json_schema", "json_schema": wanted}
    if request.stream:
        # Usage is asked for whether or not the client did: without it the meter would know nothing.
        value["stream"] = True
        value["stream_options"] = {"include_usage": True}
    losses = [*request.input_losses]
    for name, item in request.extras.items():
        if name in _NEUTRAL_FIELDS:
            continue
        if name.startswith("converse."):
            losses.append(Loss(name, "refuse" if name in _CHANGES_MEANING else "warn"))
        else:
            value[name] = item
    return Outgoing(PATH, orjson.dumps(value), tuple(losses))


_CHANGES_MEANING = frozenset(("converse.guardrailConfig", "converse.promptVariables", "converse.systemTool"))


def relay_request(body: bytes, request: Request, model: str) -> Outgoing:
    if model == request.model:
        return Outgoing(PATH, body, ())
    return Outgoing(PATH, orjson.dumps({**orjson.loads(body), "model": model}), ())


def add_parameters(outgoing: Outgoing, request: Request, model: str, parameters: Mapping[str, object]) -> Outgoing:
    del request
    body = orjson.dumps({**parameters, **orjson.loads(outgoing.body), "model": model})
    return Outgoing(PATH, body, outgoing.losses)


def _number(value: Mapping[str, Any], name: str, kind: type) -> Any:
    found = value.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int if kind is int else int | float):
        raise GatewayError("invalid", f"{name} must be {'an integer' if kind is int else 'a number'}", name)
    return found


def _turns(messages: list[Any]) -> tuple[tuple[str, ...], tuple[Turn, ...]]:
    """Tool messages that follow each other become one user turn: every other wire wants all results together."""
    system: list[str] = []
    turns: list[Turn] = []
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            system.extend(part.text for part in _content(message.get("content"), where) if isinstance(part, TextPart))
        elif role == "user":
            turns.append(Turn("user", _content(message.get("content"), where)))
        elif role == "assistant":
            calls = tuple(_call(item, where) for item in message.get("tool_calls") or ())
            turns.append(Turn("assistant", _content(message.get("content"), where) + calls))
        elif role == "tool":
            text = "".join(part.text for part in _content(message.get("content"), where) if isinstance(part, TextPart))
            result = ResultPart(str(message.get("tool_call_id", "")), text, False)
            if turns and turns[-1].role == "user" and all(isinstance(part, ResultPart) for part in turns[-1].parts):
                turns[-1] = Turn("user", (*turns[-1].parts, result))
            else:
                turns.append(Turn("user", (result,)))
        else:
            raise GatewayError("invalid", f"{where} must be an object with a role we know", where)
    return tuple(system), tuple(turns)


def _content(content: Any, where: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GatewayError("invalid", f"{where}.content must be a string or a list", f"{where}.content")
    parts: list[Part] = []
    for item in content:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind in ("text", "refusal"):
            parts.append(TextPart(str(item.get(kind, ""))))
        elif kind == "image_url":
            parts.append(_image(item.get("image_url"), where))
        else:
            raise GatewayError("unsupported", f"{where}.content part of type {kind!r} is not supported", where)
    return tuple(parts)


def _image(value: Any, where: str) -> ImagePart:
    url = value.get("url") if isinstance(value, dict) else None
    if not isinstance(url, str):
        raise GatewayError("invalid", f"{where}: image_url.url must be a string", where)
    if url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        if not head.endswith(";base64"):
            raise GatewayError("invalid", f"{where}: image data must be base64", where)
        return ImagePart(head.removesuffix(";base64"), data, "")
    return ImagePart("", "", url)


def _call(item: Any, where: str) -> CallPart:
    function = item.get("function") if isinstance(item, dict) else None
    if not isinstance(function, dict):
        raise GatewayError("invalid", f"{where}.tool_calls must hold functions", where)
    return CallPart(str(item.get("id", "")), str(function.get("name", "")), str(function.get("arguments") or "{}"))


def _tools(tools: Any) -> tuple[Tool, ...]:
    found: list[Tool] = []
    listed: list[Any] = tools or []
    for position, item in enumerate(listed):
        function: Any = item.get("function") if isinstance(item, Mapping) else None
        if not isinstance(function, Mapping) or not function.get("name"):
            raise GatewayError("unsupported", f"tools[{position}] is not a function with a name", f"tools[{position}]")
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        found.append(Tool(str(function["name"]), str(function.get("description") or ""), schema))
    return tuple(found)


def _choice(value: Any) -> str:
    if isinstance(value, dict):
        return str((value.get("function") or {}).get("name", "auto"))
    if value is None or value == "auto":
        return "auto"
    if value in ("required", "none"):
        return "any" if value == "required" else "none"
    raise GatewayError("invalid", "tool_choice must be auto, none, required or a function", "tool_choice")


def _render_choice(choice: str) -> Any:
    if choice in ("auto", "any"):
        return "required" if choice == "any" else "auto"
    return {"type": "function", "function": {"name": choice}}


def _schema(value: Any) -> Schema | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return Schema("object", {"type": "object"})
    wanted = value.get("json_schema")
    if kind != "json_schema" or not isinstance(wanted, dict) or not isinstance(wanted.get("schema"), dict):
        raise GatewayError("invalid", "response_format must be text, json_object or a json_schema", "response_format")
    return Schema(str(wanted.get("name") or "answer"), wanted["schema"])


def _messages(request: Request) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": "\n\n".join(request.system)})
    for turn in request.turns:
        texts: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        for part in turn.parts:
            if isinstance(part, TextPart):
                texts.append({"type": "text", "text": part.text})
            elif isinstance(part, ImagePart):
                url = part.url or f"data:{part.media_type};base64,{part.data}"
                texts.append({"type": "image_url", "image_url": {"url": url}})
            elif isinstance(part, CallPart):
                function = {"name": part.name, "arguments": part.arguments}
                calls.append({"id": part.id, "type": "function", "function": function})
            else:
                # This wire has no flag for a failed tool: the model must be able to read it.
                text = f"ERROR: {part.text}" if part.is_error else part.text
                messages.append({"role": "tool", "tool_call_id": part.call_id, "content": text})
        if texts or calls:
            messages.append(_message(turn.role, texts, calls))
    return messages


def _message(role: str, texts: list[dict[str, Any]], calls: list[dict[str, Any]]) -> dict[str, Any]:
    only_text = all(item["type"] == "text" for item in texts)
    content: Any = "\n".join(item["text"] for item in texts) if only_text else texts
    message: dict[str, Any] = {"role": role, "content": content if texts else None}
    if calls:
        message["tool_calls"] = calls
    return message
