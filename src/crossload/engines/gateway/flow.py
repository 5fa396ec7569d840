"""One request from its door to an arm and back, without I/O: told what arrives, it says what to write.

    begin -> head -> data* -> finish | cut        (begin again, on another arm, as long as nothing was written)

Same wire on both sides: bytes pass untouched and only a copy of the last few kilobytes is looked at, for usage.
Different wires: bytes -> events -> bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from crossload.engines.gateway import wire as wires
from crossload.engines.gateway.errors import CODES, GatewayError, from_status
from crossload.engines.gateway.ir import HUNG_UP, Event, Failure, Loss, Outgoing, Request, Stop, Usage, collect
from crossload.engines.gateway.wire import Wire

TAIL_BYTES = 4096


class Answer(NamedTuple):
    """A whole answer for the client."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse(door: Wire, body: bytes, model: str, stream: bool) -> Request:
    """The door's parser, with whatever it trips over told as a bad request: a client must never wait for an answer
    because its request had a number where a list belongs."""
    try:
        return door.parse_request(body, model, stream)
    except GatewayError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise GatewayError("invalid", f"the request cannot be understood ({type(error).__name__}: {error})") from error


def error_answer(door: Wire, code: str, message: str, param: str | None = None) -> Answer:
    """An error in the door's own shape."""
    known = CODES[code]
    body, more = door.render_error(code, message, param)
    headers = {"content-type": "application/json", **more}
    if known.retry_after_seconds is not None:
        headers["retry-after"] = str(known.retry_after_seconds)
    return Answer(known.status, headers, body)


class Exchange:
    """`streaming` is true once the head may be written; `usage` and `stop` are known after the end; `failure` is set
    when the arm failed in the middle of its answer."""

    __slots__ = (
        "_body", "_buffer", "_decoder", "_encoder", "_same", "_status", "_tail", "_upstream", "_upstream_headers",
        "answer_id", "door", "failure", "losses", "request", "stop", "streaming", "usage",
    )  # fmt: skip

    def __init__(self, door: Wire, request: Request, body: bytes, answer_id: str) -> None:
        self.door = door
        self.request = request
        self.answer_id = answer_id
        self._body = body
        self._reset()

    def _reset(self) -> None:
        self.streaming = False
        self.usage: Usage | None = None
        self.stop: Stop | None = None
        self.failure: Failure | None = None
        self.losses: tuple[Loss, ...] = ()
        self._upstream = self.door
        self._same = True
        self._status = 0
        self._upstream_headers: dict[str, str] = {}
        self._buffer: list[bytes] = []
        self._tail = b""
        self._decoder: wires.Decoder | None = None
        self._encoder: wires.Encoder | None = None

    def begin(self, wire_name: str, model: str, parameters: Mapping[str, object], on_loss: str) -> Outgoing:
        """What to send to an arm. Raises GatewayError (unsupported) when the arm's wire cannot say what the request
        means and the policy is to refuse."""
        self._reset()
        self._upstream = wires.wire(wire_name)
        self._same = self._upstream.NAME == self.door.NAME
        if self._same and not parameters:
            outgoing = self._upstream.relay_request(self._body, self.request, model)
        elif self._same:
            outgoing = self._upstream.add_parameters(Outgoing("", self._body, ()), self.request, model, parameters)
        else:
            outgoing = self._upstream.build_request(self.request, model)
            if parameters:
                outgoing = self._upstream.add_parameters(outgoing, self.request, model, parameters)
        refused = [loss.feature for loss in outgoing.losses if loss.severity == "refuse"]
        if refused and on_loss == "refuse":
            raise GatewayError(
                "unsupported", f"this model's wire ({wire_name}) cannot be asked for: {', '.join(sorted(refused))}"
            )
        self.losses = outgoing.losses
        return outgoing

    def head(self, status: int, headers: dict[str, str]) -> None:
        """The arm's status line and headers (names in lower case)."""
        self._status = status
        self._upstream_headers = headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        self.streaming = self.request.stream and status == 200 and kind == self._upstream.STREAM_TYPE
        if self.streaming and not self._same:
            self._decoder = self._upstream.decoder()
            self._encoder = self.door.encoder(self.request, self.answer_id)

    def data(self, data: bytes) -> bytes:
        """Bytes for the client now; b"" while a whole answer is being gathered."""
        if not self.streaming:
            self._buffer.append(data)
            return b""
        if self._decoder is None or self._encoder is None:
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            return data
        events = self._decoder.feed(data)
        self._note(events)
        return self._encoder.feed(events)

    def finish(self, elapsed_seconds: float) -> bytes:
        """The arm's stream has ended in good order. Last bytes for the client."""
        if self._encoder is None:
            self._note(self._upstream.tail_events(self._tail))
            return b""
        last = self._encoder.end(elapsed_seconds)
        if self.stop is None and self.failure is None:
            self.failure = HUNG_UP
        return last

    def cut(self, code: str, message: str) -> bytes | None:
        """The arm was lost in the middle of a stream. Bytes that tell the client so in its own wire, or None when only
        breaking the connection can tell it (frames passed untouched may be cut anywhere)."""
        self.failure = Failure(code, message)
        return None if self._encoder is None else self._encoder.feed([self.failure])

    def answer(self, elapsed_seconds: float) -> Answer:
        """The whole answer, once the arm's response is complete and it was no stream."""
        body = b"".join(self._buffer)
        if self._status != 200:
            return self._error(body)
        try:
            events = self._upstream.parse_response(body)
        except GatewayError as error:
            self.failure = Failure(error.code, error.message)
            return error_answer(self.door, error.code, error.message)
        self._note(events)
        headers = {"content-type": "application/json"}
        if self.stop is not None:
            headers["x-crossload-stop"] = self.stop.raw
        if self.request.stream:
            # The arm answered in one piece although a stream was asked for: give the client its stream all the same.
            encoder = self.door.encoder(self.request, self.answer_id)
            headers["content-type"] = self.door.STREAM_TYPE
            return Answer(200, headers, encoder.feed(events) + encoder.end(elapsed_seconds))
        if not self._same:
            body = self.door.render_response(collect(events), self.request, self.answer_id, elapsed_seconds)
        return Answer(200, headers, body)

    def _error(self, body: bytes) -> Answer:
        code = from_status(self._status)
        message = self._upstream.parse_error(self._status, self._upstream_headers, body)
        self.failure = Failure(code, message)
        if self._status in (401, 403):
            message = "the model host refused the gateway's own credentials"
        answer = error_answer(self.door, code, message)
        retry_after = self._upstream_headers.get("retry-after")
        if retry_after:
            answer.headers["retry-after"] = retry_after
        return answer

    def _note(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Usage):
                self.usage = event
            elif isinstance(event, Stop):
                self.stop = event
            elif isinstance(event, Failure):
                self.failure = event
