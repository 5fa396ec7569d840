"""The Bedrock Converse wire (and ConverseStream), as the official SDKs speak it. Source: the SDK's service model
`bedrock-runtime`, which the tests validate our requests and answers against."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from crossload.engines.gateway.errors import CODES, GatewayError
from crossload.engines.gateway.ir import (
    CallArgs,
    CallPart,
    CallStart,
    Collected,
    Event,
    Failure,
    ImagePart,
    Loss,
    Outgoing,
    Part,
    Request,
    ResultPart,
    Schema,
    Start,
    Stop,
    Text,
    TextPart,
    Think,
    Tool,
    Turn,
    Usage,
)
from crossload.engines.gateway.wire.frames import (
    EVENT_STREAM_TYPE,
    EventStreamReader,
    Frame,
    FrameBroken,
    event_frame,
    exception_frame,
)

NAME = "converse"
STREAM_TYPE = EVENT_STREAM_TYPE
_TO_NEUTRAL = {
    "end_turn": "stop", "max_tokens": "length", "tool_use": "tool", "stop_sequence": "stopseq",
    "content_filtered": "filter", "guardrail_intervened": "filter", "malformed_model_output": "malformed",
    "malformed_tool_use": "malformed", "model_context_window_exceeded": "length",
}  # fmt: skip
_FROM_NEUTRAL = {
    "stop": "end_turn", "length": "max_tokens", "tool": "tool_use", "stopseq": "stop_sequence",
    "filter": "content_filtered", "malformed": "malformed_model_output", "unknown": "end_turn",
}  # fmt: skip
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


# ---- requests


def parse_request(body: bytes, model: str, stream: bool) -> Request:
    try:
        value = orjson.loads(body)
    except ValueError as error:
        raise GatewayError("invalid", f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise GatewayError("invalid", "the body must be a JSON object")
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise GatewayError("invalid", "messages must be a list with at least one message", "messages")
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
                {"toolUse": {"toolUseId": part.id, "name": part.name, "input": _arguments(part.arguments)[0]}}
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


def _arguments(text: str) -> tuple[dict[str, Any], bool]:
    """This wire wants arguments as an object. Text that is none is kept under `raw`, and the stop reason says so."""
    try:
        value = orjson.loads(text or "{}")
    except ValueError:
        return {"raw": text}, False
    return (value, True) if isinstance(value, dict) else ({"raw": text}, False)


# ---- whole answers


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
        raw = str(value["stopReason"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GatewayError("bad_upstream", "the model host's answer is not a Converse answer") from error
    events.append(Stop(_TO_NEUTRAL.get(raw, "unknown"), raw))
    if isinstance(value.get("usage"), dict):
        events.append(usage_of(value["usage"]))
    return events


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
    stop_reason = _FROM_NEUTRAL[reason]
    if answer.thinking:
        blocks.append({"reasoningContent": {"reasoningText": {"text": answer.thinking}}})
    if answer.text or not answer.calls:
        blocks.append({"text": answer.text})
    for call in answer.calls:
        arguments, good = _arguments(call.arguments)
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


# ---- errors


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


# ---- streams

_FIRST_HEADER = b"\x0b:event-type"

_STREAM_EXCEPTIONS = {
    "throttlingException": "throttled", "validationException": "invalid", "modelStreamErrorException": "bad_upstream",
    "internalServerException": "internal", "serviceUnavailableException": "unavailable",
}  # fmt: skip
_STREAM_CODES = {
    "throttled": "throttlingException", "invalid": "validationException", "internal": "internalServerException",
    "unavailable": "serviceUnavailableException",
}  # fmt: skip


def tail_events(tail: bytes) -> list[Event]:
    start = tail.find(_FIRST_HEADER) - 12  # the first header stands 12 bytes after the frame's beginning
    while start >= 0:
        events = ConverseDecoder().feed(tail[start:])
        if not any(isinstance(event, Failure) for event in events):
            return [event for event in events if isinstance(event, Stop | Usage)]
        start = tail.find(_FIRST_HEADER, start + 13) - 12
    return []


class ConverseDecoder:
    __slots__ = ("_reader", "finished")

    def __init__(self) -> None:
        self._reader = EventStreamReader()
        self.finished = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        try:
            for frame in self._reader.feed(data):
                self._frame(frame, events)
        except (FrameBroken, ValueError, KeyError, TypeError, AttributeError):
            events.append(Failure("bad_upstream", "the model host's stream cannot be read"))
        return events

    def _frame(self, frame: Frame, events: list[Event]) -> None:
        kind = frame.headers.get(":event-type", "")
        if frame.headers.get(":message-type", "event") != "event":
            name = frame.headers.get(":exception-type") or frame.headers.get(":error-code") or "error"
            events.append(Failure(_STREAM_EXCEPTIONS.get(name, "bad_upstream"), parse_error(200, {}, frame.payload)))
            return
        value = orjson.loads(frame.payload)
        if kind == "contentBlockDelta":
            delta = value["delta"]
            if "text" in delta:
                events.append(Text(delta["text"]))
            elif "toolUse" in delta:
                events.append(CallArgs(int(value["contentBlockIndex"]), delta["toolUse"]["input"]))
            elif delta.get("reasoningContent", {}).get("text"):
                events.append(Think(delta["reasoningContent"]["text"]))
        elif kind == "contentBlockStart":
            call = value["start"].get("toolUse")
            if call:
                events.append(CallStart(int(value["contentBlockIndex"]), str(call["toolUseId"]), str(call["name"])))
        elif kind == "messageStart":
            events.append(Start())
        elif kind == "messageStop":
            raw = str(value["stopReason"])
            events.append(Stop(_TO_NEUTRAL.get(raw, "unknown"), raw))
            self.finished = True
        elif kind == "metadata" and isinstance(value.get("usage"), dict):
            events.append(usage_of(value["usage"]))


class ConverseEncoder:
    """Blocks are numbered in the order they open. Text has no start frame on this wire, a tool call has; each block
    is closed before the next one opens, so calls whose pieces come interleaved are held back until their turn."""

    __slots__ = ("_block", "_held", "_open", "_stopped", "_usage", "failed")

    def __init__(self) -> None:
        self._block = -1
        self._open: str | int = ""  # "", "text", "think", or the index of the call that is open
        self._held: dict[int, list[bytes | CallStart]] = {}
        self._stopped = False
        self._usage: Usage | None = None
        self.failed = False

    def feed(self, events: list[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if self.failed:
                break
            if isinstance(event, Text):
                self._delta("text", {"text": event.text}, out)
            elif isinstance(event, CallStart):
                self._call_start(event, out)
            elif isinstance(event, CallArgs):
                self._call_args(event, out)
            elif isinstance(event, Think):
                self._delta("think", {"reasoningContent": {"text": event.text}}, out)
            elif isinstance(event, Start):
                out.append(event_frame("messageStart", b'{"role":"assistant"}'))
            elif isinstance(event, Stop):
                self._close(out)
                self._stopped = True
                out.append(event_frame("messageStop", orjson.dumps({"stopReason": _FROM_NEUTRAL[event.reason]})))
            elif isinstance(event, Usage):
                self._usage = event
            else:
                self.failed = True
                name = _STREAM_CODES.get(event.code, "modelStreamErrorException")
                out.append(exception_frame(name, orjson.dumps({"message": event.message})))
        return b"".join(out)

    def end(self, elapsed_seconds: float) -> bytes:
        if self.failed:
            return b""
        if not self._stopped:
            message = {"message": "the model host hung up before the answer ended"}
            return exception_frame("modelStreamErrorException", orjson.dumps(message))
        usage = render_usage(self._usage)
        # Without counts there is no metadata frame: this wire has no word for unknown, and 0 would be a lie.
        if usage is None:
            return b""
        metrics = {"latencyMs": int(elapsed_seconds * 1000)}
        return event_frame("metadata", orjson.dumps({"usage": usage, "metrics": metrics}))

    def _delta(self, kind: str, delta: dict[str, Any], out: list[bytes]) -> None:
        if self._open != kind:
            self._close(out)
            self._block += 1
            self._open = kind
        out.append(_delta_frame(delta, self._block))

    def _call_start(self, event: CallStart, out: list[bytes]) -> None:
        if isinstance(self._open, int):
            self._held[event.block] = [event]
            return
        self._close(out)
        self._open_call(event, out)

    def _open_call(self, event: CallStart, out: list[bytes]) -> None:
        self._block += 1
        self._open = event.block
        start = {"toolUse": {"toolUseId": event.id, "name": event.name}}
        frame = orjson.dumps({"start": start, "contentBlockIndex": self._block})
        out.append(event_frame("contentBlockStart", frame))

    def _call_args(self, event: CallArgs, out: list[bytes]) -> None:
        if event.block == self._open:
            out.append(_delta_frame({"toolUse": {"input": event.text}}, self._block))
        elif event.block in self._held:
            self._held[event.block].append(event.text.encode())

    def _close(self, out: list[bytes]) -> None:
        while self._open != "":
            out.append(event_frame("contentBlockStop", b'{"contentBlockIndex":%d}' % self._block))
            self._open = ""
            if self._held:
                pieces = self._held.pop(next(iter(self._held)))
                first, rest = pieces[0], pieces[1:]
                if isinstance(first, CallStart):
                    self._open_call(first, out)
                text = b"".join(piece for piece in rest if isinstance(piece, bytes)).decode()
                if text:
                    out.append(_delta_frame({"toolUse": {"input": text}}, self._block))


def _delta_frame(delta: dict[str, Any], block: int) -> bytes:
    return event_frame("contentBlockDelta", orjson.dumps({"delta": delta, "contentBlockIndex": block}))


def decoder() -> ConverseDecoder:
    return ConverseDecoder()


def encoder(request: Request, answer_id: str) -> ConverseEncoder:
    del request, answer_id
    return ConverseEncoder()
