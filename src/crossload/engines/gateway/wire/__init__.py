"""Wires: how one kind of client or model host spells a chat. Each folder is one wire, written as functions without
I/O, all with the same names, so that a new wire is one folder and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from crossload.engines.gateway.ir import Collected, Event, Outgoing, Request

_MODULES = {"chat": f"{__name__}.chat", "converse": f"{__name__}.converse"}
NAMES = tuple(_MODULES)


class Decoder(Protocol):
    """Bytes of a stream as they come from a model host -> events. `feed` never raises: what cannot be read is a
    Failure event. `finished` is true once the wire's own end was seen."""

    finished: bool

    def feed(self, data: bytes) -> list[Event]: ...


class Encoder(Protocol):
    """Events -> bytes of a stream as this wire's clients read it. `end` closes the stream: with the wire's own mark
    of a good end, or with an error when no Stop had come."""

    def feed(self, events: list[Event]) -> bytes: ...
    def end(self, elapsed_seconds: float) -> bytes: ...


class Wire(Protocol):
    """What every module of this package offers."""

    NAME: str
    STREAM_TYPE: str

    def parse_request(self, body: bytes, model: str, stream: bool) -> Request:
        """Raises GatewayError. `model` and `stream` are what the path said; a wire that has both in its body ignores
        them."""
        ...

    def build_request(self, request: Request, model: str) -> Outgoing: ...
    def relay_request(self, body: bytes, request: Request, model: str) -> Outgoing:
        """The client's own body for a host of the same wire, with nothing changed but the model's name."""
        ...

    def add_parameters(
        self, outgoing: Outgoing, request: Request, model: str, parameters: Mapping[str, object]
    ) -> Outgoing:
        """A body of this wire with an arm's own fields added; what the client said itself stays."""
        ...

    def parse_response(self, body: bytes) -> list[Event]:
        """A whole answer. Raises GatewayError (bad_upstream) when it is none."""
        ...

    def render_response(self, answer: Collected, request: Request, answer_id: str, elapsed_seconds: float) -> bytes: ...
    def parse_error(self, status: int, headers: dict[str, str], body: bytes) -> str:
        """The message inside an upstream's error answer."""
        ...

    def render_error(self, code: str, message: str, param: str | None) -> tuple[bytes, dict[str, str]]:
        """Body and extra headers of an error in this wire's own shape."""
        ...

    def tail_events(self, tail: bytes) -> list[Event]:
        """Stop and Usage, if they are found in the last bytes of a stream that was passed untouched."""
        ...

    def decoder(self) -> Decoder: ...
    def encoder(self, request: Request, answer_id: str) -> Encoder: ...


def wire(name: str) -> Wire:
    """The wire's module, loaded when first named. Raises KeyError for a name that is not in NAMES."""
    module: Any = importlib.import_module(_MODULES[name])
    return module
