"""Streams of the chat-completions wire: server-sent events, read and written."""

from __future__ import annotations

import time
from typing import Any

import orjson

from crossload.engines.gateway.ir import (
    HUNG_UP,
    CallArgs,
    CallStart,
    Event,
    Failure,
    Request,
    Start,
    Stop,
    Text,
    Think,
    Usage,
)
from crossload.engines.gateway.wire.chat.answer import FROM_NEUTRAL, render_error, render_usage, stop_of, usage_of
from crossload.engines.gateway.wire.frames import FrameBroken, SseReader, sse


def tail_events(tail: bytes) -> list[Event]:
    start = tail.find(b"data:")
    if start < 0:
        return []
    return [event for event in ChatDecoder().feed(tail[start:]) if isinstance(event, Stop | Usage)]


class ChatDecoder:
    __slots__ = ("_calls", "_reader", "_started", "finished")

    def __init__(self) -> None:
        self._reader = SseReader()
        self._started = False
        self._calls: set[int] = set()
        self.finished = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        try:
            for frame in self._reader.feed(data):
                if frame == b"[DONE]":
                    self.finished = True
                else:
                    self._chunk(orjson.loads(frame), events)
        except (FrameBroken, ValueError, KeyError, TypeError, AttributeError):
            events.append(Failure("bad_upstream", "the model host's stream cannot be read"))
        return events

    def _chunk(self, value: dict[str, Any], events: list[Event]) -> None:
        if value.get("error"):
            error = value["error"]
            events.append(Failure("bad_upstream", str(error.get("message") if isinstance(error, dict) else error)))
            return
        if not self._started:
            self._started = True
            events.append(Start(str(value.get("id") or "")))
        choices = value.get("choices")
        if choices:
            delta = choices[0].get("delta") or {}
            if delta.get("reasoning_content"):
                events.append(Think(delta["reasoning_content"]))
            if delta.get("content"):
                events.append(Text(delta["content"]))
            for call in delta.get("tool_calls") or ():
                self._call(call, events)
            if choices[0].get("finish_reason"):
                events.append(stop_of(choices[0]["finish_reason"]))
        if value.get("usage"):
            events.append(usage_of(value["usage"]))

    def _call(self, call: dict[str, Any], events: list[Event]) -> None:
        index = int(call.get("index") or 0)
        function = call.get("function") or {}
        if index not in self._calls:
            self._calls.add(index)
            events.append(CallStart(index, str(call.get("id") or f"call_{index}"), str(function.get("name") or "")))
        if function.get("arguments"):
            events.append(CallArgs(index, function["arguments"]))


class ChatEncoder:
    __slots__ = ("_head", "_include_usage", "_positions", "_stopped", "_usage", "failed")

    def __init__(self, request: Request, answer_id: str) -> None:
        head = {
            "id": f"chatcmpl-{answer_id}", "object": "chat.completion.chunk", "created": int(time.time()),
            "model": request.model,
        }  # fmt: skip
        self._head = orjson.dumps(head)[:-1]
        self._include_usage = request.include_usage
        self._positions: dict[int, int] = {}
        self._stopped = False
        self._usage: Usage | None = None
        self.failed = False

    def feed(self, events: list[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if self.failed:
                break
            if isinstance(event, Text):
                out.append(self._delta({"content": event.text}))
            elif isinstance(event, Think):
                out.append(self._delta({"reasoning_content": event.text}))
            elif isinstance(event, CallArgs):
                call = {"index": self._position(event.block), "function": {"arguments": event.text}}
                out.append(self._delta({"tool_calls": [call]}))
            elif isinstance(event, CallStart):
                function = {"name": event.name, "arguments": ""}
                call = {"index": self._position(event.block), "id": event.id, "type": "function", "function": function}
                out.append(self._delta({"tool_calls": [call]}))
            elif isinstance(event, Start):
                out.append(self._delta({"role": "assistant", "content": ""}))
            elif isinstance(event, Stop):
                self._stopped = True
                out.append(self._delta({}, FROM_NEUTRAL[event.reason]))
            elif isinstance(event, Usage):
                self._usage = event
            else:
                self.failed = True
                out.append(sse(render_error(event.code, event.message, None)[0]))
        return b"".join(out)

    def end(self, elapsed_seconds: float) -> bytes:
        del elapsed_seconds
        if self.failed:
            return b""
        if not self._stopped:
            return self.feed([HUNG_UP])
        done = sse(b"[DONE]")
        usage = render_usage(self._usage) if self._include_usage else None
        if usage is None:
            return done
        return sse(self._head + b',"choices":[],"usage":' + orjson.dumps(usage) + b"}") + done

    def _position(self, index: int) -> int:
        """Tool calls count from 0 on this wire, whatever numbers the other wire gave its blocks."""
        return self._positions.setdefault(index, len(self._positions))

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return sse(self._head + b',"choices":[' + orjson.dumps(choice) + b"]}")


def decoder() -> ChatDecoder:
    return ChatDecoder()


def encoder(request: Request, answer_id: str) -> ChatEncoder:
    return ChatEncoder(request, answer_id)
