"""Streams of the Converse wire: binary frames, read and written."""

from __future__ import annotations

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
from crossload.engines.gateway.wire.converse.answer import FROM_NEUTRAL, parse_error, render_usage, stop_of, usage_of
from crossload.engines.gateway.wire.frames import (
    EventStreamReader,
    Frame,
    FrameBroken,
    event_frame,
    exception_frame,
)

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
            events.append(stop_of(value["stopReason"]))
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
        self._held: dict[int, tuple[CallStart, list[str]]] = {}  # and the pieces of its arguments
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
                out.append(event_frame("messageStop", orjson.dumps({"stopReason": FROM_NEUTRAL[event.reason]})))
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
            return self.feed([HUNG_UP])
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
            self._held[event.block] = (event, [])
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
            self._held[event.block][1].append(event.text)

    def _close(self, out: list[bytes]) -> None:
        while self._open != "":
            out.append(event_frame("contentBlockStop", b'{"contentBlockIndex":%d}' % self._block))
            self._open = ""
            if self._held:
                start, pieces = self._held.pop(next(iter(self._held)))
                self._open_call(start, out)
                text = "".join(pieces)
                if text:
                    out.append(_delta_frame({"toolUse": {"input": text}}, self._block))


def _delta_frame(delta: dict[str, Any], block: int) -> bytes:
    return event_frame("contentBlockDelta", orjson.dumps({"delta": delta, "contentBlockIndex": block}))


def decoder() -> ConverseDecoder:
    return ConverseDecoder()


def encoder(request: Request, answer_id: str) -> ConverseEncoder:
    del request, answer_id
    return ConverseEncoder()
